"""Paths in artifacts: found where they are, and never in random weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.compiler.traces import (
    Trace,
    folders_of_this_machine,
    names_of_this_machine,
    trace_in_bytes,
    trace_in_file,
)

OWN = ("/data/work/scratch-8fx2", "/w")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\0/home/somebody/train.py\0", "/home/somebody/train.py"),
        (b'{"source":"/tmp/build/x.mlir"}', "/tmp/build/x.mlir"),
        (b"file:///usr/local/include/a.h", "/usr/local/include/a.h"),
        (b"cc -I/usr/include/vendor", "/usr/include/vendor"),
        (b"/builds/team/compiler.cc:12", "/builds/team/compiler.cc:12"),
        (b"x/data/work/scratch-8fx2", "/data/work/scratch-8fx2"),
        (b"=/w/model.onnx", "/w/model.onnx"),
        (b"/var/tmp/cache.bin", "/var/tmp/cache.bin"),
    ],
)
def test_a_path_is_found_with_its_place(data: bytes, text: str) -> None:
    found = trace_in_bytes(data, OWN)
    assert found == Trace(text, data.index(text.encode()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"lib/usr/share/thing",
        b"../tmp/build/x.mlir",
        b"/tmp/x",
        b"/usr/\x01\x02\x03include",
        b"/transformer/layer0/MatMul_output_0",
        b"/root/linear/MatMul_output_0",
        b"/build/layers.0/Add_output_0",
        b"/w/a",
        b"QUJD/tmp/QUJDREVGRw==",
        b"sm_87 /* 12.4 */ .version 8.4",
    ],
)
def test_what_is_no_path_of_a_machine_is_left_alone(data: bytes) -> None:
    assert trace_in_bytes(data, OWN) is None


def test_the_machines_name_is_a_trace_where_it_is_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, told in (("builder-0713", ("builder-0713",)), ("localhost", ()), ("box7", ())):
        there = os.uname_result(("Linux", name, "6", "1", "x86_64"))
        monkeypatch.setattr(os, "uname", lambda there=there: there)
        assert names_of_this_machine() == told
    assert trace_in_bytes(b"made on builder-0713.", (), ("builder-0713",)) == Trace("builder-0713.", 8)


def test_weights_are_no_paths() -> None:
    dice = np.random.default_rng(5)
    normal = dice.normal(size=4 << 20).astype(np.float32)
    for data in (dice.bytes(32 << 20), normal.tobytes(), normal.astype(np.float16).tobytes()):
        assert trace_in_bytes(data, folders_of_this_machine(Path("/w"))) is None


@settings(max_examples=60, deadline=None)
@given(before=st.binary(max_size=40), after=st.binary(max_size=40))
def test_wherever_this_builds_own_folder_lies_it_is_found(before: bytes, after: bytes) -> None:
    assert trace_in_bytes(before + OWN[0].encode() + after, OWN) is not None


def test_a_large_file_is_searched_without_being_read_into_memory(tmp_path: Path) -> None:
    payload = tmp_path / "payload"
    with payload.open("wb") as file:
        file.seek((200 << 20) - 100)  # sparse: no disk either
        file.write(b"\0/home/somebody/model.onnx\0")

    def dirty() -> int:
        return int(Path("/proc/self/smaps_rollup").read_text().partition("Private_Dirty:")[2].split()[0]) << 10

    before = dirty()
    assert trace_in_file(payload, OWN) == Trace("/home/somebody/model.onnx", (200 << 20) - 99)
    assert dirty() < before + (32 << 20)


def test_a_root_that_could_be_a_layer_counts_where_the_path_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/opt/vendor-sdk" or real(path))
    assert trace_in_bytes(b"x /opt/vendor-sdk/lib/libcc.so", ()) == Trace("/opt/vendor-sdk/lib/libcc.so", 2)
    assert trace_in_bytes(b"x /opt/optimiser/MatMul_output", ()) is None


def test_the_folders_of_a_build_are_those_of_this_machine(tmp_path: Path) -> None:
    known = folders_of_this_machine(tmp_path)
    assert str(tmp_path) in known
    assert str(Path.home()) in known
    assert "/" not in known
