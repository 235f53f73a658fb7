"""The delta plan: laws that hold for every census, and the best choice found by trying all."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.bundling.delta_choice import Choice, Limits, Option, choose
from nwmctl.bundling.delta_plan import DeltaPlan, Installed, plan_deltas
from nwmctl.bundling.delta_roads import Delta, Goal, Rules, Way
from nwmctl.domain.figure import Obtained
from nwmctl.domain.traffic import ByteBudget, LinkClass

LINES, VERSIONS = ("a", "b"), ("v1", "v2", "v3", "v4")
GOAL = "v4"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Installed], list[Goal], list[Delta]]:
    lines = LINES[: draw(st.integers(1, 2))]
    goals = [Goal(line, GOAL, draw(st.integers(0, 1000))) for line in lines]
    census = [
        Installed(line, version, link, draw(st.integers(0, 50)))
        for line in lines
        for version in draw(st.sets(st.sampled_from(VERSIONS)))
        for link in LinkClass
    ]
    deltas = []
    for line in lines:
        for old, new in permutations(VERSIONS, 2):
            built = draw(st.booleans()) if new == GOAL else True
            if draw(st.booleans()):
                size, cpu_s = draw(st.integers(0, 1100)), draw(st.floats(0, 10))
                memory = draw(st.sampled_from([1 << 20, 16 << 20, 17 << 20]))
                deltas.append(Delta(line, old, new, size, cpu_s, memory, Obtained.ESTIMATED, built))
    return census, goals, deltas


limits = st.builds(
    Limits,
    st.none() | st.integers(0, 6),
    st.none() | st.floats(0, 40),
    st.none() | st.integers(0, 4000),
)
budgets = st.builds(ByteBudget, st.none() | st.integers(0, 50_000), st.none() | st.integers(0, 100_000), st.booleans())


def deferred(plan: DeltaPlan) -> int:
    return plan.vehicles(Way.DEFERRED)


def by_trying_all(census: list[Installed], goals: list[Goal], deltas: list[Delta], rules: Rules) -> int:
    """The least sum of bytes: every set of deltas within the limits, every way without a circle."""
    open_ = [each for each in deltas if not each.built]
    best = None
    for count in range(len(open_) + 1):
        for chosen in combinations(open_, count):
            spent = (count, sum(d.cpu_s for d in chosen), sum(d.bytes for d in chosen))
            if any(most is not None and used > most for most, used in zip(rules.limits.all(), spent, strict=True)):
                continue
            there = [d for d in deltas if d.built or d in chosen]
            total = sum(row.vehicles * cheapest(row, goals, deltas, there, rules) for row in census)
            best = total if best is None else min(best, total)
    assert best is not None
    return best


def cheapest(row: Installed, goals: list[Goal], deltas: list[Delta], there: list[Delta], rules: Rules) -> int:
    goal = next(goal for goal in goals if goal.line == row.line)
    if row.version == goal.version:
        return 0
    own = {(d.old, d.new): d for d in there if d.line == row.line}
    fit = [d for d in deltas if d.line == row.line and d.memory <= rules.memory]
    direct = next((d for d in fit if (d.old, d.new) == (row.version, goal.version)), None)
    memory = direct.memory if direct else rules.memory
    best = goal.full_bytes
    for count in range(len(VERSIONS)):
        for between in permutations([v for v in VERSIONS if v not in (row.version, goal.version)], count):
            way = (row.version, *between, goal.version)
            parts = [own.get(pair) for pair in pairwise(way)]
            if all(part is not None and part.memory <= memory for part in parts):
                size = sum(part.bytes for part in parts if part)
                if size < best and size <= goal.full_bytes * (1 - rules.least_saving):
                    best = size
    return best


@settings(max_examples=40, deadline=None)
@given(worlds(), limits, st.sampled_from([0.0, 0.05, 0.5]))
def test_no_choice_of_deltas_takes_fewer_bytes(
    world: tuple[list[Installed], list[Goal], list[Delta]], limits: Limits, least_saving: float
) -> None:
    rules = Rules(limits, least_saving)
    plan = plan_deltas(*world, rules)
    assert plan.proven
    assert plan.bytes == plan.least == by_trying_all(*world, rules)
    assert plan.bytes <= plan.all_full
    spent = (len(plan.build), sum(d.cpu_s for d in plan.build), sum(d.bytes for d in plan.build))
    assert all(most is None or used <= most + 1e-6 for most, used in zip(limits.all(), spent, strict=True))


@settings(max_examples=40, deadline=None)
@given(worlds(), limits, budgets)
def test_every_vehicle_is_in_one_share_and_no_budget_is_exceeded(
    world: tuple[list[Installed], list[Goal], list[Delta]], limits: Limits, budget: ByteBudget
) -> None:
    census, _, _ = world
    plan = plan_deltas(*world, Rules(limits), budget)
    for row in census:
        mine = [s for s in plan.shares if (s.line, s.version, s.link) == (row.line, row.version, row.link)]
        assert sum(share.vehicles for share in mine) == row.vehicles
        assert all(share.reason for share in mine)
    assert sum(share.vehicles for share in plan.shares) == sum(row.vehicles for row in census)
    assert budget.total_budget is None or plan.now.total <= budget.total_budget
    assert budget.cellular_budget is None or plan.now.cellular <= budget.cellular_budget
    if not budget.full_on_cellular:
        assert not [s for s in plan.shares if s.way is Way.FULL and s.link is LinkClass.CELLULAR]
    assert plan.bytes == sum(share.bytes * share.vehicles for share in plan.shares) <= plan.all_full


@settings(max_examples=40, deadline=None)
@given(worlds(), limits, budgets, st.integers(0, 3), st.floats(0, 20), st.integers(0, 20_000))
def test_more_room_never_makes_it_worse(
    world: tuple[list[Installed], list[Goal], list[Delta]],
    limits: Limits,
    budget: ByteBudget,
    more: int,
    seconds: float,
    size: int,
) -> None:
    tight = plan_deltas(*world, Rules(limits), budget)
    wide = Limits(
        None if limits.most_deltas is None else limits.most_deltas + more,
        None if limits.cpu_s is None else limits.cpu_s + seconds,
        None if limits.storage_bytes is None else limits.storage_bytes + size,
    )
    assert plan_deltas(*world, Rules(wide), budget).bytes <= tight.bytes
    larger = replace(
        budget,
        cellular_budget=None if budget.cellular_budget is None else budget.cellular_budget + size,
        total_budget=None if budget.total_budget is None else budget.total_budget + size,
    )
    assert deferred(plan_deltas(*world, Rules(limits), larger)) <= deferred(tight)


@settings(max_examples=15, deadline=None)
@given(worlds(), limits, st.randoms())
def test_the_order_of_the_facts_does_not_matter(
    world: tuple[list[Installed], list[Goal], list[Delta]], limits: Limits, stream: Random
) -> None:
    census, goals, deltas = (stream.sample(world[0], len(world[0])), *world[1:])
    deltas = stream.sample(deltas, len(deltas))
    assert plan_deltas(census, goals, deltas, Rules(limits)) == plan_deltas(*world, Rules(limits))


def one(version: str = "v1", link: LinkClass = LinkClass.WIFI, vehicles: int = 10) -> list[Installed]:
    return [Installed("a", version, link, vehicles)]


AIM = [Goal("a", GOAL, 1000)]


@pytest.mark.parametrize(
    ("deltas", "rules", "words"),
    [
        ([], Rules(), "not at hand here"),
        ([Delta("a", "v1", GOAL, 980)], Rules(), "saves 2.0%|save 2.0%"),
        ([Delta("a", "v1", GOAL, 100)], Rules(Limits(most_deltas=0)), "within the limits"),
        ([Delta("a", "v1", GOAL, 100, memory=17 << 20)], Rules(), "memory"),
    ],
)
def test_a_full_download_says_why(deltas: list[Delta], rules: Rules, words: str) -> None:
    pair = plan_deltas(one(), AIM, deltas, rules).pairs[0]
    assert pair.way is Way.FULL
    assert pair.bytes == 1000
    assert any(word in pair.reason for word in words.split("|"))


def test_a_vehicle_on_a_cellular_link_waits_rather_than_taking_all() -> None:
    plan = plan_deltas(one(link=LinkClass.CELLULAR), AIM, [], budget=ByteBudget())
    (share,) = plan.shares
    assert share.way is Way.DEFERRED
    assert "not sent over a cellular link" in share.reason
    assert plan.now.total == 0
    assert plan.later == 10_000


def test_without_a_budget_nobody_waits() -> None:
    assert plan_deltas(one(link=LinkClass.CELLULAR), AIM, []).shares[0].way is Way.FULL


def test_a_budget_serves_the_smallest_first() -> None:
    census = [*one("v1", LinkClass.CELLULAR, 5), *one("v2", LinkClass.CELLULAR, 5)]
    deltas = [Delta("a", "v1", GOAL, 300), Delta("a", "v2", GOAL, 100)]
    plan = plan_deltas(census, AIM, deltas, budget=ByteBudget(cellular_budget=1150))
    served = {share.version: share.vehicles for share in plan.shares if share.way is Way.DELTA}
    assert served == {"v2": 5, "v1": 2}
    assert plan.now.cellular == 1100
    (waiting,) = [share for share in plan.shares if share.way is Way.DEFERRED]
    assert (waiting.version, waiting.vehicles) == ("v1", 3)
    assert "cellular budget of 1150 bytes" in waiting.reason


def test_a_chain_is_taken_only_where_it_takes_less() -> None:
    built = [
        Delta("a", "v1", "v2", 50, built=True, obtained=Obtained.MEASURED),
        Delta("a", "v2", GOAL, 60, built=True, obtained=Obtained.MEASURED),
    ]
    chain = plan_deltas(one(), AIM, [*built, Delta("a", "v1", GOAL, 111)]).pairs[0]
    assert chain.via == ("v1", "v2", GOAL)
    assert chain.bytes == 110
    assert chain.obtained is Obtained.MEASURED
    assert "one after another" in chain.reason
    direct = plan_deltas(one(), AIM, [*built, Delta("a", "v1", GOAL, 109)])
    assert direct.pairs[0].via == ("v1", GOAL)
    assert [delta.old for delta in direct.build] == ["v1"]
    hungry = [replace(built[0], memory=2 << 20), replace(built[1], memory=2 << 20)]
    lean = plan_deltas(one(), AIM, [*hungry, Delta("a", "v1", GOAL, 111, memory=1 << 20)]).pairs[0]
    assert lean.via == ("v1", GOAL)


def test_deltas_are_built_for_the_versions_that_most_vehicles_have() -> None:
    census = [*one("v1", vehicles=1000), *one("v2", vehicles=10), *one("v3", vehicles=500)]
    deltas = [Delta("a", version, GOAL, 200) for version in ("v1", "v2", "v3")]
    plan = plan_deltas(census, AIM, deltas, Rules(Limits(most_deltas=2)))
    assert [delta.old for delta in plan.build] == ["v1", "v3"]


def test_a_search_that_is_cut_short_says_so() -> None:
    count = 24
    base = [100 + 7 * i % 13 for i in range(count)]
    options = [Option({g: base[g] // 2 for g in (i, (5 * i + 3) % count)}, 1.0 + (i * i) % 7, 10) for i in range(count)]
    cut = choose(base, options, Limits(cpu_s=31.0), most_nodes=10)
    full = choose(base, options, Limits(cpu_s=31.0))
    assert full.proven
    assert not cut.proven
    assert cut.bound <= full.cost <= cut.cost <= sum(base)


def test_limits_and_budgets_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        Limits(cpu_s=-1.0)
    with pytest.raises(ValueError, match="cannot be negative"):
        Limits(cpu_s=float("nan"))
    with pytest.raises(ValueError, match="cannot be negative"):
        ByteBudget(cellular_budget=-1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Rules(least_saving=1.5)
    assert choose([], [], Limits()) == Choice((), 0, 0)
