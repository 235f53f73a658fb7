"""Collect drives: what was seen, what the expert would do, what was done, where the ego was.

The expert (or, in a DAgger round, the model) drives; in a share of the drives it is pushed about by short random
disturbances, so that the data shows how to come back. The expert's answer is recorded at every step, whoever drives.
Seeded: the same drives give the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from examples.training.recipe import Drives, training_ids
from nwmctl.driving import constants as k
from nwmctl.driving import expert
from nwmctl.driving.episode import Policy, first_control
from nwmctl.driving.families import generate_all
from nwmctl.driving.observe import observe
from nwmctl.driving.scenarios import ScenarioId
from nwmctl.driving.world import World

Arrays = dict[str, npt.NDArray[np.generic]]
"""ego, agents, route [D,60,...] (as observed); label, action [D,60,2]; pose [D,60,3] (m, m, rad); live [D,60]."""

_ONSET = 0.06
"""Chance per step that a disturbance begins; it lasts 0.4 to 1.4 s."""


class _Disturbance:
    def __init__(self, lanes: int, share: float, stream: Generator) -> None:
        self._stream = stream
        self._chosen = stream.random(lanes) < share
        self._push = np.zeros((lanes, 2))
        self._left = np.zeros(lanes)

    def next(self, speed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        lanes = len(speed)
        begin = (self._stream.random(lanes) < _ONSET) & self._chosen
        steer = self._stream.normal(0.0, 0.06, lanes) / np.maximum(speed / 8.0, 0.7)
        accel = self._stream.normal(0.0, 2.0, lanes)
        length = self._stream.integers(2, 8, lanes)
        self._push[begin] = np.stack([steer, accel], axis=-1)[begin]
        self._left = np.where(begin, length, self._left - 1)
        self._push[self._left < 0] = 0.0
        return self._push


def collect(
    drives: Drives, policy: Policy | None = None, batch: int = 240, say: Callable[[str], None] = print
) -> Arrays:
    """Drive and record. ``policy`` None: the expert drives itself."""
    ids = training_ids(drives)
    parts = [_collect_batch(ids[i : i + batch], drives, policy, i) for i in range(0, len(ids), batch)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    say(f"{drives.name}: {len(ids)} drives, {int(arrays['live'].sum())} decisions")
    return arrays


def _collect_batch(ids: tuple[ScenarioId, ...], drives: Drives, policy: Policy | None, offset: int) -> Arrays:
    world = World(generate_all(ids))
    disturbance = _Disturbance(world.size, drives.noise, np.random.default_rng([drives.seed, offset]))
    frames: dict[str, list[npt.NDArray[np.generic]]] = {}
    while world.time_step < k.EPISODE_STEPS:
        seen = observe(world)
        label = expert.drive(world)
        chosen = label if policy is None else first_control(policy(seen), world.size)
        action = np.clip(
            chosen + disturbance.next(world.speed), [-k.STEER_LIMIT, k.ACCEL_MIN], [k.STEER_LIMIT, k.ACCEL_MAX]
        )
        frame = {
            **seen,
            "label": label.astype(np.float32),
            "action": action.astype(np.float32),
            "pose": np.stack([world.x, world.y, world.heading], axis=-1),
            "live": ~world.ended,
        }
        for name, values in frame.items():
            frames.setdefault(name, []).append(values)
        world.step(action)
    return {name: np.stack(values, axis=1) for name, values in frames.items()}
