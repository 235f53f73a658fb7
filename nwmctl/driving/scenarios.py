"""Scenarios: which road, which traffic, where the ego starts.

A scenario is named by its ``ScenarioId`` alone; ``families.generate`` draws the same one for it in any process.
Identities for paired comparisons come from ``paired``. These are the nouns only: nothing is drawn or moved here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nwmctl.driving.constants import FloatArray


class Family(StrEnum):
    """The kinds of road."""

    HIGHWAY = "highway"
    MERGE = "merge"
    ROUNDABOUT = "roundabout"
    INTERSECTION = "intersection"
    CURVY = "curvy"


@dataclass(frozen=True, slots=True, order=True)
class ScenarioId:
    """Names one scenario for good."""

    family: Family
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Vehicle:
    """One other vehicle. ``track`` [TRACK_POINTS,2] m; ``start`` m along it; speeds in m/s.

    ``slows_at`` is the time in s from which it wants only a quarter of its cruise speed (infinite: never).
    ``yields`` says whether it reacts to the ego at all.
    """

    track: FloatArray
    start: float
    speed: float
    cruise: float
    slows_at: float = float("inf")
    yields: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """A road with traffic. ``route`` [TRACK_POINTS,2] m is the way the ego shall take, from ``start`` m on."""

    id: ScenarioId
    route: FloatArray
    start: float
    speed: float
    cruise: float
    traffic: tuple[Vehicle, ...]


def paired(count: int, seed: int) -> tuple[ScenarioId, ...]:
    """``count`` identities, the families taking turns: the same for everyone who names the same seed."""
    families = tuple(Family)
    return tuple(ScenarioId(families[i % len(families)], seed + i // len(families)) for i in range(count))
