"""What the cost model tells a search: one basis for one search, what is found counts, and what was measured teaches."""

from __future__ import annotations

import pytest

from nwmctl.compiler.graph import GraphCount, Kind, NodeCount
from nwmctl.compiler.search_rank import Speed, Tried
from nwmctl.compiler.space import recipe_key
from nwmctl.domain.artifact import Option, Precision, Recipe
from nwmctl.domain.figure import Confidence, Figure, Obtained
from nwmctl.domain.measurement import Latency
from nwmctl.domain.platform import Chip
from nwmctl.steps.search_cost import Oracle, prediction_error

COUNT = GraphCount(
    tuple(
        NodeCount(f"/{layer}/MatMul", "MatMul", layer, Kind.PRODUCT, 2 * size * 64, size, 4096, 4096, rows=64)
        for layer, size in (("head", 1 << 16), ("body", 1 << 22))
    ),
    (1 << 16) + (1 << 22),
)
STATIC: dict[str, Option] = {"quantisation": "static", "data_tiling": True}


def known(value: float, unit: str) -> Figure:
    return Figure(value, unit, "made up", Confidence.ASSUMED)


def oracle(unit: str = "cpu", **peaks: float) -> Oracle:
    figures = {f"{unit}.{name}": known(value, "TFLOPS") for name, value in peaks.items()}
    chip = Chip("chip", "made up", known(100.0, "GB/s"), known(8.0, "GB"), figures)
    return Oracle(COUNT, chip, unit, 20.0, "model")


def test_where_every_peak_is_known_a_forecast_is_a_time() -> None:
    asked = oracle(fp32=1.0, int8=4.0)
    recipes = [Recipe("iree", Precision.FP32), Recipe("iree", Precision.INT8, STATIC)]
    assert asked.choose_basis(recipes) == ""
    speeds = [asked.forecast(recipe, ()) for recipe in recipes]
    assert all(speed is not None and speed.unit == "ms" and speed.obtained is Obtained.ESTIMATED for speed in speeds)
    assert speeds[0] is not None
    assert speeds[1] is not None
    assert speeds[1].ms < speeds[0].ms
    assert speeds[0].factor > 2, "nothing was measured, and the error says so"


def test_where_the_peak_of_a_narrower_format_is_missing_that_of_fp32_stands_in() -> None:
    asked = oracle(fp32=1.0)
    rest = Recipe("iree", Precision.INT8, {**STATIC, "rest": "bf16"})
    recipes = [Recipe("iree", Precision.FP32), Recipe("iree", Precision.BF16), rest, Recipe("iree", Precision.FP16)]
    said = asked.choose_basis(recipes)
    assert "does not know the peak of cpu in bf16 of chip" in said
    assert said.endswith("fp32's stands in, an upper bound")
    speeds = [asked.forecast(recipe, ()) for recipe in recipes]
    assert all(speed is not None and speed.unit == "ms" for speed in speeds)
    assert asked.estimate(recipes[1], Precision.BF16) == speeds[1]
    assert asked.estimate(rest, Precision.INT8) is not None


def test_where_fp32_is_unknown_too_all_are_compared_by_bytes_and_nothing_is_pruned_by_them() -> None:
    asked = oracle(int8=4.0)
    recipes = [Recipe("iree", Precision.FP32), Recipe("iree", Precision.BF16)]
    assert "does not know the peak of cpu in fp32 of chip" in asked.choose_basis(recipes)
    wide, half = (asked.forecast(recipe, ()) for recipe in recipes)
    assert wide is not None
    assert half is not None
    assert (wide.unit, half.unit) == ("MB moved", "MB moved")
    assert half.ms < wide.ms
    assert half.high > wide.low, "no difference in bytes proves one in time"


def test_an_artifact_is_estimated_by_what_is_in_it() -> None:
    asked = oracle(fp32=1.0, int8=4.0)
    recipe = Recipe("iree", Precision.INT8, STATIC)
    asked.choose_basis([recipe])
    plain = asked.estimate(Recipe("iree", Precision.FP32, {"data_tiling": True}), Precision.FP32)
    assert asked.estimate(recipe, Precision.FP32) == plain
    promised = asked.estimate(recipe, Precision.INT8)
    assert promised is not None
    assert plain is not None
    assert promised.ms < plain.ms


def test_what_a_group_saves() -> None:
    asked = oracle(fp32=1.0, int8=4.0)
    recipe = Recipe("iree", Precision.INT8, STATIC)
    asked.choose_basis([recipe])
    gain = asked.gain(recipe)
    assert gain("body") > gain("head")
    assert 0 < gain("nobody knows it") < gain("body")


def measured(recipe: Recipe, ms: float) -> Tried:
    latency = Latency(10, ms, ms, ms, ms, 0, 50.0, "none", 0.0, Obtained.MEASURED)
    return Tried(recipe, "", True, speed=Speed(ms, 1.03, Obtained.MEASURED), latency=latency)


def test_measurements_of_this_search_move_its_forecasts() -> None:
    asked = oracle("host", fp32=1.0)
    one, other = (Recipe("onnxruntime", Precision.FP32, {"level": level}) for level in (1, 2))
    before = asked.forecast(other, ())
    after = asked.forecast(other, [measured(one, 40.0)])
    assert before is not None
    assert after is not None
    assert abs(after.ms - 40.0) < abs(before.ms - 40.0)


def test_the_error_of_predictions_is_that_of_times_that_were_measured() -> None:
    recipes = [Recipe("a", Precision.FP32, {"n": n}) for n in range(4)]
    tried = [measured(recipe, 10.0) for recipe in recipes]
    forecasts = {
        recipe_key(recipes[0]): Speed(11.0, 2.0, Obtained.ESTIMATED),
        recipe_key(recipes[1]): Speed(13.0, 2.0, Obtained.ESTIMATED),
        recipe_key(recipes[2]): Speed(500.0, 2.0, Obtained.ESTIMATED, "MB moved"),
    }
    assert prediction_error(forecasts, tried) == pytest.approx(0.2)
    assert prediction_error({}, tried) is None
