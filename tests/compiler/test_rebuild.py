"""Comparing two builds: the first byte that differs, and the section it lies in."""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.compiler import rebuild
from nwmctl.compiler.rebuild import ELSEWHERE, Difference, build_elsewhere, differences
from nwmctl.compiler.sections import section_at
from nwmctl.domain.artifact import Precision
from nwmctl.toolchains import surroundings
from nwmctl.toolchains.onnxruntime import OnnxRuntime
from nwmctl.toolchains.protocol import Compiled, CompileRequest
from tests.toolchains.models import request, write_model


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_the_same_bytes_have_no_difference(tmp_path: Path) -> None:
    one, two = (written(tmp_path / name, bytes(3 << 20)) for name in "ab")
    assert differences({"payload": one}, {"payload": two}) == ()


@settings(max_examples=80, deadline=None)
@given(one=st.binary(max_size=30), two=st.binary(max_size=30), common=st.integers(0, 40))
def test_the_first_differing_byte_is_told(one: bytes, two: bytes, common: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(rebuild, "_BUFFER", 16):
        paths = [written(Path(folder) / name, bytes(common) + data) for name, data in (("a", one), ("b", two))]
        found = differences({"payload": paths[0]}, {"payload": paths[1]})
        if one == two:
            assert found == ()
        else:
            same = next((i for i, (x, y) in enumerate(zip(one, two, strict=False)) if x != y), min(len(one), len(two)))
            [difference] = found
            assert difference.offset == common + same
            assert (difference.first_size, difference.second_size) == (common + len(one), common + len(two))


def test_a_part_that_only_one_build_has_differs(tmp_path: Path) -> None:
    one = written(tmp_path / "a", b"twin")
    assert differences({"twin_payload": one}, {}) == (Difference("twin_payload", 0, "", 4, 0),)
    assert str(differences({}, {"twin_payload": one})[0]) == "twin_payload differs from byte 0 on; 0 and 4 bytes"


# --- sections -----------------------------------------------------------------------------------------------------


def elf() -> bytes:
    """A 64-bit image with three sections: names, .text at 64, .rodata at 80."""
    names = b"\0.shstrtab\0.text\0.rodata\0"
    body = bytes(16) + bytes(16) + names
    table = 64 + len(body)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 0, table, 0, 64, 0, 0, 64, 4, 3)
    rows = [(0, 0, 0, 0), (11, 1, 64, 16), (17, 1, 80, 16), (1, 3, 96, len(names))]
    return (
        header
        + body
        + b"".join(
            struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0) for name, kind, offset, size in rows
        )
    )


def archive(code: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("module.fb", bytes(50))
        file.writestr("code.so", code)
    return buffer.getvalue()


def test_sections_of_an_image(tmp_path: Path) -> None:
    path = written(tmp_path / "a", elf())
    assert [section_at(path, at) for at in (64, 79, 80, 100, 20)] == [
        ".text",
        ".text",
        ".rodata",
        ".shstrtab",
        "(between sections)",
    ]


def test_sections_of_an_image_inside_an_archive(tmp_path: Path) -> None:
    data = archive(elf())
    path, start = written(tmp_path / "a", data), data.index(b"\x7fELF")
    assert section_at(path, start + 70) == "code.so .text"
    assert section_at(path, data.index(b"code.so")) == "code.so (its header)"
    assert section_at(path, 45) == "module.fb"
    assert section_at(path, len(data) - 5) == "the archive's directory"


def test_sections_of_a_graph(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx")
    import onnx

    from tests.toolchains.models import UP

    data = path.read_bytes()
    assert section_at(path, data.index(UP.tobytes()) + 5) == "graph.initializer[0]"
    assert section_at(path, data.index(b"residual")) == "graph.node[3]"
    assert section_at(path, 1) == "ir_version"
    assert onnx.load(str(path)).graph.initializer[0].name == "up"


def test_a_manifest_names_its_key(tmp_path: Path) -> None:
    path = written(tmp_path / "a", b'{"argv":["cc","-x"],"size":12}')
    assert section_at(path, 10) == "argv"
    assert section_at(path, 28) == "size"


@settings(max_examples=100, deadline=None)
@given(
    data=st.binary(max_size=200),
    at=st.integers(0, 220),
    head=st.sampled_from([b"", b"\x7fELF\x02\x01", b"PK\x03\x04", b"{"]),
)
def test_bytes_of_no_format_have_no_section_and_do_no_harm(data: bytes, at: int, head: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(head + data)
        file.flush()
        assert isinstance(section_at(Path(file.name), at), str)


# --- building elsewhere -------------------------------------------------------------------------------------------


class Watching(OnnxRuntime):
    """Notes where and how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[CompileRequest, surroundings.Surroundings]] = []

    def compile(self, request: CompileRequest) -> Compiled:
        self.asked.append((request, surroundings.here()))
        return super().compile(request)


def test_elsewhere_is_another_folder_and_other_surroundings(tmp_path: Path) -> None:
    driver = Watching()
    ask = request(write_model(tmp_path / "model.onnx"), tmp_path / "s", "onnxruntime", Precision.FP32, "host")
    first = driver.compile(ask)
    second = build_elsewhere(driver, dataclasses.replace(ask, scratch=tmp_path / "t"))
    (one, usual), (two, other) = driver.asked
    assert two.scratch == tmp_path / "t" / ELSEWHERE
    assert len(str(two.scratch)) != len(str(one.scratch))
    assert (usual, other) == (surroundings.USUAL, surroundings.ELSEWHERE)
    assert surroundings.here() == surroundings.USUAL
    assert differences({"payload": first.payload}, {"payload": second.payload}) == ()
    assert first.manifest == second.manifest
