"""The graph that compilers get: batch, precision, bytes, and graphs that cannot be lowered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nwmctl.domain.artifact import Port, Precision
from nwmctl.errors import GraphUnreadableError, OperatorUnsupportedError
from nwmctl.toolchains.lowering import GraphFiles, Lowered, LoweringOrder, Scope, lower
from nwmctl.toolchains.process import Limits
from tests.toolchains.models import expected, inputs, worst

FP32, FP16 = Precision.FP32, Precision.FP16


def run(
    model: Path, scratch: Path, precision: Precision = FP32, scope: Scope = Scope.MATMUL, batch: int | None = 1
) -> Lowered:
    scratch.mkdir(parents=True)
    return lower(GraphFiles(model), scratch, LoweringOrder(precision, scope, batch), Limits(60))


def test_the_batch_is_fixed_and_every_shape_known(model: Path, tmp_path: Path) -> None:
    lowered = run(model, tmp_path / "s")
    assert lowered.inputs == (Port("tokens", "float32", (1, 16, 32)), Port("gain", "float32", (1, 1)))
    assert lowered.outputs == (Port("features", "float32", (1, 16, 32)), Port("level", "float32", (1, 1)))
    assert lowered.products == {"float32": 2}


def test_without_a_batch_it_stays_symbolic(model: Path, tmp_path: Path) -> None:
    lowered = run(model, tmp_path / "s", batch=None)
    assert [port.shape[0] for port in lowered.inputs] == ["B", "B"]
    assert all(isinstance(port.shape[0], str) for port in lowered.outputs)


@pytest.mark.parametrize("scope", Scope)
def test_fp16_keeps_fp32_at_the_border(model: Path, tmp_path: Path, scope: Scope) -> None:
    import onnxruntime

    lowered = run(model, tmp_path / "s", FP16, scope, None)
    assert lowered.products == {"float16": 2}
    assert {port.dtype for port in (*lowered.inputs, *lowered.outputs)} == {"float32"}
    given = inputs(3)
    got = onnxruntime.InferenceSession(str(lowered.path)).run(None, given)
    difference = worst(dict(zip(["features", "level"], got, strict=True)), expected(given))
    assert 1e-6 < difference < 5e-2
    adds = {name for name in lowered.operators if name.startswith("Add.")}
    assert adds == {"Add.float32" if scope is Scope.MATMUL else "Add.float16"}


def test_the_same_bytes_from_everywhere_and_no_word_of_the_exporter(model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "a folder" / "renamed.onnx"
    moved.parent.mkdir()
    moved.write_bytes(model.read_bytes())
    first, second = run(model, tmp_path / "one"), run(moved, tmp_path / "two" / "deeper")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert b"somebody" in model.read_bytes()
    assert b"somebody" not in first.path.read_bytes()


def save(
    path: Path,
    node: onnx.NodeProto,
    shape: list[str | int],
    weights: NDArray[np.generic] | None = None,
    rank: int = 2,
) -> Path:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{axis}" for axis in range(rank)])],
        [] if weights is None else [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_second_open_dimension_is_refused(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", helper.make_node("Relu", ["x"], ["y"]), ["B", "T"])
    with pytest.raises(GraphUnreadableError) as caught:
        run(model, tmp_path / "s")
    assert "dimension 1 of the input 'x' is not a number" in caught.value.why


def test_a_shape_that_depends_on_data_is_refused(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", helper.make_node("NonZero", ["x"], ["n"]), ["B", 4])
    graph = onnx.load(str(model))
    graph.graph.node.append(helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT))
    model.write_bytes(graph.SerializeToString())
    with pytest.raises(OperatorUnsupportedError) as caught:
        run(model, tmp_path / "s")
    assert "'NonZero' cannot be compiled ahead of time" in caught.value.why
    assert "a mask and Where" in caught.value.next


def test_weights_beyond_fp16_are_refused(tmp_path: Path) -> None:
    weights = np.full((4, 4), 1e6, np.float32)
    model = save(tmp_path / "m.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), ["B", 4], weights)
    run(model, tmp_path / "a")
    with pytest.raises(GraphUnreadableError) as caught:
        run(model, tmp_path / "b", FP16)
    assert "leave the range of fp16" in caught.value.why


def test_weights_in_other_files_are_not_read(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../secret")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 4])],
        [weights],
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    (tmp_path / "secret").write_bytes(bytes(64))
    with pytest.raises(GraphUnreadableError):
        run(path, tmp_path / "s")


def test_a_foreign_operator_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    with pytest.raises(GraphUnreadableError) as caught:
        run(path, tmp_path / "s")
    assert "com.microsoft" in caught.value.why
