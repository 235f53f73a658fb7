"""Graphs that cannot be lowered: each refusal has its class, names its culprit and says what to write instead."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nwmctl.domain.artifact import Precision
from nwmctl.errors import (
    DimensionOpenError,
    ExternalDataDamagedError,
    ExternalDataMissingError,
    ExternalDataOutsideError,
    GraphTooLargeError,
    GraphUnreadableError,
    NwmError,
    OperatorUnsupportedError,
)
from nwmctl.toolchains.graph_files import lay_out
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder, lower
from nwmctl.toolchains.lowering_operators import nearest_rewrite, refused_everywhere
from nwmctl.toolchains.process import Limits
from tests.toolchains.graphs import answer, block, lower_here, rows

FP32 = LoweringOrder(Precision.FP32)
FLOAT = TensorProto.FLOAT


def save(
    path: Path,
    node: onnx.NodeProto,
    shape: list[str | int | None],
    opset: int = 17,
    domain: str = "",
    kind: int = FLOAT,
) -> GraphFiles:
    """x -> y through one node."""
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", kind, [f"d{axis}" for axis in range(2)])],
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return GraphFiles(path)


# --- operators ----------------------------------------------------------------------------------------------------

CONTRIBUTED = {
    "FastGelu": "Gelu with approximate='tanh'",
    "SkipLayerNormalization": "Add and LayerNormalization",
    "MultiHeadAttention": "MatMul, Softmax and MatMul",
    "SomethingOfTheirs": "operators of the standard set",
}


@pytest.mark.parametrize("operator", CONTRIBUTED)
def test_a_makers_own_operator_is_named_with_its_standard_form(tmp_path: Path, operator: str) -> None:
    node = helper.make_node(operator, ["x"], ["y"], "/blocks.0/act", domain="com.microsoft")
    files = save(tmp_path / "m.onnx", node, ["B", 4], domain="com.microsoft")
    with pytest.raises(OperatorUnsupportedError) as caught:
        lower_here(files, tmp_path / "s", FP32)
    assert f"'{operator}' belongs to the operator set 'com.microsoft'" in caught.value.why
    assert "/blocks.0/act" in caught.value.why
    assert CONTRIBUTED[operator] in caught.value.next


def test_an_operator_that_does_not_exist_yet_is_named(tmp_path: Path) -> None:
    files = save(tmp_path / "m.onnx", helper.make_node("Gelu", ["x"], ["y"]), ["B", 4], opset=17)
    with pytest.raises(OperatorUnsupportedError) as caught:
        lower_here(files, tmp_path / "s", FP32)
    assert "'Gelu' is no operator of version 17" in caught.value.why
    assert "Div, Erf, Add and Mul" in caught.value.next


def test_an_operator_inside_a_branch_is_found(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("RandomNormalLike", ["x"], ["r"])], "b", [], [helper.make_tensor_value_info("r", FLOAT, None)]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    with pytest.raises(OperatorUnsupportedError) as caught:
        lower_here(save(tmp_path / "m.onnx", node, ["B", 4]), tmp_path / "s", FP32)
    assert "'If'" in caught.value.why
    assert "'RandomNormalLike'" in caught.value.why
    assert "both branches and Where" in caught.value.next


@pytest.mark.parametrize("operator", ["Loop", "Scan", "Unique", "SequenceAt", "OptionalGetElement", "Multinomial"])
def test_what_no_chip_gets(operator: str) -> None:
    assert operator in refused_everywhere("", operator)
    assert nearest_rewrite(operator).startswith("write it as ")


@pytest.mark.parametrize("operator", ["Einsum", "GridSample", "MatMul", "LayerNormalization"])
def test_what_compilers_may_try(operator: str) -> None:
    assert refused_everywhere("", operator) == ""
    assert nearest_rewrite(operator).startswith("write it as ")


# --- dimensions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "why", "next"),
    [
        (["B", "tokens"], "dimension 1 of the input 'x' is not a number but 'tokens', and nothing bounds it", "pad"),
        (["B", None], "dimension 1 of the input 'x' is not a number, and nothing bounds it", "dynamic_axes={'x'"),
        (["B", 0], "dimension 1 of the input 'x' is 0", "positive number"),
        ([-1, 4], "dimension 0 of the input 'x' is -1", "a symbol if it is the batch"),
    ],
)
def test_an_open_dimension_is_named_with_what_to_write(
    tmp_path: Path, shape: list[str | int | None], why: str, next: str
) -> None:
    files = save(tmp_path / "m.onnx", helper.make_node("Relu", ["x"], ["y"]), shape)
    with pytest.raises(DimensionOpenError) as caught:
        lower_here(files, tmp_path / "s", FP32)
    assert why in caught.value.why
    assert next in caught.value.next


def test_two_batches_are_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "z"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, FLOAT, [batch, 4]) for name, batch in (("x", "B"), ("z", "N"))],
        [helper.make_tensor_value_info("y", FLOAT, ["B", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DimensionOpenError) as caught:
        lower_here(GraphFiles(tmp_path / "m.onnx"), tmp_path / "s", FP32)
    assert "'B', 'N'" in caught.value.why


# --- external data ------------------------------------------------------------------------------------------------


def outside(folder: Path, location: str = "weights.bin", said: dict[str, int] | None = None) -> GraphFiles:
    """The block with its weights in ``weights.bin``; the graph calls that file ``location``."""
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.load(str(block(folder / "model.onnx")))
    with (folder / "weights.bin").open("wb") as file:
        for value in model.graph.initializer:
            array = numpy_helper.to_array(value)
            value.ClearField("raw_data")
            value.data_location = TensorProto.EXTERNAL
            places = {"offset": file.tell(), "length": array.nbytes} | (said or {})
            for key, word in (("location", location), *places.items()):
                value.external_data.add(key=key, value=str(word))
            file.write(array.tobytes())
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return GraphFiles(folder / "model.onnx", folder / "weights.bin")


def test_weights_outside_give_the_same_bytes_as_inside(tmp_path: Path) -> None:
    inside = lower_here(GraphFiles(block(tmp_path / "whole.onnx")), tmp_path / "a", FP32)
    apart = lower_here(outside(tmp_path / "m"), tmp_path / "b", FP32)
    assert inside.path.read_bytes() == apart.path.read_bytes()
    assert apart.data is None


def test_a_missing_file_is_named_and_where_to_list_it(tmp_path: Path) -> None:
    files = outside(tmp_path / "m")
    with pytest.raises(ExternalDataMissingError) as caught:
        lower_here(GraphFiles(files.model), tmp_path / "s", FP32)
    assert "the graph names the file 'weights.bin' for 12 weights" in caught.value.why
    assert "weights_data" in caught.value.next
    with pytest.raises(ExternalDataMissingError):
        lower_here(GraphFiles(files.model, tmp_path / "gone"), tmp_path / "t", FP32)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../b", "C:\\weights", "..", "", "a\\b"])
def test_a_path_out_of_the_package_is_refused(tmp_path: Path, location: str) -> None:
    files = outside(tmp_path / "m", location)
    with pytest.raises(ExternalDataOutsideError):
        lower_here(files, tmp_path / "s", FP32)
    with pytest.raises(ExternalDataOutsideError):
        lay_out(files, tmp_path)


def test_a_link_in_place_of_the_weights_is_refused(tmp_path: Path) -> None:
    files = outside(tmp_path / "m")
    (tmp_path / "m" / "link").symlink_to(tmp_path / "m" / "weights.bin")
    with pytest.raises(ExternalDataOutsideError) as caught:
        lower(GraphFiles(files.model, tmp_path / "m" / "link"), folder(tmp_path), FP32, Limits(60))
    assert "is a link" in caught.value.why


def folder(root: Path) -> Path:
    (root / "scratch").mkdir()
    return root / "scratch"


@pytest.mark.parametrize("said", [{"length": 12}, {"offset": 1 << 40}, {"offset": -8}])
def test_a_place_that_the_file_does_not_have_is_refused(tmp_path: Path, said: dict[str, int]) -> None:
    with pytest.raises(ExternalDataDamagedError):
        lower_here(outside(tmp_path / "m", said=said), tmp_path / "s", FP32)


def test_a_truncated_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    files = outside(tmp_path / "m")
    assert files.data is not None
    os.truncate(files.data, files.data.stat().st_size - 4)
    with pytest.raises(ExternalDataDamagedError) as caught:
        lower_here(files, tmp_path / "s", FP32)
    assert "and the file has" in caught.value.why


def test_weights_in_several_files_are_refused(tmp_path: Path) -> None:
    files = outside(tmp_path / "m")
    model = onnx.load(str(files.model), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "other.bin"
    files.model.write_bytes(model.SerializeToString())
    with pytest.raises(ExternalDataMissingError) as caught:
        lower_here(files, tmp_path / "s", FP32)
    assert "2 files" in caught.value.why


def test_a_laid_out_model_opens_in_a_plain_runtime(tmp_path: Path) -> None:
    files = outside(tmp_path / "m", "weights of the network.data")
    (tmp_path / "out").mkdir()
    x = rows(2)
    whole = block(tmp_path / "whole.onnx")
    np.testing.assert_array_equal(answer(lay_out(files, tmp_path / "out"), x)[0], answer(whole, x)[0])
    assert lay_out(GraphFiles(whole), tmp_path / "out") == whole


# --- size ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "files"), [(0, ["lowered.onnx", "lowered.onnx.data"]), (1 << 30, ["lowered.onnx"])]
)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_weights_that_stay_aside_change_no_answer(
    tmp_path: Path, threshold: int, files: list[str], precision: Precision
) -> None:
    order = LoweringOrder(precision, batch=None)
    plain = lower_here(GraphFiles(block(tmp_path / "whole.onnx")), tmp_path / "a", order)
    made = lower_here(outside(tmp_path / "m"), tmp_path / "b", order, fold=0, external_above=threshold)
    assert sorted(path.name for path in made.path.parent.glob("lowered.onnx*")) == files
    assert made.data == (made.path.with_name("lowered.onnx.data") if threshold == 0 else None)
    assert made.operators == plain.operators
    x = rows(3)
    for got, wanted in zip(answer(made.path, x), answer(plain.path, x), strict=True):
        np.testing.assert_array_equal(got, wanted)
    again = lower_here(outside(tmp_path / "n"), tmp_path / "c", order, fold=0, external_above=threshold)
    assert all((again.path.parent / name).read_bytes() == (made.path.parent / name).read_bytes() for name in files)


def test_a_graph_that_needs_more_memory_than_allowed_is_refused_from_its_header(tmp_path: Path) -> None:
    files = outside(tmp_path / "m")
    model = onnx.load(str(files.model), load_external_data=False)
    value = next(value for value in model.graph.initializer if value.name == "project")
    del value.dims[:]
    value.dims.extend([1 << 15, 1 << 15])
    for entry in value.external_data:
        entry.value = {"location": "weights.bin", "offset": "0", "length": str(4 << 30)}[entry.key]
    files.model.write_bytes(model.SerializeToString())
    assert files.data is not None
    os.truncate(files.data, 4 << 30)  # a hole: nothing is written and nothing must be read
    with pytest.raises(GraphTooLargeError) as caught:
        lower_here(files, tmp_path / "s", FP32)
    assert "its weights have 4.0 GiB, which needs" in caught.value.why
    assert "3.0 GiB are allowed" in caught.value.why


def test_a_graph_file_over_the_formats_limit_is_refused_unread(tmp_path: Path) -> None:
    path = block(tmp_path / "m.onnx")
    os.truncate(path, (1 << 31) + 1)  # a hole
    with pytest.raises(GraphTooLargeError) as caught:
        lower_here(GraphFiles(path), tmp_path / "s", FP32)
    assert "over 2 GiB" in caught.value.why
    assert "'weights_data'" in caught.value.next


# --- corrupt ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return block(tmp_path_factory.mktemp("whole") / "m.onnx").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_graph_is_refused(tmp_path: Path, whole: bytes, share: float) -> None:
    (tmp_path / "m.onnx").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(GraphUnreadableError):
        lower_here(GraphFiles(tmp_path / "m.onnx"), tmp_path / "s", FP32)


@pytest.mark.parametrize("content", [b"\0" * 64, b"PK\x03\x04", b"not a graph", b"\x08\x08"])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(GraphUnreadableError):
        lower_here(GraphFiles(tmp_path / "m.onnx"), tmp_path / "s", FP32)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(whole.replace(b"/block/Softmax", b"/block/\xff\xfe\xfdtmax"))
    with pytest.raises(GraphUnreadableError) as caught:
        lower_here(GraphFiles(tmp_path / "m.onnx"), tmp_path / "s", FP32)
    assert "not text" in caught.value.why


def test_an_operator_without_a_name_is_refused(tmp_path: Path, whole: bytes) -> None:
    graph = onnx.load_from_string(whole)
    graph.graph.node[0].op_type = ""
    onnx.save(graph, str(tmp_path / "m.onnx"))
    with pytest.raises(OperatorUnsupportedError, match="cannot be compiled") as caught:
        lower_here(GraphFiles(tmp_path / "m.onnx"), tmp_path / "s", FP32)
    assert "'' is no operator" in caught.value.why


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits_are_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, flips: list[tuple[int, int]]
) -> None:
    """In the graph's structure and in a process of its own: whatever happens there, an error of ours comes out."""
    _flip(tmp_path_factory.mktemp("fuzz"), whole, flips)


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits_at_length(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, flips: list[tuple[int, int]]
) -> None:
    _flip(tmp_path_factory.mktemp("fuzz"), whole, flips)


def _flip(root: Path, whole: bytes, flips: list[tuple[int, int]]) -> None:
    content = bytearray(whole)
    for place, bit in flips:
        content[place % len(content)] ^= 1 << bit
    (root / "m.onnx").write_bytes(content)
    refusal: NwmError | None = None
    try:
        made = lower(GraphFiles(root / "m.onnx"), folder(root), FP32, Limits(60, 3 << 30))
        assert made.operators
    except NwmError as refused:
        refusal = refused
    if refusal is not None:
        assert refusal.why
        assert str(root) not in refusal.why
        assert "Traceback" not in refusal.why
