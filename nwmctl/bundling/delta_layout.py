"""Finds the tensors in an artifact: where each lies, under which name, of which kind. Never loads one.

Knows ONNX, safetensors, archives that store their members unpacked (zip: npz and IREE's vmfb; tar: OpenVINO's xml with
its bin), and any of these inside an archive. A range whose elements nobody names (IREE's constants) has the kind None:
``delta_map`` tries what suits it. Whatever cannot be read as one of these has no tensors; that is no error, since bytes
always work. Reads the file only where it must.
"""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import IO, Final

import numpy as np

from nwmctl.formats.delta import Kind

_MAX_HEADER: Final = 16 << 20
_ONNX_KINDS: Final = {1: Kind.FP32, 2: Kind.INT8, 3: Kind.INT8, 10: Kind.FP16, 16: Kind.BF16}
_SAFETENSORS_KINDS: Final = {
    "F32": Kind.FP32,
    "F16": Kind.FP16,
    "BF16": Kind.BF16,
    "I8": Kind.INT8,
    "U8": Kind.INT8,
}
_OPENVINO_KINDS: Final = {"f32": Kind.FP32, "f16": Kind.FP16, "bf16": Kind.BF16, "i8": Kind.INT8, "u8": Kind.INT8}
_NPY_KINDS: Final = {"<f4": Kind.FP32, "<f2": Kind.FP16, "|i1": Kind.INT8, "|u1": Kind.INT8}
_LAYER: Final = re.compile(r'<layer\s+id="\d+"\s+name="([^"]*)"')
_DATA: Final = re.compile(r"<data\s([^>]*)>")
_NUMBER: Final = -1
_LEAST_ROW: Final = 32
_ATTRIBUTE: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Tensor:
    """``length`` bytes at ``offset`` of the file; the kind None: elements of an unknown kind. ``row``: how many
    elements make a row, 0 where nothing says so."""

    name: str
    offset: int
    length: int
    kind: Kind | None
    row: int = 0


class _Unreadable(Exception):
    """The bytes are not of the format that was tried."""


@dataclass(frozen=True, slots=True)
class _View:
    """A part of an open file."""

    stream: IO[bytes]
    start: int
    length: int

    def read(self, offset: int, size: int) -> bytes:
        """Exactly that many bytes from inside the part."""
        if offset < 0 or size < 0 or offset + size > self.length:
            raise _Unreadable
        self.stream.seek(self.start + offset)
        data = self.stream.read(size)
        if len(data) != size:
            raise _Unreadable
        return data

    def part(self, offset: int, length: int) -> _View:
        if offset < 0 or length < 0 or offset + length > self.length:
            raise _Unreadable
        return _View(self.stream, self.start + offset, length)


def find_tensors(stream: IO[bytes], size: int) -> list[Tensor]:
    """The tensors of an artifact in the order of the file, none overlapping another; none where nothing is known."""
    found = _tensors(_View(stream, 0, size), depth=0)
    found.sort(key=lambda one: one.offset)
    kept: list[Tensor] = []
    end = 0
    for tensor in found:
        if tensor.length and tensor.offset >= end:
            kept.append(tensor)
            end = tensor.offset + tensor.length
    return kept


def _tensors(view: _View, depth: int) -> list[Tensor]:
    for reader in (_zip, _tar, _safetensors, _onnx):
        try:
            found = reader(view, depth)
        except (_Unreadable, ValueError, OSError, struct.error, KeyError, zipfile.BadZipFile, tarfile.TarError):
            continue  # not of this format; what no reader knows is coded as bytes
        if found:
            return found
    return []


def _row(shape: object) -> int:
    """How many elements make a row: those of the last dimension, and of those before it until they are not too few."""
    row = 1
    if not isinstance(shape, list | tuple):
        return 0
    for size in reversed(shape):
        if not isinstance(size, int) or not 0 < size < 1 << 32:
            return 0
        row *= size
        if row >= _LEAST_ROW:
            break
    return row if row < 1 << 32 else 0


# --- safetensors -------------------------------------------------------------------------------------------------


def _safetensors(view: _View, depth: int) -> list[Tensor]:
    (length,) = struct.unpack("<Q", view.read(0, 8))
    if not 2 <= length <= min(_MAX_HEADER, view.length - 8):
        raise _Unreadable
    header = json.loads(view.read(8, length))
    if not isinstance(header, dict):
        raise _Unreadable
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict):
            raise _Unreadable
        kind = _SAFETENSORS_KINDS.get(entry["dtype"])
        first, last = entry["data_offsets"]
        view.part(8 + length + first, last - first)
        if kind is not None:
            found.append(Tensor(name, 8 + length + first, last - first, kind, _row(entry.get("shape"))))
    return found


# --- ONNX: a walk over the protocol buffer that skips every tensor's bytes ---------------------------------------


def _onnx(view: _View, depth: int) -> list[Tensor]:
    if view.length < 16 or view.read(0, 1) != b"\x08":
        raise _Unreadable
    found = []
    for field, start, length in _fields(view, 0, view.length):
        if field == 7:
            for inner, at, size in _fields(view, start, start + length):
                if inner == 5:
                    found += _initializer(view, at, size)
    return found


