"""The choice of groups, against a made-up error whose truth is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.compiler.sensitivity import Effect, assign, measure_groups

Error = Callable[[frozenset[str]], float]


def rooted(errors: dict[str, float], pairs: dict[frozenset[str], float] | None = None) -> Error:
    """Errors that add up as independent ones do, and some pairs that are worse together."""

    def error(quantised: frozenset[str]) -> float:
        own = math.sqrt(sum(errors[group] ** 2 for group in sorted(quantised)))
        return own + sum(more for pair, more in (pairs or {}).items() if pair <= quantised)

    return error


_groups = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.floats(0.0, 2.0), st.floats(-0.5, 5.0)), min_size=1, max_size=8
)


@given(_groups, st.floats(0.01, 3.0), st.integers(1, 60))
@settings(max_examples=80, deadline=None)
def test_what_is_returned_was_asked_and_lies_within_the_room(
    groups: dict[str, tuple[float, float]], room: float, questions: int
) -> None:
    error, asked = rooted({name: e for name, (e, _) in groups.items()}), []

    def ask(quantised: frozenset[str]) -> float:
        asked.append(quantised)
        return error(quantised)

    effects = [Effect(name, e, g) for name, (e, g) in groups.items()]
    found = assign(effects, room, ask, questions)
    assert len(asked) <= questions
    if found is None:
        return
    quantised = frozenset(groups) - frozenset(found.keep)
    assert quantised
    assert quantised in asked
    assert found.error == error(quantised) <= room
    assert found.gain > 0
    assert all(groups[name][1] > 0 for name in quantised), "what gains nothing stays float"
    assert assign(effects, room, error, questions) == found


@given(_groups, st.floats(0.01, 3.0))
@settings(max_examples=80, deadline=None)
def test_it_finds_at_least_the_best_single_group_and_nothing_more_can_be_added(
    groups: dict[str, tuple[float, float]], room: float
) -> None:
    error = rooted({name: e for name, (e, _) in groups.items()})
    effects = [Effect(name, e, g) for name, (e, g) in groups.items()]
    found = assign(effects, room, error, 10_000)
    fitting = [
        frozenset(part)
        for size in range(1, len(groups) + 1)
        for part in itertools.combinations(sorted(name for name, (_, g) in groups.items() if g > 0), size)
        if error(frozenset(part)) <= room
    ]
    if not fitting:
        assert found is None
        return
    assert found is not None
    quantised = frozenset(groups) - frozenset(found.keep)
    worth = {part: sum(groups[name][1] for name in part) for part in fitting}
    assert found.gain >= max(worth[part] for part in fitting if len(part) == 1) - 1e-9
    assert not any(part > quantised for part in fitting), "another group would have fitted"
    assert found.gain >= 0.5 * max(worth.values())


def test_the_expensive_group_stays_float() -> None:
    effects = measure_groups(("head", "body", "neck"), {"head": 1.0, "body": 5.0, "neck": 1.0}.__getitem__,
                             rooted({"head": 3.0, "body": 0.2, "neck": 0.1}))  # fmt: skip
    assert [effect.group for effect in effects] == ["head", "neck", "body"]
    found = assign(effects, 1.0, rooted({"head": 3.0, "body": 0.2, "neck": 0.1}))
    assert found is not None
    assert found.keep == ("head",)


def test_groups_that_are_worse_together_are_found_by_asking() -> None:
    errors = {"a": 0.3, "b": 0.3, "c": 0.3}
    together = rooted(errors, {frozenset({"a", "b"}): 2.0})
    effects = measure_groups(tuple(errors), {"a": 3.0, "b": 2.0, "c": 1.0}.__getitem__, together)
    found = assign(effects, 1.0, together)
    assert found is not None
    assert found.keep == ("b",), "a and c fit; a and b, whose errors alone are as small, do not"


def test_nothing_fits() -> None:
    effects = [Effect("a", 2.0, 1.0), Effect("b", 3.0, 1.0)]
    assert assign(effects, 1.0, rooted({"a": 2.0, "b": 3.0})) is None
    assert assign([Effect("a", 0.0, -1.0)], 1.0, rooted({"a": 0.0})) is None
