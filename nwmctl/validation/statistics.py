"""The few exact statistics that paired drives need, in plain Python and numpy.

Intervals are two-sided at ``CONFIDENCE``. Those of shares and medians are exact or conservative, so that a check errs
towards "inconclusive"; the one of a mean is the normal approximation, for many scenarios. All functions are pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_TAIL = (1.0 - CONFIDENCE) / 2.0
_NORMAL = 1.959964
"""Quantile of the normal distribution that belongs to ``CONFIDENCE``."""
_FRACTION_STEPS = 2_000
_ACCURACY = 1e-13
MOST_SCENARIOS = 100_000
"""Beyond this many scenarios a question counts as not settled by driving more."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where the truth lies with ``CONFIDENCE``."""

    value: float
    low: float
    high: float

    @property
    def least(self) -> float:
        """Smallest absolute value inside."""
        return 0.0 if self.low <= 0.0 <= self.high else min(abs(self.low), abs(self.high))

    @property
    def most(self) -> float:
        """Largest absolute value inside."""
        return max(abs(self.low), abs(self.high))


def binomial_below(successes: int, trials: int, share: float) -> float:
    """P(X <= successes) for X ~ Binomial(trials, share)."""
    if successes < 0:
        return 0.0
    if successes >= trials or share <= 0.0:
        return 1.0
    if share >= 1.0:
        return 0.0
    return min(1.0, max(0.0, _beta_share(trials - successes, successes + 1, 1.0 - share)))


def _beta_share(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (evaluated from the front, Lentz)."""
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast below the mean; above it, mirror
        return 1.0 - _beta_share(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    upper, lower, value = 1.0, 0.0, 1.0
    for step in range(2 * _FRACTION_STEPS):
        half = step // 2
        if step == 0:
            part = 1.0
        elif step % 2 == 0:
            part = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        else:
            part = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        lower = 1.0 / _away(1.0 + part * lower, tiny)
        upper = _away(1.0 + part / upper, tiny)
        value *= lower * upper
        if step > 0 and abs(lower * upper - 1.0) < _ACCURACY:
            break
    return math.exp(log_front) * (value - 1.0) / a


def _away(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def mcnemar(only_one: int, only_other: int) -> float:
    """Exact two-sided p-value that two paired outcomes differ, from the numbers of discordant pairs."""
    discordant = only_one + only_other
    return min(1.0, 2.0 * binomial_below(min(only_one, only_other), discordant, 0.5)) if discordant else 1.0


def share_interval(hits: int, trials: int) -> Interval:
    """Clopper-Pearson interval of a share (0..1)."""
    high = 1.0 if hits == trials else _solve(lambda share: binomial_below(hits, trials, share) - _TAIL)
    low = 0.0 if hits == 0 else _solve(lambda share: _TAIL - (1.0 - binomial_below(hits - 1, trials, share)))
    return Interval(hits / trials, low, high)


def shift_interval(only_candidate: int, only_reference: int, pairs: int) -> Interval:
    """Candidate's rate minus the reference's, from discordant pairs: the two exact intervals combined."""
    more, less = share_interval(only_candidate, pairs), share_interval(only_reference, pairs)
    return Interval(more.value - less.value, more.low - less.high, more.high - less.low)


def median_interval(values: NDArray[np.float64]) -> Interval:
    """Median with the order statistics that enclose it; the whole range where there are too few values."""
    ordered = np.sort(values)
    count = len(ordered)
    outside = 0
    while outside < count // 2 and binomial_below(outside, count, 0.5) <= _TAIL:
        outside += 1
    if outside == 0:
        return Interval(float(np.median(ordered)), -math.inf, math.inf)
    return Interval(float(np.median(ordered)), float(ordered[outside - 1]), float(ordered[count - outside]))


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Mean with a normal interval; for means over many scenarios."""
    if len(values) < 2:
        return Interval(float(values.mean()), -math.inf, math.inf)
    half = _NORMAL * float(values.std(ddof=1)) / math.sqrt(len(values))
    middle = float(values.mean())
    return Interval(middle, middle - half, middle + half)


def settles_shift(only_candidate: int, only_reference: int, pairs: int, limit: float) -> int | None:
    """Pairs after which ``shift_interval`` would lie on one side of the limit if the rates stayed as they are."""
    count = pairs
    while count < MOST_SCENARIOS:
        count = math.ceil(count * 1.1)
        scaled = shift_interval(round(only_candidate * count / pairs), round(only_reference * count / pairs), count)
        if scaled.most <= limit or scaled.least > limit:
            return _rounded(count)
    return None


def settles_width(found: Interval, count: int, limit: float) -> int | None:
    """Scenarios after which an interval that narrows with their square root would leave the limit outside."""
    width, gap = max(found.high - found.value, found.value - found.low), abs(limit - abs(found.value))
    if not math.isfinite(width):
        return _rounded(max(4 * count, 20))
    if gap <= 0.0 or count * (width / gap) ** 2 > MOST_SCENARIOS:
        return None
    return _rounded(max(count + 1, math.ceil(count * (width / gap) ** 2)))


def _rounded(count: int) -> int:
    """Up to two significant digits: an order of size is all that such a forecast knows."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return math.ceil(count / step) * step


def _solve(falling: Callable[[float], float]) -> float:
    """Where a function that falls through zero between 0 and 1 does so."""
    low, high = 0.0, 1.0
    for _ in range(44):
        middle = (low + high) / 2.0
        low, high = (middle, high) if falling(middle) > 0.0 else (low, middle)
    return (low + high) / 2.0
