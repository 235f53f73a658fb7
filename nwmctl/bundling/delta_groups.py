"""Encodes the elements of one chunk: steps from the old elements, in classes, the best coder for each class.

A section is never larger than storing its elements (plus a few bytes per class), whatever they are. What is chosen is
tried on a sample of the class; every choice is written into the section, so the applier chooses nothing. Pure: arrays
in, bytes out. docs/delta-format.md says what the bytes mean; ``delta_classes`` chooses classes and biases.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import zstandard

from nwmctl.bundling.delta_classes import Choice, choose
from nwmctl.formats.delta import Kind, Piece
from nwmctl.formats.delta_elements import (
    Bytes,
    Coder,
    Signed,
    Sorting,
    Unsigned,
    differences,
    packed_size,
    tuple_of,
    zigzag,
)

UNCHANGED: Final = b"\x00"
_AGAINST_OLD: Final = b"\x01"
_ALONE: Final = b"\x02"
_WORD: Final = struct.Struct("<I")

_SAMPLE: Final = 1 << 13
_LONG: Final = 1 << 14
_PLACES: Final = 8


class Packer:
    """Owns the compressors, which are dear to make. Use one per thread."""

    def __init__(self) -> None:
        # Matches are rare in these streams and Huffman does the work: a tiny table finds the runs that matter.
        literals = zstandard.ZstdCompressionParameters(
            window_log=20,
            hash_log=8,
            chain_log=8,
            search_log=1,
            min_match=7,
            target_length=0,
            strategy=zstandard.STRATEGY_FAST,
            write_content_size=1,
            write_checksum=0,
        )
        self._literals = zstandard.ZstdCompressor(compression_params=literals)

    def elements(self, kind: Kind, old: Unsigned, new: Unsigned, pieces: Sequence[Piece]) -> bytes:
        """The section of ``new`` against ``old``, arrays of one length in the kind's unsigned form."""
        if np.array_equal(old, new):
            return UNCHANGED
        against = self._section(kind, old, new, pieces)
        if len(against) < 0.8 * new.nbytes or not old.any():
            return _AGAINST_OLD + against
        alone = self._section(kind, np.zeros_like(old), new, pieces)
        return _ALONE + alone if len(alone) < len(against) else _AGAINST_OLD + against

    def _section(self, kind: Kind, old: Unsigned, new: Unsigned, pieces: Sequence[Piece]) -> bytes:
        steps = differences(kind, old, new)
        choice = choose(kind, old, steps, pieces)
        if not choice.bits:
            return b"\x00" + self._groups([steps])
        found = choice.found
        missing = -len(old) % tuple_of(choice.bits)
        if missing:
            found = np.concatenate([found, np.zeros(missing, np.uint8)])
            steps = np.concatenate([steps, np.zeros(missing, steps.dtype)])
        sorting = Sorting(found, choice.bits, choice.thresholds)
        return self._head(choice, pieces) + self._groups(sorting.apart(steps))

    def _head(self, choice: Choice, pieces: Sequence[Piece]) -> bytes:
        flags = bytearray()
        parts = []
        for piece, bias in zip(pieces, choice.biases, strict=True):
            given = [each.tobytes() for each in (bias.columns, bias.rows) if each is not None]
            if piece.row:
                flags.append((bias.columns is not None) | (bias.rows is not None) << 1)
            parts += given
        return bytes([choice.bits, choice.low]) + flags + self.stream(b"".join(parts)) + choice.thresholds

    def _groups(self, groups: Sequence[Signed]) -> bytes:
        records = bytearray()
        streams = []
        for group in groups:
            coder, shift, coded = self._group(group)
            records += bytes([coder, shift])
            streams.append(coded)
        return bytes(records) + b"".join(streams)

    def _group(self, steps: Signed) -> tuple[Coder, int, bytes]:
        if not len(steps) or not steps.any():
            return Coder.ZERO, 0, b""
        sample = _spread(steps)
        ways = sorted((len(self._coded(sample, *way)), *way) for way in _ways(sample))
        for _, coder, shift in ways:
            coded = self._coded(steps, coder, shift)
            if coder is not Coder.GAPS or int.from_bytes(coded[:4], "little") <= len(steps) // 4:
                return coder, shift, coded
        raise AssertionError("gaps are never the only way")

    def _coded(self, steps: Signed, coder: Coder, shift: int) -> bytes:
        if coder is Coder.GAPS:
            return self._gaps(steps)
        high = steps >> steps.dtype.type(shift) if shift else steps
        escape = -1 << (coder.bits - 1)
        # Comparing as unsigned numbers tests both ends at once.
        unsigned = np.dtype(f"<u{steps.itemsize}")
        moved = high.view(unsigned) + unsigned.type(-escape - 1)
        full = moved > unsigned.type(-2 * escape - 2)
        parts = []
        symbols = high.astype(np.int8)
        if full.any():
            many = full.nonzero()[0]
            symbols[many] = escape
            parts.append(self._excess(zigzag(high[many]) - unsigned.type((1 << coder.bits) - 1)))
        parts.insert(0, self.stream(_packed(symbols.view(np.uint8), coder.bits)))
        if shift:
            parts.append(self.stream(_low(steps.view(unsigned), shift)))
        return b"".join(parts)

    def _excess(self, values: Unsigned) -> bytes:
        small = np.minimum(values, values.dtype.type(255)).astype(np.uint8)
        coded = self.stream(small.data)
        full = np.flatnonzero(small == 255)
        if full.size:
            coded += self.stream((values[full] - values.dtype.type(255)).tobytes())
        return coded

    def _gaps(self, steps: Signed) -> bytes:
        where = np.flatnonzero(steps)
        gaps = np.diff(where, prepend=-1) - 1
        jumps = gaps // 255
        size = len(gaps) + int(jumps.sum())
        coded = np.full(size, 255, np.uint8)
        coded[np.cumsum(jumps + 1) - 1] = gaps % 255
        values = zigzag(steps[where])
        return _WORD.pack(size) + self.stream(coded.tobytes()) + self._excess(values - values.dtype.type(1))

    def stream(self, data: bytes | memoryview) -> bytes:
        """A stream: its length and whether it is packed, then its bytes."""
        if len(data) > _LONG:
            start = len(data) // 2
            if len(self._literals.compress(data[start : start + _SAMPLE])) > 0.99 * _SAMPLE:
                return b"".join((_WORD.pack(len(data) << 1), data))
        packed = self._literals.compress(data)
        if len(packed) < len(data):
            return _WORD.pack(len(packed) << 1 | 1) + packed
        return b"".join((_WORD.pack(len(data) << 1), data)) if len(data) else b""


