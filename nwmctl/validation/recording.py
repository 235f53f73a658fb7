"""Drives of the model as trained, recorded: what it saw, decision by decision, and what it answered.

An artifact that is asked along such a drive, open loop, cannot hide a wrong gain behind feedback, and the order of the
decisions shows a delay. The drives come from the seed of the run, so that no margin can have been tuned on them.
Recorded once per process for each model and seed. Judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.digest import Digest
from nwmctl.domain.model import ModelContract
from nwmctl.driving import constants as k
from nwmctl.driving.episode import first_control
from nwmctl.driving.families import generate_all
from nwmctl.driving.observe import observe
from nwmctl.driving.scenarios import paired
from nwmctl.driving.world import World
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.drives import OpenSession

OBSERVED = ("ego", "agents", "route")
"""What the simulator shows a driver; a model with other inputs cannot be driven in it."""
DRIVES = 10
"""Two of each family of scenarios: about 550 decisions, whose quantiles hardly move from seed to seed."""
_KEPT = 8


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """T decisions of S drives. ``steps`` holds one batch of S rows per decision; ``answers`` [T,S,...] what the model
    as trained said; ``live`` [T,S] is false from the end of a drive on (those rows repeat its last view)."""

    steps: tuple[Tensors, ...]
    answers: Tensors
    live: NDArray[np.bool_]
    seed: int

    @property
    def rows(self) -> int:
        """Decisions that count."""
        return int(self.live.sum())

    def speeds(self) -> NDArray[np.float64]:
        """The ego's speed [T,S] in m/s at each decision."""
        return np.stack([step["ego"][:, -1, 0] for step in self.steps]).astype(np.float64)


def drivable(contract: ModelContract) -> bool:
    """Whether the simulator can show this model everything that it wants to see."""
    return {spec.name for spec in contract.inputs} == set(OBSERVED)


def record(open_reference: OpenSession, control: str, seed: int, drives: int = DRIVES) -> Recording:
    """Let the reference drive ``drives`` scenarios from ``seed`` on. Its errors pass, PolicyShapeError too."""
    world = World(generate_all(paired(drives, seed)))
    steps: list[Tensors] = []
    said: list[Tensors] = []
    live: list[NDArray[np.bool_]] = []
    with open_reference() as session:
        while len(steps) < k.EPISODE_STEPS and not world.ended.all():
            seen: Tensors = {**observe(world)}
            answer = session.run(seen)
            steps.append(seen)
            said.append(answer)
            live.append(~world.ended)
            world.step(first_control(answer[control].astype(np.float64), world.size))
    answers = {name: np.stack([answer[name] for answer in said]) for name in said[0]}
    return Recording(tuple(steps), answers, np.stack(live), seed)


def executed(answers: Tensors, control: str) -> NDArray[np.float64]:
    """The commands [T,S,C] that are executed, out of plans [T,S,H,C] or commands [T,S,C]."""
    values = answers[control].astype(np.float64)
    return values[:, :, 0] if values.ndim == 4 else values


class Recordings:
    """Recordings by model and seed. Errors of the reference pass."""

    def __init__(self) -> None:
        self._known: dict[tuple[Digest, str, int], Recording] = {}
        self._lock = Lock()

    def get(self, weights: Digest, control: str, open_reference: OpenSession, seed: int) -> Recording:
        """The recording for this model and seed."""
        key = (weights, control, seed)
        with self._lock:  # held while driving: a second caller with the same question waits for the answer
            if key not in self._known:
                made = record(open_reference, control, seed)
                while len(self._known) >= _KEPT:
                    self._known.pop(next(iter(self._known)))
                self._known[key] = made
            return self._known[key]


RECORDINGS = Recordings()
