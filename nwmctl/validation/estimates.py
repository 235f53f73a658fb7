"""Estimates against margins: a verdict from intervals, and how many scenarios would settle an open one.

A margin holds where the whole interval lies inside, is broken where the whole interval lies beyond, and is open in
between: inconclusive, never passed. A two-sided estimate is compared by its absolute value; a one-sided one (how much
worse) has a margin on its upper side alone, so no improvement ever breaks it. A check with several margins passes only
if every one of them holds: that needs no correction for their number, because the chance to pass with one margin
broken in truth is at most that of the one test (an intersection-union test).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nwmctl.domain.evidence import Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.validation.figures import LARGEST, Judged, figure
from nwmctl.validation.statistics import MOST_SCENARIOS, Interval

_SAID = 4
"""Estimates that a summary spells out; the figures beside it have them all."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure that is only as sure as the scenarios are many. ``settled_by``: limit -> how many would settle it."""

    name: str
    unit: str
    found: Interval
    settled_by: Callable[[float], int | None]
    one_sided: bool = False

    def within(self, limit: float) -> bool:
        """Whether the whole interval is inside the margin."""
        return (self.found.high if self.one_sided else self.found.most) <= limit

    def beyond(self, limit: float) -> bool:
        """Whether the whole interval is outside the margin."""
        return (self.found.low if self.one_sided else self.found.least) > limit

    def figure(self, obtained: Obtained, limit: float | None = None) -> ResultFigure:
        """As it goes into evidence. What is only "how much worse" is never below zero there: a policy's limit is one
        of absolute values."""
        value, low, high = self.found.value, self.found.low, self.found.high
        if self.one_sided:
            value, low, high = max(0.0, value), max(0.0, low), max(0.0, high)
        return interval_figure(self.name, self.unit, Interval(value, low, high), obtained, limit)

    def say(self, limit: float | None = None) -> str:
        """For people: the estimate with its interval, and the limit if one is named."""
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.name} {_shown(self.found.value)}{unit} [{_shown(self.found.low)}, {_shown(self.found.high)}]"
        return text if limit is None else f"{text}, at most {limit:.3g} is allowed"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its words. ``needs``: scenarios that would settle an open verdict, where any number would."""

    verdict: Verdict
    summary: str
    next: str = ""
    needs: int | None = None


def interval_figure(
    name: str, unit: str, found: Interval, obtained: Obtained, limit: float | None = None
) -> ResultFigure:
    """An interval in evidence; a side without a bound has none there."""
    middle = figure(name, found.value, unit, obtained, limit)
    low, high = (figure(name, end, unit, obtained).value for end in (found.low, found.high))
    bounds = (None if abs(end) >= LARGEST else end for end in (low, high))
    return ResultFigure(name, middle.value, unit, obtained, limit, *bounds)


def decide(
    estimates: Sequence[Estimate], judged: Judged, margins: Mapping[str, float], counted: str, remedy: str
) -> Decision:
    """Verdict over the estimates and over the other figures of ``judged``. Failed beats inconclusive beats passed.

    ``counted`` names what is counted ("scenarios"), ``remedy`` what to do about a failure.
    """
    named = {estimate.name: estimate for estimate in estimates}
    limited = [(named[name], limit) for name, limit in margins.items() if name in named]
    failed = [estimate.say(limit) for estimate, limit in limited if estimate.beyond(limit)]
    failed += [text for text in judged.exceeded if text.split(" ")[0] not in named]
    if failed:
        return Decision(Verdict.FAILED, _list(failed), remedy)
    if judged.missing:
        summary = f"the policy limits {', '.join(judged.missing)}, which this check does not measure"
        return Decision(Verdict.INCONCLUSIVE, summary, "have the safety role name margins for figures that exist")
    open_ = [(estimate, limit) for estimate, limit in limited if not estimate.within(limit)]
    if open_:
        needed = most_needed(estimate.settled_by(limit) for estimate, limit in open_)
        summary = _list([estimate.say(limit) for estimate, limit in open_])
        return Decision(Verdict.INCONCLUSIVE, summary, order(needed, counted), needed)
    said = ", ".join(estimate.say() for estimate, _ in limited[:_SAID])
    more = f" and {len(limited) - _SAID} more within their margins" if len(limited) > _SAID else ""
    return Decision(Verdict.PASSED, f"{said}{more}" if said else "within all margins")


def most_needed(needed: Iterable[int | None]) -> int | None:
    """The largest of several numbers; None where one of them is not to be had."""
    counts = list(needed)
    known = [count for count in counts if count is not None]
    return max(known) if counts and len(known) == len(counts) else None


def order(needed: int | None, counted: str) -> str:
    """What to do about an open verdict, for people."""
    if needed is None:
        return f"{MOST_SCENARIOS} {counted} would not settle it at these rates: try another recipe or another margin"
    return f"about {needed} {counted} would settle it, if the rates stay"


def _list(said: list[str]) -> str:
    rest = f"; and {len(said) - _SAID} more" if len(said) > _SAID else ""
    return "; ".join(said[:_SAID]) + rest


def _shown(value: float) -> str:
    """Thousandths are all that people read; the figures beside the summary have every digit."""
    if math.isinf(value):
        return "-inf" if value < 0 else "inf"
    return f"{value + 0.0:.3f}" if round(value, 3) else "0"
