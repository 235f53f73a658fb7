"""Reads the body of one chunk of a delta: streams of bytes, and groups of differences.

Every length is known before its bytes are read, so nothing is allocated on a claim; whatever does not fit is refused.
A part of the applier ``vehicle/delta.py``; the specification is docs/delta-format.md. Touches no file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import zstandard

from nwmctl.formats import delta as wire
from nwmctl.formats.delta import malformed
from nwmctl.formats.delta_elements import Bytes, Coder, Signed, Unsigned, unzigzag

_GROUP: Final = struct.Struct("<BBBbI")


@dataclass(frozen=True, slots=True)
class Group:
    """Elements whose contexts lie in one range, up to ``last``, and how their differences are written."""

    last: int
    coder: Coder
    shift: int
    centre: int
    count: int


class BodyReader:
    """Takes a chunk's body apart. Every length is known before it is read; nothing is allocated on a claim."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._plain = zstandard.ZstdDecompressor()

    def byte(self) -> int:
        return self._take(1)[0]

    def end(self) -> None:
        if self._at != len(self._body):
            raise malformed("bytes follow a chunk's last section")

    def groups(self, count: int) -> list[Group]:
        """The groups of a section with ``count`` elements; their records stand in front of all streams."""
        length = self.byte()
        if not 1 <= length <= wire.MAX_GROUPS:
            raise malformed(f"a section has {length} groups")
        groups = []
        before = -1
        for last, coder, shift, centre, size in _GROUP.iter_unpack(self._take(_GROUP.size * length)):
            if last <= before:
                raise malformed("a section's groups are not in order")
            if coder not in Coder._value2member_map_:
                raise malformed(f"a group has the coder {coder}")
            groups.append(Group(last, Coder(coder), shift, centre, size))
            before = last
        if before != wire.LAST_CONTEXT or sum(group.count for group in groups) != count:
            raise malformed("a section's groups leave contexts or elements out")
        return groups

    def steps(self, group: Group, form: np.dtype[Any]) -> Signed:
        """The signed differences of one group, in the order of the group."""
        if group.shift >= 8 * form.itemsize or (group.shift and not group.coder.bits):
            raise malformed(f"a group has the shift {group.shift}")
        if group.coder is Coder.ZERO or not group.count:
            values = np.zeros(group.count, form)
        elif group.coder is Coder.GAPS:
            values = self._sparse(group.count, form)
        else:
            values = self._dense(group.coder.bits, group.shift, group.count, form)
        steps = unzigzag(values)
        if group.centre:
            steps += steps.dtype.type(group.centre)
        return steps

    def _dense(self, bits: int, shift: int, count: int, form: np.dtype[Any]) -> Unsigned:
        symbols = _unpacked(self.stream((count * bits + 7) // 8), bits, count)
        values = symbols.astype(form)
        full = np.flatnonzero(symbols == (1 << bits) - 1)
        if full.size:
            values[full] += self._excess(full.size, form)
        if shift:
            values <<= form.type(shift)
            self._low(values, shift)
        return values

    def _excess(self, count: int, form: np.dtype[Any]) -> Unsigned:
        small = self.stream(count)
        values = small.astype(form)
        full = np.flatnonzero(small == 255)
        if full.size:
            values[full] += self.stream(full.size * form.itemsize).view(form)
        return values

    def _low(self, values: Unsigned, shift: int) -> None:
        count = len(values)
        whole, rest = divmod(shift, 8)
        row = (count + 7) // 8
        planes = self.stream(whole * count + rest * row)
        for number in range(whole):
            values |= planes[number * count : (number + 1) * count].astype(values.dtype) << (8 * number)
        for number in range(rest):
            at = whole * count + number * row
            bits = np.unpackbits(planes[at : at + row], count=count, bitorder="little")
            values |= bits.astype(values.dtype) << (8 * whole + number)

    def _sparse(self, count: int, form: np.dtype[Any]) -> Unsigned:
        values = np.zeros(count, form)
        size = int.from_bytes(self._take(4), "little")
        if size > count // 4:
            raise malformed("a group has more gaps than values")
        gaps = self.stream(size)
        marks = gaps != 255
        ends = np.cumsum(gaps + marks.astype(np.int64))
        where = ends[marks] - 1
        if where.size:
            if where[-1] >= count:
                raise malformed("a gap leads beyond its group")
            values[where] = self._excess(where.size, form) + form.type(1)
        return values

    def stream(self, size: int, window: bytes = b"") -> Bytes:
        """A stream of exactly ``size`` bytes; ``window`` is what it may look back on."""
        if not size:
            return np.zeros(0, np.uint8)
        word = int.from_bytes(self._take(4), "little")
        data = self._take(word >> 1)
        if not word & 1:
            if len(data) != size:
                raise malformed(f"a stream has {len(data)} bytes instead of {size}")
            return np.frombuffer(data, np.uint8)
        return np.frombuffer(self._expand(data, size, window), np.uint8)

    def _expand(self, data: memoryview, size: int, window: bytes) -> bytes:
        unpacker = self._plain
        if window:
            past = zstandard.ZstdCompressionDict(window, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            unpacker = zstandard.ZstdDecompressor(dict_data=past)
        try:
            if zstandard.frame_content_size(data) != size:
                raise malformed("a stream does not have the length that belongs there")
            return unpacker.decompress(data, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as problem:
            raise malformed("a stream cannot be unpacked") from problem

    def _take(self, size: int) -> memoryview:
        data = memoryview(self._body)[self._at : self._at + size]
        if len(data) != size:
            raise malformed("a chunk's body ends inside a stream")
        self._at += size
        return data


def _unpacked(packed: Bytes, bits: int, count: int) -> Bytes:
    """Symbols of 1, 2, 4 or 8 bits, the first one in the lowest bits."""
    if bits == 8:
        return packed
    if bits == 1:
        return np.unpackbits(packed, count=count, bitorder="little")
    symbols = np.empty(len(packed) * (8 // bits), np.uint8)
    for number in range(8 // bits):
        np.right_shift(packed, np.uint8(number * bits), out=symbols[number :: 8 // bits])
    symbols &= np.uint8((1 << bits) - 1)
    return symbols[:count]
