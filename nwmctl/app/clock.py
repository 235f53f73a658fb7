"""The one place where time comes in."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


def system_sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)
