"""Which recipe to build with: tries candidates and ranks them. Decides; every effect is the world's.

Invariants: what no check has passed is never ranked; a candidate is pruned only where even the most hopeful reading of
its forecast is slower than the most pessimistic reading of what already passed, or where building it would tell nothing
new; no evaluation begins once the time is
spent, and time is what the evaluations took when they really ran, so a search that finds all of them kept decides
the same; the same facts give the same ranking. Compiles, executes and stores nothing, and knows no toolchain's words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from nwmctl.compiler.search_rank import Speed, Tried, best_of, contenders, ranked, safety
from nwmctl.compiler.space import Space, recipe_key, said, same_numbers
from nwmctl.domain.artifact import Precision, Quantisation, Recipe
from nwmctl.domain.figure import Obtained
from nwmctl.domain.measurement import Latency

_MIXED_TRIES = 3
_TIGHTER = 0.7
"""Errors of groups do not add up: where an assignment fails in the artifact, the next one gets this much less room."""
_HALF = 0.5
HOPELESS = 1.3
"""A simulated parity error beyond this share of the margins is not worth building; nearer ones are: the simulation is
right to some percent."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A candidate's part in a comparison side by side."""

    speed: Speed
    latency: Latency | None = None


class World(Protocol):
    """Every effect of a search. Nothing here raises for a fault of a candidate; whatever raises ends the search."""

    def forecast(self, recipe: Recipe, tried: Sequence[Tried]) -> Speed | None:
        """How fast it will be, before it is built; None where nobody can tell. ``tried``: facts to learn from."""
        ...

    def rehearse(self, recipe: Recipe) -> float | None:
        """The parity error of an int8 recipe as a share of the margins, simulated; None where building it is as cheap,
        or nobody can tell."""
        ...

    def evaluate(self, recipe: Recipe) -> Tried:
        """Compile, judge, and measure or estimate."""
        ...

    def keep(self, base: Tried, room: float) -> Recipe | None:
        """The fastest recipe of mixed precision out of an int8 one whose parity error stays within ``room`` (a share
        of the margins); None where there is none."""
        ...

    def compare(self, finalists: Sequence[Tried]) -> Mapping[str, Compared]:
        """Measured beside one another, by ``recipe_key``; empty where nothing can be measured."""
        ...

    def examine(self, winner: Tried) -> str:
        """The last check, of what is about to win; '' if it passes, else the reason."""
        ...

    def note(self, text: str) -> None:
        """Told each decision."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """``most`` recipes are tried (None: all), within ``seconds`` (None: no limit); ``mixed`` precision or not."""

    most: int | None = None
    seconds: float | None = None
    mixed: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A recipe that was not built, and why. ``simulated``: its parity error as a share of the margins, where that was
    why."""

    recipe: Recipe
    reason: str
    forecast: Speed | None = None
    simulated: float | None = None


@dataclass(slots=True)
class Found:
    """How a search ended. ``order`` holds the ranking, fastest first; ``rejected`` why a fast one lost its last check;
    ``forecasts`` what had been predicted before each recipe was built, by ``recipe_key``."""

    tried: list[Tried] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    forecasts: dict[str, Speed] = field(default_factory=dict)
    order: tuple[Tried, ...] = ()
    rejected: dict[str, str] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    spent: float = 0.0

    @property
    def winner(self) -> Tried | None:
        """The first of the ranking."""
        return self.order[0] if self.order else None


def search(space: Space, limits: Limits, world: World) -> Found:
    """Try the space's recipes and rank what passed. Raises what ``world`` raises."""
    found = Found()
    _go_through(space, limits, world, found)
    if limits.mixed:
        _mix(space, limits, world, found)
    _settle(world, found)
    return found


def _go_through(space: Space, limits: Limits, world: World, found: Found) -> None:
    open_ = list(space.recipes)
    known = {recipe_key(recipe) for recipe in open_[: space.winners]}
    while open_:
        forecasts = {recipe_key(recipe): world.forecast(recipe, found.tried) for recipe in open_}
        recipe = _next(open_, known, forecasts, limits, found)
        open_.remove(recipe)
        forecast = forecasts[recipe_key(recipe)]
        reason = _over(limits, found) or _pruned(forecast, best_of(found.tried)) or _alike(recipe, forecast, found)
        simulated = None if reason or not limits.mixed else _simulated(recipe, space, world)
        if simulated is not None and simulated > HOPELESS:
            reason = f"its parity error is simulated as {simulated:.1f} times the margins"
        if reason:
            found.skipped.append(Skipped(recipe, reason, forecast, simulated))
            world.note(f"{said(recipe)} is left out: {reason}")
            continue
        _try(recipe, forecast, space.recipes.index(recipe), world, found)


def _next(
    open_: Sequence[Recipe],
    known: set[str],
    forecasts: Mapping[str, Speed | None],
    limits: Limits,
    found: Found,
) -> Recipe:
    """Earlier winners, then the most hopeful; the safest where one more failure would leave nothing."""
    earlier = [recipe for recipe in open_ if recipe_key(recipe) in known]
    if earlier:
        return earlier[0]
    last = limits.most is not None and len(found.tried) == limits.most - 1
    if last and best_of(found.tried) is None:
        return min(open_, key=lambda recipe: (safety(recipe), open_.index(recipe)))

    if None in forecasts.values():
        # What cannot be forecast is neither good nor bad: then the drivers' own order says what is promising.
        return open_[0]

    def hope(recipe: Recipe) -> tuple[float, int]:
        forecast = forecasts[recipe_key(recipe)]
        return (forecast.ms if forecast else 0.0), open_.index(recipe)

    return min(open_, key=hope)


