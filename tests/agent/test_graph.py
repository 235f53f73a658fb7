"""Laws of the plan's graph, on graphs that hypothesis draws."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.agent.graph import critical_path, downstream, ordered, remaining, upstream
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.errors import PlanError


def step(name: str, *needs: str, after: tuple[str, ...] = ()) -> PlannedStep:
    return PlannedStep(name, "work", {}, {need: OutputRef(need, "out") for need in needs}, "test", after)


@st.composite
def graphs(draw: st.DrawFn) -> list[PlannedStep]:
    """Sound graphs of up to eight steps, in any order; needs are inputs or plain order."""
    count = draw(st.integers(1, 8))
    names = [f"s{number}" for number in range(count)]
    made = []
    for number, name in enumerate(names):
        earlier = names[:number]
        inputs = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        after = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=2)) if earlier else []
        made.append(step(name, *inputs, after=tuple(after)))
    return draw(st.permutations(made))


times = st.integers(0, 9).map(float)


@st.composite
def timed(draw: st.DrawFn) -> tuple[list[PlannedStep], dict[str, float]]:
    plan = draw(graphs())
    return plan, {each.id: draw(times) for each in plan}


def every_path(plan: list[PlannedStep]) -> list[list[str]]:
    """All chains from a step that needs nothing to a step that nothing needs: the slow, obvious way."""
    followers = {each.id: [other.id for other in plan if each.id in other.needs] for each in plan}

    def onward(name: str) -> list[list[str]]:
        return [[name, *rest] for follower in followers[name] for rest in onward(follower)] or [[name]]

    return [path for each in plan if not each.needs for path in onward(each.id)]


@given(graphs())
def test_ordered_keeps_every_step_and_puts_it_after_its_needs(plan: list[PlannedStep]) -> None:
    done = ordered(plan)
    assert sorted(each.id for each in done) == sorted(each.id for each in plan)
    for position, each in enumerate(done):
        assert each.needs <= {earlier.id for earlier in done[:position]}


@given(timed())
def test_the_critical_path_is_a_longest_chain(case: tuple[list[PlannedStep], dict[str, float]]) -> None:
    plan, seconds = case
    by_id = {each.id: each for each in plan}
    path = critical_path(plan, seconds)
    assert not by_id[path[0]].needs
    assert all(earlier in by_id[later].needs for earlier, later in pairwise(path))
    longest = max(sum(seconds[name] for name in each) for each in every_path(plan))
    assert sum(seconds[name] for name in path) == longest


@given(timed())
def test_the_critical_path_bounds_any_schedule(case: tuple[list[PlannedStep], dict[str, float]]) -> None:
    plan, seconds = case
    total = sum(seconds[name] for name in critical_path(plan, seconds))
    assert max(seconds.values()) <= total <= sum(seconds.values())
    slower = {name: value + 1.0 for name, value in seconds.items()}
    assert sum(slower[name] for name in critical_path(plan, slower)) > total


@given(timed())
def test_the_priority_is_the_longest_way_to_the_end(case: tuple[list[PlannedStep], dict[str, float]]) -> None:
    plan, seconds = case
    left = remaining(plan, lambda each: seconds[each.id])
    for each in plan:
        ways = [path[path.index(each.id) :] for path in every_path(plan) if each.id in path]
        assert left[each.id] == max(sum(seconds[name] for name in way) for way in ways)
    assert max(left.values()) == sum(seconds[name] for name in critical_path(plan, seconds))


@given(graphs(), st.data())
def test_upstream_and_downstream_are_each_others_mirror(plan: list[PlannedStep], data: st.DataObject) -> None:
    one = data.draw(st.sampled_from([each.id for each in plan]))
    below = downstream(plan, one)
    for other in plan:
        above = {each.id for each in upstream(plan, [other.id])}
        assert (one in above and other.id != one) == (other.id in below)


@given(graphs(), st.data())
def test_a_part_is_closed_and_minimal(plan: list[PlannedStep], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from([each.id for each in plan]), min_size=1, unique=True))
    part = upstream(plan, wanted)
    names = {each.id for each in part}
    assert set(wanted) <= names
    assert all(each.needs <= names for each in part)
    assert all(each.id in wanted or downstream(plan, each.id) & set(wanted) for each in part)
    assert [each.id for each in part] == [each.id for each in plan if each.id in names]


def test_a_hole_is_named() -> None:
    with pytest.raises(PlanError) as caught:
        ordered([step("a", "lost")])
    assert "steps are missing: lost" in caught.value.why


def test_a_circle_is_refused() -> None:
    with pytest.raises(PlanError) as caught:
        ordered([step("a", "b"), step("b", "a")])
    assert "need one another" in caught.value.why


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(PlanError, match="not sound"):
        ordered([step("a"), step("a")])


def test_nothing_has_no_critical_path() -> None:
    assert critical_path([], {}) == []
