"""Explore in closed loop: the model drives scenarios again and again with small smooth deviations of its acceleration.

One round first drives every scenario as the model would, and keeps the hard ones (a crash, or nearly one) and a few
plain ones. Each of these is driven several more times, every time with another *push*: one smooth bump on the
acceleration, in the seconds before the closest approach where the scenario is hard. A push is short, so the score that
follows from it says something about the few decisions it touched. The reward of a drive is exactly its score by
``nwmctl.driving.metrics``; what a drive is worth is its score less the mean of its scenario's drives.
Seeded: the same model, scenarios and seed give the same arrays. Nothing is learned here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from numpy.random import Generator
from torch import Tensor

from examples.training.network import Driver
from examples.training.recipe import Exploration
from nwmctl.driving import constants as k
from nwmctl.driving import metrics
from nwmctl.driving.constants import FloatArray, IntArray
from nwmctl.driving.families import generate_all
from nwmctl.driving.metrics import Outcomes
from nwmctl.driving.observe import observe
from nwmctl.driving.scenarios import ScenarioId
from nwmctl.driving.world import World

_BATCH = 100
_SHORTEST, _LONGEST = 6, 22
"""Length of a push in decisions (1.2 to 4.4 s)."""
_BEFORE = 24
"""A push in a hard scenario begins at most this many decisions before the closest approach ends it."""


@dataclass(frozen=True, slots=True, eq=False)
class Driven:
    """N drives: observations and plans [N,60,...], ``live`` [N,60], ``nearest`` [N]: decision of closest approach."""

    frames: dict[str, Tensor]
    plan: Tensor
    """Unlimited plans over ``control_scale`` before any push, [N,60,10,2]."""
    live: Tensor
    nearest: IntArray
    outcomes: Outcomes


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """What one round found: the model's own drives, and decisions under a push with what they were worth."""

    own: Driven
    pushed: Driven
    push: Tensor
    """[N,60] m/s2 added to the acceleration."""
    worth: Tensor
    """[N] score less the mean of the scenario's drives, times the scenario's weight."""
    hard: int
    """How many scenarios were hard."""


def drive(model: Driver, ids: tuple[ScenarioId, ...], push: FloatArray) -> Driven:
    """Drive ``ids`` with ``push`` [N,60] m/s2 on top of the model's acceleration; all that was seen is kept."""
    parts = [_drive(model, ids[i : i + _BATCH], push[i : i + _BATCH]) for i in range(0, len(ids), _BATCH)]
    return Driven(
        {name: torch.cat([part.frames[name] for part in parts]) for name in parts[0].frames},
        torch.cat([part.plan for part in parts]),
        torch.cat([part.live for part in parts]),
        np.concatenate([part.nearest for part in parts]),
        metrics.join([part.outcomes for part in parts]),
    )


def _drive(model: Driver, ids: tuple[ScenarioId, ...], push: FloatArray) -> Driven:
    world = World(generate_all(ids))
    frames: dict[str, list[Tensor]] = {"ego": [], "agents": [], "route": []}
    plans: list[Tensor] = []
    live: list[npt.NDArray[np.bool_]] = []
    path = np.zeros((world.size, k.EPISODE_STEPS + 1, 2))
    nearest: IntArray = np.zeros(world.size, dtype=np.int64)
    for step in range(k.EPISODE_STEPS):
        seen = {name: torch.from_numpy(values) for name, values in observe(world).items()}
        with torch.inference_mode():
            plan = model.plan(model.encode(seen["ego"], seen["agents"], seen["route"]))
            control = model.limited(plan)[:, 0].numpy().astype(np.float64)
        for name, values in seen.items():
            frames[name].append(values)
        plans.append(plan)
        live.append(~world.ended)
        before = world.closest
        world.step(control + np.stack([np.zeros(world.size), push[:, step]], axis=-1))
        nearest = np.where(world.closest < before, step, nearest)
        path[:, step + 1, 0], path[:, step + 1, 1] = world.x, world.y
    return Driven(
        {name: torch.stack(values, dim=1) for name, values in frames.items()},
        torch.stack(plans, dim=1).clone(),
        torch.from_numpy(np.stack(live, axis=1)),
        nearest,
        metrics.collect(world, path),
    )


def pushes(nearest: IntArray, hard: npt.NDArray[np.bool_], size: float, stream: Generator) -> FloatArray:
    """One raised-cosine bump per drive, [N,60] m/s2: before ``nearest`` where ``hard``, else anywhere."""
    count = len(nearest)
    length = stream.integers(_SHORTEST, _LONGEST, count)
    last = np.where(hard, nearest, k.EPISODE_STEPS - 10)
    first = np.where(hard, np.maximum(last - _BEFORE, 0), 0)
    begin = first + stream.random(count) * np.maximum(last - 2 - first, 1)
    phase = (np.arange(k.EPISODE_STEPS) + 0.5 - begin[:, None]) / length[:, None]
    bump = np.where((phase > 0) & (phase < 1), 0.5 - 0.5 * np.cos(2 * np.pi * np.clip(phase, 0, 1)), 0.0)
    return np.asarray(bump * stream.normal(0.0, size, count)[:, None])


def explore(model: Driver, ids: tuple[ScenarioId, ...], plan: Exploration, seed: tuple[int, ...]) -> Round:
    """One round over ``ids``. Every chosen scenario is driven ``plan.drives`` times; its own drive counts too."""
    stream = np.random.default_rng(seed)
    own = drive(model, ids, np.zeros((len(ids), k.EPISODE_STEPS)))
    hard = own.outcomes.failed | (own.outcomes.closest < plan.near)
    plain = stream.permutation(np.flatnonzero(~hard))[: plan.plain]
    chosen = np.concatenate([np.flatnonzero(hard), np.sort(plain)])
    lanes = np.repeat(chosen, plan.drives)
    push = pushes(own.nearest[lanes], hard[lanes], plan.size, stream)
    pushed = drive(model, tuple(ids[i] for i in lanes), push)
    score = pushed.outcomes.score.reshape(len(chosen), plan.drives)
    mean = (score.sum(axis=1) + own.outcomes.score[chosen]) / (plan.drives + 1)
    weight = np.where(hard[chosen], 1.0, plan.plain_weight)
    worth = (score - mean[:, None]) * weight[:, None]
    return Round(own, pushed, torch.from_numpy(push).float(), torch.from_numpy(worth.ravel()).float(), int(hard.sum()))
