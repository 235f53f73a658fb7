"""How elements of the old file become elements of the new one: signed steps, in classes of elements that step alike.

A float's bits, sign and magnitude, count the numbers in their order, so a step is a difference of bits; where it
crosses zero the magnitude is turned over, and every bit pattern, NaN payloads and negative zero included, comes back.
How far an element is likely to step is told by its old exponent, which the vehicle has, and by its row and its column,
whose biases the delta carries. Elements of one class are coded together; they are moved in tuples, sorted by the
classes of all elements of the tuple, since sorting a few wide things is cheaper than many narrow ones. Pure arithmetic
on arrays; knows no stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nwmctl.formats.delta import Kind, Piece

Unsigned = NDArray[Any]
Signed = NDArray[Any]
Bytes = NDArray[np.uint8]

UNSIGNED: Final[dict[Kind, np.dtype[Any]]] = {
    Kind.FP16: np.dtype("<u2"),
    Kind.BF16: np.dtype("<u2"),
    Kind.FP32: np.dtype("<u4"),
    Kind.INT8: np.dtype("u1"),
}
_MANTISSA: Final = {Kind.FP16: 10, Kind.BF16: 7, Kind.FP32: 23}
_WORDS: Final[dict[int, np.dtype[Any]]] = {
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
    16: np.dtype("<c16"),
}
"""For a tuple of so many bytes the type that moves it whole."""

QUARTERS: Final = 4
"""Units of a likelihood in one factor of two."""
OCTAVES: Final = 31
"""The most factors of two that old exponents tell apart."""
_LARGE: Final = 6 << 20
_BLOCK: Final = 1 << 16
"""Elements to work on at once: what one step leaves is still in the processor's cache for the next one."""
CLASS_BITS: Final = (0, 2, 4)


class Coder(IntEnum):
    """How a class's values are written: all zero; symbols of 1, 2, 4 or 8 bits; or the gaps between values not zero."""

    ZERO = 0
    BITS1 = 1
    BITS2 = 2
    BITS4 = 3
    BITS8 = 4
    GAPS = 5

    @property
    def bits(self) -> int:
        """Bits of a symbol; 0 where there are no symbols."""
        return _BITS[self]


_BITS: Final = {Coder.ZERO: 0, Coder.BITS1: 1, Coder.BITS2: 2, Coder.BITS4: 4, Coder.BITS8: 8, Coder.GAPS: 0}


@dataclass(frozen=True, slots=True)
class Bias:
    """What a piece's columns and rows add to the likelihoods of its elements; None: nothing."""

    columns: Bytes | None
    rows: Bytes | None


def keep_memory() -> None:
    """Make memory that is given back stay with the process, which takes and gives the same again for every chunk.

    The C library returns blocks to the system as long as it saw none as large as this one; getting them again costs
    more than half of the work on them. Nothing is written to the block, so it takes no memory.
    """
    np.empty(_LARGE, np.uint8)


def tuple_of(bits: int) -> int:
    """How many elements are moved at once where a class has so many bits."""
    return 8 // bits if bits else 1


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


def exponents(kind: Kind, old: Unsigned) -> Bytes:
    """The exponent field of each float; 0 for integers."""
    if kind is Kind.INT8:
        return np.zeros(len(old), np.uint8)
    found: Bytes = (old >> _MANTISSA[kind]).astype(np.uint8)
    if kind is Kind.FP16:
        found &= np.uint8(31)
    return found


def likelihoods(kind: Kind, old: Unsigned, low: int) -> Bytes:
    """A number for each element, higher where a step of the same size is fewer numbers wide, in quarters of an octave.
    Exponents count from ``low``. Biases are to be added."""
    if kind is Kind.INT8:
        return np.zeros(len(old), np.uint8)
    if kind is Kind.FP16 and not low:
        # The exponent as it lies in the upper byte has the right place already.
        return old.view(np.uint8)[1::2] & np.uint8(OCTAVES << 2)
    found = np.empty(len(old), np.uint8)
    for block in _blocks(len(old)):
        part = exponents(kind, old[block])
        if low:
            np.maximum(part, np.uint8(low), out=part)
            part -= np.uint8(low)
        np.minimum(part, np.uint8(OCTAVES), out=part)
        np.left_shift(part, np.uint8(2), out=found[block])
    return found


def add_biases(found: Bytes, pieces: Sequence[Piece], biases: Sequence[Bias]) -> None:
    """Add what the pieces' columns and rows say. ``found`` has the pieces' elements one after another."""
    at = 0
    for piece, bias in zip(pieces, biases, strict=True):
        part = found[at : at + piece.count]
        if bias.columns is not None:
            part += np.tile(bias.columns, piece.rows)[piece.first : piece.first + piece.count]
        if bias.rows is not None:
            part += np.repeat(bias.rows, piece.row)[piece.first : piece.first + piece.count]
        at += piece.count


