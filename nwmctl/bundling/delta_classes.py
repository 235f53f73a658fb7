"""Chooses how the elements of a section are put into classes: biases of columns and rows, thresholds between classes.

What training changes in a weight depends on its column and row far more than on the weight itself: inputs that are
often active get large steps. How large, in quarters of a factor of two, is estimated from the steps themselves, on
samples, and the thresholds are set where the expected size is least. The choice decides sizes only: whatever it is, the
same elements come back. Pure: arrays in, a choice out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nwmctl.formats.delta import Kind, Piece
from nwmctl.formats.delta_elements import (
    OCTAVES,
    QUARTERS,
    Bias,
    Bytes,
    Signed,
    Unsigned,
    add_biases,
    exponents,
    likelihoods,
)

_BITS: Final = {Kind.FP16: 2, Kind.BF16: 4, Kind.FP32: 4, Kind.INT8: 2}
"""Bits of a class. Four classes are moved in tuples of four elements, sixteen in pairs, which takes twice as long."""
_LOOK: Final = {Kind.FP16: 32, Kind.BF16: 64, Kind.FP32: 64, Kind.INT8: 64}
"""Rows that a column is estimated from, and columns that a row is estimated from: more are better and slower."""
_FEW_ROWS: Final = 16
_WIDEST: Final = 63
_NARROW: Final = 8
"""The bias of a row that is as likely to change as its columns say."""
_STRIDE: Final = 29
_PLACES: Final = 32
_EXPONENT: Final = 96
"""What stands for the exponent 0 in a float: no factor leaves the range of floats."""
_CLASS_COST: Final = 600.0
"""About how many bits the tables and lengths of a class take."""
_BIAS_BITS: Final = 4.0
"""About what one bias costs."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Choice:
    """As the section says it. ``biases`` has one for each piece; ``bits`` 0: one class, and the rest means nothing.
    ``found`` has the likelihoods, biases added."""

    bits: int
    found: Bytes
    low: int = 0
    biases: tuple[Bias, ...] = ()
    thresholds: bytes = b""


def choose(kind: Kind, old: Unsigned, steps: Signed, pieces: Sequence[Piece]) -> Choice:
    """The classes for a section whose elements are ``old`` and change by ``steps``."""
    low = _lowest(kind, old)
    found = likelihoods(kind, old, low)
    sizes = np.abs(steps[::_STRIDE].astype(np.float32))
    classes = 1 << _BITS[kind]
    biases = _biases(found, steps, pieces)
    count = 0
    if biases is None:
        biases = tuple(Bias(None, None) for _ in pieces)
    else:
        add_biases(found, pieces, biases)
        count = sum(len(each) for bias in biases for each in (bias.columns, bias.rows) if each is not None)
    cost, thresholds = _thresholds(found[::_STRIDE], sizes, classes)
    if cost + _BIAS_BITS * count / _STRIDE >= _cost(sizes.sum(), len(sizes)) + _CLASS_COST / _STRIDE:
        return Choice(0, found)
    return Choice(_BITS[kind], found, low, biases, thresholds)


def _lowest(kind: Kind, old: Unsigned) -> int:
    """The exponent that likelihoods count from."""
    if kind in (Kind.FP16, Kind.INT8) or not len(old):
        return 0
    return max(0, int(exponents(kind, old[::_STRIDE]).max()) - OCTAVES)


def _biases(plain: Bytes, steps: Signed, pieces: Sequence[Piece]) -> tuple[Bias, ...] | None:
    """A bias for every column and row that is known; None where none is."""
    found: list[tuple[Floats | None, Floats | None]] = []
    at = 0
    for piece in pieces:
        part = slice(at, at + piece.count)
        found.append(_levels(plain[part], steps[part], piece) if piece.row else (None, None))
        at += piece.count
    known = [
        float(level.max()) for columns, rows in found if (level := rows if columns is None else columns) is not None
    ]
    if not known:
        return None
    top = max(known)
    return tuple(_bias(columns, rows, top) for columns, rows in found)


def _bias(columns: Floats | None, rows: Floats | None, top: float) -> Bias:
    if rows is None:
        return Bias(None, None)
    if columns is None:
        return Bias(None, _clipped(QUARTERS * (top - rows) + _NARROW, _WIDEST + _NARROW))
    return Bias(
        _clipped(QUARTERS * (top - columns), _WIDEST),
        _clipped(_NARROW - QUARTERS * rows, 2 * _NARROW),
    )


def _clipped(level: Floats, most: int) -> Bytes:
    return np.clip(np.rint(level), 0, most).astype(np.uint8)


