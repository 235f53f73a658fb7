"""Rates of rare events along a way: exact Poisson intervals, in plain Python.

Events within one drive come in clusters, so the truth is a little wider than these intervals; that is why whole events
and not single steps are counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from nwmctl.validation.statistics import CONFIDENCE, Interval

_TAIL = (1.0 - CONFIDENCE) / 2.0
_NORMAL = 1.959964
_EXACT = 200
"""Up to this count the interval is exact; above it Wilson and Hilferty's cube is good to four digits."""
MOST_KM = 1e6
"""Beyond this many kilometres a question counts as not settled by driving more."""


def below(count: int, mean: float) -> float:
    """P(X <= count) for X ~ Poisson(mean)."""
    if count < 0:
        return 0.0
    if mean <= 0.0:
        return 1.0
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(count + 1)]
    top = max(logs)
    return min(1.0, math.exp(top) * sum(math.exp(each - top) for each in logs))


@cache
def count_interval(count: int) -> Interval:
    """The mean count behind an observed one (Garwood's interval)."""
    if count > _EXACT:
        return Interval(count, _cube(count, -_NORMAL), _cube(count + 1, _NORMAL))
    # One more than twenty standard deviations above is beyond any tail.
    most = count + 20.0 * math.sqrt(count + 1.0) + 20.0
    high = _solve(lambda mean: below(count, mean) - _TAIL, most)
    low = _solve(lambda mean: _TAIL - (1.0 - below(count - 1, mean)), most) if count else 0.0
    return Interval(float(count), low, high)


def rate_interval(count: int, km: float) -> Interval:
    """Events per kilometre."""
    found = count_interval(count)
    return Interval(count / km, found.low / km, found.high / km)


def shift_interval(more: int, less: int, km: float) -> Interval:
    """Difference of two rates per kilometre from their discordant events: the two exact intervals combined."""
    up, down = rate_interval(more, km), rate_interval(less, km)
    return Interval(up.value - down.value, up.low - down.high, up.high - down.low)


def settled_by(more: int, less: int, km: float, limit: float) -> int | None:
    """Kilometres after which the interval would lie on one side of the limit if the rates stayed; None: none would.

    A single rate has ``less`` = 0 for good.
    """
    way = km
    while way < MOST_KM:
        way *= 1.1
        ups, downs = round(more * way / km), round(less * way / km)
        found = shift_interval(ups, downs, way) if less else rate_interval(ups, way)
        if found.most <= limit or found.least > limit:
            return math.ceil(way)
    return None


def _cube(count: float, normal: float) -> float:
    return float(count * (1.0 - 1.0 / (9.0 * count) + normal / (3.0 * math.sqrt(count))) ** 3)


def _solve(falling: Callable[[float], float], high: float) -> float:
    """Where a function that falls through zero between 0 and ``high`` does so."""
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if falling(middle) > 0.0 else (low, middle)
    return (low + high) / 2.0
