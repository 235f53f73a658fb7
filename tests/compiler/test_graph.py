"""What a graph costs, against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.compiler.graph import graph_cost
from nwmctl.domain.artifact import Precision
from nwmctl.errors import GraphUnreadableError
from tests.toolchains.models import HIDDEN, TOKENS, WIDTH, write_model

PRODUCT = 2 * TOKENS * WIDTH * HIDDEN
WEIGHTS = 2 * WIDTH * HIDDEN


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("cost") / "model.onnx")


def test_flops_and_bytes_of_a_known_graph(model: Path) -> None:
    cost = graph_cost(model)
    by_operator = {node.operator: node for node in cost.nodes}
    products = [node for node in cost.nodes if node.operator in ("MatMul", "Gemm")]
    assert [node.flops for node in products] == [PRODUCT, PRODUCT]
    assert by_operator["Relu"].flops == TOKENS * HIDDEN
    assert by_operator["ReduceMean"].flops == TOKENS * WIDTH
    assert cost.parameters == WEIGHTS
    assert cost.weight_bytes == 4 * WEIGHTS
    assert by_operator["Relu"].activation_bytes == 4 * 2 * TOKENS * HIDDEN
    others = TOKENS * HIDDEN + TOKENS * WIDTH + TOKENS * WIDTH + 1
    assert cost.flops == 2 * PRODUCT + others


@pytest.mark.long
def test_half_the_precision_is_half_the_bytes_and_the_same_work(model: Path) -> None:
    full, half = graph_cost(model, Precision.FP32), graph_cost(model, Precision.FP16)
    assert half.flops == full.flops
    assert 2 * half.weight_bytes == full.weight_bytes
    assert 2 * half.activation_bytes == full.activation_bytes
    assert half.intensity == pytest.approx(2 * full.intensity)


def test_the_example_model_is_as_large_as_its_card_says() -> None:
    package = Path(__file__).parents[2] / "examples" / "nwm-2.0" / "model"
    cost = graph_cost(package / "model.onnx")
    assert 0.6e6 < cost.parameters < 0.9e6
    # Twelve tokens share the attention layers' weights: some ten multiply-adds per parameter.
    assert 5 < cost.flops / cost.parameters < 30


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(GraphUnreadableError):
        graph_cost(tmp_path / "m.onnx")
