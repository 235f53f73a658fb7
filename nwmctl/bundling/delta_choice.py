"""Which deltas to build when not all may be: the set that saves the most bytes within the limits.

A group is all vehicles with the same artifact; an option is a delta that might be built. Each option offers some
groups a lower cost, a group takes the best that is there, so a further option saves the less the more there are:
what an option saves beside those already chosen, added up within the limits, bounds what any completion can save.
The search branches on the option that saves most and cuts by that bound. It is exact, and says so, unless it runs out
of nodes; then its result is what has been found so far, with the bound that is left. Pure and deterministic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MOST_NODES = 20_000
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be built: so many deltas, so many CPU-seconds of encoding, so many bytes on the mirrors; None: any."""

    most_deltas: int | None = None
    cpu_s: float | None = None
    storage_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("most_deltas", "cpu_s", "storage_bytes"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is {value}, it cannot be negative")

    def all(self) -> tuple[float | None, ...]:
        """In the order of ``Option.weights``."""
        return (self.most_deltas, self.cpu_s, self.storage_bytes)


@dataclass(frozen=True, slots=True)
class Option:
    """A delta that might be built: what each group it helps would cost in all (bytes), and what it takes to have."""

    costs: Mapping[int, int]
    cpu_s: float
    storage_bytes: int

    @property
    def weights(self) -> tuple[float, ...]:
        """One delta, its CPU-seconds, its bytes."""
        return (1.0, self.cpu_s, float(self.storage_bytes))


@dataclass(frozen=True, slots=True)
class Choice:
    """Indices of the chosen options, what all groups cost then, and a cost that no choice can undercut; both are equal
    where the choice was proven to be the best."""

    chosen: tuple[int, ...]
    cost: int
    bound: int

    @property
    def proven(self) -> bool:
        """Whether no choice is better."""
        return self.bound >= self.cost


def choose(base: Sequence[int], options: Sequence[Option], limits: Limits, most_nodes: int = MOST_NODES) -> Choice:
    """The best set of options; ``base[group]`` is what a group costs without any of them."""
    useful = [i for i, option in enumerate(options) if any(cost < base[g] for g, cost in option.costs.items())]
    room = limits.all()
    needed = [sum(options[i].weights[kind] for i in useful) for kind in range(len(room))]
    if all(most is None or total <= most + _SLACK for most, total in zip(room, needed, strict=True)):
        return _all(base, options, useful)
    search = _Search(options, most_nodes, sum(base))
    search.visit(list(base), (), useful, room)
    return Choice(tuple(sorted(search.best_set)), search.best, min(search.best, search.left))


def _all(base: Sequence[int], options: Sequence[Option], useful: Sequence[int]) -> Choice:
    """Nothing is scarce: each group's best option, and no option that serves nobody."""
    used: set[int] = set()
    total = 0
    for group, cost in enumerate(base):
        best = min(useful, key=lambda i: (options[i].costs.get(group, cost), i), default=None)
        offered = cost if best is None else options[best].costs.get(group, cost)
        if best is not None and offered < cost:
            used.add(best)
        total += min(cost, offered)
    return Choice(tuple(sorted(used)), total, total)


class _Search:
    def __init__(self, options: Sequence[Option], most_nodes: int, cost: int) -> None:
        self._options = options
        self._nodes = most_nodes
        self.best = cost
        self.best_set: tuple[int, ...] = ()
        self.left = cost
        """The lowest bound of what was not looked at; nothing is left while it is not below ``best``."""

    def visit(
        self, costs: list[int], chosen: tuple[int, ...], remaining: Sequence[int], room: tuple[float | None, ...]
    ) -> None:
        self._nodes -= 1
        total = sum(costs)
        if total < self.best:
            self.best, self.best_set = total, chosen
        gains = [(gain, i) for i in remaining if self._fits(i, room) and (gain := self._gain(i, costs))]
        if not gains:
            return
        bound = total - _most(gains, self._options, room)
        if bound >= self.best:
            return
        if self._nodes <= 0:
            self.left = min(self.left, bound)
            return
        first = max(gains, key=lambda each: (each[0], -each[1]))[1]
        others = [i for _, i in gains if i != first]
        lower = list(costs)
        for group, cost in self._options[first].costs.items():
            lower[group] = min(lower[group], cost)
        self.visit(lower, (*chosen, first), others, _less(room, self._options[first]))
        self.visit(costs, chosen, others, room)

    def _gain(self, index: int, costs: Sequence[int]) -> int:
        return sum(max(0, costs[group] - cost) for group, cost in self._options[index].costs.items())

    def _fits(self, index: int, room: tuple[float | None, ...]) -> bool:
        weights = self._options[index].weights
        return all(most is None or weight <= most + _SLACK for weight, most in zip(weights, room, strict=True))


def _less(room: tuple[float | None, ...], option: Option) -> tuple[float | None, ...]:
    return tuple(None if most is None else most - weight for most, weight in zip(room, option.weights, strict=True))


def _most(gains: Sequence[tuple[int, int]], options: Sequence[Option], room: tuple[float | None, ...]) -> int:
    """The most that options can save together: for each limit alone, pieces of options allowed; the least of these."""
    found = sum(gain for gain, _ in gains)
    for kind, most in enumerate(room):
        if most is not None:
            weighed = [(gain, options[i].weights[kind]) for gain, i in gains]
            # A whole byte more than the fraction: a bound that is rounded down would not be one.
            found = min(found, int(sum(_packed(weighed, most))) + 1)
    return found


def _packed(weighed: Sequence[tuple[int, float]], room: float) -> Iterator[float]:
    for gain, weight in sorted(weighed, key=lambda each: (each[1] / each[0], -each[0])):
        if weight <= room:
            room -= weight
            yield gain
        else:
            yield gain * max(0.0, room) / weight
            return