def _spread(steps: Signed) -> Signed:
    """Some of many, from places all over them."""
    if len(steps) <= _SAMPLE:
        return steps
    stride, size = len(steps) // _PLACES, _SAMPLE // _PLACES
    return np.concatenate([steps[number * stride :][:size] for number in range(_PLACES)])


def _ways(sample: Signed) -> list[tuple[Coder, int]]:
    """The coders that may suit values like these."""
    mean = 2 * float(np.abs(sample.astype(np.float32)).mean())
    bits = 8 * sample.itemsize
    shift = min(max(0, int(np.ceil(np.log2(max(mean, 1e-9) * 6 / 255)))), bits - 1)
    ways = [(Coder.BITS8, shift)]
    if shift:
        ways.append((Coder.BITS8, shift - 1))
    if mean < 6:
        ways.append((Coder.BITS4, 0))
    if mean < 1.5:
        ways.append((Coder.BITS2, 0))
    if mean < 0.6:
        ways.append((Coder.BITS1, 0))
    if np.count_nonzero(sample) * 16 < len(sample):
        ways.append((Coder.GAPS, 0))
    return ways


def _packed(symbols: Bytes, bits: int) -> memoryview:
    """The first symbols in the lowest bits of all bytes, the next ones above them."""
    if bits == 8:
        return symbols.data
    each, size = 8 // bits, packed_size(len(symbols), bits)
    filled = np.zeros(size * each, np.uint8)
    np.bitwise_and(symbols, np.uint8((1 << bits) - 1), out=filled[: len(symbols)])
    packed = filled[:size]
    for number in range(1, each):
        packed |= filled[number * size : (number + 1) * size] << np.uint8(bits * number)
    return packed.data


def _low(values: Unsigned, shift: int) -> bytes:
    """The lowest ``shift`` bits: whole byte planes, then what is left in fields of 4, 2 and 1 bits."""
    whole, rest = divmod(shift, 8)
    planes: list[Any] = [values.view(np.uint8)[number :: values.itemsize].tobytes() for number in range(whole)]
    if rest:
        top = values.view(np.uint8)[whole :: values.itemsize].copy()
        for width in (4, 2, 1):
            if rest & width:
                rest -= width
                planes.append(_packed(top >> np.uint8(rest), width))
    return b"".join(planes)
