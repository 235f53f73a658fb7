"""Predictions against figures worked out by hand, what they refuse to invent, ranking, and pruning."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.compiler.cost import Basis, may_prune, node_ms, predict, rank
from nwmctl.compiler.cost_forms import ASSUMED_ERROR, BANDWIDTH_EFFICIENCY, efficiency
from nwmctl.domain.artifact import Precision
from nwmctl.domain.figure import Confidence, Figure, Obtained
from nwmctl.domain.platform import Chip, PlatformProfile
from nwmctl.domain.prediction import Prediction, PredictionError
from nwmctl.domain.roofline import Bound, balance, memory_ms, roof, work_ms
from nwmctl.formats import documents
from nwmctl.storage.resources import platforms_folder
from tests.compiler.counts import chip, recipe, stack

GPU = chip(100.0, gpu_fp32=5.0, gpu_fp16=40.0, gpu_int8=80.0)


def profile(name: str) -> PlatformProfile:
    path: Path = platforms_folder() / f"{name}.yaml"
    return documents.decode_yaml(PlatformProfile, path.read_bytes(), path.name)


def nx9031() -> Chip:
    """As its profile has it, but nobody knows what it reaches in bf16."""
    chip = profile("nt2.5").chips[0]
    unknown = Figure(None, "TFLOPS", "not published", Confidence.UNKNOWN)
    return replace(chip, peaks={**chip.peaks, "cpu.bf16": unknown})


def test_both_roofs() -> None:
    assert work_ms(5e9, 5.0) == pytest.approx(1.0)
    assert memory_ms(1e8, 100.0) == pytest.approx(1.0)
    high = roof(1e10, 1e8, 5.0, 100.0)
    assert (high.ms, high.bound) == (pytest.approx(2.0), Bound.ARITHMETIC)
    assert roof(1.0, 1e8, 5.0, 100.0).bound is Bound.BANDWIDTH
    assert balance(5.0, 100.0) == pytest.approx(50.0)


def test_arithmetic_binds_a_large_product() -> None:
    count = stack(rows=2048, wide=2048, layers=1)
    found = predict(count, GPU, "gpu", recipe(), rate_hz=10.0)
    product = count.nodes[0].flops / (5e12 * efficiency("gpu"))
    assert found.bound is Bound.ARITHMETIC
    assert found.ms == pytest.approx(1e3 * product, rel=0.15)  # the rest: launch and nonlinearity
    assert found.frame_share == pytest.approx(found.ms * 10.0 / 1e3 if found.ms else None)
    assert found.obtained is Obtained.ESTIMATED
    assert not found.fitted
    assert "assumed" in found.source
    assert found.error is ASSUMED_ERROR


def test_weights_bind_a_product_of_one_row() -> None:
    found = predict(stack(rows=1, wide=4096, layers=4), GPU, "gpu", recipe())
    moved = 4 * 4 * 4096 * 4096
    assert found.bound is Bound.BANDWIDTH
    assert found.weight_bytes == moved
    assert found.ms == pytest.approx(memory_ms(moved, 100.0 * BANDWIDTH_EFFICIENCY), rel=0.1)


def test_launches_bind_a_tiny_model() -> None:
    assert predict(stack(rows=1, wide=8, layers=50), GPU, "gpu", recipe()).bound is Bound.OVERHEAD


def test_each_layer_says_what_binds_it_and_the_layers_add_up() -> None:
    count = stack(rows=64, wide=512, layers=3)
    found = predict(count, GPU, "gpu", recipe())
    assert [layer.name for layer in found.layers] == ["layer0", "layer1", "layer2"]
    assert sum(layer.flops for layer in found.layers) == found.flops == sum(node.flops for node in count.nodes)
    assert sum(layer.weight_bytes for layer in found.layers) == found.weight_bytes
    call, each = node_ms(count, GPU, "gpu", recipe()) or (0.0, ())
    assert call + sum(each) == pytest.approx(found.ms)
    assert found.ms == pytest.approx(call + sum(layer.ms or 0.0 for layer in found.layers))


def test_what_is_fused_moves_nothing_of_its_own() -> None:
    count = stack(rows=64, wide=512, layers=1)
    fused = predict(count, GPU, "gpu", recipe())
    apart = predict(replace(count, nodes=tuple(replace(n, fusable=False) for n in count.nodes)), GPU, "gpu", recipe())
    assert apart.activation_bytes - fused.activation_bytes == 4 * 2 * 64 * 512
    assert fused.ms is not None
    assert apart.ms is not None
    assert fused.ms < apart.ms
    interpreted = predict(count, GPU, "gpu", recipe("onnxruntime"))
    assert interpreted.activation_bytes == apart.activation_bytes


def test_half_precision_halves_the_weights_and_uses_its_own_peak() -> None:
    count = stack(rows=2048, wide=2048, layers=2)
    full, half = (predict(count, GPU, "gpu", recipe(precision=each)) for each in ("fp32", "fp16"))
    assert 2 * half.weight_bytes == full.weight_bytes
    assert half.ms is not None
    assert full.ms is not None
    assert half.ms < full.ms / 3


def test_groups_that_are_kept_stay_wide() -> None:
    count = stack(rows=64, wide=512, layers=4)
    some = recipe("openvino", "int8", quantisation="static", keep="layer1, layer3")
    whole = recipe("openvino", "int8", quantisation="static")
    none = recipe("openvino", "int8", quantisation="static", keep="layer0,layer1,layer2,layer3")
    sizes = [predict(count, GPU, "gpu", each).weight_bytes for each in (whole, some, none)]
    assert sizes == [512 * 512 * 4, 512 * 512 * (2 * 1 + 2 * 4), 512 * 512 * 4 * 4]


def test_int8_of_a_compiler_without_integer_code_is_no_faster() -> None:
    count = stack(rows=2048, wide=2048, layers=2)
    integers, floats = (
        predict(count, GPU, "gpu", each) for each in (recipe("iree", "int8", quantisation="static"), recipe())
    )
    assert integers.ms is not None
    assert floats.ms is not None
    assert integers.ms > 0.9 * floats.ms
    seen = predict(count, GPU, "gpu", recipe("iree", "int8", quantisation="static"), found=Precision.INT8)
    assert seen.ms is not None
    assert seen.ms < integers.ms / 4


def test_an_unknown_peak_is_named_and_not_replaced() -> None:
    count = stack(rows=64, wide=512, layers=2)
    found = predict(count, nx9031(), "cpu", recipe(precision="bf16", data_tiling=True))
    assert found.ms is None
    assert found.frame_share is None
    assert found.missing == ("peak of cpu in bf16 of nx9031",)
    assert [layer.ms for layer in found.layers] == [None, None]
    assert found.weight_bytes == 2 * 2 * 512 * 512
    assert predict(count, nx9031(), "cpu", recipe()).ms is not None


def test_an_unknown_bandwidth_is_named() -> None:
    found = predict(stack(4, 64, 2), chip(None, gpu_fp32=5.0), "gpu", recipe())
    assert found.missing == ("memory bandwidth of chip",)


def test_a_ranking_stands_on_one_basis() -> None:
    count = stack(rows=64, wide=512, layers=2)
    slow, fast, unknown = (
        predict(count, nx9031(), "cpu", recipe(precision="fp32")),
        predict(stack(64, 256, 2), nx9031(), "cpu", recipe(precision="fp32")),
        predict(count, nx9031(), "cpu", recipe(precision="bf16", data_tiling=True)),
    )
    assert rank([slow, fast]).order == (1, 0)
    assert rank([slow, fast]).basis is Basis.TIME
    by_bytes = rank([slow, unknown])
    assert (by_bytes.basis, by_bytes.order) == (Basis.BYTES, (1, 0))
    assert "peak of cpu in bf16" in by_bytes.why
    counted = rank([slow, unknown], {0: 100, 1: 200})
    assert (counted.basis, counted.order) == (Basis.INSTRUCTIONS, (0, 1))
    assert rank([slow, unknown], {0: 100}).basis is Basis.BYTES


def test_a_prediction_without_a_time_is_never_pruned_and_never_pretends() -> None:
    found = predict(stack(64, 512, 2), nx9031(), "cpu", recipe(precision="bf16", data_tiling=True))
    assert not may_prune(1e-9, None, found)
    with pytest.raises(ValueError, match="missing figures"):
        replace(found, ms=1.0)


def _prediction(ms: float, worst: float) -> Prediction:
    whole = predict(stack(1, 8, 1), GPU, "gpu", recipe())
    return replace(whole, ms=ms, error=PredictionError(9, 3, 0.0, worst))


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(0.0, 2.0), st.floats(-1.0, 1.0)), min_size=2, max_size=12),
    st.booleans(),
)
def test_no_good_candidate_is_pruned_while_the_error_holds(
    drawn: list[tuple[float, float, float]], measured: bool
) -> None:
    """Each candidate has a true time and a prediction off by at most its stated error; whichever is believed to be
    best prunes the others: the truly fastest always stays."""
    truths = [true for true, _, _ in drawn]
    told = [_prediction(true * math.exp(share * math.log1p(worst)), worst * 1.000001) for true, worst, share in drawn]
    fastest = min(range(len(truths)), key=lambda index: truths[index])
    for index, other in enumerate(told):
        best = truths[index] if measured else other.ms
        assert best is not None
        assert not may_prune(best, None if measured else other.error, told[fastest])


def test_what_is_hopeless_is_pruned() -> None:
    assert may_prune(1.0, None, _prediction(2.5, 1.0))
    assert not may_prune(1.0, None, _prediction(1.9, 1.0))
    assert not may_prune(1.0, PredictionError(9, 3, 0.0, 1.0), _prediction(2.5, 1.0))
