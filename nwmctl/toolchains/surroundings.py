"""What is true for all tools that run within a stretch of code: what they cost, and how their world is varied.

A driver starts several tools and need not hand anything through to them: ``metered`` adds up what they took, and
``elsewhere`` starts them in surroundings that must not decide what they make (another umask, locale, time zone), for
rebuilding. Both hold for the thread that enters them; a driver that compiles in threads of its own has to copy its
context into them. Starts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of a tool's world is free. The defaults are those of every build; see ``process.clean_environment``."""

    umask: int = 0o022
    environment: Mapping[str, str] = field(default_factory=dict)


ELSEWHERE = Surroundings(0o077, {"LANG": "C", "LC_ALL": "C", "TZ": "Asia/Shanghai", "USER": "elsewhere"})
"""Surroundings as different as an honest tool must bear."""


@dataclass(slots=True)
class Meter:
    """What tools have taken. ``peak_bytes``: the most memory of any one tool with all its processes; looked at a few
    times a second, and never less than the kernel's mark of its largest process. ``cpu_s``: of all of them."""

    tools: int = 0
    peak_bytes: int = 0
    cpu_s: float = 0.0

    def add(self, peak_bytes: int, cpu_s: float) -> None:
        """One more tool has ended."""
        self.tools += 1
        self.peak_bytes = max(self.peak_bytes, peak_bytes)
        self.cpu_s += cpu_s


USUAL = Surroundings()
_surroundings: ContextVar[Surroundings] = ContextVar("surroundings", default=USUAL)
_one_at_a_time = Lock()
_meters: ContextVar[tuple[Meter, ...]] = ContextVar("meters", default=())


def here() -> Surroundings:
    """The surroundings of a tool that starts now."""
    return _surroundings.get()


def count(peak_bytes: int, cpu_s: float) -> None:
    """Tell every meter around of a tool that has ended."""
    with _one_at_a_time:
        for meter in _meters.get():
            meter.add(peak_bytes, cpu_s)


@contextmanager
def elsewhere(surroundings: Surroundings = ELSEWHERE) -> Iterator[None]:
    """Tools that start within get these surroundings."""
    before = _surroundings.set(surroundings)
    try:
        yield
    finally:
        _surroundings.reset(before)


@contextmanager
def metered() -> Iterator[Meter]:
    """A meter for the tools that end within."""
    meter = Meter()
    before = _meters.set((*_meters.get(), meter))
    try:
        yield meter
    finally:
        _meters.reset(before)
