"""Reinforcement learning in closed loop: more of what scored better in the same scenario, less of what scored worse.

One iterate explores (``explore``) and then moves the plan of every decision under a push towards the push if its drive
scored above its scenario's mean, and away from it if below; decisions are drawn in proportion to how much better or
worse. The goals are bounded shifts of the plan that was driven, so no update can run away as a likelihood ratio can.
Three anchors hold the rest in place: the plans of the model's own unpushed drives, the expert's controls on the
recorded drives, and the world-model loss. Invariant: every iterate starts from its predecessor's weights alone (a
fresh optimiser, its own seeds), so a stopped run goes on as if it had not been.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from examples.training.explore import Driven, Round, explore
from examples.training.losses import Drives, imitation_loss, prediction_loss, weigh
from examples.training.network import CONTROL_SCALE, Driver
from examples.training.recipe import Reinforce, reinforcement_ids
from nwmctl.driving import constants as k

_WARM_UP = 10
_FELT = 0.05
"""A decision counts as pushed above this many m/s2."""
_SOON = 0.5
"""An ego this many m/s below its wished speed will reach it while it is being pushed."""
_SIDEWAYS, _SLOW_DOWN = 2.5, 1.5
"""How the expert takes a bend: lateral acceleration in it and braking before it, m/s2."""


@dataclass(frozen=True, slots=True, eq=False)
class Goals:
    """S decisions of a round: where they are, how likely they are drawn, and the plan to move to."""

    lane: Tensor
    step: Tensor
    chance: Tensor
    wanted: Tensor
    known: Tensor


def goals(found: Round, reach: float) -> Goals:
    """The pushed decisions and their goals: the driven plan, shifted along the push by the sign of its worth."""
    felt = found.pushed.live & (found.push.abs() > _FELT)
    faster = torch.sign(found.worth)[:, None] * found.push > 0
    lane, step = (felt & ~(faster & fast_enough(found.pushed.frames["ego"], found.pushed.frames["route"]))).nonzero(
        as_tuple=True
    )
    ahead = step[:, None] + torch.arange(k.HORIZON)
    known = ahead < k.EPISODE_STEPS
    shift = found.push[lane[:, None], ahead.clamp(max=k.EPISODE_STEPS - 1)] / CONTROL_SCALE[1]
    wanted = found.pushed.plan[lane, step].clone()
    wanted[..., 1] += reach * torch.sign(found.worth[lane])[:, None] * shift
    return Goals(lane, step, found.worth[lane].abs() + 1e-9, wanted, known)


def fast_enough(ego: Tensor, route: Tensor) -> Tensor:
    """Whether the ego [...,4,6] drives at its wished speed, or as fast as a bend of the route [...,15,2] lets it.

    The score pays for speed without end: left alone, reinforcement learning drove a third faster than it was asked to.
    So no goal lies beyond the wished speed, or beyond the speed at which the expert would come to a bend.
    """
    speed, wished = ego[..., -1, 0], ego[..., -1, 5]
    way = route[..., 1:, :] - route[..., :-1, :]
    heading = torch.atan2(way[..., 1], way[..., 0])
    turn = heading[..., 1:] - heading[..., :-1]
    turn = torch.atan2(torch.sin(turn), torch.cos(turn)).abs()
    ahead = torch.from_numpy(k.ROUTE_DISTANCES).float()
    curvature = turn / ((ahead[2:] - ahead[:-2]) / 2.0)
    bend = torch.sqrt(_SIDEWAYS / (curvature + 1e-4) + 2.0 * _SLOW_DOWN * ahead[1:-1]).amin(dim=-1)
    return speed > torch.minimum(wished, bend) - _SOON


def plan_loss(model: Driver, tokens: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Smooth L1 of the scaled plan to ``wanted`` [S,10,2]; the executed control weighs most."""
    return weigh(F.smooth_l1_loss(model.plan(tokens), wanted, beta=0.3, reduction="none"), known)


def observation(driven: Driven, lane: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What was seen at those decisions."""
    frames = driven.frames
    return frames["ego"][lane, step], frames["agents"][lane, step], frames["route"][lane, step]


def iterate(model: Driver, drives: Drives, plan: Reinforce, number: int) -> dict[str, float]:
    """One iterate, in place: explore, then ``plan.steps`` updates. Returns what it saw of itself."""
    found = explore(model, reinforcement_ids(plan, number), plan.exploration, (plan.seed, number))
    batches = _Batches(found, goals(found, plan.reach), drives, plan, number)
    rate = plan.rate * plan.calmer ** (number - 1)
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-2)
    improved, drifted = 0.0, 0.0
    for step in range(plan.steps):
        fade = min(1.0, (step + 1) / _WARM_UP) * (0.51 + 0.49 * math.cos(math.pi * step / plan.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * fade
        improve, keep, anchor = batches.losses(model)
        loss = improve + plan.keep * keep + anchor
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        improved, drifted = improved + improve.item() / plan.steps, drifted + keep.item() / plan.steps
    outcomes = found.own.outcomes
    return {
        "explored_score": float(outcomes.score.mean()),
        "explored_crash_rate": float(outcomes.crashed.mean()),
        "explored_progress": float(outcomes.progress.mean()),
        "hard_scenarios": float(found.hard),
        "loss": improved,
        "drift": drifted,
    }


class _Batches:
    """Draws decisions of all three kinds and says what the model loses on them."""

    def __init__(self, found: Round, reached: Goals, drives: Drives, plan: Reinforce, number: int) -> None:
        self._found, self._reached, self._drives, self._plan = found, reached, drives, plan
        self._own = found.own.live.nonzero()
        self._recorded = drives.samples()
        self._chooser = torch.Generator().manual_seed(plan.seed * 1_000 + number)

    def _any(self, pool: Tensor, count: int) -> tuple[Tensor, Tensor]:
        picked = pool[torch.randint(len(pool), (count,), generator=self._chooser)]
        return picked[:, 0], picked[:, 1]

    def losses(self, model: Driver) -> tuple[Tensor, Tensor, Tensor]:
        """Towards the goals; away from the model's own plans; and the anchors (already weighed)."""
        plan, found, reached, drives = self._plan, self._found, self._reached, self._drives
        moved = torch.multinomial(reached.chance, plan.batch, replacement=True, generator=self._chooser)
        own = self._any(self._own, plan.keep_batch)
        old = self._any(self._recorded, plan.anchor_batch)
        seen = (
            observation(found.pushed, reached.lane[moved], reached.step[moved]),
            observation(found.own, *own),
            drives.observation(*old),
        )
        tokens = model.encode(*(torch.cat(same) for same in zip(*seen, strict=True)))
        a, b, c = torch.split(tokens, [plan.batch, plan.keep_batch, plan.anchor_batch])
        before = found.own.plan[own]
        improve = plan_loss(model, a, reached.wanted[moved], reached.known[moved])
        keep = plan_loss(model, b, before, torch.ones_like(before[..., 0], dtype=torch.bool))
        anchor = plan.imitate * imitation_loss(model, c, drives, *old)
        return improve, keep, anchor + plan.predict * prediction_loss(model, c, drives, *old)
