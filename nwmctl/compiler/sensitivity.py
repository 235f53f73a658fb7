"""Which layers can be integers: how much error each brings and how much time it saves, and the best set within a room.

Each group is quantised alone; that ranks them. Errors of several groups do not add up, so every assignment that is
considered is asked for its own error, and what is returned has been asked and lies within the room. Greedy first (the
groups that cost the most error for their gain stay float, as few as possible), then a short local improvement: more
groups one by one, then exchanges of one kept group for others. Deterministic. Executes nothing; it asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

ErrorOf = Callable[[frozenset[str]], float]
"""The parity error, as a share of the margins, where these groups are quantised and all others float."""

QUESTIONS = 48
"""How many assignments may be asked for their error."""
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Effect:
    """A group quantised alone: the parity error it brings (share of the margins) and what it saves (any unit that adds
    up; below zero where integers are slower)."""

    group: str
    error: float
    gain: float

    @property
    def price(self) -> float:
        """Error for each unit of gain; endless where nothing is gained."""
        return max(self.error, _TINY) / self.gain if self.gain > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which groups stay float, the error and gain of the others together, and how many questions it took."""

    keep: tuple[str, ...]
    error: float
    gain: float
    asked: int


def measure_groups(groups: Sequence[str], gain: Callable[[str], float], error_of: ErrorOf) -> tuple[Effect, ...]:
    """Quantise one group at a time; the most expensive error first."""
    effects = [Effect(group, error_of(frozenset({group})), gain(group)) for group in groups]
    return tuple(sorted(effects, key=lambda effect: (-effect.price, effect.group)))


def assign(effects: Sequence[Effect], room: float, error_of: ErrorOf, questions: int = QUESTIONS) -> Assignment | None:
    """The assignment with the most gain whose error is within ``room``; None where none was found that quantises
    anything. What gains nothing stays float."""
    ask = _Asked(error_of, questions)
    by_price = sorted((effect for effect in effects if effect.gain > 0), key=lambda each: (-each.price, each.group))
    chosen = _fewest_kept(by_price, room, ask)
    if not chosen:
        return None
    gains = {effect.group: effect.gain for effect in by_price}
    chosen = _improve(by_price, chosen, gains, room, ask)
    keep = tuple(sorted(effect.group for effect in effects if effect.group not in chosen))
    return Assignment(keep, ask.known[chosen], sum(gains[group] for group in sorted(chosen)), len(ask.known))


@dataclass(slots=True)
class _Asked:
    error_of: ErrorOf
    most: int
    known: dict[frozenset[str], float] = field(default_factory=dict)

    def within(self, quantised: frozenset[str], room: float) -> bool:
        """Whether this assignment fits; what there is no question left for does not."""
        if quantised not in self.known:
            if len(self.known) >= self.most:
                return False
            self.known[quantised] = self.error_of(quantised)
        return self.known[quantised] <= room


def _fewest_kept(by_price: Sequence[Effect], room: float, ask: _Asked) -> frozenset[str]:
    """Keep the most expensive groups, as few of them as will do; empty where even one alone is too much."""
    names = [effect.group for effect in by_price]
    low, high = 0, len(names)
    while low < high:
        middle = (low + high) // 2
        if ask.within(frozenset(names[middle:]), room):
            high = middle
        else:
            low = middle + 1
    # The error need not rise with every group, so the end of the bisection is not taken on trust; and where the cheap
    # ones do not fit because they are large, a dearer small one may.
    alone = sorted(by_price, key=lambda effect: (effect.error, effect.group))
    for part in (*(names[start:] for start in range(low, len(names))), *([effect.group] for effect in alone)):
        if ask.within(frozenset(part), room):
            return frozenset(part)
    return frozenset()


def _improve(
    by_price: Sequence[Effect], chosen: frozenset[str], gains: dict[str, float], room: float, ask: _Asked
) -> frozenset[str]:
    """Add groups and exchange groups while the gain rises."""
    better: frozenset[str] | None = chosen
    while better is not None:
        chosen = better
        better = next((each for each in _neighbours(by_price, chosen, gains) if ask.within(each, room)), None)
    return chosen


def _neighbours(
    by_price: Sequence[Effect], chosen: frozenset[str], gains: dict[str, float]
) -> Iterable[frozenset[str]]:
    """Assignments one step away that gain more: first with one group more, the largest gain first, then with one more
    and a smaller one less."""
    left = sorted((e for e in by_price if e.group not in chosen), key=lambda each: (-each.gain, each.group))
    for more in left:
        yield chosen | {more.group}
    for more in left:
        for less in sorted(chosen, key=lambda group: (gains[group], group)):
            if gains[less] < more.gain:
                yield (chosen - {less}) | {more.group}
        if sum(gains[group] for group in sorted(chosen)) < more.gain:
            yield frozenset({more.group})