def _over(limits: Limits, found: Found) -> str:
    """Why nothing more is tried; '' where there is room."""
    if limits.seconds is not None and found.tried and found.spent >= limits.seconds:
        return f"the time of {limits.seconds:g} s was spent"
    if limits.most is not None and len(found.tried) >= limits.most and best_of(found.tried) is not None:
        return f"{len(found.tried)} recipes were tried, as many as this effort asks for"
    if limits.most is not None and len(found.tried) >= 2 * limits.most:
        return f"{len(found.tried)} recipes were tried and none passed"
    return ""


def _pruned(forecast: Speed | None, best: Tried | None) -> str:
    if forecast is None or best is None or best.speed is None or forecast.low <= best.speed.high:
        return ""
    return (
        f"at best {forecast.low:.3g} {forecast.unit} are predicted (error {forecast.spread:.0%}), "
        f"{said(best.recipe)} takes {best.speed.ms:.3g} {best.speed.unit}"
    )


def _simulated(recipe: Recipe, space: Space, world: World) -> float | None:
    """Only of what can be mixed: then the simulation is needed anyway, and the recipe is not lost."""
    return world.rehearse(recipe) if _mixable(recipe, space) else None


def _mixable(recipe: Recipe, space: Space) -> bool:
    """Whether groups of an int8 recipe can be kept float, and whether that can gain anything."""
    integers = recipe.precision is Precision.INT8 and recipe.options.get("quantisation") != Quantisation.WEIGHTS
    return integers and "keep" not in recipe.options and recipe.toolchain in space.mixed


def _alike(recipe: Recipe, forecast: Speed | None, found: Found) -> str:
    """Why building it would tell nothing: the same numbers by the same toolchain were judged already, and where nothing
    is measured its speed cannot be told from theirs."""
    if forecast is None:
        return ""
    for each in found.tried:
        judged = not each.failed and each.speed is not None and each.speed.obtained is Obtained.ESTIMATED
        if judged and same_numbers(each.recipe, recipe) and found.forecasts.get(recipe_key(each.recipe)) == forecast:
            return f"it computes what {said(each.recipe)} computes, and nothing here tells their speeds apart"
    return ""


def _try(recipe: Recipe, forecast: Speed | None, place: int, world: World, found: Found) -> Tried:
    if forecast is not None:
        found.forecasts[recipe_key(recipe)] = forecast
    tried = replace(world.evaluate(recipe), place=place)
    found.tried.append(tried)
    found.spent += tried.seconds
    took = f"; {tried.speed.ms:.3g} {tried.speed.unit} ({tried.speed.obtained})" if tried.speed else ""
    world.note(f"{said(recipe)}: {tried.words}{took}")
    return tried


def _mix(space: Space, limits: Limits, world: World, found: Found) -> None:
    """Mixed precision out of the fastest int8 recipe that could still win."""
    for base in _bases(space, found):
        assert base.parity_share is not None
        # One that passes as it is can only be bettered: about as fast, at half the error.
        room = _HALF * base.parity_share if base.passed else 1.0
        for _ in range(_MIXED_TRIES):
            if limits.seconds is not None and found.spent >= limits.seconds:
                world.note(f"no mixed precision: the time of {limits.seconds:g} s was spent")
                return
            recipe = world.keep(base, room)
            if recipe is None:
                world.note(f"no mixed precision of {said(base.recipe)} stays within {room:.2g} of the margins")
                break
            if any(recipe_key(recipe) == recipe_key(each.recipe) for each in found.tried):
                break
            tried = _try(recipe, world.forecast(recipe, found.tried), base.place, world, found)
            if tried.passed or tried.parity_share is None:
                break
            room *= _TIGHTER


def _bases(space: Space, found: Found) -> list[Tried]:
    """Per toolchain that mixes, the fastest int8 recipe whose products are integers, if nothing that passed beats it
    for sure."""
    best = best_of(found.tried)
    known = [each for each in found.tried if each.parity_share is not None and each.speed is not None]
    known += [
        Tried(each.recipe, each.reason, speed=each.forecast, parity_share=each.simulated)
        for each in found.skipped
        if each.simulated is not None
    ]
    bound = best.speed.high if best is not None and best.speed is not None else math.inf
    bases: dict[str, Tried] = {}
    for each in sorted(known, key=_speed):
        hopeless = each.speed is not None and each.speed.low > bound
        if not hopeless and _mixable(each.recipe, space):
            bases.setdefault(each.recipe.toolchain, each)
    return list(bases.values())


def _speed(tried: Tried) -> float:
    return tried.speed.ms if tried.speed else float("inf")


def _settle(world: World, found: Found) -> None:
    """The final comparison, the ranking, and the last check from the top down."""
    finalists = contenders(found.tried)
    if len(finalists) > 1:
        settled = world.compare(finalists)
        found.tried = [_updated(each, settled.get(recipe_key(each.recipe))) for each in found.tried]
    order, found.ties = ranked(found.tried)
    while order:
        reason = world.examine(order[0])
        if not reason:
            break
        found.rejected[recipe_key(order[0].recipe)] = reason
        world.note(f"{said(order[0].recipe)} was the fastest and fails its last check: {reason}")
        order = order[1:]
    found.order = tuple(order)


def _updated(tried: Tried, settled: Compared | None) -> Tried:
    return tried if settled is None else replace(tried, speed=settled.speed, latency=settled.latency or tried.latency)
