"""Rewrites of the graph: the same answers, fewer nodes, standard operators, the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nwmctl.domain.artifact import Quantisation
from nwmctl.toolchains.lowering import GraphFiles, Lowered
from tests.toolchains.graphs import Array, answer, block, calibration, lowered, relative, rows

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    folder = tmp_path_factory.mktemp("block")
    return GraphFiles(block(folder / "model.onnx"), None, calibration(folder / "calibration.npz"))


@pytest.mark.parametrize("batch", [None, 1])
def test_parallel_products_become_one_and_nothing_else_changes(
    files: GraphFiles, tmp_path: Path, batch: int | None
) -> None:
    plain = lowered(files, tmp_path / "plain", batch=batch)
    merged = lowered(files, tmp_path / "merged", batch=batch, merge=True)
    assert sum(merged.products.values()) == sum(plain.products.values()) - 2
    assert merged.operators["Split.float32"] == 1
    assert "block.key+query+value" in merged.groups
    x = rows(1)
    for got, wanted in zip(answer(merged.path, x), answer(plain.path, x), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", Quantisation)
def test_a_merged_product_is_quantised_as_one(files: GraphFiles, tmp_path: Path, how: Quantisation) -> None:
    made = lowered(files, tmp_path / "s", how, merge=True)
    assert sum(made.quantised.values()) == 4
    x = rows(8)
    apart = lowered(files, tmp_path / "t", how)
    # Scales are per column, so merging changes no number.
    assert relative(answer(made.path, x)[0], answer(apart.path, x)[0]) < 1e-5


def test_the_same_bytes_twice(files: GraphFiles, tmp_path: Path) -> None:
    first, second = (lowered(files, tmp_path / name, merge=True) for name in ("a", "b"))
    assert first.path.read_bytes() == second.path.read_bytes()


def save(path: Path, nodes: list[onnx.NodeProto], opset: int, constants: dict[str, Array]) -> GraphFiles:
    """x[B,8,12] -> y of the same shape."""
    shape: list[str | int | None] = ["B", 8, 12]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return GraphFiles(path)


def same(files: GraphFiles, made: Lowered) -> bool:
    x = rows(1)
    return bool(np.allclose(answer(made.path, x)[0], answer(files.model, x)[0], rtol=1e-5, atol=1e-5))


def test_normalisation_and_gelu_are_found_in_their_parts(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "last"], ["m"]),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["p"]),
        helper.make_node("ReduceMean", ["p", "last"], ["v"]),
        helper.make_node("Add", ["v", "least"], ["v1"]),
        helper.make_node("Sqrt", ["v1"], ["s"]),
        helper.make_node("Div", ["d", "s"], ["q"]),
        helper.make_node("Mul", ["q", "gain"], ["g"]),
        helper.make_node("Add", ["g", "shift"], ["n"]),
        helper.make_node("Div", ["n", "root2"], ["e0"]),
        helper.make_node("Erf", ["e0"], ["e1"]),
        helper.make_node("Add", ["e1", "one"], ["e2"]),
        helper.make_node("Mul", ["n", "e2"], ["e3"]),
        helper.make_node("Mul", ["e3", "half"], ["y"]),
    ]
    dice = np.random.default_rng(1)
    numbers = {"two": 2.0, "least": 1e-5, "root2": 2**0.5, "one": 1.0, "half": 0.5}
    constants: dict[str, Array] = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    constants |= {"gain": dice.normal(size=12).astype(np.float32), "shift": dice.normal(size=12).astype(np.float32)}
    constants["last"] = np.asarray([-1], np.int64)
    files = save(tmp_path / "m.onnx", nodes, 20, constants)
    made = lowered(files, tmp_path / "s", batch=1)
    assert made.operators == {"LayerNormalization.float32": 1, "Gelu.float32": 1}
    assert sum(made.before.values()) == len(nodes)
    assert same(files, made)


def test_transposes_cancel_and_twins_are_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 2, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 1]),
        helper.make_node("Tanh", ["c"], ["t1"]),
        helper.make_node("Tanh", ["c"], ["t2"]),
        helper.make_node("Exp", ["c"], ["dead"]),
        helper.make_node("Mul", ["t1", "t2"], ["y"]),
    ]
    files = save(tmp_path / "m.onnx", nodes, 17, {})
    made = lowered(files, tmp_path / "s", batch=1)
    assert made.operators == {"Relu.float32": 1, "Tanh.float32": 1, "Mul.float32": 1}
    assert same(files, made)


@pytest.mark.parametrize("name", ["nwm-2.0", "nwm-2.5"])
@pytest.mark.parametrize("merge", [False, True])
def test_the_examples_keep_their_answers(tmp_path: Path, name: str, merge: bool) -> None:
    import onnxruntime

    folder = EXAMPLES / name / "model"
    made = lowered(GraphFiles(folder / "model.onnx"), tmp_path / "s", merge=merge)
    assert sum(made.operators.values()) < 0.7 * sum(made.before.values())
    golden = np.load(folder / "golden.npz")
    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    given = {key.removeprefix("in/"): golden[key] for key in golden.files if key.startswith("in/")}
    for port, got in zip(made.outputs, session.run(None, given), strict=True):
        np.testing.assert_allclose(got, golden[f"out/{port.name}"], rtol=1e-3, atol=1e-3)
