"""What is known about a candidate, and which of two is better. Pure; no state.

Speed decides; where two speeds cannot be told apart, the recipe that changes the model's numbers least wins, then the
one whose code no driver in the vehicle compiles further, then the one that its driver thinks more promising, then the
order of their text. What could not be judged here ranks behind everything that passed, and what has no speed behind
what has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nwmctl.compiler.space import recipe_key, said
from nwmctl.domain.artifact import Precision, Quantisation, Recipe
from nwmctl.domain.figure import Obtained
from nwmctl.domain.measurement import Latency

TIE = 0.03
"""Speeds closer than this are one speed: repeated measurements of one artifact differ by about as much."""
TIE_ESTIMATED = 0.005
"""Estimates of one chip share most of their error, so that less tells them apart."""
FINALISTS = 4

_SAFETY = {Precision.FP32: 0, Precision.BF16: 2, Precision.FP16: 1, Precision.INT8: 4}
_MIXED, _WEIGHTS = 3, 3
_DYNAMIC = 5


@dataclass(frozen=True, slots=True)
class Speed:
    """What one control step takes, and the factor (at least 1) by which the truth may lie above or below.

    ``unit`` is ``ms``, or what stands in for it where a time would be guessed (moved MB); one search uses one unit.
    """

    ms: float
    factor: float
    obtained: Obtained
    unit: str = "ms"

    def __post_init__(self) -> None:
        if not (0.0 < self.ms < math.inf) or not (1.0 <= self.factor < math.inf):
            raise ValueError(f"{self.ms} ms within a factor of {self.factor} is no speed")

    @property
    def low(self) -> float:
        """The least that it may be."""
        return self.ms / self.factor

    @property
    def high(self) -> float:
        """The most that it may be."""
        return self.ms * self.factor

    @property
    def spread(self) -> float:
        """The factor as a share: 0.2 for 1.2."""
        return self.factor - 1.0


@dataclass(frozen=True, slots=True)
class Tried:
    """What evaluating a recipe gave. ``passed`` is None where nothing here can execute the artifact; ``failed`` says
    that the toolchain gave none. ``words`` explain whichever it is. ``seconds``: what it took when it really ran."""

    recipe: Recipe
    words: str
    passed: bool | None = False
    failed: bool = False
    speed: Speed | None = None
    latency: Latency | None = None
    parity_share: float | None = None
    found_precision: Precision | None = None
    size: int | None = None
    seconds: float = 0.0
    jit: bool = False
    """Whether a driver in the vehicle compiles it further: other code than what was checked."""
    place: int = 0
    """Where it stands in the space: the more promising come first."""

    @property
    def in_the_running(self) -> bool:
        """Whether it may be ranked."""
        return not self.failed and self.passed is not False


def safety(recipe: Recipe) -> int:
    """How much a recipe changes the model's numbers; less is safer."""
    if recipe.precision is not Precision.INT8:
        return _SAFETY[recipe.precision]
    if recipe.options.get("quantisation") == Quantisation.WEIGHTS:
        return _WEIGHTS
    if recipe.options.get("keep"):
        return _MIXED
    return _DYNAMIC if recipe.options.get("quantisation") == Quantisation.DYNAMIC else _SAFETY[Precision.INT8]


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The fastest that has passed: what others must beat."""
    passed = [each for each in tried if each.passed and each.speed is not None]
    return min(passed, key=_by_speed, default=None)


def contenders(tried: Sequence[Tried]) -> list[Tried]:
    """Those that measuring side by side could still make the winner; never more than ``FINALISTS``."""
    best = best_of(tried)
    if best is None or best.speed is None or best.speed.obtained not in (Obtained.MEASURED, Obtained.BENCH):
        return []
    close = [
        each
        for each in tried
        if each.passed and each.speed and each.speed.obtained is best.speed.obtained
        if each.speed.low <= best.speed.high * (1 + TIE)
    ]
    return sorted(close, key=_by_speed)[:FINALISTS]


def ranked(tried: Sequence[Tried]) -> tuple[list[Tried], dict[str, str]]:
    """Best first, and for each that won against a faster one by a tie, why (by ``recipe_key``)."""
    judged = [each for each in tried if each.passed]
    unjudged = [each for each in tried if each.in_the_running and each.passed is None]
    order: list[Tried] = []
    ties: dict[str, str] = {}
    for part in (judged, unjudged):
        rest = sorted(part, key=_by_speed)
        while rest:
            close = [each for each in rest if _tie(rest[0], each)]
            chosen = min(close, key=_preference)
            if chosen is not rest[0]:
                ties[recipe_key(chosen.recipe)] = _why(chosen, rest[0])
            order.append(chosen)
            rest.remove(chosen)
    return order, ties


def _tie(best: Tried, other: Tried) -> bool:
    if best.speed is None or other.speed is None:
        return best.speed is other.speed
    measured = best.speed.obtained in (Obtained.MEASURED, Obtained.BENCH)
    return other.speed.ms <= best.speed.ms * (1 + (TIE if measured else TIE_ESTIMATED))


def _why(chosen: Tried, faster: Tried) -> str:
    if chosen.speed is None or faster.speed is None:
        return "nothing here tells how fast it is, so the safer one is preferred"
    share = chosen.speed.ms / faster.speed.ms - 1
    return f"only {share:.1%} slower than {said(faster.recipe)}, which is less than can be told apart, and safer"


def _by_speed(tried: Tried) -> tuple[float, int, bool, int, str]:
    return (tried.speed.ms if tried.speed else math.inf, *_preference(tried))


def _preference(tried: Tried) -> tuple[int, bool, int, str]:
    return safety(tried.recipe), tried.jit, tried.place, recipe_key(tried.recipe)
