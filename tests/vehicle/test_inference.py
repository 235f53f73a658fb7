"""The virtual platform's inference with the real runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.errors import HealthCheckFailedError, NwmError
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.processor import computes, processor
from nwmctl.toolchains.protocol import Compiled, CompileRequest
from nwmctl.toolchains.registry import toolchain
from nwmctl.vehicle.inference import inference, lacking


def compiled(folder: Path, operator: str, maker: str = "onnxruntime", recipe: Recipe | None = None) -> Compiled:
    """``control = operator(-ego)``, by a multiplication: the square root of it is not a number."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 4, 32]) for name in ("ego", "control")]
    weights = onnx.numpy_helper.from_array(-np.eye(32, dtype=np.float32), "weights")
    nodes = [
        helper.make_node("MatMul", ["ego", "weights"], ["less"]),
        helper.make_node(operator, ["less"], ["control"]),
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    scratch = folder / "scratch"
    scratch.mkdir()
    recipe = recipe or Recipe(maker, Precision.FP32)
    return toolchain(maker).compile(CompileRequest(path, file_digest(path), recipe, "host", "", scratch))


def test_a_payload_that_runs(tmp_path: Path) -> None:
    found = compiled(tmp_path, "Tanh")
    assert inference(toolchain)(found.payload, found.manifest) == "one call, 1 finite outputs"


def test_a_payload_whose_output_is_not_finite(tmp_path: Path) -> None:
    found = compiled(tmp_path, "Sqrt")
    with pytest.raises(HealthCheckFailedError) as caught:
        inference(toolchain)(found.payload, found.manifest)
    assert "'control' is not finite" in caught.value.why


def test_a_payload_that_the_runtime_cannot_load(tmp_path: Path) -> None:
    found = compiled(tmp_path, "Tanh")
    found.payload.write_bytes(b"nonsense")
    with pytest.raises(NwmError):
        inference(toolchain)(found.payload, found.manifest)


def test_a_vehicle_without_the_runtime_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compiled(tmp_path, "Tanh")
    assert lacking(toolchain)(found.manifest) == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "onnxruntime is not installed" in lacking(toolchain)(found.manifest)
    with pytest.raises(HealthCheckFailedError) as caught:
        inference(toolchain)(found.payload, found.manifest)
    version = found.manifest.needs.version
    assert f"needs onnxruntime {version}, which this vehicle has not: onnxruntime is not installed" in caught.value.why


def test_a_payload_of_openvino(tmp_path: Path) -> None:
    found = compiled(tmp_path, "Tanh", "openvino")
    assert found.manifest.format == "openvino-ir"
    assert lacking(toolchain)(found.manifest) == ""
    assert inference(toolchain)(found.payload, found.manifest) == "one call, 1 finite outputs"


def test_a_payload_of_integers(tmp_path: Path) -> None:
    found = compiled(tmp_path, "Tanh", recipe=Recipe("onnxruntime", Precision.INT8, {"quantisation": "dynamic"}))
    assert found.manifest.found_precision is Precision.INT8
    assert inference(toolchain)(found.payload, found.manifest) == "one call, 1 finite outputs"


def test_arithmetic_that_this_processor_has_not(tmp_path: Path) -> None:
    found = compiled(tmp_path, "Tanh", "openvino")
    needs = replace(found.manifest.needs, flags=("--inference-precision-hint=bf16",))
    elsewhere = replace(found.manifest, needs=needs)
    expected = "" if computes(Precision.BF16, processor()) else "this processor has no arithmetic in bf16"
    assert lacking(toolchain)(elsewhere) == expected