def _levels(plain: Bytes, steps: Signed, piece: Piece) -> tuple[Floats | None, Floats | None]:
    """The logarithm of the usual size of a step in each column, and of what a row's differ from that; where there are
    too few rows to tell columns apart, None and the logarithm for each row."""
    skip = -piece.first % piece.row
    whole = (piece.count - skip) // piece.row
    if whole < _FEW_ROWS:
        pads = np.zeros((2, piece.rows * piece.row), np.float32)
        pads[:, piece.first : piece.first + piece.count] = _sizes(plain, steps)
        sizes, weights = pads.reshape(2, piece.rows, piece.row)
        return None, _log(_mean(sizes, weights, 1))
    grid = slice(skip, skip + whole * piece.row)
    likely, moved = plain[grid].reshape(whole, piece.row), steps[grid].reshape(whole, piece.row)
    every = max(1, whole // _LOOK[piece.kind])
    sizes, weights = _sizes(likely[::every], moved[::every])
    columns = _log(_mean(sizes, weights, 0))
    wide = max(1, piece.row // _LOOK[piece.kind])
    sizes, weights = _sizes(likely[:, ::wide], moved[:, ::wide])
    sizes /= np.exp2(columns[::wide])
    rows = _log(_mean(sizes, weights, 1))
    edges = np.zeros(piece.rows, np.float32)
    first = 1 if skip else 0
    edges[first : first + whole] = rows - np.median(rows)
    return columns, edges


def _sizes(plain: Bytes, steps: Signed) -> tuple[Floats, Floats]:
    """How far elements move, in units that do not depend on their exponents, and how much each one tells."""
    # A likelihood without biases is four times the exponent; as the exponent of a float it is a factor.
    factors = plain.astype(np.uint32)
    factors >>= np.uint32(2)
    factors += np.uint32(_EXPONENT)
    factors <<= np.uint32(23)
    units = factors.view(np.float32)
    sizes = steps.astype(np.float32)
    np.abs(sizes, out=sizes)
    sizes *= units
    # A step of few units is a matter of chance: what it says about the usual size counts less the wider its unit is.
    weights = 1 / (units + sizes.mean() + np.float32(1e-30))
    sizes *= weights
    return sizes, weights


def _mean(sizes: Floats, weights: Floats, axis: int) -> Floats:
    found: Floats = sizes.sum(axis=axis) / np.maximum(weights.sum(axis=axis), np.float32(1e-30))
    return found


def _log(sizes: Floats) -> Floats:
    least = max(float(sizes.max(initial=0.0)) * 2.0**-15, 1e-30)
    return np.log2(np.maximum(sizes, np.float32(least)))


def _thresholds(found: Bytes, sizes: Floats, classes: int) -> tuple[float, bytes]:
    """The expected bits and the thresholds of the best split of the sampled likelihoods into so many classes."""
    span = int(found.max()) - int(found.min()) + 1
    # Neighbours stay together where there are many: a few times as many places to split at as classes are enough.
    wide = -(-span // max(_PLACES, 4 * classes))
    found = found // np.uint8(wide)
    counts = np.bincount(found)
    sums = np.bincount(found, weights=sizes)
    levels = np.flatnonzero(counts)
    number = np.concatenate([[0], np.cumsum(counts[levels])])
    total = np.concatenate([[0.0], np.cumsum(sums[levels])])
    # cost[i, j]: levels i to j - 1 in one class.
    cost = _cost(total[None, :] - total[:, None], number[None, :] - number[:, None])
    cost += _CLASS_COST / _STRIDE
    cost[np.diag_indices(len(number))] = 0.0  # a class without elements costs nothing
    cost[np.tril_indices(len(number), -1)] = np.inf
    best = cost[0]
    splits = []
    for _ in range(classes - 1):
        ways = best[:, None] + cost
        splits.append(ways.argmin(axis=0))
        best = ways.min(axis=0)
    end = len(levels)
    ends = []
    for split in reversed(splits):
        end = int(split[end])
        ends.append(min(wide * int(levels[end]), 255) if end < len(levels) else 255)
    return float(best[-1]), bytes(reversed(ends))


def _cost(total: Any, number: Any) -> Any:
    """Bits of so many values, geometrically distributed, whose sizes have this sum."""
    number = np.maximum(number, 0)
    total = 2 * np.maximum(total, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = number * np.log2(1 + total / number) + total * np.log2(1 + number / total)
    return np.where(total > 0, bits, 0.0)
