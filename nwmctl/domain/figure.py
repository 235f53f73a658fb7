"""How a figure was obtained is part of the figure.

``Obtained`` ranks evidence from strongest to weakest; ``Confidence`` ranks facts about hardware. Both travel with
every figure into manifests, evidence, reports and tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, StrEnum


class Obtained(StrEnum):
    """How a figure was obtained; ``strength`` compares, a larger one is stronger."""

    MEASURED = "measured"
    """On that hardware, here."""
    BENCH = "bench"
    """On that hardware, over SSH."""
    EMULATED = "emulated"
    """That instruction set under QEMU: numerics only, never latency."""
    PROXY = "proxy"
    """The same lowered graph on the host."""
    ASSEMBLED = "assembled"
    """Accepted by that chip's assembler, not executed."""
    ESTIMATED = "estimated"
    """Computed from the profile (roofline)."""
    NOT_RUN = "not_run"
    """Nothing ran."""

    @property
    def strength(self) -> int:
        """6 for ``measured`` down to 0 for ``not_run``."""
        return len(_RANKED) - 1 - _RANKED.index(self)

    def satisfies(self, weakest: Obtained) -> bool:
        """Whether this is at least as strong as ``weakest``; ``not_run`` satisfies only itself."""
        return self.strength >= weakest.strength


_RANKED: list[Enum] = list(Obtained)


class Confidence(StrEnum):
    """How surely a figure of a profile is known."""

    STATED = "stated"
    PUBLIC = "public"
    DERIVED = "derived"
    ASSUMED = "assumed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a profile. ``value`` is None exactly where ``confidence`` is unknown."""

    value: float | None
    unit: str
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        if (self.value is None) != (self.confidence is Confidence.UNKNOWN):
            raise ValueError("a figure has the value null exactly where its confidence is unknown")
        if not self.source.strip():
            raise ValueError("a figure says where it comes from ('source')")


@dataclass(frozen=True, slots=True)
class ResultFigure:
    """A figure of a check or a manifest; ``limit`` is what it was compared with, if anything.

    ``low`` and ``high`` enclose the truth at 95 % confidence where the figure is an estimate; None: no interval, or no
    bound on that side.
    """

    name: str
    value: float
    unit: str
    obtained: Obtained
    limit: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def most(self) -> float:
        """The largest absolute value that the figure may have: its whole interval counts, a missing end is endless."""
        if self.low is None and self.high is None:
            return abs(self.value)
        ends = (-math.inf if self.low is None else self.low, math.inf if self.high is None else self.high)
        return max(abs(self.value), *(abs(end) for end in ends))
