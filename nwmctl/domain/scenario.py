"""The words for a driving scenario: kinds of road, kinds of trap, and the file in which a person writes one.

Names and plain values only, so that documents, the simulator and the checks speak of the same things. What a kind
means, in metres and seconds, and which geometry is possible, is said in ``driving``. The order of the enums' members is
part of a seed's meaning: new members go last.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """The kinds of road."""

    HIGHWAY = "highway"
    MERGE = "merge"
    ROUNDABOUT = "roundabout"
    INTERSECTION = "intersection"
    CURVY = "curvy"


class Trap(StrEnum):
    """The error states that a drive is put into, and has to come back from."""

    OFF_CENTRE = "off_centre"
    HEADING_ERROR = "heading_error"
    TOO_FAST = "too_fast"
    CUT_IN = "cut_in"
    STALLED = "stalled"
    RIGHT_OF_WAY = "right_of_way"
    DROPPED = "dropped"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class DrawnScenario:
    """A scenario that a seed draws: the same one as the identity ``family:seed:trap``."""

    family: Family
    seed: int
    trap: Trap | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError("seed is not between 0 and 2^63 - 1")


@dataclass(frozen=True, slots=True)
class EgoStart:
    """Where and how fast the driven vehicle starts; offset and heading error count to the left of its route."""

    start_m: float
    speed_m_s: float
    cruise_m_s: float
    lateral_m: float = 0.0
    heading_error_rad: float = 0.0


@dataclass(frozen=True, slots=True)
class OtherVehicle:
    """One other vehicle, ``start_m`` along its track of [x, y] points in m (none: the ego's route).

    From ``slows_at_s`` on it wants a quarter of its cruise speed; one that does not yield ignores the ego.
    """

    start_m: float
    speed_m_s: float
    cruise_m_s: float
    track: tuple[tuple[float, ...], ...] = ()
    slows_at_s: float | None = None
    yields: bool = True


@dataclass(frozen=True, slots=True)
class WrittenScenario:
    """A scenario laid out by hand: a route of [x, y] points in m, who starts where, and what hampers the ego.

    ``family`` says with which kind of road its figures count. ``dropped_steps`` are decisions (0.2 s each) whose
    perception is lost; a command takes effect ``late_steps`` decisions after it was given.
    """

    family: Family
    route: tuple[tuple[float, ...], ...]
    ego: EgoStart
    vehicles: tuple[OtherVehicle, ...] = ()
    dropped_steps: tuple[int, ...] = ()
    late_steps: int = 0


@dataclass(frozen=True, slots=True)
class ScenarioDocument:
    """What a scenario file holds: either a drawn scenario or a written one."""

    name: str
    drawn: DrawnScenario | None = None
    written: WrittenScenario | None = None

    def __post_init__(self) -> None:
        if (self.drawn is None) == (self.written is None):
            raise ValueError("a scenario is either 'drawn' or 'written': exactly one of the two keys is needed")
