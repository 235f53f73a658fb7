"""The bounds that deltas are held against, computed from the artifacts themselves.

Each stored weight is mapped to an integer of the same order (sign and magnitude of a float; int8 as it is), the old
one is subtracted, and what is counted is the order-0 entropy of the difference given the old weight's exponent (for
int8: the number of bits of its magnitude), over all weights of one kind in the file, without the cost of the tables.
Everything that is no weight counts with its bytes if it changed. It is an estimate of what a coder of that model could
reach, not a law: a better model of the data may go below it.

Counted as it stands (``empirical``), the entropy of values of 32 bits is too low: most of them occur once, and what
occurs once in a million costs at most twenty bits, however many it has. ``low bits whole`` therefore counts the bits
below the leading ones of each exponent's usual difference with one bit each, and only the rest by its entropy. For 8
and 16 bits the two are nearly the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_FLOATS: Final = {1: (np.uint32, 23), 10: (np.uint16, 10), 16: (np.uint16, 7)}
"""ONNX element type -> bits as integers, bits of the mantissa."""
_INT8: Final = 3

_LEADING: Final = 6
"""Bits of the usual difference that are counted by their entropy: finer steps no longer change the sum."""

Pieces = dict[tuple[int, int], list[NDArray[np.int64]]]


def bound_bytes(old: Path, new: Path, *, low_bits_whole: bool = False) -> float:
    """The bound on a delta between two ONNX files of the same graph, in bytes."""
    before, after = _raw(old), _raw(new)
    groups: Pieces = {}
    other = 0.0
    for name, (element, data) in after.items():
        known = before.get(name)
        if known is None or known[0] != element or len(known[1]) != len(data) or element not in (*_FLOATS, _INT8):
            other += len(data) if known != (element, data) else 0
            continue
        _group(groups, element, known[1], data)
    bits = _with_low_bits if low_bits_whole else _entropy_bits
    return other + sum(bits(np.concatenate(parts)) for parts in groups.values()) / 8


def _group(groups: Pieces, element: int, old: bytes, new: bytes) -> None:
    if element == _INT8:
        before, after = (np.frombuffer(each, np.int8).astype(np.int64) for each in (old, new))
        key = np.ceil(np.log2(np.abs(before) + 1)).astype(np.int64)
    else:
        kind, mantissa = _FLOATS[element]
        raw, changed = np.frombuffer(old, kind), np.frombuffer(new, kind)
        before, after = _ordered(raw), _ordered(changed)
        key = ((raw & (_top(kind) - 1)) >> mantissa).astype(np.int64)
    difference = after - before
    order = np.argsort(key.astype(np.uint8 if key.max(initial=0) < 256 else np.uint16), kind="stable")
    counts = np.bincount(key)
    for value, part in zip(range(len(counts)), np.split(difference[order], np.cumsum(counts)[:-1]), strict=True):
        if len(part):
            groups.setdefault((element, value), []).append(part)


def _top(kind: Any) -> int:
    return 1 << (int(np.dtype(kind).itemsize) * 8 - 1)


def _ordered(bits: NDArray[Any]) -> NDArray[np.int64]:
    top = _top(bits.dtype)
    magnitude = (bits & (top - 1)).astype(np.int64)
    return np.where(bits >= top, -magnitude, magnitude)


def _entropy_bits(values: NDArray[np.int64]) -> float:
    found = np.sort(values)
    edges = np.flatnonzero(np.diff(found)) + 1
    counts = np.diff(np.concatenate([[0], edges, [len(found)]]))
    return float((counts * np.log2(len(found) / counts)).sum())


def _with_low_bits(values: NDArray[np.int64]) -> float:
    low = max(0, int(np.log2(np.abs(values).mean() + 1)) - _LEADING)
    return low * len(values) + _entropy_bits(values >> low)


def _raw(path: Path) -> dict[str, tuple[int, bytes]]:
    import onnx

    return {each.name: (each.data_type, each.raw_data) for each in onnx.load(str(path)).graph.initializer}
