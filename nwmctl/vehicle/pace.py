"""How slowly a server may send before the vehicle hangs up.

A server that keeps a line open and sends next to nothing holds a vehicle without ever failing: no single wait is long.
So the rate is looked at over whole windows, and a transfer has an end however it goes. Reads no clock of its own;
knows nothing of what is transferred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nwmctl.errors import TransferTooSlowError


@dataclass(frozen=True, slots=True)
class Pace:
    """``least`` bytes per second, over each window of ``window_s`` seconds; ``most_s`` seconds for all of it.

    ``answer_s``: how long a server may take until its answer begins.
    """

    window_s: float
    least: int
    most_s: float
    answer_s: float = 20.0

    def __post_init__(self) -> None:
        if min(self.window_s, self.least, self.most_s, self.answer_s) <= 0:
            raise ValueError("a pace is made of positive numbers")


METADATA_PACE = Pace(window_s=15.0, least=512, most_s=300.0)
"""All metadata of one order. The slowest line that still gets a bundle brings them in seconds."""
BUNDLE_PACE = Pace(window_s=30.0, least=1024, most_s=24 * 3600.0)
"""One try of one bundle. What has arrived is kept, so a vehicle in a bad place loses nothing by hanging up."""


class Watch:
    """Watches one transfer, or several in a row that share one ``most_s``. ``now``: seconds that never go back."""

    def __init__(self, pace: Pace, now: Callable[[], float]) -> None:
        self._pace = pace
        self._now = now
        self._begun = self._window = now()
        self._taken = 0

    def begin(self) -> None:
        """The next transfer of the row begins: whatever lay between is no fault of the server."""
        self._window, self._taken = self._now(), 0

    def took(self, count: int) -> None:
        """``count`` bytes have arrived. Raises TransferTooSlowError."""
        now = self._now()
        self._taken += count
        if now - self._begun > self._pace.most_s:
            raise _too_slow(f"it has taken {now - self._begun:.0f} s, {self._pace.most_s:g} s is the most")
        lasted = now - self._window
        if lasted < self._pace.window_s:
            return
        if self._taken < self._pace.least * lasted:
            rate = self._taken / lasted
            raise _too_slow(
                f"{rate:.0f} bytes a second over {lasted:.1f} s, at least {self._pace.least} are waited for"
            )
        self._window, self._taken = now, 0


def no_answer(pace: Pace) -> TransferTooSlowError:
    """The server took longer than ``pace.answer_s`` to begin."""
    return _too_slow(f"its answer has not begun after {pace.answer_s:g} s")


def _too_slow(why: str) -> TransferTooSlowError:
    return TransferTooSlowError(
        "the server sends too slowly",
        why=why,
        next="check the line and the mirror; what has arrived of a bundle is kept for the next try",
    )
