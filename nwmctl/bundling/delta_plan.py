"""How each vehicle of a census gets to the new artifacts: by which delta, by a full download, or not yet, and why.

Given the versions that vehicles have, what a full download takes, and what a delta would take, the plan chooses which
deltas to build, gives every pair (from, to) its way with predicted bytes and the reason, and holds all downloads
against the campaign's byte budget.

Invariants: every vehicle of the census is in exactly one share; no plan takes more bytes than full downloads for all;
a larger limit or budget never makes a plan worse (as long as the choice is proven, see ``delta_choice``); a full
download never goes over a cellular link unless the budget says that it may. Pure: encodes nothing, measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nwmctl.bundling.delta_roads import Delta, Goal, Pair, Roads, Rules, Way
from nwmctl.domain.traffic import ByteBudget, LinkClass, Spent, refusal


@dataclass(frozen=True, slots=True, order=True)
class Installed:
    """So many vehicles of a line have this version and hang on this kind of link."""

    line: str
    version: str
    link: LinkClass
    vehicles: int


@dataclass(frozen=True, slots=True)
class Share:
    """What some of a pair's vehicles will do. ``bytes`` for one vehicle; a deferred one will take them later."""

    line: str
    version: str
    link: LinkClass
    vehicles: int
    way: Way
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeltaPlan:
    """The plan. ``build`` are the deltas to make; ``now`` the bytes of those that are served, ``later`` of those that
    wait; ``all_full`` what full downloads for everybody would take; ``least`` a sum that no choice can undercut."""

    pairs: tuple[Pair, ...]
    build: tuple[Delta, ...]
    shares: tuple[Share, ...]
    now: Spent
    later: int
    all_full: int
    least: int
    proven: bool

    @property
    def bytes(self) -> int:
        """What all vehicles take in the end."""
        return self.now.total + self.later

    def vehicles(self, way: Way) -> int:
        """How many go this way."""
        return sum(share.vehicles for share in self.shares if share.way is way)


def plan_deltas(
    census: Sequence[Installed],
    goals: Sequence[Goal],
    deltas: Sequence[Delta],
    rules: Rules | None = None,
    budget: ByteBudget | None = None,
) -> DeltaPlan:
    """The plan for a census. Rows of lines without a goal are not part of it: the release does not go there."""
    rules = rules or Rules()
    aims = {goal.line: goal for goal in goals}
    rows = [row for row in sorted(census) if row.line in aims and row.vehicles > 0]
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        counts[row.line, row.version] = counts.get((row.line, row.version), 0) + row.vehicles
    roads = Roads(aims, deltas, rules)
    picked = roads.pick(counts)
    pairs = {place: roads.pair(place, vehicles, picked.chosen) for place, vehicles in sorted(counts.items())}
    shares, now = _allot(rows, pairs, budget or ByteBudget(full_on_cellular=True))
    served = sum(pair.bytes * pair.vehicles for pair in pairs.values())
    return DeltaPlan(
        pairs=tuple(pairs.values()),
        build=tuple(roads.open[i] for i in picked.chosen),
        shares=shares,
        now=now,
        later=sum(share.bytes * share.vehicles for share in shares if share.way is Way.DEFERRED),
        all_full=sum(
            n * aims[line].full_bytes for (line, version), n in counts.items() if version != aims[line].version
        ),
        least=min(picked.bound, served),
        proven=picked.proven,
    )


def _allot(
    rows: Sequence[Installed], pairs: Mapping[tuple[str, str], Pair], budget: ByteBudget
) -> tuple[tuple[Share, ...], Spent]:
    """Serve those first who take least, so that the budget reaches as many vehicles as it can."""
    shares: list[Share] = []
    spent = Spent()
    for row in sorted(rows, key=lambda each: (pairs[each.line, each.version].bytes, each)):
        pair = pairs[row.line, row.version]
        full = pair.way is Way.FULL
        served = row.vehicles if pair.way is Way.NOTHING else _affordable(budget, spent, row, pair.bytes, full)
        if served:
            shares.append(Share(row.line, row.version, row.link, served, pair.way, pair.bytes, pair.reason))
            cellular = served * pair.bytes if row.link is LinkClass.CELLULAR else 0
            spent = Spent(spent.cellular + cellular, spent.total + served * pair.bytes)
        if left := row.vehicles - served:
            why = refusal(budget, spent, row.link, pair.bytes, full=full)
            reason = f"{why} ({pair.reason})" if full else why
            shares.append(Share(row.line, row.version, row.link, left, Way.DEFERRED, pair.bytes, reason))
    return tuple(shares), spent


def _affordable(budget: ByteBudget, spent: Spent, row: Installed, size: int, full: bool) -> int:
    """How many of a row's vehicles may be served."""
    if refusal(ByteBudget(full_on_cellular=budget.full_on_cellular), spent, row.link, size, full=full):
        return 0
    most = row.vehicles
    rooms = [(budget.total_budget, spent.total)]
    if row.link is LinkClass.CELLULAR:
        rooms.append((budget.cellular_budget, spent.cellular))
    for limit, used in rooms:
        if limit is not None and size:
            most = min(most, max(0, limit - used) // size)
    return most
