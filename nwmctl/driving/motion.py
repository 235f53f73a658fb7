"""Motion as CSS keyframes: what changes over time in a replay, in as few words as the eye needs.

A track of values over frames becomes one ``@keyframes`` rule; frames that linear interpolation gives anyway are left
out, and equal rules are written once. Every moving thing also has a still: what is shown where animation is off. No
scripts, no randomness; the same tracks give the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nwmctl.driving.constants import FloatArray

_UNDRAWN = 1.002
"""Dash offset of a line of which nothing is drawn: a little more than its length, so that no dot stays."""
_Css = Callable[[Sequence[float]], str]


@dataclass(frozen=True, slots=True)
class Moving:
    """How an element moves: the name of its keyframes ('' if it stands) and its ``transform`` (or value) as a still."""

    name: str
    still: str


class Timeline:
    """Frames ``frame_s`` apart, then a pause of ``hold_s``, then again from the start."""

    def __init__(self, frames: int, frame_s: float, hold_s: float, still: int) -> None:
        """``still`` is the frame that is shown where animation is off."""
        self.frames, self.still = frames, still
        self.drive_s = (frames - 1) * frame_s
        self.total_s = self.drive_s + hold_s
        self._rules: dict[str, str] = {}

    @property
    def rules(self) -> list[str]:
        """All ``@keyframes`` rules."""
        return [f"@keyframes {name}{{{body}}}" for body, name in self._rules.items()]

    def pose(self, poses: FloatArray, tolerance: float = 0.04) -> Moving:
        """A body at [T,3]: x and y in user units, angle in rad clockwise. Held after its last row."""

        def css(row: Sequence[float]) -> str:
            return f"translate({_n(row[0])}px,{_n(row[1])}px) rotate({_n(np.degrees(row[2]), 1)}deg)"

        x, y, angle = self._at_still(poses)
        still = f"translate({_n(x)},{_n(y)}) rotate({_n(np.degrees(angle), 1)})"
        return Moving(self._rule(poses * [1.0, 1.0, 2.0], poses, "transform", css, tolerance), still)

    def place(self, places: FloatArray, tolerance: float = 0.04) -> Moving:
        """A point at [T,2] user units. Held after its last row."""
        x, y = self._at_still(places)
        name = self._rule(
            places, places, "transform", lambda row: f"translate({_n(row[0])}px,{_n(row[1])}px)", tolerance
        )
        return Moving(name, f"translate({_n(x)},{_n(y)})")

    def drawn(self, shares: FloatArray) -> Moving:
        """A line with ``pathLength`` 1 of which the share [T] (0..1) is drawn."""
        (share,) = self._at_still(shares[:, None])
        name = self._rule(
            shares[:, None], shares[:, None], "stroke-dashoffset", lambda row: _n(_UNDRAWN - row[0], 4), 0.0005
        )
        return Moving(name, _n(_UNDRAWN - share, 4))

    def shown(self, when: Sequence[bool]) -> Moving:
        """Something that is seen in some frames [T] only; after the last row as in it."""
        parts, before = [], None
        for frame, seen in enumerate(when):
            if seen != before:
                parts.append(f"{self._percent(frame)}{{opacity:{int(seen)};animation-timing-function:step-end}}")
                before = seen
        still = bool(when[min(self.still, len(when) - 1)])
        return Moving(self._named("".join([*parts, f"100%{{opacity:{int(when[-1])}}}"])), str(int(still)))

    def reel(self, step: float) -> Moving:
        """A column of one text per frame, moved up by ``step`` user units with each."""
        last = f"translate(0px,{_n(-step * (self.frames - 1))}px)"
        first = f"0%{{transform:translate(0px,0px);animation-timing-function:steps({max(self.frames - 1, 1)},end)}}"
        body = f"{first}{self._percent(self.frames - 1)}{{transform:{last}}}100%{{transform:{last}}}"
        return Moving(self._named(body), f"translate(0,{_n(-step * self.still)})")

    def sweep(self, places: FloatArray) -> Moving:
        """Something that moves to the right through [T] user units."""
        return self.place(np.stack([places, np.zeros_like(places)], axis=-1))

    def _rule(self, weighed: FloatArray, rows: FloatArray, what: str, css: _Css, tolerance: float) -> str:
        kept = _corners(weighed, tolerance)
        if len(kept) == 1:
            return ""
        parts = [f"{self._percent(frame)}{{{what}:{css(rows[frame])}}}" for frame in kept]
        return self._named("".join([*parts, f"100%{{{what}:{css(rows[-1])}}}"]))

    def _named(self, body: str) -> str:
        return self._rules.setdefault(body, f"k{len(self._rules)}")

    def _at_still(self, rows: FloatArray) -> list[float]:
        return [float(value) for value in rows[min(self.still, len(rows) - 1)]]

    def _percent(self, frame: int) -> str:
        share = frame / max(self.frames - 1, 1) * self.drive_s / self.total_s
        return f"{_n(100.0 * share)}%"


def _corners(rows: FloatArray, tolerance: float) -> list[int]:
    """Frames that are needed so that straight lines between them miss no row by more than ``tolerance``."""
    last = len(rows) - 1
    if np.abs(rows - rows[0]).max(initial=0.0) <= tolerance:
        return [0]
    kept, open_ = {0, last}, [(0, last)]
    while open_:
        begin, end = open_.pop()
        if end - begin < 2:
            continue
        share = (np.arange(begin + 1, end) - begin)[:, None] / (end - begin)
        missed = np.abs(rows[begin] + share * (rows[end] - rows[begin]) - rows[begin + 1 : end]).max(axis=1)
        worst = int(missed.argmax())
        if missed[worst] > tolerance:
            middle = begin + 1 + worst
            kept.add(middle)
            open_ += [(begin, middle), (middle, end)]
    return sorted(kept)


def _n(value: float, digits: int = 2) -> str:
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
