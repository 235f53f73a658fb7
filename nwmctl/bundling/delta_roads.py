"""The ways from one version of an artifact to another: deltas as a graph.

A line is one series of artifacts that replace each other (those of a platform), a version names one set of them. Deltas
that exist may be applied one after another, where that takes fewer bytes and no more memory than the direct one; a
delta that is yet to be built always leads to the goal, so it is the last on its way. The plan of a release is given
deltas to its goal alone, since a vehicle installs one bundle. Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.bundling.delta_choice import Choice, Limits, Option, choose
from nwmctl.domain.figure import Obtained

APPLIER_MEMORY = 16 << 20
"""Bytes beyond its input and output that a vehicle gives to applying a delta."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What vehicles of a line shall have, and what a full download takes."""

    line: str
    version: str
    full_bytes: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A delta that exists (``built``) or could be built. ``bytes`` is what a vehicle downloads for it; ``memory`` what
    applying it takes; ``obtained`` says whether the bytes are exact or estimated from samples."""

    line: str
    old: str
    new: str
    bytes: int
    cpu_s: float = 0.0
    memory: int = APPLIER_MEMORY
    obtained: Obtained = Obtained.ESTIMATED
    built: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """``limits`` on what is built; ``least_saving``: the share of the full download that a delta must save."""

    limits: Limits = field(default_factory=Limits)
    least_saving: float = 0.05
    memory: int = APPLIER_MEMORY

    def __post_init__(self) -> None:
        if not 0 <= self.least_saving <= 1:
            raise ValueError(f"least_saving is {self.least_saving:g}, a share lies between 0 and 1")


class Way(StrEnum):
    """How a vehicle gets what it shall have."""

    NOTHING = "nothing"
    """it has it"""
    DELTA = "delta"
    FULL = "full"
    DEFERRED = "deferred"
    """not now: it waits for another link or for more budget"""


@dataclass(frozen=True, slots=True)
class Pair:
    """The way from one version to the goal: ``via`` are the versions on it, both ends included; ``bytes`` for one
    vehicle."""

    line: str
    old: str
    new: str
    way: Way
    via: tuple[str, ...]
    bytes: int
    full_bytes: int
    obtained: Obtained
    vehicles: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Road:
    """A way along deltas; ``last`` is the index of the one not yet built that it needs, if any."""

    bytes: int
    via: tuple[str, ...]
    obtained: Obtained
    last: int | None = None


class Roads:
    """The deltas as a graph, and the shortest ways through it."""

    def __init__(self, goals: Mapping[str, Goal], deltas: Sequence[Delta], rules: Rules) -> None:
        self._goals, self._rules = goals, rules
        # Where a pair has a delta that exists and one that could be built, the one that exists counts.
        fit = sorted((delta for delta in deltas if delta.memory <= rules.memory), key=lambda each: each.built)
        self._built: dict[tuple[str, str], list[Delta]] = {}
        for delta in fit:
            if delta.built:
                self._built.setdefault((delta.line, delta.old), []).append(delta)
        self._direct = {(d.line, d.old): d for d in fit if d.line in goals and d.new == goals[d.line].version}
        self.open = sorted(
            (delta for delta in self._direct.values() if not delta.built), key=lambda each: (each.line, each.old)
        )
        self._known = {(d.line, d.old) for d in deltas if d.line in goals and d.new == goals[d.line].version}

    def pick(self, counts: Mapping[tuple[str, str], int]) -> Choice:
        """Which of the open deltas to build."""
        places = sorted(counts)
        every = tuple(range(len(self.open)))
        base = [counts[place] * self._bytes(place, self._best(place, ())) for place in places]
        costs: list[dict[int, int]] = [{} for _ in every]
        for group, place in enumerate(places):
            for road in self._all(place, every):
                if road.last is not None and self._worth(place, road):
                    costs[road.last][group] = counts[place] * road.bytes
        options = [Option(cost, delta.cpu_s, delta.bytes) for cost, delta in zip(costs, self.open, strict=True)]
        return choose(base, options, self._rules.limits)

    def pair(self, place: tuple[str, str], vehicles: int, chosen: Sequence[int]) -> Pair:
        """What becomes of a pair, once it is known what is built."""
        (line, old), goal = place, self._goals[place[0]]
        if old == goal.version:
            return Pair(
                line, old, old, Way.NOTHING, (old,), 0, goal.full_bytes, Obtained.MEASURED, vehicles, "it has it"
            )
        road = self._best(place, chosen)
        if road is None:
            reason = self._why_full(place)
            ends, size = (old, goal.version), goal.full_bytes
            return Pair(line, *ends, Way.FULL, ends, size, size, Obtained.MEASURED, vehicles, reason)
        share = road.bytes / max(1, goal.full_bytes)
        reason = f"{share:.1%} of the full download"
        if len(road.via) > 2:
            reason += f", by {len(road.via) - 1} deltas one after another, which take less than any direct one here"
        via = road.via
        return Pair(
            line, old, goal.version, Way.DELTA, via, road.bytes, goal.full_bytes, road.obtained, vehicles, reason
        )

    def _why_full(self, place: tuple[str, str]) -> str:
        direct = self._direct.get(place)
        if place not in self._known:
            return "the artifact that it has is not at hand here, so no delta can be made from it"
        if direct is None:
            return f"applying its delta would take more than {self._rules.memory >> 20} MiB of memory"
        full = self._goals[place[0]].full_bytes
        saved = 1 - direct.bytes / max(1, full)
        if not self._worth(place, _Road(direct.bytes, (), direct.obtained)):
            return f"a delta would save {saved:.1%}, and below {self._rules.least_saving:.0%} it is not worth while"
        return f"its delta would save {saved:.1%}, but others save more within the limits on what is built"

    def _worth(self, place: tuple[str, str], road: _Road) -> bool:
        full = self._goals[place[0]].full_bytes
        return road.bytes <= full * (1 - self._rules.least_saving) and road.bytes < full

    def _bytes(self, place: tuple[str, str], road: _Road | None) -> int:
        goal = self._goals[place[0]]
        if place[1] == goal.version:
            return 0
        return goal.full_bytes if road is None else road.bytes

    def _best(self, place: tuple[str, str], chosen: Sequence[int]) -> _Road | None:
        if place[1] == self._goals[place[0]].version:
            return None
        roads = [road for road in self._all(place, chosen) if self._worth(place, road)]
        return min(roads, key=lambda road: (road.bytes, len(road.via), road.via), default=None)

    def _all(self, place: tuple[str, str], chosen: Sequence[int]) -> list[_Road]:
        """Every way to the goal: along what is built alone, and by each of the ``chosen`` as the last part."""
        line, old = place
        goal = self._goals[line].version
        if old == goal:
            return []
        direct = self._direct.get(place)
        near = self._reach(line, old, self._rules.memory if direct is None else direct.memory)
        found = [near[goal]] if goal in near else []
        for index in chosen:
            last = self.open[index]
            road = near.get(last.old) if last.line == line else None
            # Several deltas must not need more memory than the direct one would.
            if road is None or (direct is not None and last.memory > direct.memory):
                continue
            found.append(
                _Road(road.bytes + last.bytes, (*road.via, last.new), _weaker(road.obtained, last.obtained), index)
            )
        return found

    def _reach(self, line: str, old: str, memory: int) -> dict[str, _Road]:
        """The cheapest ways along built deltas from a version to every other."""
        found: dict[str, _Road] = {}
        queue: list[tuple[int, int, tuple[str, ...], Obtained]] = [(0, 1, (old,), Obtained.MEASURED)]
        while queue:
            size, hops, via, obtained = heapq.heappop(queue)
            here = via[-1]
            if here in found:
                continue
            found[here] = _Road(size, via, obtained)
            for delta in self._built.get((line, here), ()):
                if delta.memory <= memory and delta.new not in found:
                    weaker = _weaker(obtained, delta.obtained)
                    heapq.heappush(queue, (size + delta.bytes, hops + 1, (*via, delta.new), weaker))
        return found


def _weaker(one: Obtained, other: Obtained) -> Obtained:
    return min(one, other, key=lambda each: each.strength)
