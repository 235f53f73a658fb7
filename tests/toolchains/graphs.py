"""Small graphs for the lowering's tests: an attention block with a Conv before it, and how to run them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nwmctl.domain.artifact import Precision, Quantisation
from nwmctl.toolchains import lowering, lowering_child
from nwmctl.toolchains.lowering import GraphFiles, Integers, Lowered, LoweringOrder
from nwmctl.toolchains.lowering_refusals import Refused, read_refusal
from nwmctl.toolchains.process import Limits

TOKENS, WIDTH, CHANNELS = 12, 48, 64
GROUPS = ("eye", "block.input", "block.query", "block.key", "block.value", "head")
"""The groups that can be quantised; the tiny product cannot."""

Array = NDArray[np.generic]


def weights(seed: int = 3) -> dict[str, NDArray[np.float32]]:
    """The block's constants, some channels much larger than others."""
    dice = np.random.default_rng(seed)

    def matrix(*shape: int) -> NDArray[np.float32]:
        loud = dice.uniform(0.2, 3.0, size=(1, shape[1]) if len(shape) == 2 else (shape[0], 1, 1))
        return np.asarray(dice.normal(size=shape) * loud / np.sqrt(WIDTH), np.float32)

    constants = {f"{name}.weight": matrix(WIDTH, WIDTH) for name in ("query", "key", "value")}
    constants["query.weight"] *= np.float32(0.05)  # a softmax that is not a maximum
    constants |= {f"{name}.bias": matrix(1, WIDTH)[0] for name in ("query", "key", "value")}
    constants |= {"eye.weight": matrix(CHANNELS, 8, 3), "eye.bias": dice.normal(size=CHANNELS).astype(np.float32)}
    constants |= {"project": matrix(CHANNELS, WIDTH), "head.weight": matrix(40, TOKENS * WIDTH)}
    return constants | {"head.bias": dice.normal(size=40).astype(np.float32), "tiny": matrix(WIDTH, 4)}


def block(path: Path, seed: int = 3) -> Path:
    """x[B,8,12] -> y[B,40], z[B,12,4]: Conv, query, key, value, attention, Gemm (transposed weights), a small one."""
    nodes = [
        helper.make_node("Conv", ["x", "eye.weight", "eye.bias"], ["e0"], "/eye/Conv", kernel_shape=[3], pads=[1, 1]),
        helper.make_node("Relu", ["e0"], ["e1"], "/eye/Relu"),
        helper.make_node("Transpose", ["e1"], ["e2"], "/Transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["e2", "project"], ["t"], "/block/input/MatMul"),
    ]
    for name in ("query", "key", "value"):
        nodes += [
            helper.make_node("MatMul", ["t", f"{name}.weight"], [f"{name}0"], f"/block/{name}/MatMul"),
            helper.make_node("Add", [f"{name}0", f"{name}.bias"], [name], f"/block/{name}/Add"),
        ]
    nodes += [
        helper.make_node("Transpose", ["key"], ["keyT"], "/block/Transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["query", "keyT"], ["scores"], "/block/MatMul"),
        helper.make_node("Softmax", ["scores"], ["share"], "/block/Softmax", axis=-1),
        helper.make_node("MatMul", ["share", "value"], ["mixed"], "/block/MatMul_1"),
        helper.make_node("Flatten", ["mixed"], ["flat"], "/Flatten", axis=1),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["y"], "/head/Gemm", transB=1),
        helper.make_node("MatMul", ["mixed", "tiny"], ["z"], "/tiny/MatMul"),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 8, TOKENS])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 40]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["B", TOKENS, 4]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights(seed).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows of the input x."""
    return np.random.default_rng(seed).normal(0.3, 1.0, size=(count, 8, TOKENS)).astype(np.float32)


def calibration(path: Path, count: int = 32) -> Path:
    """A package's calibration archive."""
    with path.open("wb") as file:
        np.savez(file, **{"in/x": rows(count, 5)})  # type: ignore[arg-type]
    return path


def lowered(
    files: GraphFiles,
    scratch: Path,
    how: Quantisation | None = None,
    keep: tuple[str, ...] = (),
    integers: Integers = Integers.NARROW,
    rest: Precision = Precision.FP32,
    batch: int | None = None,
    merge: bool = False,
) -> Lowered:
    """Lower with what a test varies; int8 where ``how`` is given."""
    precision = Precision.INT8 if how else Precision.FP32
    order = LoweringOrder(
        precision, batch=batch, quantisation=how, keep=keep, integers=integers, rest=rest, merge=merge
    )
    return lower_here(files, scratch, order)


def lower_here(
    files: GraphFiles,
    scratch: Path,
    order: LoweringOrder,
    memory_bytes: int = 3 << 30,
    fold: int = 1 << 28,
    external_above: int = 1 << 30,
) -> Lowered:
    """``lower`` without its process, which costs a second each time; ``test_lowering`` has the process."""
    scratch.mkdir(parents=True)
    said = lowering.child_order(files, order, Limits(60, memory_bytes))
    said |= {"fold_with_weights": fold, "external_above": external_above}
    with contextlib.chdir(scratch):
        try:
            lowering_child.lower_here(said)
        except Refused as problem:
            problem.write(scratch)
            refusal = read_refusal(scratch)
            assert refusal is not None
            raise refusal from problem
    return lowering.read_lowered(scratch)


def answer(model: Path | bytes, x: Array) -> list[NDArray[np.float32]]:
    """Outputs of a graph, computed by onnxruntime with its passes off: what the operators mean, unfused."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(None, {"x": x})
    return found


def relative(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Root mean square of the difference over that of the wanted."""
    return float(np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)))