class Sorting:
    """Where elements go that are sorted by class, a tuple at a time.

    ``found`` has whole tuples; the class of an element is how many of the thresholds its likelihood reaches.
    """

    def __init__(self, found: Bytes, bits: int, thresholds: bytes) -> None:
        self._width = width = tuple_of(bits)
        self._classes = 1 << bits
        keys = np.empty(len(found) // width, np.uint8)
        for block in _blocks(len(found)):
            keys[block.start // width : block.stop // width] = _keys(found[block], bits, thresholds)
        self._order = np.argsort(keys, kind="stable")
        counts = np.bincount(keys, minlength=256)
        shapes = [(self._classes**number, self._classes, -1) for number in range(width)]
        self._runs = [counts.reshape(shape).sum(axis=2) for shape in shapes]
        self.counts: list[int] = sum(runs.sum(axis=0) for runs in self._runs).tolist()
        """How many elements each class has."""

    def apart(self, steps: Signed) -> list[Signed]:
        """The steps of each class."""
        form = steps.dtype
        word = _WORDS[self._width * form.itemsize]
        rows = np.take(steps.view(word), self._order).view(form).reshape(-1, self._width)
        parts: list[list[Signed]] = [[] for _ in range(self._classes)]
        for number, runs in enumerate(self._runs):
            at = 0
            for index, length in enumerate(runs.ravel().tolist()):
                if length:
                    parts[index % self._classes].append(rows[at : at + length, number])
                    at += length
        return [np.concatenate(part) if part else np.zeros(0, form) for part in parts]

    def together(self, groups: Sequence[Signed]) -> Signed:
        """The inverse of ``apart``."""
        form = groups[0].dtype
        word = _WORDS[self._width * form.itemsize]
        rows = np.empty((len(self._order), self._width), form)
        used = [0] * self._classes
        for number, runs in enumerate(self._runs):
            column = rows[:, number]
            at = 0
            for index, length in enumerate(runs.ravel().tolist()):
                if length:
                    group, first = groups[index % self._classes], used[index % self._classes]
                    column[at : at + length] = group[first : first + length]
                    used[index % self._classes] = first + length
                    at += length
        steps = np.empty(len(self._order), word)
        steps[self._order] = rows.view(word)[:, 0]
        made: Signed = steps.view(form)
        return made


_GATHER: Final[dict[int, tuple[np.dtype[Any], int]]] = {
    2: (np.dtype("<u4"), 0x40100401),
    4: (np.dtype("<u2"), 0x1001),
}


def _keys(found: Bytes, bits: int, thresholds: bytes) -> Bytes:
    """The classes of each tuple side by side in one byte, the first one on top."""
    classes = (found >= np.uint8(thresholds[0])).view(np.uint8)
    for threshold in thresholds[1:]:
        classes += (found >= np.uint8(threshold)).view(np.uint8)
    # A product with this number has, in its top byte, the first class moved up to the top, the second one below it.
    form, factor = _GATHER[bits]
    wide = classes.view(form) * form.type(factor)
    wide >>= form.type(8 * (form.itemsize - 1))
    keys: Bytes = wide.astype(np.uint8)
    return keys


def differences(kind: Kind, old: Unsigned, new: Unsigned) -> Signed:
    """What leads from ``old`` to ``new``, as signed integers of the same width."""
    if kind is Kind.INT8:
        return (new - old).view(np.int8)
    found = np.empty_like(old)
    for block in _blocks(len(old)):
        before, after = old[block], new[block]
        turned = _turned(before, after)
        turned ^= after
        np.subtract(turned, before, out=found[block])
    return found.view(f"<i{old.itemsize}")


def apply_differences(kind: Kind, old: Unsigned, steps: Signed) -> Unsigned:
    """What ``differences`` was made from; ``steps`` is used up."""
    new = steps.view(old.dtype)
    if kind is Kind.INT8:
        new += old
        return new
    for block in _blocks(len(old)):
        before, after = old[block], new[block]
        after += before
        after ^= _turned(before, after)
    return new


def _turned(before: Unsigned, after: Unsigned) -> Unsigned:
    """All bits of the magnitude where the signs differ, 0 elsewhere."""
    found: Unsigned = before ^ after
    signed: Signed = found.view(f"<i{found.itemsize}")
    signed >>= 8 * found.itemsize - 1
    found >>= found.dtype.type(1)
    return found


def packed_size(count: int, bits: int) -> int:
    """Bytes that so many symbols of so many bits take."""
    return -(-count // (8 // bits))


def zigzag(found: Signed) -> Unsigned:
    """Signed to unsigned: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    folded = found << 1
    folded ^= found >> (8 * found.itemsize - 1)
    return folded.view(np.dtype(f"<u{found.itemsize}"))


def unzigzag(folded: Unsigned) -> Signed:
    """The inverse of ``zigzag``."""
    sign = folded & folded.dtype.type(1)
    np.negative(sign, out=sign)
    sign ^= folded >> folded.dtype.type(1)
    signed: Signed = sign.view(np.dtype(f"<i{folded.itemsize}"))
    return signed
