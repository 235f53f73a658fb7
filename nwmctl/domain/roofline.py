"""The roofline: what bounds a piece of work on a chip, and for how long at least. Pure arithmetic, in one place.

Arithmetic and memory work side by side, so the slower one decides. A bound, not a latency: efficiencies, launches of
kernels and caches belong to whoever predicts. Units: operations and bytes in, milliseconds out; peaks in TFLOPS or
TOPS, bandwidth in GB/s, as profiles write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_TERA, _GIGA, _MS = 1e12, 1e9, 1e3


class Bound(StrEnum):
    """What a piece of work waits for."""

    ARITHMETIC = "arithmetic"
    BANDWIDTH = "bandwidth"
    OVERHEAD = "overhead"
    """Starting the work: it is so small that neither roof matters."""


@dataclass(frozen=True, slots=True)
class Roof:
    """The two roofs of a piece of work in ms. The time is at least the larger one."""

    work_ms: float
    memory_ms: float

    @property
    def ms(self) -> float:
        """The higher of the two."""
        return max(self.work_ms, self.memory_ms)

    @property
    def bound(self) -> Bound:
        """Which one it is; memory where they are equal."""
        return Bound.ARITHMETIC if self.work_ms > self.memory_ms else Bound.BANDWIDTH


def work_ms(operations: float, tera_per_s: float) -> float:
    """Milliseconds for ``operations`` at ``tera_per_s`` TFLOPS or TOPS."""
    return _MS * operations / (tera_per_s * _TERA)


def memory_ms(moved_bytes: float, gb_per_s: float) -> float:
    """Milliseconds for ``moved_bytes`` at ``gb_per_s`` GB/s."""
    return _MS * moved_bytes / (gb_per_s * _GIGA)


def roof(operations: float, moved_bytes: float, tera_per_s: float, gb_per_s: float) -> Roof:
    """Both roofs of a piece of work."""
    return Roof(work_ms(operations, tera_per_s), memory_ms(moved_bytes, gb_per_s))


def balance(tera_per_s: float, gb_per_s: float) -> float:
    """Operations per byte at which both roofs are equally high."""
    return tera_per_s * _TERA / (gb_per_s * _GIGA)


def per_second(moved_bytes: float, rate_hz: float) -> float:
    """GB/s that ``moved_bytes`` per control step are at ``rate_hz``."""
    return moved_bytes * rate_hz / _GIGA
