"""Where the tensors of an artifact lie: each known format, formats in archives, files that only look like one."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nwmctl.bundling.delta_encode import encode_delta
from nwmctl.bundling.delta_layout import Tensor, find_tensors
from nwmctl.bundling.delta_map import draw_map
from nwmctl.formats.delta import Kind, Segment
from nwmctl.vehicle.delta import apply_delta
from tests.bundling.tensors import safetensors

WEIGHTS = np.arange(600, dtype=np.float16)


def found(data: bytes) -> list[Tensor]:
    return find_tensors(io.BytesIO(data), len(data))


def onnx_model(weights: np.ndarray = WEIGHTS) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [len(weights)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [len(weights)])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.arange(7, dtype=np.int8), "q")],
    )
    data: bytes = helper.make_model(graph).SerializeToString()
    return data


def archive(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


OPENVINO = b"""<net>
<layer id="0" name="first/weights" type="Const" version="opset1">
<data element_type="f16" shape="600" offset="64" size="1200"/>
</layer>
</net>"""


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, w=WEIGHTS)
    return stream.getvalue()


CASES = {
    "safetensors": (safetensors({"w": (Kind.FP16, WEIGHTS.view(np.uint16))}), "w"),
    "onnx": (onnx_model(), "w"),
    "npz": (npz(), "w.npy/data"),
    "openvino": (tarred({"m.xml": OPENVINO, "m.bin": bytes(64) + WEIGHTS.tobytes()}), "m.bin/first/weights"),
    "onnx in tar": (tarred({"model.onnx": onnx_model(), "notes": b"x"}), "model.onnx/w"),
    "onnx in zip": (archive({"model.onnx": onnx_model()}), "model.onnx/w"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_tensor_is_found_with_its_very_bytes(case: str) -> None:
    data, name = CASES[case]
    (tensor,) = [one for one in found(data) if one.name == name]
    assert tensor.kind is Kind.FP16
    assert data[tensor.offset : tensor.offset + tensor.length] == WEIGHTS.tobytes()


SHAPED = np.arange(640, dtype=np.float16).reshape(10, 64)


def shaped_npz(weights: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, w=weights)
    return stream.getvalue()


SHAPES = {
    "safetensors": (safetensors({"w": (Kind.FP16, SHAPED.view(np.uint16))}), 64),
    "onnx": (onnx_model(SHAPED), 64),
    "npz": (shaped_npz(SHAPED), 64),
    "npz by columns": (shaped_npz(np.asfortranarray(SHAPED.reshape(40, 16))), 40),
    "npz of filters": (shaped_npz(SHAPED.reshape(10, 16, 2, 2)), 64),
    "openvino": (tarred({"m.xml": OPENVINO.replace(b'"600"', b'"15, 40"'), "m.bin": bytes(64) + bytes(1200)}), 40),
}


@pytest.mark.parametrize("case", SHAPES)
def test_the_rows_of_a_tensor_are_known(case: str) -> None:
    data, row = SHAPES[case]
    assert [one.row for one in found(data) if one.kind is Kind.FP16] == [row]


def test_the_rows_of_a_tensor_are_in_the_map() -> None:
    old, new = [Tensor("a", 0, 400, Kind.FP16, 50)], [Tensor("a", 0, 500, Kind.FP16, 50)]
    assert [part.segment.row for part in draw_map(old, new, 400, 500, no_guess)] == [50, 0]


def test_constants_of_an_archive_are_found_without_a_kind() -> None:
    data = archive({"module.fb": b"code" * 9, "_const.bin": WEIGHTS.tobytes()})
    constants = found(data)[1]
    assert (constants.name, constants.kind) == ("_const.bin", None)
    assert data[constants.offset : constants.offset + constants.length] == WEIGHTS.tobytes()


@pytest.mark.parametrize("data", [b"", b"x", bytes(100), b"PK\x03\x04" + bytes(50), b"\x08\x0a" + bytes(range(99))])
def test_what_is_no_known_format_has_no_tensors(data: bytes) -> None:
    assert found(data) == []


def test_a_packed_archive_has_no_tensors() -> None:
    assert found(archive({"w.bin": bytes(5000)}, zipfile.ZIP_DEFLATED)) == []


def test_damaged_artifacts_are_read_without_a_fault() -> None:
    """An artifact that lies about itself costs size, never more: whatever is found lies inside the file."""
    draw = random.Random(4)
    for data, _ in CASES.values():
        for _ in range(60):
            bad = bytearray(data)
            for _ in range(3):
                bad[draw.randrange(min(len(bad), 700))] = draw.choice([0, 255, draw.randrange(256)])
            end = 0
            for tensor in found(bytes(bad)):
                assert tensor.offset >= end
                end = tensor.offset + tensor.length
            assert end <= len(bad)


def test_every_format_goes_there_and_back(tmp_path: Path) -> None:
    old, new = onnx_model(), onnx_model(WEIGHTS + np.float16(1))
    (tmp_path / "old").write_bytes(tarred({"model.onnx": old}))
    (tmp_path / "new").write_bytes(tarred({"model.onnx": new}))
    encode_delta(tmp_path / "old", tmp_path / "new", tmp_path / "delta")
    apply_delta(tmp_path / "old", tmp_path / "delta", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "new").read_bytes()


def no_guess(old: int, new: int, length: int) -> Kind:
    raise AssertionError("every kind is known")


def test_tensors_meet_by_name_then_by_kind_and_length_and_resized_ones_as_far_as_both_reach() -> None:
    old = [Tensor("a", 10, 40, Kind.FP32), Tensor("b", 50, 20, Kind.FP16), Tensor("c", 70, 8, Kind.FP16)]
    new = [Tensor("b", 0, 30, Kind.FP16), Tensor("other", 35, 40, Kind.FP32), Tensor("more", 75, 2, Kind.INT8)]
    segments = [part.segment for part in draw_map(old, new, 78, 80, no_guess)]
    assert segments == [
        Segment(20, 50, Kind.FP16),
        Segment(10, None, Kind.FP16),
        Segment(5, 70, Kind.BYTES, 2),
        Segment(40, 10, Kind.FP32),
        Segment(2, None, Kind.INT8),
        Segment(3, 50, Kind.BYTES, 1),
    ]
