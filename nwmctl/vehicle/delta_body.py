"""Reads the body of one chunk of a delta: streams of bytes, and groups of differences.

Every length is known before its bytes are read, so nothing is allocated on a claim; whatever does not fit is refused.
A part of the applier ``vehicle/delta.py``; the specification is docs/delta-format.md. Touches no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from nwmctl.formats.delta import Piece, malformed
from nwmctl.formats.delta_elements import CLASS_BITS, Bias, Bytes, Coder, Signed, Unsigned, packed_size, unzigzag

_COLUMNS: Final = 1
_ROWS: Final = 2


@dataclass(frozen=True, slots=True)
class Classes:
    """How a section's elements are put into classes: bits of a class, the lowest exponent, biases and thresholds."""

    bits: int
    low: int
    biases: tuple[Bias, ...]
    thresholds: bytes


class BodyReader:
    """Takes a chunk's body apart. Every length is known before it is read; nothing is allocated on a claim."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)
        self._at = 0
        self._plain = zstandard.ZstdDecompressor()

    def byte(self) -> int:
        return self._take(1)[0]

    def end(self) -> None:
        if self._at != len(self._body):
            raise malformed("bytes follow a chunk's last section")

    def classes(self, pieces: Sequence[Piece]) -> Classes:
        """What stands before a section's groups."""
        bits = self.byte()
        if bits not in CLASS_BITS:
            raise malformed(f"a section has classes of {bits} bits")
        if not bits:
            return Classes(0, 0, (), b"")
        low = self.byte()
        flags = [self.byte() if piece.row else 0 for piece in pieces]
        if max(flags) > _COLUMNS | _ROWS:
            raise malformed("a piece has a bias that does not exist")
        sizes = [
            (piece.row if flag & _COLUMNS else 0, piece.rows if flag & _ROWS else 0)
            for piece, flag in zip(pieces, flags, strict=True)
        ]
        data = self.stream(sum(columns + rows for columns, rows in sizes))
        at = 0
        biases = []
        for columns, rows in sizes:
            one, two = data[at : at + columns], data[at + columns : at + columns + rows]
            biases.append(Bias(one if columns else None, two if rows else None))
            at += columns + rows
        return Classes(bits, low, tuple(biases), bytes(self._take((1 << bits) - 1)))

    def groups(self, counts: Sequence[int], form: np.dtype[Any]) -> list[Signed]:
        """The steps of each class, in the order of the class; ``counts`` of them."""
        records = bytes(self._take(2 * len(counts)))
        return [
            self._steps(records[2 * number], records[2 * number + 1], count, form)
            for number, count in enumerate(counts)
        ]

    def _steps(self, code: int, shift: int, count: int, form: np.dtype[Any]) -> Signed:
        if code not in Coder._value2member_map_:
            raise malformed(f"a group has the coder {code}")
        coder = Coder(code)
        if shift >= 8 * form.itemsize or (shift and not coder.bits):
            raise malformed(f"a group has the shift {shift}")
        if coder is Coder.ZERO or not count:
            return np.zeros(count, form)
        if coder is Coder.GAPS:
            return self._sparse(count, form)
        return self._dense(coder.bits, shift, count, form)

    def _dense(self, bits: int, shift: int, count: int, form: np.dtype[Any]) -> Signed:
        packed = self.stream(packed_size(count, bits))
        symbols = _signed(packed if bits == 8 else _unpacked(packed, bits, count), bits)
        escape = np.int8(-1 << (bits - 1))
        steps = symbols.astype(form)
        full = symbols == escape
        if full.any():
            # The values that a symbol holds come first in the order of the folding.
            unsigned = np.dtype(f"<u{form.itemsize}")
            many = full.nonzero()[0]
            steps[many] = unzigzag(self._excess(many.size, unsigned) + unsigned.type((1 << bits) - 1))
        if shift:
            steps <<= form.type(shift)
            self._low(steps, shift)
        return steps

    def _excess(self, count: int, form: np.dtype[Any]) -> Unsigned:
        small = self.stream(count)
        values = small.astype(form)
        full = np.flatnonzero(small == 255)
        if full.size:
            values[full] += self.stream(full.size * form.itemsize).view(form)
        return values

    def _low(self, steps: Signed, shift: int) -> None:
        count = len(steps)
        whole, rest = divmod(shift, 8)
        widths = [width for width in (4, 2, 1) if rest & width]
        planes = self.stream(whole * count + sum(packed_size(count, width) for width in widths))
        for number in range(whole):
            steps |= planes[number * count : (number + 1) * count].astype(steps.dtype) << (8 * number)
        at = whole * count
        low: Bytes | None = None
        for width in widths:
            size = packed_size(count, width)
            field = _unpacked(planes[at : at + size], width, count)
            at += size
            if low is None:
                low = field
            else:
                low <<= np.uint8(width)
                low |= field
        if low is not None:
            high = low.astype(steps.dtype)
            if whole:
                high <<= 8 * whole
            steps |= high

    def _sparse(self, count: int, form: np.dtype[Any]) -> Signed:
        steps = np.zeros(count, form)
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
            unsigned = np.dtype(f"<u{form.itemsize}")
            steps[where] = unzigzag(self._excess(where.size, unsigned) + unsigned.type(1))
        return steps

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
        data = self._body[self._at : self._at + size]
        if len(data) != size:
            raise malformed("a chunk's body ends inside a stream")
        self._at += size
        return data


def _unpacked(packed: Bytes, bits: int, count: int) -> Bytes:
    """Symbols of 1, 2 or 4 bits: the first ones lie in the lowest bits of all bytes, then come those above."""
    size = len(packed)
    symbols = np.empty(size * (8 // bits), np.uint8)
    for number in range(8 // bits):
        np.right_shift(packed, np.uint8(bits * number), out=symbols[number * size : (number + 1) * size])
    symbols &= np.uint8((1 << bits) - 1)
    return symbols[:count]


def _signed(symbols: Bytes, bits: int) -> NDArray[np.int8]:
    if bits == 8:
        return symbols.view(np.int8)
    half = np.uint8(1 << (bits - 1))
    symbols ^= half
    symbols -= half
    return symbols.view(np.int8)
