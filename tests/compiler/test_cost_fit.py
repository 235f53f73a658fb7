"""The fit finds constants that it was not told, says how far off it is, and keeps to what was measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.compiler.cost import predict
from nwmctl.compiler.cost_fit import Measured, fit, start_values
from nwmctl.compiler.cost_work import INDEX, NAMES, Floats, times, work_of
from nwmctl.compiler.graph import GraphCount
from nwmctl.domain.artifact import Recipe
from nwmctl.domain.figure import Obtained
from nwmctl.domain.prediction import CostFit
from nwmctl.formats import documents
from tests.compiler.counts import chip, recipe, stack

HOST = chip(None)
SHAPES = ((1, 32, 40), (4, 64, 10), (64, 256, 3), (256, 512, 2), (2, 2048, 2), (512, 128, 4), (16, 1024, 1))
RECIPES = (
    recipe("iree", "fp32", opt_level="O2"),
    recipe("iree", "fp32", opt_level="O3"),
    recipe("iree", "fp16", opt_level="O3"),
    recipe("openvino", "fp32"),
    recipe("openvino", "int8", quantisation="static"),
)


def machine(toolchain: str, options: str) -> Floats:
    """A made-up machine's constants, off the fit's start values by factors of up to five."""
    dice = np.random.default_rng(sum(map(ord, toolchain)))
    factors = np.exp(dice.uniform(-math.log(5), math.log(5), len(NAMES)))
    found: Floats = start_values("host") * factors
    if "O2" in options:
        found[INDEX["product fp32"]] *= 0.6
    return found


def took(count: GraphCount, one: Recipe) -> float:
    work = work_of(count, one, "host", None)
    return times(work, machine(one.toolchain, str(one.options))).ms


def measured(noise: float = 0.0, seed: int = 0) -> list[Measured]:
    dice = np.random.default_rng(seed)
    return [
        Measured(
            f"model{index}", stack(*shape), "host", one, took(stack(*shape), one) * math.exp(dice.normal(0, noise))
        )
        for index, shape in enumerate(SHAPES)
        for one in RECIPES
    ]


def learned(points: list[Measured]) -> CostFit:
    return fit(points, "chip", Obtained.MEASURED, "made up")


@pytest.mark.parametrize("one", RECIPES, ids=lambda one: f"{one.toolchain} {one.precision}")
def test_an_unseen_model_is_predicted(one: Recipe) -> None:
    unseen = stack(128, 384, 6)
    found = predict(unseen, HOST, "host", one, learned(measured(0.03)))
    assert found.ms == pytest.approx(took(unseen, one), rel=0.25)
    assert found.fitted
    assert "measured on chip" in found.source
    assert found.error.points > 0


def test_the_stated_error_is_of_models_that_the_fit_had_not_seen() -> None:
    constants = learned(measured(0.03)).constants
    for each in constants:
        assert each.error.models == len(SHAPES)
        assert 0.0 < each.error.median <= each.error.worst
    rough = learned(measured(0.6)).constants
    assert np.mean([each.error.median for each in rough]) > 2 * np.mean([each.error.median for each in constants])


def test_one_wild_measurement_moves_little() -> None:
    points = measured(0.03)
    wild = [*points[:-8], Measured(points[-8].model, points[-8].count, "host", points[-8].recipe, points[-8].ms * 20)]
    wild += points[-7:]
    unseen, one = stack(128, 384, 6), points[-8].recipe
    found = predict(unseen, HOST, "host", one, learned(wild))
    assert found.ms == pytest.approx(took(unseen, one), rel=0.6)


def test_a_form_that_nobody_measured_is_missing_rather_than_guessed() -> None:
    only = [each for each in measured() if each.recipe == RECIPES[3]]
    found = predict(stack(4, 64, 2), HOST, "host", RECIPES[4], learned(only))
    assert found.ms is None
    assert not found.fitted


def test_other_options_of_a_toolchain_borrow_and_say_so() -> None:
    found = predict(stack(64, 256, 2), HOST, "host", recipe("iree", "fp32", opt_level="O1"), learned(measured()))
    assert found.fitted
    assert "other options" in found.source


def test_a_fit_of_another_chip_is_not_used() -> None:
    other = fit(measured(), "another", Obtained.MEASURED, "made up")
    assert not predict(stack(64, 256, 2), HOST, "host", RECIPES[0], other).fitted


def test_mixed_precision_lies_between_its_parts() -> None:
    made = learned(measured())
    count = stack(256, 512, 4)
    options = {"quantisation": "static"}
    whole, none = recipe("openvino", "int8", **options), recipe("openvino", "fp32")
    half = recipe("openvino", "int8", keep="layer0,layer2", **options)
    low, high = sorted(predict(count, HOST, "host", each, made).ms or 0.0 for each in (whole, none))
    between = predict(count, HOST, "host", half, made).ms
    assert between is not None
    assert low <= between <= high


def test_weights_that_fit_into_the_cache_have_a_constant_of_their_own() -> None:
    small, large = stack(1, 512, 2), stack(1, 2048, 4)
    points = [
        Measured(name, count, "host", RECIPES[3], ms)
        for name, count, ms in (("small", small, 0.05), ("large", large, 10.0))
    ]
    rates = fit(points, "chip", Obtained.MEASURED, "made up", 8 << 20).constants[0].rates
    assert rates["cached_weights_gb_per_s"] > 2 * rates["weights_gb_per_s"]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10_000))
def test_few_measurements_are_enough_for_finite_constants(size: int, seed: int) -> None:
    points = measured(0.2, seed)
    some = [points[int(i)] for i in np.random.default_rng(seed).choice(len(points), size, replace=False)]
    made = learned(some)
    for each in made.constants:
        assert all(0 < value < math.inf for value in (*each.rates.values(), *each.products.values()))
    assert documents.decode(CostFit, documents.encode(made), "fit") == made
    assert documents.encode(learned(some)) == documents.encode(made)


def test_a_latency_is_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        Measured("m", stack(1, 8, 1), "host", RECIPES[0], 0.0)
