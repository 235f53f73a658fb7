"""Where in a file a byte lies, in the words of its format: for saying what differs between two builds.

Knows the containers that payloads of this project are: archives whose members are not compressed (IREE's modules, and
their code within), ELF images, ONNX graphs, JSON. Of anything else it says the offset alone. Reads headers, never
judges; a file that is damaged or none of these has no sections.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

_ELF, _ZIP, _JSON = b"\x7fELF", b"PK\x03\x04", b"{"
_GRAPH = 7
_MODEL_FIELDS = {1: "ir_version", 2: "producer_name", 3: "producer_version", 6: "doc_string", _GRAPH: "graph"}
_GRAPH_FIELDS = {1: "node", 2: "name", 5: "initializer", 11: "input", 12: "output", 13: "value_info"}
_LENGTH = 2
_FIXED = {1: 8, 5: 4}


def section_at(path: Path, offset: int) -> str:
    """The section that holds a byte; '' where the file has none that are known."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _section(path, data, offset)
    except (OSError, ValueError, struct.error, zipfile.BadZipFile, IndexError):
        return ""


def _section(path: Path, data: mmap.mmap, offset: int) -> str:
    if data[:4] == _ZIP:
        return _in_archive(path, data, offset)
    if data[:4] == _ELF:
        return _in_elf(data, 0, offset)
    if data[:1] == _JSON:
        return _in_json(data, offset)
    return _in_graph(data, offset)


def _in_archive(path: Path, data: mmap.mmap, offset: int) -> str:
    with zipfile.ZipFile(path) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        behind = archive.start_dir
    inside = [member for member in members if member.header_offset <= offset]
    if offset >= behind or not inside:
        return "the archive's directory"
    member = inside[-1]
    start = member.header_offset + 30 + sum(struct.unpack_from("<HH", data, member.header_offset + 26))
    if offset < start:
        return f"{member.filename} (its header)"
    if member.compress_type == zipfile.ZIP_STORED and data[start : start + 4] == _ELF:
        return f"{member.filename} {_in_elf(data, start, offset)}".rstrip()
    return member.filename


def _in_elf(data: mmap.mmap, base: int, offset: int) -> str:
    """A 64-bit little-endian image that begins at ``base``."""
    if data[base + 4 : base + 6] != b"\x02\x01":
        return ""
    table, size, count, names = struct.unpack_from("<Q10xHHH", data, base + 40)
    headers = [struct.unpack_from("<IIQQQQ", data, base + table + index * size) for index in range(count)]
    text = base + headers[names][4]
    for name, kind, _, _, start, length in headers:
        if kind != 8 and base + start <= offset < base + start + length:
            end = data.find(b"\0", text + name)
            return data[text + name : end].decode("ascii", "replace")
    return "(between sections)"


def _in_json(data: mmap.mmap, offset: int) -> str:
    """The last key that begins before the byte."""
    end = data.rfind(b'":', 0, offset + 2)
    begin = data.rfind(b'"', 0, max(0, end))
    return data[begin + 1 : end].decode("utf-8", "replace") if end > 0 else ""


def _in_graph(data: mmap.mmap, offset: int) -> str:
    for number, begin, end in _fields(data, 0, len(data)):
        if begin <= offset < end:
            name = _MODEL_FIELDS.get(number, f"field {number}")
            return _part(data, begin, end, offset) if number == _GRAPH else name
    return ""


def _part(data: mmap.mmap, begin: int, end: int, offset: int) -> str:
    counts: dict[int, int] = {}
    for number, start, stop in _fields(data, begin, end):
        counts[number] = counts.get(number, -1) + 1
        if start <= offset < stop:
            return f"graph.{_GRAPH_FIELDS.get(number, f'field {number}')}[{counts[number]}]"
    return "graph"


def _fields(data: mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first and last byte of each field of a protocol-buffer message. Raises ValueError for other bytes."""
    at = begin
    while at < end:
        tag, start = _varint(data, at)
        kind = tag & 7
        if kind == _LENGTH:
            length, start = _varint(data, start)
            after = start + length
        elif kind == 0:
            _, after = _varint(data, start)
        elif kind in _FIXED:
            after = start + _FIXED[kind]
        else:
            raise ValueError("no protocol buffer")
        if after > end:
            raise ValueError("no protocol buffer")
        yield tag >> 3, start, after
        at = after


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("no protocol buffer")
