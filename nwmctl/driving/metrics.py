"""What a drive amounts to: outcomes per scenario, their summary, their hash, and the distance between two runs.

Figures are per scenario and independent of batching. A crash is never also counted as off-road. Progress is the way
made along the route over the way at cruise speed for the whole episode (at most 1.2). Comfort is the mean absolute
change of commanded acceleration in m/s3. The score (0 to 1) is zero for a failed drive, else progress (at most 1)
damped by discomfort. Two runs are compared scenario by scenario: judge the median over scenarios, never the maximum,
for a single drive may diverge by metres from rounding alone. This module decides nothing about margins.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving import traps
from nwmctl.driving.constants import BoolArray, FloatArray, IntArray
from nwmctl.driving.scenarios import Family, ScenarioId
from nwmctl.driving.world import World
from nwmctl.errors import UnpairedOutcomesError

_HASH_TAG = b"nwmctl.driving.outcomes/1"
_MILLI = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What became of N scenarios; every array has first dimension N, in the order of ``ids``."""

    ids: tuple[ScenarioId, ...]
    crashed: BoolArray
    off_road: BoolArray
    progress: FloatArray
    jerk: FloatArray
    """Mean absolute change of commanded acceleration, m/s3."""
    closest: FloatArray
    """Smallest free space to another vehicle, m (99: nobody was near)."""
    steps: IntArray
    """Decisions until the episode ended."""
    faults: IntArray
    """Decisions with a control that was not finite."""
    path: FloatArray
    """[N, EPISODE_STEPS + 1, 2] ego positions in m, held after the end."""
    lateral: FloatArray
    """Offset to the left of the route at the end, m."""
    heading_error: FloatArray
    """Heading against the route's at the end, rad in [-pi, pi)."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def failed(self) -> BoolArray:
        """Crashed or left the road."""
        return np.asarray(self.crashed | self.off_road)

    @property
    def score(self) -> FloatArray:
        """0 to 1 per scenario; see the module's docstring."""
        comfort = np.exp(-np.maximum(self.jerk - 1.0, 0.0) / 10.0)
        return np.asarray(np.where(self.failed, 0.0, np.clip(self.progress, 0.0, 1.0) * comfort))

    def digest(self) -> str:
        """sha256 (hex) of all outcomes, sorted by identity and rounded to thousandths: any order and batch give it."""
        state = hashlib.sha256(_HASH_TAG + k.REVISION.to_bytes(4, "big"))
        for i in sorted(range(len(self)), key=lambda j: self.ids[j].order):
            identity = self.ids[i]
            state.update(f"{identity.label}:{int(self.crashed[i])}{int(self.off_road[i])}:".encode())
            state.update(f"{int(self.steps[i])}:{int(self.faults[i])}:".encode())
            figures = np.concatenate([[self.progress[i], self.jerk[i], self.closest[i]], self.path[i].ravel()])
            if identity.trap or identity.file:  # the plain families' digests are older than these two figures
                figures = np.append(figures, [self.lateral[i], self.heading_error[i]])
            state.update(np.rint(figures * _MILLI).astype("<i8").tobytes())
        return state.hexdigest()


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over a run: rates and score as fractions (0 to 1), jerk in m/s3."""

    scenarios: int
    crash_rate: float
    off_road_rate: float
    progress: float
    jerk: float
    score: float
    faults: int


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A candidate against a reference on the same scenarios."""

    path_deviation: FloatArray
    """[N] greatest distance in m between the two egos at equal times, while both drive."""
    median_path_deviation: float
    only_reference_failed: int
    only_candidate_failed: int
    score_difference: float
    """Candidate's mean score minus the reference's."""


def collect(world: World, path: FloatArray) -> Outcomes:
    """The outcomes of a world that has ended; ``path`` as in ``Outcomes``."""
    way = world.arc - world.start_arc
    possible = world.cruise * k.EPISODE_STEPS * k.CONTROL_DT
    return Outcomes(
        ids=tuple(s.id for s in world.scenarios),
        crashed=world.crashed.copy(),
        off_road=world.off_road.copy(),
        progress=np.minimum(way / possible, 1.2),
        jerk=world.jerk_sum / np.maximum(world.steps_driven, 1),
        closest=world.closest.copy(),
        steps=world.steps_driven.copy(),
        faults=world.faults.copy(),
        path=path,
        lateral=world.lateral.copy(),
        heading_error=world.heading_error.copy(),
    )


def join(parts: list[Outcomes]) -> Outcomes:
    """Several outcomes as one, in order."""
    arrays = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Outcomes) if f.name != "ids"}
    return Outcomes(ids=tuple(i for p in parts for i in p.ids), **arrays)


def select(outcomes: Outcomes, which: BoolArray) -> Outcomes:
    """Some of the scenarios, in order; ``which`` [N]."""
    arrays = {f.name: getattr(outcomes, f.name)[which] for f in fields(Outcomes) if f.name != "ids"}
    return Outcomes(ids=tuple(i for i, taken in zip(outcomes.ids, which, strict=True) if taken), **arrays)


def summarise(outcomes: Outcomes, family: Family | None = None) -> Summary:
    """Means over all scenarios, or over one family's (zeros if there are none)."""
    chosen = np.array([family is None or i.family is family for i in outcomes.ids], dtype=bool)
    count = int(chosen.sum())

    def mean(values: FloatArray | BoolArray) -> float:
        return float(values[chosen].mean()) if count else 0.0

    return Summary(
        scenarios=count,
        crash_rate=mean(outcomes.crashed),
        off_road_rate=mean(outcomes.off_road),
        progress=mean(outcomes.progress),
        jerk=mean(outcomes.jerk),
        score=mean(outcomes.score),
        faults=int(outcomes.faults[chosen].sum()),
    )


def recovered(outcomes: Outcomes) -> BoolArray:
    """[N] whether each drive came back: it survived and ended within its trap's limits (``traps.RECOVERED``)."""
    limits = [traps.RECOVERED[identity.trap] for identity in outcomes.ids]
    near = np.abs(outcomes.lateral) <= np.array([limit.lateral for limit in limits])
    aligned = np.abs(outcomes.heading_error) <= np.array([limit.heading_error for limit in limits])
    moved = outcomes.progress >= np.array([limit.progress for limit in limits])
    return np.asarray(~outcomes.failed & near & aligned & moved)


def compare(reference: Outcomes, candidate: Outcomes) -> Comparison:
    """Pair two runs scenario by scenario. Raises UnpairedOutcomesError where they drove different scenarios."""
    if reference.ids != candidate.ids:
        raise UnpairedOutcomesError(
            "the two runs did not drive the same scenarios",
            why=f"the reference drove {len(reference)} and the candidate {len(candidate)}, or their order differs",
            next="run both policies on the same list of scenario identities",
        )
    together = np.minimum(reference.steps, candidate.steps)
    apart = reference.path - candidate.path
    distance = np.sqrt(apart[..., 0] ** 2 + apart[..., 1] ** 2)
    driving = np.arange(distance.shape[1]) <= together[:, None]
    deviation = np.where(driving, distance, 0.0).max(axis=1)
    return Comparison(
        path_deviation=deviation,
        median_path_deviation=float(np.median(deviation)) if len(deviation) else 0.0,
        only_reference_failed=int((reference.failed & ~candidate.failed).sum()),
        only_candidate_failed=int((candidate.failed & ~reference.failed).sum()),
        score_difference=float(candidate.score.mean() - reference.score.mean()),
    )
