"""Scenarios: which road, which traffic, where the ego starts, what hampers it.

A scenario is named by its ``ScenarioId`` alone; ``families.generate`` draws the same one for it in any process,
unless somebody wrote it into a file, whose digest is then part of the name. Identities for paired comparisons come
from ``paired`` (here: the plain families; ``traps.paired``: the traps). These are the nouns only: nothing is drawn
or moved here.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.scenario import Family as Family
from nwmctl.domain.scenario import Trap as Trap
from nwmctl.driving.constants import FloatArray
from nwmctl.errors import ScenarioNameError


@dataclass(frozen=True, slots=True)
class ScenarioId:
    """Names one scenario for good.

    ``trap`` is the error state that the family's scenario of this seed is turned into. ``file`` is the sha256 (hex)
    of what somebody wrote by hand; then ``family`` says only with which kind of road its figures count.
    """

    family: Family
    seed: int
    trap: Trap | None = None
    file: str = ""

    @property
    def label(self) -> str:
        """``family:seed``, followed by ``:trap`` and ``:file`` where there are any."""
        parts = (self.family, str(self.seed), self.trap or "", self.file)
        return ":".join(parts).rstrip(":") if not self.file else ":".join(parts)

    @property
    def order(self) -> tuple[str, int, str, str]:
        """What identities are sorted by."""
        return (self.family, self.seed, self.trap or "", self.file)


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
    """A road with traffic. ``route`` [TRACK_POINTS,2] m is the way the ego shall take, from ``start`` m on.

    The ego starts ``lateral`` m to the left of the route, turned ``heading_error`` rad to the left of it, at ``speed``
    m/s. ``dropped`` names the decisions (0 .. EPISODE_STEPS-1) whose perception of other vehicles never arrives. A
    command takes effect ``late`` decisions after it was given (0 .. MAX_LATE).
    """

    id: ScenarioId
    route: FloatArray
    start: float
    speed: float
    cruise: float
    traffic: tuple[Vehicle, ...]
    lateral: float = 0.0
    heading_error: float = 0.0
    dropped: frozenset[int] = frozenset()
    late: int = 0


def paired(count: int, seed: int) -> tuple[ScenarioId, ...]:
    """``count`` identities, the families taking turns: the same for everyone who names the same seed."""
    families = tuple(Family)
    return tuple(ScenarioId(families[i % len(families)], seed + i // len(families)) for i in range(count))


def named(text: str) -> ScenarioId:
    """The identity that a person writes as ``family:seed`` or ``family:seed:trap``. Raises ScenarioNameError."""
    parts = text.split(":")
    families, traps = [str(family) for family in Family], [str(trap) for trap in Trap]
    known = len(parts) in (2, 3) and parts[0] in families and parts[2:] in ([], *([trap] for trap in traps))
    if not known or not (parts[1].isascii() and parts[1].isdigit() and int(parts[1]) < 2**63):
        raise ScenarioNameError(
            f"'{text}' names no scenario",
            why="a name is family:seed or family:seed:trap, with a seed from 0 up",
            next=f"families: {', '.join(families)}; traps: {', '.join(traps)}",
        )
    return ScenarioId(Family(parts[0]), int(parts[1]), Trap(parts[2]) if parts[2:] else None)
