"""Predicts the size of a delta from a sample of its chunks.

The chunks are spread over the whole file by a low-discrepancy sequence, so that no rhythm of layers fools it; the same
files always give the same sample. What a byte of the new file costs in the sample stands for the rest, and the spread
between chunks gives the interval. With every chunk sampled the size is exact. Writes no delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nwmctl.bundling.delta_encode import ChunkSample, sample_delta
from nwmctl.domain.figure import Obtained

CHUNKS: Final = 8
"""Chunks of at most 1 MiB that a prediction codes."""
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_STUDENT_95: Final = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31)
"""For 2 to 9 chunks; beyond that it falls slowly, and the last is used."""


@dataclass(frozen=True, slots=True)
class DeltaEstimate:
    """A delta's predicted size in bytes; ``low`` and ``high`` enclose it at about 95 % confidence. ``sampled`` of
    ``chunks`` were coded. ``obtained`` is ``measured`` where that was all of them."""

    bytes: int
    low: int
    high: int
    sampled: int
    chunks: int
    new_size: int
    obtained: Obtained


def estimate_delta(old: Path, new: Path, chunks: int = CHUNKS) -> DeltaEstimate:
    """Predict the delta that turns ``old`` into ``new``. Raises DeltaFileError, DeltaInputChangedError."""
    picked: set[int] = set()

    def wanted(number: int, about: int) -> bool:
        if not picked:
            picked.update(spread(chunks, about))
        return about <= chunks or number in picked

    return predict(sample_delta(old, new, wanted))


def spread(count: int, among: int) -> set[int]:
    """``count`` of the numbers below ``among``, evenly and without rhythm; all of them if there are not more."""
    if among <= count:
        return set(range(among))
    found: set[int] = set()
    step = 0
    while len(found) < count:
        step += 1
        found.add(int(step * _GOLDEN % 1.0 * among))
    return found


def predict(sample: ChunkSample) -> DeltaEstimate:
    """The size of the whole from a sample of its chunks."""
    coded = sum(size for _, size in sample.sizes)
    read = sum(length for length, _ in sample.sizes)
    count, chunks = len(sample.sizes), sample.chunks
    if count == chunks:
        size = sample.header + coded
        return DeltaEstimate(size, size, size, count, chunks, sample.new_size, Obtained.MEASURED)
    rate = coded / max(1, read)
    size = sample.header + round(rate * sample.new_size)
    # What chunks differ from the common rate, for a sample without replacement.
    spread_of = sum((cost - rate * length) ** 2 for length, cost in sample.sizes) / max(1, count - 1)
    error = float(size)
    if count > 1:
        student = _STUDENT_95[min(count, len(_STUDENT_95) + 1) - 2]
        error = student * chunks * math.sqrt(spread_of / count * (1 - count / chunks))
    low, high = max(sample.header, round(size - error)), round(size + error)
    return DeltaEstimate(size, low, high, count, chunks, sample.new_size, Obtained.ESTIMATED)
