"""A tiny attention-free network as ONNX, and the same computation in numpy as its independent reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.protocol import CompileRequest, Tensors

TOKENS, WIDTH, HIDDEN = 16, 32, 64
DRIVER = "540.4.0"
_DICE = np.random.default_rng(7)
UP = (_DICE.normal(size=(WIDTH, HIDDEN)) / np.sqrt(WIDTH)).astype(np.float32)
DOWN = (_DICE.normal(size=(HIDDEN, WIDTH)) / np.sqrt(HIDDEN)).astype(np.float32)


def write_model(path: Path, exporter_note: str = "") -> Path:
    """tokens[B,16,32], gain[B,1] -> features[B,16,32], level[B,1]. The output's batch has a stale name on purpose."""
    nodes = [
        helper.make_node("MatMul", ["tokens", "up"], ["h0"], "up", doc_string=exporter_note),
        helper.make_node("Relu", ["h0"], ["h1"], "relu"),
        helper.make_node("MatMul", ["h1", "down"], ["h2"], "down"),
        helper.make_node("Add", ["h2", "tokens"], ["features"], "residual"),
        helper.make_node("ReduceMean", ["features"], ["mean"], "mean", axes=[1, 2], keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["mean1"], "column"),
        helper.make_node("Mul", ["mean1", "gain"], ["level"], "gain"),
    ]
    graph = helper.make_graph(
        nodes,
        "exported",
        [
            helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["B", TOKENS, WIDTH]),
            helper.make_tensor_value_info("gain", TensorProto.FLOAT, ["B", 1]),
        ],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["Addfeatures_dim_0", TOKENS, WIDTH]),
            helper.make_tensor_value_info("level", TensorProto.FLOAT, ["B", 1]),
        ],
        [
            numpy_helper.from_array(UP, "up"),
            numpy_helper.from_array(DOWN, "down"),
            numpy_helper.from_array(np.array([-1, 1], np.int64), "column"),
        ],
        doc_string=exporter_note,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def inputs(rows: int, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Rows of plausible inputs."""
    dice = np.random.default_rng(seed)
    return {
        "tokens": dice.normal(size=(rows, TOKENS, WIDTH)).astype(np.float32),
        "gain": dice.uniform(0.5, 2.0, size=(rows, 1)).astype(np.float32),
    }


def expected(given: Tensors) -> Tensors:
    """The same network in numpy, double precision."""
    tokens = given["tokens"].astype(np.float64)
    features = np.maximum(tokens @ UP.astype(np.float64), 0) @ DOWN.astype(np.float64) + tokens
    level = features.mean(axis=(1, 2))[:, None] * given["gain"].astype(np.float64)
    return {"features": features, "level": level}


def worst(got: Tensors, wanted: Tensors) -> float:
    """The largest absolute difference over all outputs."""
    assert list(got) == list(wanted)
    return max(float(np.abs(got[name] - wanted[name]).max()) for name in wanted)


def request(
    model: Path, scratch: Path, toolchain: str, precision: Precision, unit: str, **options: str | bool | int
) -> CompileRequest:
    """A request with a fresh scratch folder."""
    scratch.mkdir(parents=True)
    return CompileRequest(
        model, file_digest(model), Recipe(toolchain, precision, dict(options)), unit, DRIVER, scratch, timeout_s=120
    )
