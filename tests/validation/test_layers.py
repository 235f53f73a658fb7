"""The bandwidth table: layer by layer it adds up to the step, and it comes back out of evidence unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.compiler.graph import graph_cost
from nwmctl.domain.artifact import Precision
from nwmctl.domain.cost import LayerCost, StepCost
from nwmctl.domain.evidence import Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.formats import documents
from nwmctl.toolchains.layers import OUTSIDE, layer_of
from nwmctl.validation.budget import check_budget
from nwmctl.validation.layers import OTHERS, TOP, heaviest, layer_rows
from nwmctl.validation.suite import Settings, Subject
from tests.validation import plant
from tests.validation.example import MODEL

SETTINGS = Settings(plant.RULES)
COUNTS = st.integers(0, 10**9)


@pytest.fixture
def clean(tmp_path: Path) -> Subject:
    return plant.subject(tmp_path, plant.half_precision)


def step(*layers: LayerCost) -> StepCost:
    weights, activations = sum(each.weight_bytes for each in layers), sum(each.activation_bytes for each in layers)
    return StepCost(weights, activations, sum(each.flops for each in layers), layers)


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("/blocks.0/key/MatMul/MatMulAddFusion", "blocks.0.key"),
        ("/blocks.0/MatMul_1", "blocks.0"),
        ("/control_head/control_head.0/Gemm", "control_head.0"),
        ("/norm/LayerNormalization", "norm"),
        ("/vision/stage.3/conv1/Conv", "vision.stage.3"),
        ("/Add_12", OUTSIDE),
        ("Gemm_7", OUTSIDE),
        ("", OUTSIDE),
    ],
)
def test_a_node_belongs_to_the_layer_that_its_exporter_named(node: str, layer: str) -> None:
    assert layer_of(node) == layer


def test_the_layers_of_the_example_add_up_to_its_step() -> None:
    cost = graph_cost(MODEL / "model.onnx", Precision.FP16).step
    for what in ("weight_bytes", "activation_bytes", "flops"):
        assert sum(getattr(layer, what) for layer in cost.layers) == getattr(cost, what)
    names = {layer.name for layer in cost.layers}
    assert {"blocks.0.up", "blocks.0.down", "blocks.0.key", "control_head.0"} <= names


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS), max_size=30))
def test_the_heaviest_come_first_and_nothing_is_lost(counts: list[tuple[int, int, int]]) -> None:
    cost = step(*(LayerCost(f"layer{i}", *each) for i, each in enumerate(counts)))
    found = heaviest(cost)
    assert sum(layer.moved_bytes for layer in found) == cost.moved_bytes
    named = [layer.moved_bytes for layer in found if layer.name != OTHERS]
    assert named == sorted(named, reverse=True)
    assert len(found) <= TOP + 1


def test_the_table_comes_back_out_of_evidence(clean: Subject) -> None:
    cost = step(
        LayerCost("blocks.0.up", 3_000_000, 1_000_000, 48_000_000),
        LayerCost("vision.conv", 500_000, 500_000, 400_000_000),
    )
    result = check_budget(replace(clean, cost=cost), SETTINGS)
    assert result.verdict is Verdict.PASSED
    assert "most of its bytes: blocks.0.up 80 % and vision.conv 20 %" in result.summary
    pack = Evidence(clean.weights_digest, clean.weights_digest, "nt2.0", "main", (result,))
    [read] = documents.decode(Evidence, documents.encode(pack), "evidence").results
    attention, convolution = layer_rows(read)
    assert (attention.layer, attention.weight_mb, attention.activation_mb) == ("blocks.0.up", 3.0, 1.0)
    assert [attention.share, convolution.share] == pytest.approx([0.8, 0.2])
    assert attention.gb_per_s == pytest.approx(4e6 * 5 / 1e9)
    assert attention.bandwidth_share == pytest.approx(4e6 * 5 / 200e9)
    assert [attention.operations_per_byte, convolution.operations_per_byte] == pytest.approx([12.0, 400.0])


def test_the_hunger_is_what_the_chip_balances_over_what_the_step_has(clean: Subject) -> None:
    # 1 TFLOPS over half of 200 GB/s: 10 operations per byte. 1 operation per byte asks for ten times the bandwidth.
    cost = step(LayerCost("blocks.0", 1_000_000, 0, 1_000_000))
    result = check_budget(replace(clean, cost=cost), SETTINGS)
    value = {figure.name: figure.value for figure in result.figures}
    assert (value["operations_per_byte"], value["chip_operations_per_byte"]) == (1.0, 10.0)
    assert value["bandwidth_hunger"] == 10.0
    assert "it asks for 10 times the bandwidth that its arithmetic balances" in result.summary


def test_what_nobody_counted_or_knows_is_left_out(clean: Subject) -> None:
    plain = check_budget(clean, SETTINGS)
    assert layer_rows(plain) == ()
    assert "most of its bytes" not in plain.summary
    no_peak = replace(clean, manifest=plant.manifest(found_precision=Precision.BF16))
    value = {figure.name for figure in check_budget(no_peak, SETTINGS).figures}
    assert "operations_per_byte" in value
    assert "bandwidth_hunger" not in value
    nothing = check_budget(replace(clean, cost=StepCost(0, 0, 0)), SETTINGS)
    assert nothing.verdict is Verdict.PASSED
    unknown = check_budget(
        replace(clean, profile=plant.profile(bandwidth=None), cost=step(LayerCost("a", 1, 2, 3))), SETTINGS
    )
    assert unknown.verdict is Verdict.NOT_RUN
    [row] = layer_rows(unknown)
    assert row.bandwidth_share is None


def test_a_model_that_is_too_heavy_says_which_layer(clean: Subject) -> None:
    cost = step(LayerCost("backbone", 14_000_000_000, 0, 1), LayerCost("head", 1000, 0, 1))
    result = check_budget(replace(clean, cost=cost), SETTINGS)
    assert result.verdict is Verdict.FAILED
    assert "backbone 100 %" in result.summary
    assert all(figure.obtained is Obtained.ESTIMATED for figure in result.figures)


def test_a_cost_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        LayerCost("a", -1, 0, 0)
    with pytest.raises(ValueError, match="negative"):
        StepCost(0, 0, -1)