def _initializer(view: _View, start: int, length: int) -> list[Tensor]:
    name, kind, place = "", None, None
    shape: list[int] = []
    for field, at, size in _fields(view, start, start + length):
        if field == 1:
            shape += _dimensions(view, at, size)
        elif field == 8 and size <= 4096:
            name = view.read(at, size).decode("utf-8", "replace")
        elif field == 2:
            kind = _ONNX_KINDS.get(size)
        elif field == 9 and at != _NUMBER:
            place = (at, size)
    return [] if place is None or kind is None or not name else [Tensor(name, *place, kind, _row(shape))]


def _dimensions(view: _View, at: int, size: int) -> list[int]:
    """One dimension, or all of them packed."""
    if at == _NUMBER:
        return [size]
    data, found, used = view.read(at, min(size, 4096)), [], 0
    while used < len(data):
        value, used = _varint(data, used)
        found.append(value)
    return found


def _fields(view: _View, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Field number, start and length of each field; for a number ``_NUMBER`` and its value."""
    while at < end:
        head = view.read(at, min(20, end - at))
        tag, used = _varint(head, 0)
        wire = tag & 7
        if wire == 0:
            value, used = _varint(head, used)
            yield tag >> 3, _NUMBER, value
            at += used
        elif wire == 2:
            length, used = _varint(head, used)
            if at + used + length > end:
                raise _Unreadable
            yield tag >> 3, at + used, length
            at += used + length
        elif wire in (1, 5):
            at += used + (8 if wire == 1 else 4)
        else:
            raise _Unreadable


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _Unreadable


# --- archives ----------------------------------------------------------------------------------------------------


def _zip(view: _View, depth: int) -> list[Tensor]:
    if depth or view.read(0, 4) != b"PK\x03\x04":
        raise _Unreadable
    found: list[Tensor] = []
    with zipfile.ZipFile(view.stream) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or not member.file_size:
                continue
            head = view.read(member.header_offset, 30)
            skip = 30 + sum(struct.unpack("<HH", head[26:30]))
            found += _member(view, member.filename, member.header_offset + skip, member.file_size, depth)
    return found


def _tar(view: _View, depth: int) -> list[Tensor]:
    if depth or view.read(257, 5) != b"ustar":
        raise _Unreadable
    view.stream.seek(0)
    found: list[Tensor] = []
    texts: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(fileobj=view.stream, mode="r:") as archive:
        members = [member for member in archive if member.isreg()]
        texts = {member.name[:-4]: member for member in members if member.name.endswith(".xml")}
        for member in members:
            text = texts.get(member.name[:-4]) if member.name.endswith(".bin") else None
            if text is None:
                found += _member(view, member.name, member.offset_data, member.size, depth)
                continue
            place = view.part(member.offset_data, member.size)
            lines = archive.extractfile(text)
            assert lines is not None
            inner = _openvino(io.TextIOWrapper(lines, "utf-8", "replace"), place.length)
            found += _inside(inner, member.name, member.offset_data)
    return found


def _member(view: _View, name: str, offset: int, length: int, depth: int) -> list[Tensor]:
    inside = view.part(offset, length)
    known = _npy(inside) if name.endswith(".npy") else _tensors(inside, depth + 1)
    return _inside(known, name, offset) if known else [Tensor(name, offset, length, None)]


def _inside(found: list[Tensor], name: str, offset: int) -> list[Tensor]:
    return [replace(one, name=f"{name}/{one.name}", offset=one.offset + offset) for one in found]


def _npy(view: _View) -> list[Tensor]:
    head = io.BytesIO(view.read(0, min(view.length, 4096)))
    read: dict[tuple[int, int], Callable[[io.BytesIO], tuple[tuple[int, ...], bool, np.dtype[np.void]]]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(head)
    if version not in read:
        raise _Unreadable
    shape, fortran, form = read[version](head)
    kind = _NPY_KINDS.get(form.str)
    if kind is None and form.itemsize == 2 and form.kind == "V":
        kind = Kind.BF16  # what numpy calls it that knows no bf16
    return (
        []
        if kind is None
        else [Tensor("data", head.tell(), view.length - head.tell(), kind, _row(shape[::-1] if fortran else shape))]
    )


def _openvino(lines: io.TextIOWrapper, length: int) -> list[Tensor]:
    layer = ""
    found = []
    for line in lines:
        named = _LAYER.search(line)
        if named:
            layer = named.group(1)
        data = _DATA.search(line)
        if not data:
            continue
        values = dict(_ATTRIBUTE.findall(data.group(1)))
        kind = _OPENVINO_KINDS.get(values.get("element_type", ""))
        if kind is not None and values.get("offset", "").isdigit() and values.get("size", "").isdigit():
            offset, size = int(values["offset"]), int(values["size"])
            if offset + size > length:
                raise _Unreadable
            shape = values.get("shape", "").replace(" ", "").split(",")
            row = _row([int(each) for each in shape]) if all(each.isdigit() for each in shape) else 0
            found.append(Tensor(layer, offset, size, kind, row))
    return found
