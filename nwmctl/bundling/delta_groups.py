"""Encodes the elements of one chunk: differences to the old elements, grouped by context, the best coder per group.

A section is never larger than storing its elements (plus a few bytes per group), whatever they are. What is chosen is
tried on a sample of the group; every choice is written into the section, so the applier chooses nothing. Pure: arrays
in, bytes out. docs/delta-format.md says what the bytes mean.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import zstandard

from nwmctl.formats.delta import LAST_CONTEXT, Kind
from nwmctl.formats.delta_elements import BLOCK, Bytes, Coder, Signed, Unsigned, contexts, differences, places, zigzag

UNCHANGED: Final = b"\x00"
_AGAINST_OLD: Final = b"\x01"
_ALONE: Final = b"\x02"
_GROUP: Final = struct.Struct("<BBBbI")
_WORD: Final = struct.Struct("<I")

_SAMPLE: Final = 1 << 14
_GROUPS: Final = {Kind.FP16: 4, Kind.BF16: 6, Kind.FP32: 6, Kind.INT8: 1}
"""Groups per section at most. Each is a pass over the chunk on both sides: four instead of six make fp16 1.5 % larger
and a third faster to apply; the steps of 8-bit integers are as wide for large ones as for small ones."""


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

    def elements(self, kind: Kind, old: Unsigned, new: Unsigned) -> bytes:
        """The section of ``new`` against ``old``, arrays of one length in the kind's unsigned form."""
        if np.array_equal(old, new):
            return UNCHANGED
        against = self._section(kind, old, new)
        if len(against) < 0.8 * new.nbytes or not old.any():
            return _AGAINST_OLD + against
        alone = self._section(kind, np.zeros_like(old), new)
        return _ALONE + alone if len(alone) < len(against) else _AGAINST_OLD + against

    def _section(self, kind: Kind, old: Unsigned, new: Unsigned) -> bytes:
        lasts = _lasts(contexts(kind, old[:: max(1, len(old) // _SAMPLE)]), _GROUPS[kind])
        groups: list[list[Signed]] = [[] for _ in lasts]
        for start in range(0, len(old), BLOCK):
            part = old[start : start + BLOCK]
            steps = differences(kind, part, new[start : start + BLOCK])
            if len(lasts) == 1:
                groups[0].append(steps)
                continue
            for number, where in places(contexts(kind, part), lasts):
                groups[number].append(steps[where])
        records = []
        streams = []
        for last, parts in zip(lasts, groups, strict=True):
            group = np.concatenate(parts) if parts else np.zeros(0, f"<i{kind.width}")
            parts.clear()
            coder, shift, centre, coded = self._group(group)
            records.append(_GROUP.pack(last, coder, shift, centre, len(group)))
            streams.append(coded)
        return bytes([len(records)]) + b"".join(records) + b"".join(streams)

    def _group(self, steps: Signed) -> tuple[Coder, int, int, bytes]:
        if not len(steps) or not steps.any():
            return Coder.ZERO, 0, 0, b""
        values = zigzag(steps)
        middle = max(0, len(values) - _SAMPLE) // 2
        sample = values[middle : middle + _SAMPLE]
        _, coder, shift = min((len(self._coded(sample, *way)), *way) for way in _ways(sample))
        return coder, shift, 0, self._coded(values, coder, shift)

    def _coded(self, values: Unsigned, coder: Coder, shift: int) -> bytes:
        if coder is Coder.GAPS:
            return self._gaps(values)
        top = (1 << coder.bits) - 1
        high = values >> values.dtype.type(shift) if shift else values
        symbols = np.minimum(high, values.dtype.type(top)).astype(np.uint8)
        parts = [self.stream(_packed(symbols, coder.bits))]
        full = np.flatnonzero(symbols == top)
        if full.size:
            parts.append(self._excess(high[full] - values.dtype.type(top)))
        if shift:
            parts.append(self.stream(_low(values, shift)))
        return b"".join(parts)

    def _excess(self, values: Unsigned) -> bytes:
        small = np.minimum(values, values.dtype.type(255)).astype(np.uint8)
        coded = self.stream(small.tobytes())
        full = np.flatnonzero(small == 255)
        if full.size:
            coded += self.stream((values[full] - values.dtype.type(255)).tobytes())
        return coded

    def _gaps(self, values: Unsigned) -> bytes:
        where = np.flatnonzero(values)
        gaps = np.diff(where, prepend=-1) - 1
        jumps = gaps // 255
        size = len(gaps) + int(jumps.sum())
        coded = np.full(size, 255, np.uint8)
        coded[np.cumsum(jumps + 1) - 1] = gaps % 255
        return _WORD.pack(size) + self.stream(coded.tobytes()) + self._excess(values[where] - values.dtype.type(1))

    def stream(self, data: bytes) -> bytes:
        """A stream: its length and whether it is packed, then its bytes."""
        if len(data) > _SAMPLE:
            start = len(data) // 2
            if len(self._literals.compress(data[start : start + _SAMPLE // 2])) > 0.99 * (_SAMPLE // 2):
                return _WORD.pack(len(data) << 1) + data
        packed = self._literals.compress(data)
        if len(packed) < len(data):
            return _WORD.pack(len(packed) << 1 | 1) + packed
        return _WORD.pack(len(data) << 1) + data if data else b""


def _lasts(found: Bytes, most: int) -> list[int]:
    """The last context of each group, from a sample of contexts: every group has enough elements to be worth it."""
    counts = np.bincount(found, minlength=LAST_CONTEXT + 1)
    least = max(8, int(counts.sum()) // 40)
    lasts: list[int] = []
    total = 0
    for context in np.flatnonzero(counts):
        total += int(counts[context])
        if total >= least:
            lasts.append(int(context))
            total = 0
    while len(lasts) > most:
        sizes = np.add.reduceat(counts, [0, *(last + 1 for last in lasts[:-1])])
        del lasts[int(np.argmin(sizes[:-1] + sizes[1:]))]
    return [*lasts[:-1], LAST_CONTEXT]


def _ways(sample: Unsigned) -> list[tuple[Coder, int]]:
    """The coders that may suit values like these."""
    mean = float(sample.mean())
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


def _packed(symbols: Bytes, bits: int) -> bytes:
    if bits == 8:
        return symbols.tobytes()
    if bits == 1:
        return np.packbits(symbols, bitorder="little").tobytes()
    each = 8 // bits
    filled = np.zeros(-(-len(symbols) // each) * each, np.uint8)
    filled[: len(symbols)] = symbols
    packed = filled[0::each].copy()
    for number in range(1, each):
        packed |= filled[number::each] << np.uint8(bits * number)
    return packed.tobytes()


def _low(values: Unsigned, shift: int) -> bytes:
    """The lowest ``shift`` bits: whole byte planes, then planes of single bits."""
    whole, rest = divmod(shift, 8)
    planes: list[Any] = [values.view(np.uint8)[number :: values.itemsize].tobytes() for number in range(whole)]
    for number in range(rest):
        bit = (values >> values.dtype.type(8 * whole + number)).astype(np.uint8) & np.uint8(1)
        planes.append(np.packbits(bit, bitorder="little").tobytes())
    return b"".join(planes)
