"""Layers of graphs whose exporter notes modules beside the nodes instead of in their names, and graphs of functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from nwmctl.domain.artifact import Precision
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder
from tests.toolchains.graphs import answer, block, lower_here, rows

FP32 = LoweringOrder(Precision.FP32, batch=None)
SCOPES = "pkg.torch.onnx.name_scopes"


def noted(path: Path, note: str = "") -> GraphFiles:
    """The block as torch's newer exporter writes it: flat node names, the modules as a note."""
    model = onnx.load(str(block(path)))
    for index, node in enumerate(model.graph.node):
        modules = node.name.strip("/").split("/")[:-1]
        paths = [".".join(modules[: depth + 1]) for depth in range(len(modules))]
        node.name = f"node_{node.op_type}_{index}"
        node.metadata_props.add(key=SCOPES, value=note or repr(["", *paths, f"op_{index}"]))
    path.write_bytes(model.SerializeToString())
    return GraphFiles(path)


def test_layers_are_found_in_the_exporters_notes(tmp_path: Path) -> None:
    made = lower_here(noted(tmp_path / "m.onnx"), tmp_path / "s", FP32)
    assert made.groups == ("eye", "block.input", "block.query", "block.key", "block.value", "head")
    assert SCOPES.encode() not in made.path.read_bytes()


@pytest.mark.parametrize("note", ["[", "__import__('os')", "3", "['']", "[1, 2, 3]", "[" * 500])
def test_a_note_that_says_nothing_is_no_reason_to_fail(tmp_path: Path, note: str) -> None:
    made = lower_here(noted(tmp_path / "m.onnx", note), tmp_path / "s", FP32)
    # What is left is the weights' own name.
    assert set(made.groups) == {"eye", "query", "key", "value", "head", "(outside any module)"}


def test_functions_become_nodes(tmp_path: Path) -> None:
    whole = block(tmp_path / "whole.onnx")
    model = onnx.load(str(whole))
    twice = helper.make_function(
        "of.the.model",
        "Shifted",
        ["a", "b"],
        ["c"],
        [helper.make_node("Add", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    for node in model.graph.node:
        if node.name.startswith("/block/") and node.op_type == "Add":
            node.op_type, node.domain = "Shifted", "of.the.model"
    model.functions.append(twice)
    model.opset_import.append(helper.make_opsetid("of.the.model", 1))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    made = lower_here(GraphFiles(tmp_path / "m.onnx"), tmp_path / "s", FP32)
    x = rows(2)
    np.testing.assert_allclose(answer(made.path, x)[0], answer(whole, x)[0], rtol=1e-6)
    assert made.operators["Add.float32"] == 3
