"""The decisions of a search, in a made-up world whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.compiler.search import Compared, Found, Limits, search
from nwmctl.compiler.search_rank import TIE, Speed, Tried, ranked, safety
from nwmctl.compiler.space import Offer, Space, make_space, recipe_key, said
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.figure import Obtained


@dataclass(frozen=True)
class Truth:
    """What is true of one recipe; ``told``: what the cost model says of it (None: nothing)."""

    ms: float
    told: float | None
    passes: bool | None = True
    fails: bool = False
    share: float = 0.5
    seconds: float = 1.0
    examined: bool = True


@dataclass
class FakeWorld:
    """Tells the truth, and counts what it is asked. ``error``: the factor that the cost model admits."""

    truths: Mapping[str, Truth]
    error: float = 1.0
    obtained: Obtained = Obtained.MEASURED
    kept: dict[float, Recipe] = field(default_factory=dict)
    evaluated: list[str] = field(default_factory=list)
    compared: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rooms: list[float] = field(default_factory=list)
    simulated: dict[str, float] = field(default_factory=dict)

    def forecast(self, recipe: Recipe, tried: Sequence[Tried]) -> Speed | None:
        told = self.truths[recipe_key(recipe)].told
        return None if told is None else Speed(told, self.error, Obtained.ESTIMATED)

    def rehearse(self, recipe: Recipe) -> float | None:
        return self.simulated.get(recipe_key(recipe))

    def evaluate(self, recipe: Recipe) -> Tried:
        truth = self.truths[recipe_key(recipe)]
        self.evaluated.append(recipe_key(recipe))
        if truth.fails:
            return Tried(recipe, "the toolchain failed", failed=True, seconds=truth.seconds)
        speed = Speed(truth.ms, 1.0, self.obtained)
        return Tried(
            recipe, "tried", truth.passes, speed=speed, parity_share=truth.share, seconds=truth.seconds,
            found_precision=recipe.precision,
        )  # fmt: skip

    def keep(self, base: Tried, room: float) -> Recipe | None:
        self.rooms.append(room)
        fitting = [size for size in self.kept if size <= room]
        return self.kept[max(fitting)] if fitting else None

    def compare(self, finalists: Sequence[Tried]) -> Mapping[str, Compared]:
        self.compared.append([recipe_key(each.recipe) for each in finalists])
        return {}

    def examine(self, winner: Tried) -> str:
        return "" if self.truths[recipe_key(winner.recipe)].examined else "it drives off the road"

    def note(self, text: str) -> None:
        self.notes.append(text)


def recipe(number: int, precision: Precision = Precision.FP32, **options: str) -> Recipe:
    return Recipe("fake", precision, {"number": number, **options})


def world_of(truths: dict[int, Truth], **change: object) -> tuple[Space, FakeWorld]:
    recipes = {number: recipe(number) for number in truths}
    world = FakeWorld({recipe_key(recipes[number]): truth for number, truth in truths.items()})
    for name, value in change.items():
        setattr(world, name, value)
    return Space(tuple(recipes.values())), world


def numbers(found: Found) -> list[object]:
    return [each.recipe.options["number"] for each in found.order]


_ms = st.floats(0.1, 100.0)


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[Space, FakeWorld]:
    error = draw(st.floats(1.0, 3.0))
    truths: dict[int, Truth] = {}
    for number in range(draw(st.integers(1, 9))):
        ms = draw(_ms)
        off = draw(st.floats(1 / error, error))
        told = None if draw(st.integers(0, 5)) == 0 else ms * off
        passes = draw(st.sampled_from([True, True, True, False, None]))
        fails, examined = draw(st.integers(0, 6)) == 0, draw(st.integers(0, 6)) > 0
        truths[number] = Truth(ms, told, passes, fails, seconds=draw(st.floats(0.0, 5.0)), examined=examined)
    # One part in a million of room for the rounding of the factor.
    return world_of(truths, error=error * (1 + 1e-6))


@given(_worlds())
@settings(max_examples=80, deadline=None)
def test_nothing_that_a_check_rejected_is_ever_ranked(made: tuple[Space, FakeWorld]) -> None:
    space, world = made
    found = search(space, Limits(), world)
    for each in found.order:
        truth = world.truths[recipe_key(each.recipe)]
        assert truth.passes is not False
        assert not truth.fails
    if found.order:
        assert world.truths[recipe_key(found.order[0].recipe)].examined
    assert len(found.tried) + len(found.skipped) == len(space.recipes), "every recipe is accounted for"


@given(_worlds())
@settings(max_examples=80, deadline=None)
def test_the_true_best_is_never_pruned_while_predictions_are_within_their_error(
    made: tuple[Space, FakeWorld],
) -> None:
    space, world = made
    found = search(space, Limits(), world)
    good = [t for t in world.truths.values() if t.passes and not t.fails and t.examined]
    passed = [each for each in found.order if each.passed]
    if good:
        best = min(truth.ms for truth in good)
        pruned = [skip for skip in found.skipped if world.truths[recipe_key(skip.recipe)].passes]
        rest = [world.truths[recipe_key(skip.recipe)].ms for skip in pruned if "predicted" in skip.reason]
        # What only loses its last check was the bound while others were pruned; those others stay pruned.
        if all(t.examined for t in world.truths.values()):
            assert passed
            assert passed[0].speed is not None
            assert passed[0].speed.ms <= best * (1 + TIE)
            assert all(ms > best for ms in rest)


@given(_worlds())
@settings(max_examples=50, deadline=None)
def test_the_same_facts_give_the_same_ranking(made: tuple[Space, FakeWorld]) -> None:
    space, world = made
    again = FakeWorld(world.truths, world.error)
    assert search(space, Limits(), world) == search(space, Limits(), again)
    assert world.evaluated == again.evaluated


@given(_worlds(), st.floats(0.0, 10.0), st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_budgets_are_kept(made: tuple[Space, FakeWorld], seconds: float, most: int) -> None:
    space, world = made
    found = search(space, Limits(most, seconds), world)
    before = 0.0
    for index, each in enumerate(found.tried):
        assert index == 0 or before < seconds, "nothing begins once the time is spent"
        before += each.seconds
    assert len(found.tried) <= 2 * most
    if any(each.passed for each in found.tried[:most]):
        assert len(found.tried) <= most


def test_a_hopeful_recipe_is_tried_before_the_others_and_the_hopeless_are_pruned() -> None:
    space, world = world_of({0: Truth(9.0, 9.0), 1: Truth(2.0, 2.0), 2: Truth(5.0, 5.0)}, error=1.5)
    found = search(space, Limits(), world)
    assert [each.recipe.options["number"] for each in found.tried] == [1]
    assert [skip.recipe.options["number"] for skip in found.skipped] == [2, 0]
    assert "at best 3.33 ms are predicted (error 50%), fake fp32 number=1 takes 2 ms" in found.skipped[0].reason
    assert any("is left out" in note for note in world.notes)


def test_inside_the_error_of_the_cost_model_nothing_is_pruned() -> None:
    space, world = world_of({0: Truth(1.9, 3.0), 1: Truth(2.0, 2.0)}, error=1.6)
    found = search(space, Limits(), world)
    assert numbers(found) == [0, 1]


def test_an_earlier_winner_gives_the_bound_and_saves_evaluations() -> None:
    # The cost model errs by a factor of two, so it would try the slow ones in its own order.
    truths = {0: Truth(8.0, 4.5), 1: Truth(9.0, 4.6), 2: Truth(2.0, 4.0), 3: Truth(1.0, None)}
    space, world = world_of(truths, error=2.0)
    cold = search(space, Limits(), world)
    learned = Space((space.recipes[3], *space.recipes[:3]), winners=1)
    warm = FakeWorld(world.truths, world.error)
    found = search(learned, Limits(), warm)
    assert numbers(cold)[0] == numbers(found)[0] == 3
    assert len(warm.evaluated) == 1
    assert len(world.evaluated) > len(warm.evaluated)


def test_where_nothing_is_measured_the_same_numbers_are_built_once() -> None:
    one, other, third = (Recipe("fake", Precision.FP16, {"level": n}) for n in ("O3", "O1", "O2"))
    scope = Recipe("fake", Precision.FP16, {"level": "O1", "fp16_scope": "all"})
    recipes = (one, other, scope)
    truths = {recipe_key(each): Truth(1.0, 1.0) for each in (*recipes, third)}
    estimated = FakeWorld(truths, 4.0, Obtained.ESTIMATED)
    found = search(Space(recipes), Limits(), estimated)
    assert [each.recipe for each in found.tried] == [one, scope]
    assert "it computes what fake fp16 level=O3 computes" in found.skipped[0].reason
    measured = FakeWorld(truths, 4.0)
    assert len(search(Space(recipes), Limits(), measured).tried) == 3
    truths[recipe_key(one)] = Truth(1.0, 1.0, fails=True)
    again = search(Space((one, other, third)), Limits(), FakeWorld(truths, 4.0, Obtained.ESTIMATED))
    assert [each.recipe for each in again.tried] == [one, other], "what was not built has told nothing"


def test_a_tie_goes_to_the_recipe_that_changes_the_numbers_least() -> None:
    fast, exact = recipe(0, Precision.INT8), recipe(1, Precision.FP32)
    truths = {recipe_key(fast): Truth(1.00, None), recipe_key(exact): Truth(1.02, None)}
    found = search(Space((fast, exact)), Limits(), FakeWorld(truths))
    assert found.winner is not None
    assert found.winner.recipe == exact
    assert "only 2.0% slower than fake int8 number=0" in found.ties[recipe_key(exact)]
    assert [each.recipe for each in found.order] == [exact, fast]


def test_estimates_share_their_error_so_less_tells_them_apart() -> None:
    fast, exact = recipe(0, Precision.FP16), recipe(1, Precision.FP32)
    truths = {recipe_key(fast): Truth(1.00, None), recipe_key(exact): Truth(1.02, None)}
    found = search(Space((fast, exact)), Limits(), FakeWorld(truths, obtained=Obtained.ESTIMATED))
    assert found.winner is not None
    assert found.winner.recipe == fast


def test_the_fastest_that_fails_its_last_check_gives_way() -> None:
    space, world = world_of({0: Truth(1.0, None, examined=False), 1: Truth(2.0, None)})
    found = search(space, Limits(), world)
    assert numbers(found) == [1]
    assert found.rejected == {recipe_key(recipe(0)): "it drives off the road"}


def test_what_cannot_be_judged_here_ranks_behind_what_passed() -> None:
    space, world = world_of({0: Truth(1.0, None, passes=None), 1: Truth(50.0, None)})
    assert numbers(search(space, Limits(), world)) == [1, 0]


def test_close_ones_are_compared_side_by_side_and_only_those() -> None:
    space, world = world_of({0: Truth(1.0, None), 1: Truth(1.01, None), 2: Truth(3.0, None)})
    search(space, Limits(), world)
    assert world.compared == [[recipe_key(recipe(0)), recipe_key(recipe(1))]]
    space, world = world_of({0: Truth(1.0, None), 1: Truth(1.01, None)}, obtained=Obtained.ESTIMATED)
    search(space, Limits(), world)
    assert world.compared == [], "estimates do not get better by being compared"


def test_the_last_chance_goes_to_the_safest_recipe() -> None:
    recipes = [recipe(n, Precision.INT8) for n in range(5)] + [recipe(5, Precision.FP32)]
    truths = {recipe_key(each): Truth(1.0, 1.0, passes=each.precision is Precision.FP32) for each in recipes}
    world = FakeWorld(truths, 1.1)
    found = search(Space(tuple(recipes)), Limits(most=3), world)
    assert numbers(found) == [5]
    assert len(found.tried) == 3


_INT8 = recipe(0, Precision.INT8, quantisation="static")
_SAFE = recipe(1, Precision.FP32)


def _mixed(part: str) -> Recipe:
    return recipe(0, Precision.INT8, quantisation="static", keep=part)


def _mixing(full: Truth, kept: dict[float, tuple[str, Truth]]) -> tuple[Space, FakeWorld]:
    truths = {recipe_key(_INT8): full, recipe_key(_SAFE): Truth(10.0, None)}
    truths |= {recipe_key(_mixed(part)): truth for part, truth in kept.values()}
    world = FakeWorld(truths, kept={room: _mixed(part) for room, (part, _) in kept.items()})
    return Space((_INT8, _SAFE), mixed=frozenset({"fake"})), world


def test_int8_that_is_refused_by_parity_passes_with_some_groups_kept() -> None:
    refused = Truth(3.0, None, passes=False, share=4.0)
    space, world = _mixing(
        refused, {1.0: ("a", Truth(4.0, None, passes=False, share=1.2)), 0.7: ("a,b", Truth(5.0, None))}
    )
    found = search(space, Limits(mixed=True), world)
    assert found.winner is not None
    assert found.winner.recipe == _mixed("a,b")
    assert world.rooms == [1.0, pytest.approx(0.7)], "the first assignment failed in the artifact, so the room shrinks"


def test_int8_whose_error_is_simulated_far_beyond_the_margins_is_mixed_without_being_built() -> None:
    space, world = _mixing(Truth(3.0, 3.0, passes=False, share=4.0), {1.0: ("a", Truth(4.0, None))})
    world.simulated[recipe_key(_INT8)] = 3.9
    found = search(space, Limits(mixed=True), world)
    assert found.winner is not None
    assert found.winner.recipe == _mixed("a")
    assert recipe_key(_INT8) not in world.evaluated
    assert found.skipped[0].reason == "its parity error is simulated as 3.9 times the margins"
    near, again = _mixing(Truth(3.0, 3.0, passes=False, share=1.2), {1.0: ("a", Truth(4.0, None))})
    again.simulated[recipe_key(_INT8)] = 1.2
    search(near, Limits(mixed=True), again)
    assert recipe_key(_INT8) in again.evaluated, "so near the margin a simulation decides nothing"


def test_int8_that_passes_is_bettered_at_half_its_error() -> None:
    space, world = _mixing(Truth(3.0, None, share=0.8), {0.4: ("a", Truth(3.05, None, share=0.35))})
    found = search(space, Limits(mixed=True), world)
    assert world.rooms == [pytest.approx(0.4)]
    assert found.winner is not None
    assert found.winner.recipe == _mixed("a"), "as fast as can be told, and safer"


def test_no_mixing_where_it_cannot_win_or_is_not_asked_for() -> None:
    slow = Truth(30.0, None, passes=False, share=4.0)
    space, world = _mixing(slow, {1.0: ("a", Truth(31.0, None))})
    assert search(space, Limits(mixed=True), world).winner is not None
    assert world.rooms == []
    space, world = _mixing(Truth(3.0, None, passes=False, share=4.0), {1.0: ("a", Truth(4.0, None))})
    assert search(space, Limits(), world).winner is not None
    assert world.rooms == []


# --- the space ----------------------------------------------------------------------------------------------------


def test_the_space_takes_one_of_each_driver_in_turn_behind_winners() -> None:
    one, two = (Recipe("a", Precision.FP32, {"n": n}) for n in (1, 2))
    other, won = Recipe("b", Precision.FP32), Recipe("b", Precision.INT8)
    space = make_space([Offer("a", (one, two), mixed=True), Offer("b", (other, won))], [two], [won])
    assert space.recipes == (won, one, other, two)
    assert (space.winners, space.mixed, space.left_out) == (1, frozenset({"a"}), ())


def test_a_recipe_of_the_profile_that_an_offer_spells_out_is_not_built_twice() -> None:
    offer = Recipe("a", Precision.FP16, {"level": "O3", "scope": "all"})
    own = [Recipe("a", Precision.FP16, {"level": "O3"}), Recipe("a", Precision.FP16, {"level": "O1"})]
    assert make_space([Offer("a", (offer,))], own, []).recipes == (offer, own[1])


def test_what_is_not_installed_is_named() -> None:
    gone = Offer("a", (Recipe("a", Precision.FP32),), absent="the package is not installed")
    space = make_space([gone, Offer("b", (Recipe("b", Precision.FP32),))], [Recipe("c", Precision.FP32)], [])
    assert [each.toolchain for each in space.recipes] == ["b"]
    assert space.left_out == ("a: the package is not installed", "c: no such toolchain is installed here")


def test_a_backup_leaves_the_other_toolchain_out_where_another_exists() -> None:
    offers = [Offer("a", (Recipe("a", Precision.FP32),)), Offer("b", (Recipe("b", Precision.FP32),))]
    space = make_space(offers, [], [], unlike=["a"])
    assert [each.toolchain for each in space.recipes] == ["b"]
    assert space.left_out == ("a: another role's build uses it, and this one must not",)
    alone = make_space(offers[:1], [], [], unlike=["a"])
    assert [each.toolchain for each in alone.recipes] == ["a"]
    assert "no toolchain but a builds for this unit here" in alone.left_out[0]


def test_words_for_a_recipe() -> None:
    made = Recipe("iree", Precision.INT8, {"quantisation": "static", "keep": "a,b,c"})
    assert said(made) == "iree int8 quantisation=static keep=3 groups"


def test_safety_orders_the_precisions() -> None:
    kinds = [
        Recipe("t", Precision.FP32),
        Recipe("t", Precision.FP16),
        Recipe("t", Precision.BF16),
        Recipe("t", Precision.INT8, {"quantisation": "static", "keep": "a"}),
        Recipe("t", Precision.INT8, {"quantisation": "static"}),
        Recipe("t", Precision.INT8, {"quantisation": "dynamic"}),
    ]
    assert [safety(each) for each in kinds] == sorted({safety(each) for each in kinds})


def test_without_any_speed_the_safest_leads() -> None:
    order, ties = ranked([Tried(recipe(0, Precision.INT8), "", True), Tried(recipe(1), "", True)])
    assert order[0].recipe == recipe(1)
    assert "nothing here tells how fast it is" in ties.get(recipe_key(recipe(1)), "nothing here tells how fast it is")


def test_of_equals_the_one_that_is_finished_wins() -> None:
    speed = Speed(1.0, 4.0, Obtained.ESTIMATED)
    jit = Tried(recipe(0), "", True, speed=speed, jit=True, place=0)
    finished = Tried(recipe(1), "", True, speed=speed, place=1)
    assert ranked([jit, finished])[0] == [finished, jit]


@pytest.mark.parametrize(("ms", "factor"), [(0.0, 1.0), (float("nan"), 1.0), (float("inf"), 1.0), (1.0, 0.9)])
def test_what_is_no_speed_is_refused(ms: float, factor: float) -> None:
    with pytest.raises(ValueError, match="is no speed"):
        Speed(ms, factor, Obtained.MEASURED)
