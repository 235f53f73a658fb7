"""Learns what a toolchain achieves on a chip from measured latencies.

Constants are fitted in logarithms, so they stay positive and every measurement counts by its ratio, not by its
milliseconds; a measurement far off weighs less (Huber). Each constant is drawn towards a start value, so few
measurements move only what they say something about. First all options of a toolchain together, then each set of
options, drawn towards that. Errors come from predicting every model by a fit that has not seen it. Measures nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.compiler.cost_forms import ASSUMED_ERROR, assumed_rates, efficiency, own_options
from nwmctl.compiler.cost_work import INDEX, NAMES, Floats, Work, times, work_of
from nwmctl.compiler.graph import GraphCount
from nwmctl.domain.artifact import Option, Recipe
from nwmctl.domain.figure import Obtained
from nwmctl.domain.prediction import Constants, CostFit, Form, PredictionError, Rate

_NOISE = 0.08
"""How far a repeated measurement lies off, as a logarithm."""
_LOOSE, _TIGHT = 1.5, 0.4
"""How far a constant may lie from its start value: for a toolchain, and for one set of its options."""
_ROUNDS = 40
_KNEE = 3.0
"""From so many times the noise on a point is an outlier."""
_STUCK = 1e6
_START_TERA, _START_GB = 0.05, 10.0
"""Where the search for constants begins: one core of any machine of today. Not a claim about a chip."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A latency that was measured: ``ms`` for one control step of the model ``model`` (any stable name), built by
    ``recipe`` for ``unit``."""

    model: str
    count: GraphCount
    unit: str
    recipe: Recipe
    ms: float

    def __post_init__(self) -> None:
        if not self.ms > 0:
            raise ValueError(f"a latency is positive, not {self.ms:g} ms")


@dataclass(frozen=True, slots=True)
class _Point:
    model: str
    options: str
    work: Work
    ms: float


def fit(
    measured: Sequence[Measured], chip: str, obtained: Obtained, source: str, cache_bytes: int | None = None
) -> CostFit:
    """Constants of every toolchain, unit and set of options among the measurements. All were taken on ``chip`` in the
    way of ``obtained``; ``source`` says for people where they come from."""
    tables: dict[tuple[str, str], list[_Point]] = {}
    for each in measured:
        recipe = each.recipe
        work = work_of(each.count, recipe, each.unit, cache_bytes)
        point = _Point(each.model, options_text(own_options(recipe)), work, each.ms)
        tables.setdefault((recipe.toolchain, each.unit), []).append(point)
    found: list[Constants] = []
    for (toolchain, unit), points in sorted(tables.items()):
        found += _learn(toolchain, unit, points)
    models = tuple(sorted({each.model for each in measured}))
    return CostFit(chip, tuple(found), models, obtained, source, cache_bytes)


def options_text(options: Mapping[str, Option]) -> str:
    """One text for one set of options."""
    return json.dumps(options, sort_keys=True)


def start_values(unit: str) -> Floats:
    """Where the search for constants begins."""
    rates = assumed_rates(unit, _START_TERA, _START_GB)
    product = 1e3 * _START_TERA * efficiency(unit)
    forms = {f"product {form}": product for form in Form} | {f"convert {form}": 1.0 for form in Form}
    return np.array([{**rates, **forms}[name] for name in NAMES])


def _learn(toolchain: str, unit: str, points: list[_Point]) -> list[Constants]:
    """One set for all options together, and one for each set of options."""
    start = start_values(unit)
    errors = _unseen(points, start)
    together = _solve(points, start, _LOOSE)
    found = [_constants(toolchain, unit, None, points, together, _error(errors))]
    for options in sorted({point.options for point in points}):
        own = [point for point in points if point.options == options]
        solved = _solve(own, together, _TIGHT)
        error = _error([entry for entry in errors if entry[1].options == options])
        found.append(_constants(toolchain, unit, json.loads(options), own, solved, error))
    return found


def _constants(
    toolchain: str,
    unit: str,
    options: dict[str, Option] | None,
    points: Iterable[_Point],
    solved: Floats,
    error: PredictionError,
) -> Constants:
    seen = frozenset[str]().union(*(point.work.names for point in points))
    value = {name: _rounded(solved[INDEX[name]]) for name in NAMES if name in seen}
    return Constants(
        toolchain,
        unit,
        options,
        {str(rate): value[rate] for rate in Rate if rate in value},
        {str(form): value[f"product {form}"] for form in Form if f"product {form}" in value},
        {str(form): value[f"convert {form}"] for form in Form if f"convert {form}" in value},
        error,
    )


def _unseen(points: list[_Point], start: Floats) -> list[tuple[float, _Point]]:
    """Points with the logarithm of their prediction over the measurement, predicted by a fit that has not seen their
    model (of a single model: that has not seen the point). Those that need what no other point shows are left out."""
    models = sorted({point.model for point in points})
    several = len(models) > 1
    found = []
    for unseen in models if several else range(len(points)):
        kept = [each for i, each in enumerate(points) if (each.model if several else i) != unseen]
        gone = [each for i, each in enumerate(points) if (each.model if several else i) == unseen]
        shown = frozenset[str]().union(*(each.work.names for each in kept))
        together = _solve(kept, start, _LOOSE) if kept else start
        by_options: dict[str, Floats] = {}
        for point in (each for each in gone if each.work.names <= shown):
            if point.options not in by_options:
                own = [each for each in kept if each.options == point.options]
                by_options[point.options] = _solve(own, together, _TIGHT) if own else together
            predicted = times(point.work, by_options[point.options]).ms
            found.append((float(np.log(predicted / point.ms)), point))
    return found


def _error(entries: Sequence[tuple[float, _Point]]) -> PredictionError:
    if not entries:
        return ASSUMED_ERROR
    factors = np.exp(np.abs([entry[0] for entry in entries])) - 1.0
    median, worst = _rounded(float(np.median(factors))), _rounded(float(factors.max()))
    return PredictionError(len(entries), len({entry[1].model for entry in entries}), min(median, worst), worst)


class _Stack:
    """All pieces of work of several points in one set of arrays."""

    def __init__(self, points: Sequence[_Point]) -> None:
        self.goals = np.log([point.ms for point in points])
        self._works = [point.work for point in points]
        self._owner = np.repeat(np.arange(len(points)), [len(work.layer) for work in self._works])
        cached, self._overlaps = (
            np.repeat([getattr(work, name) for work in self._works], [len(work.layer) for work in self._works])
            for name in ("cached", "overlaps")
        )
        self._weights = np.where(cached, INDEX[Rate.CACHED], INDEX[Rate.WEIGHTS])
        self._table = {
            name: np.concatenate([getattr(work, name) for work in self._works])
            for name in ("launches", "operations", "roof", "weight_bytes", "activation_bytes", "converted", "form")
        }

    def totals(self, constants: Floats) -> Floats:
        """Milliseconds of each point."""
        return self._evaluate(constants)[0]

    def linear(self, constants: Floats) -> tuple[Floats, Floats]:
        """Logarithms of predicted over measured, and how they change with the logarithm of each constant."""
        totals, parts = self._evaluate(constants)
        cells = len(totals) * len(NAMES)
        flat = sum(np.bincount(self._owner * len(NAMES) + index, ms, cells) for index, ms in parts)
        slope = np.asarray(flat).reshape(len(totals), len(NAMES))
        slope[:, INDEX[Rate.CALL]] += constants[INDEX[Rate.CALL]] / 1e3
        return np.log(totals) - self.goals, slope / totals[:, None]

    def _evaluate(self, constants: Floats) -> tuple[Floats, list[tuple[NDArray[np.int64], Floats]]]:
        table, count = self._table, len(self._owner)
        launch = table["launches"] * constants[INDEX[Rate.KERNEL]] / 1e3
        arithmetic = table["operations"] / constants[table["roof"]] / 1e6
        weights = table["weight_bytes"] / constants[self._weights] / 1e6
        activations = table["activation_bytes"] / constants[INDEX[Rate.ACTIVATIONS]] / 1e6
        conversion = table["converted"] / constants[table["form"]] / 1e6
        # Where both roofs count both have a slope; where the higher one does, only that.
        computes = ~self._overlaps | (arithmetic > weights + activations)
        moves = ~self._overlaps | ~computes
        each = launch + np.where(computes, arithmetic, 0.0) + np.where(moves, weights + activations, 0.0) + conversion
        totals = np.bincount(self._owner, each, len(self._works)) + constants[INDEX[Rate.CALL]] / 1e3
        # Times rise with their constant, rates make times fall.
        parts = [
            (np.full(count, INDEX[Rate.KERNEL]), launch),
            (table["roof"], np.where(computes, -arithmetic, 0.0)),
            (self._weights, np.where(moves, -weights, 0.0)),
            (np.full(count, INDEX[Rate.ACTIVATIONS]), np.where(moves, -activations, 0.0)),
            (table["form"], -conversion),
        ]
        return totals, parts


def _solve(points: Sequence[_Point], start: Floats, width: float) -> Floats:
    """The constants in best agreement with the points: damped Gauss-Newton on logarithms."""
    stack, origin = _Stack(points), np.log(start)

    def cost(held: Floats) -> float:
        size = np.abs(np.log(stack.totals(np.exp(held))) - stack.goals) / _NOISE
        huber = np.where(size <= _KNEE, size**2 / 2, _KNEE * (size - _KNEE / 2))
        return float(huber.sum() + ((held - origin) ** 2).sum() / (2 * width**2))

    held, least, damping = origin.copy(), cost(origin), 1e-3
    for _ in range(_ROUNDS):
        residual, jacobian = stack.linear(np.exp(held))
        weight = 1.0 / np.maximum(1.0, np.abs(residual) / (_KNEE * _NOISE)) / _NOISE**2
        hessian = jacobian.T @ (weight[:, None] * jacobian) + np.eye(len(NAMES)) / width**2
        gradient = jacobian.T @ (weight * residual) + (held - origin) / width**2
        while damping < _STUCK:
            new = held - np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)
            tried = cost(new)
            if tried < least:
                break
            damping *= 4.0
        else:
            break
        gained, held, least, damping = least - tried, new, tried, max(1e-6, damping / 3.0)
        if gained < 1e-6 * least:
            break
    return np.exp(held)


def _rounded(value: float) -> float:
    """Four digits: more would be noise, and noise in documents."""
    return float(f"{value:.4g}")
