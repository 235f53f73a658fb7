"""How elements of the old file become elements of the new one: contexts and signed differences.

A float's bits, sign and magnitude, become an unsigned integer in the order of the numbers, so that a difference counts
the numbers in between; it is taken modulo the width, so every bit pattern, NaN payloads and negative zero included,
comes back. A difference is positive where it leads away from zero, as seen from the old element. The context of an
element is read from the old element alone, which the vehicle has: the exponent of a float, the magnitude of an integer.
Pure arithmetic on arrays; knows no stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nwmctl.formats.delta import Kind

Unsigned = NDArray[Any]
Signed = NDArray[Any]
Bytes = NDArray[np.uint8]
Places = NDArray[np.intp]

UNSIGNED: Final[dict[Kind, np.dtype[Any]]] = {
    Kind.FP16: np.dtype("<u2"),
    Kind.BF16: np.dtype("<u2"),
    Kind.FP32: np.dtype("<u4"),
    Kind.INT8: np.dtype("u1"),
}
_MANTISSA: Final = {Kind.FP16: 10, Kind.BF16: 7, Kind.FP32: 23}
_MANY: Final = 7

BLOCK: Final = 1 << 16
"""Elements to work on at once: what one step leaves is still in the processor's cache for the next one."""


class Coder(IntEnum):
    """How a group's values are written: all zero; symbols of 1, 2, 4 or 8 bits; or the gaps between values not zero."""

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


def contexts(kind: Kind, old: Unsigned) -> Bytes:
    """One byte per element of the old file: a float's exponent, an 8-bit integer's magnitude (0 to 128)."""
    if kind is Kind.INT8:
        return np.abs(old.view(np.int8)).view(np.uint8)
    found: Bytes = (old >> _MANTISSA[kind]).astype(np.uint8)
    if kind is Kind.FP16:
        found &= np.uint8(31)
    return found


def places(found: Bytes, lasts: Sequence[int]) -> Iterator[tuple[int, Places]]:
    """For each range of contexts, given by its last one: its number, and where its elements stand, in order.

    The ranges come in any order, and one without elements may not come at all.
    """
    scarce: NDArray[np.bool_] | None = None
    late = []
    first = 0
    for number, last in enumerate(lasts):
        mask = (found - np.uint8(first)) <= np.uint8(last - first)
        if np.count_nonzero(mask) * _MANY > len(found):
            yield number, mask.nonzero()[0]
        else:
            late.append((number, first, last))
            scarce = mask if scarce is None else np.bitwise_or(scarce, mask, out=scarce)
        first = last + 1
    if scarce is None:
        return
    # Looking for few elements among many is dear: the scarce ranges are looked for among themselves.
    rest = scarce.nonzero()[0]
    among = found[rest]
    for number, first, last in late:
        yield number, rest[((among - np.uint8(first)) <= np.uint8(last - first)).nonzero()[0]]


def differences(kind: Kind, old: Unsigned, new: Unsigned) -> Signed:
    """What leads from ``old`` to ``new``, as signed integers of the same width."""
    signed = np.dtype(f"<i{old.itemsize}")
    sign = old.view(signed) >> (8 * old.itemsize - 1)
    if kind is Kind.INT8:
        found = (new - old).view(signed)
        found ^= sign
        found -= sign
        return found
    top = _top(old)
    order = new.view(signed) >> (8 * old.itemsize - 1)
    order |= top
    order ^= new.view(signed)
    order ^= sign
    order -= old.view(signed) | top
    return order


def apply_differences(kind: Kind, old: Unsigned, found: Signed) -> Unsigned:
    """What ``differences`` was made from; ``found`` is used up."""
    signed = found.dtype
    sign = old.view(signed) >> (8 * old.itemsize - 1)
    if kind is Kind.INT8:
        found ^= sign
        found -= sign
        found += old.view(signed)
        return found.view(old.dtype)
    top = _top(old)
    found += old.view(signed) | top
    found ^= sign
    turned = found >> (8 * old.itemsize - 1)
    np.invert(turned, out=turned)
    turned |= top
    found ^= turned
    return found.view(old.dtype)


def _top(like: Unsigned) -> Any:
    signed = np.dtype(f"<i{like.itemsize}")
    return np.iinfo(signed).min * np.ones(1, signed)


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
