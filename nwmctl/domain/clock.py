"""The seams through which time comes in. Only ``app/`` implements them; everything else takes them as arguments."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back; only differences mean something."""
        ...


class Sleep(Protocol):
    """Waits."""

    def __call__(self, seconds: float) -> None:
        """Return after ``seconds`` (never negative)."""
        ...
