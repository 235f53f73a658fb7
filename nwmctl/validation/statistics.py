"""The few statistics that paired drives need, in plain Python and numpy.

Intervals are two-sided at the confidence that the caller asks for, ``CONFIDENCE`` unless told; a one-sided question
reads one end of them. Those of shares and medians are exact or conservative, so that a check errs towards
"inconclusive"; the one of a mean is the normal approximation, for many scenarios; ``score_interval`` is the score
interval of a paired difference (Tango 1998), for margins that exact intervals of thousands of pairs would waste. All
functions are pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
POWER = 0.8
"""How often a comparison of equals shall settle, where a number of pairs is planned."""
_STANDARD = NormalDist()
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


def share_interval(hits: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Clopper-Pearson interval of a share (0..1)."""
    tail = (1.0 - confidence) / 2.0
    high = 1.0 if hits == trials else _solve(lambda share: binomial_below(hits, trials, share) - tail)
    low = 0.0 if hits == 0 else _solve(lambda share: tail - (1.0 - binomial_below(hits - 1, trials, share)))
    return Interval(hits / trials, low, high)


def shift_interval(only_candidate: int, only_reference: int, pairs: int, confidence: float = CONFIDENCE) -> Interval:
    """Candidate's rate minus the reference's, from discordant pairs: the two exact intervals combined."""
    more, less = (share_interval(hits, pairs, confidence) for hits in (only_candidate, only_reference))
    return Interval(more.value - less.value, more.low - less.high, more.high - less.low)


def score_interval(only_one: int, only_other: int, pairs: int, confidence: float = CONFIDENCE) -> Interval:
    """One rate minus the other's, from discordant pairs: where the score test does not refuse the difference."""
    reach = quantile((1.0 + confidence) / 2.0)

    def high(more: int, less: int) -> float:
        return _refused_from(lambda shift: _score(more, less, pairs, shift) + reach, (more - less) / pairs)

    return Interval((only_one - only_other) / pairs, -high(only_other, only_one), high(only_one, only_other))


def _score(more: int, less: int, pairs: int, shift: float) -> float:
    """Standardised distance of what was seen from a true difference, with the rates that fit that difference best."""
    if shift >= 1.0:
        return -math.inf
    b = -(more + less) + (2 * pairs - more + less) * shift
    c = -less * shift * (1.0 - shift)
    likely = (math.sqrt(max(b * b - 8.0 * pairs * c, 0.0)) - b) / (4.0 * pairs)
    spread = pairs * (2.0 * likely + shift * (1.0 - shift))
    gap = more - less - pairs * shift
    return gap / math.sqrt(spread) if spread > 0.0 else math.copysign(math.inf, gap) if gap else 0.0


def _refused_from(falling: Callable[[float], float], start: float) -> float:
    """Where a function of a difference that falls through zero between ``start`` and 1 does so."""
    low, high = start, 1.0
    for _ in range(48):
        middle = (low + high) / 2.0
        low, high = (middle, high) if falling(middle) > 0.0 else (low, middle)
    return high


def quantile(share: float) -> float:
    """Quantile of the standard normal distribution."""
    return _STANDARD.inv_cdf(share)


def pairs_needed(spread: float, margin: float, confidence: float = CONFIDENCE, power: float = POWER) -> int:
    """Pairs after which a comparison of equals excludes ``margin`` on its one side with probability ``power``.

    ``spread`` is the variance of one pair's difference; for outcomes that is the share of discordant pairs.
    """
    reach = quantile((1.0 + confidence) / 2.0) + quantile(power)
    return max(1, math.ceil(spread * (reach / margin) ** 2))


def median_interval(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """Median with the order statistics that enclose it; the whole range where there are too few values."""
    ordered = np.sort(values)
    count = len(ordered)
    outside = 0
    while outside < count // 2 and binomial_below(outside, count, 0.5) <= (1.0 - confidence) / 2.0:
        outside += 1
    if outside == 0:
        return Interval(float(np.median(ordered)), -math.inf, math.inf)
    return Interval(float(np.median(ordered)), float(ordered[outside - 1]), float(ordered[count - outside]))


def mean_interval(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """Mean with a normal interval; for means over many scenarios."""
    if len(values) < 2:
        return Interval(float(values.mean()), -math.inf, math.inf)
    half = quantile((1.0 + confidence) / 2.0) * float(values.std(ddof=1)) / math.sqrt(len(values))
    middle = float(values.mean())
    return Interval(middle, middle - half, middle + half)


def settles_shift(
    only_candidate: int, only_reference: int, pairs: int, limit: float, confidence: float = CONFIDENCE
) -> int | None:
    """Pairs after which ``shift_interval`` would lie on one side of the limit if the rates stayed as they are."""

    def settled(more: int, less: int, count: int) -> bool:
        scaled = shift_interval(more, less, count, confidence)
        return scaled.most <= limit or scaled.least > limit

    return _settles(only_candidate, only_reference, pairs, settled)


def settles_score(only_one: int, only_other: int, pairs: int, limit: float, confidence: float) -> int | None:
    """Pairs after which ``score_interval`` would lie below or above the limit if the rates stayed as they are."""

    def settled(more: int, less: int, count: int) -> bool:
        scaled = score_interval(more, less, count, confidence)
        return scaled.high <= limit or scaled.low > limit

    return _settles(only_one, only_other, pairs, settled)


def _settles(more: int, less: int, pairs: int, settled: Callable[[int, int, int], bool]) -> int | None:
    count = pairs
    while count < MOST_SCENARIOS:
        count = _rounded(math.ceil(count * 1.1))
        if settled(round(more * count / pairs), round(less * count / pairs), count):
            return count
    return None


def settles_width(found: Interval, count: int, limit: float, widen: float = 1.0, *, signed: bool = False) -> int | None:
    """Scenarios after which an interval that narrows with their square root would leave the limit outside.

    ``widen``: how much wider the interval will be for being surer. ``signed``: the limit is on the upper side only.
    """
    width = widen * max(found.high - found.value, found.value - found.low)
    gap = abs(limit - (found.value if signed else abs(found.value)))
    if not math.isfinite(width):
        return _rounded(max(4 * count, 20))
    if gap <= 0.0 or count * (width / gap) ** 2 > MOST_SCENARIOS:
        return None
    return _rounded(max(count + 1, math.ceil(count * (width / gap) ** 2)))


def spent(look: int) -> float:
    """Confidence of the intervals after the number of scenarios has been raised ``look`` times.

    Every new look is another chance to pass by luck. Each has half the chance of the one before, so that all looks
    together pass what lies beyond a margin at most twice as often as the first one alone: at most ``1 - CONFIDENCE``.
    """
    return 1.0 - (1.0 - CONFIDENCE) / 2.0**look


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
