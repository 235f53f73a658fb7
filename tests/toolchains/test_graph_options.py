"""Options of the graph: read the same for every driver, refused by name."""

from __future__ import annotations

import pytest

from nwmctl.domain.artifact import Option, Precision, Quantisation, Recipe
from nwmctl.errors import RecipeOptionError
from nwmctl.toolchains.graph_options import graph_order, keep_option, known, own_options
from nwmctl.toolchains.lowering import Integers, LoweringOrder, Scope

INT8 = Precision.INT8


def recipe(precision: Precision, **options: Option) -> Recipe:
    return Recipe("some", precision, dict(options))


def test_an_int8_recipe_becomes_an_order() -> None:
    asked = recipe(INT8, quantisation="weights", keep="b, a,,b", rest="fp16", integers="unsigned", merge=True, level=3)
    assert graph_order(asked, None) == LoweringOrder(
        INT8, Scope.MATMUL, None, Quantisation.WEIGHTS, ("a", "b"), Integers.UNSIGNED, Precision.FP16, True
    )
    assert own_options(asked) == {"level": 3}


def test_a_driver_says_its_defaults() -> None:
    order = graph_order(recipe(INT8), 1, quantisation=Quantisation.DYNAMIC, integers=Integers.NARROW, merge=True)
    assert (order.quantisation, order.integers, order.merge) == (Quantisation.DYNAMIC, Integers.NARROW, True)
    assert graph_order(recipe(Precision.FP32), 1) == LoweringOrder(Precision.FP32)


def test_bf16_leaves_the_graph_in_fp32_and_fp16_has_a_scope() -> None:
    assert graph_order(recipe(Precision.BF16), 1) == LoweringOrder(Precision.FP32)
    scoped = graph_order(recipe(Precision.FP16, fp16_scope="all"), 1)
    assert scoped == LoweringOrder(Precision.FP16, Scope.ALL)


def test_an_int8_option_of_another_precision_is_the_drivers_to_refuse() -> None:
    assert own_options(recipe(Precision.FP32, keep="a")) == {"keep": "a"}
    assert set(known(Precision.FP32)) == {"merge"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("quantisation", "full"), ("keep", 3), ("rest", "int8"), ("rest", 1), ("integers", "huge"), ("merge", "yes")],
)
def test_a_wrong_value_is_refused_with_what_is_possible(name: str, value: Option) -> None:
    with pytest.raises(RecipeOptionError) as caught:
        graph_order(recipe(INT8, **{name: value}), 1)
    assert f"'{name}'" in caught.value.what
    assert known(INT8)[name] in caught.value.why


def test_the_same_choice_is_the_same_text() -> None:
    assert keep_option(["b", "a", "b"]) == keep_option(["a", "b"]) == "a,b"
