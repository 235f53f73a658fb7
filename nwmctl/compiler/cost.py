"""Predicts what one control step takes: milliseconds, what binds each layer, and the share of the frame.

With a fit of this chip the constants are what was measured there; without one they are assumed efficiencies of the
profile's peaks. A peak or bandwidth that is neither measured nor in the profile is named and never replaced: the
prediction then has no time, and ``rank`` falls back on counted instructions or moved bytes and says so. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from nwmctl.compiler.cost_forms import (
    ASSUMED,
    ASSUMED_ERROR,
    BANDWIDTH_EFFICIENCY,
    assumed_rates,
    efficiency,
    forms_of,
    machine_precision,
    own_options,
)
from nwmctl.compiler.cost_work import NAMES, Times, Work, times, vector, work_of
from nwmctl.compiler.graph import GraphCount
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.platform import Chip
from nwmctl.domain.prediction import Constants, CostFit, Form, LayerTime, Prediction, PredictionError, Rate
from nwmctl.domain.roofline import Bound


@dataclass(frozen=True, slots=True)
class _Known:
    """Constants by name, where they come from, and what is missing for them by the constant's name."""

    values: dict[str, float]
    missing: dict[str, str]
    fitted: bool
    source: str
    error: PredictionError


def predict(
    count: GraphCount,
    chip: Chip,
    unit: str,
    recipe: Recipe,
    fit: CostFit | None = None,
    rate_hz: float | None = None,
    found: Precision | None = None,
) -> Prediction:
    """What one control step of a graph takes on a part of a chip when it is built by ``recipe``.

    ``fit`` is used where it is of this chip and knows this toolchain and unit. ``found``: the precision that was read
    out of the artifact, where it is built already; it decides which peak products are measured against.
    """
    work, known = _known(count, chip, unit, recipe, fit, found)
    lacking = _lacking(work, known)
    weight_bytes, activation_bytes = int(work.weight_bytes.sum()), int(work.activation_bytes.sum())
    flops = sum(node.flops for node in count.nodes)
    took = None if lacking else times(work, vector(known.values))
    ms = took.ms if took else None
    return Prediction(
        recipe=recipe,
        ms=ms,
        bound=_bound(took, np.ones(len(work.layer), bool)) if took else None,
        layers=_layers(count, work, took),
        flops=flops,
        weight_bytes=weight_bytes,
        activation_bytes=activation_bytes,
        fitted=known.fitted,
        source=known.source,
        error=known.error,
        missing=lacking,
        frame_share=ms * rate_hz / 1e3 if ms is not None and rate_hz is not None else None,
    )


def node_ms(
    count: GraphCount, chip: Chip, unit: str, recipe: Recipe, fit: CostFit | None = None
) -> tuple[float, tuple[float, ...]] | None:
    """Predicted ms to start a control step, and ms of each node of the count; None where a figure is missing."""
    work, known = _known(count, chip, unit, recipe, fit, None)
    if _lacking(work, known):
        return None
    took = times(work, vector(known.values))
    return took.call, tuple(float(ms) for ms in took.each)


def _known(
    count: GraphCount, chip: Chip, unit: str, recipe: Recipe, fit: CostFit | None, found: Precision | None
) -> tuple[Work, _Known]:
    """The work, and the constants for it: fitted ones if they are all there, else assumed ones."""
    of_chip = fit if fit is not None and fit.chip == chip.name else None
    work = work_of(count, recipe, unit, of_chip.cache_bytes if of_chip else None)
    fitted = _fitted(of_chip, recipe, unit) if of_chip else None
    if fitted and not _lacking(work, fitted):
        return work, fitted
    return work, _assumed(chip, unit, recipe, found)


def _lacking(work: Work, known: _Known) -> tuple[str, ...]:
    """What the work needs and nobody knows, in words."""
    needed = [name for name in NAMES if name in work.names and name not in known.values]
    return tuple(dict.fromkeys(known.missing.get(name, name) for name in needed))


def _fitted(fit: CostFit, recipe: Recipe, unit: str) -> _Known | None:
    """The constants of the recipe's own options, completed by those of all options of its toolchain."""
    mine = [each for each in fit.constants if (each.toolchain, each.unit) == (recipe.toolchain, unit)]
    together = next((each for each in mine if each.options is None), None)
    if together is None:
        return None
    options = own_options(recipe)
    own = next((each for each in mine if each.options == options), None)
    values = _values(together) | (_values(own) if own else {})
    source = f"{fit.obtained} on {fit.chip}: {fit.source}"
    if own is None:
        source += f"; {recipe.toolchain} was measured with other options"
    error = own.error if own and not own.error.assumed else together.error
    return _Known(values, {}, True, source, error)


def _values(constants: Constants) -> dict[str, float]:
    products = {f"product {form}": value for form, value in constants.products.items()}
    return {**constants.rates, **products, **{f"convert {form}": v for form, v in constants.conversions.items()}}


def _assumed(chip: Chip, unit: str, recipe: Recipe, found: Precision | None) -> _Known:
    """Assumed efficiencies of the profile's figures."""
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    gb, base = chip.memory_bandwidth.value, _peak(chip, unit, Precision.FP32)
    if gb is None or base is None:
        for rate in Rate:
            bandwidth = rate in (Rate.ACTIVATIONS, Rate.WEIGHTS, Rate.CACHED)
            if gb is None if bandwidth else base is None:
                missing[rate] = f"memory bandwidth of {chip.name}" if bandwidth else _peak_name(chip, unit, "fp32")
    rates = assumed_rates(unit, base or 1.0, gb or 1.0)
    values |= {name: value for name, value in rates.items() if name not in missing}
    options = own_options(recipe)
    for form in Form:
        machine = machine_precision(recipe.toolchain, unit, form, options)
        if found is not None and form is forms_of(recipe).product:
            machine = found
        peak = _peak(chip, unit, machine)
        if peak is None:
            missing[f"product {form}"] = _peak_name(chip, unit, machine)
        else:
            values[f"product {form}"] = 1e3 * peak * efficiency(unit)
        if gb is None:
            missing[f"convert {form}"] = f"memory bandwidth of {chip.name}"
        else:
            values[f"convert {form}"] = gb * BANDWIDTH_EFFICIENCY / 6.0  # reads four bytes and writes two
    used = [chip.memory_bandwidth, *(figure for name, figure in chip.peaks.items() if name.startswith(f"{unit}."))]
    surely = ", ".join(sorted({str(figure.confidence) for figure in used if figure.value is not None}))
    source = f"{ASSUMED} efficiencies of the profile's figures ({surely or 'none known'}); nothing was measured"
    return _Known(values, missing, False, source, ASSUMED_ERROR)


def _peak(chip: Chip, unit: str, precision: Precision) -> float | None:
    figure = chip.peak(unit, precision)
    return figure.value if figure else None


def _peak_name(chip: Chip, unit: str, precision: str) -> str:
    return f"peak of {unit} in {precision} of {chip.name}"


def _bound(took: Times, which: NDArray[np.bool_]) -> Bound:
    """What most of the time of some pieces of work is spent on."""
    computes = (took.arithmetic > took.memory) | (not took.overlaps)
    moves = (took.arithmetic <= took.memory) | (not took.overlaps)
    launches = float(took.launch[which].sum()) + (took.call if which.all() else 0.0)
    arithmetic = float(took.arithmetic[which & computes].sum())
    memory = float(took.memory[which & moves].sum() + took.conversion[which].sum())
    spent = {Bound.ARITHMETIC: arithmetic, Bound.BANDWIDTH: memory, Bound.OVERHEAD: launches}
    return max(spent, key=lambda bound: spent[bound])


def _layers(count: GraphCount, work: Work, took: Times | None) -> tuple[LayerTime, ...]:
    made = []
    flops = np.array([node.flops for node in count.nodes], np.float64)
    for index, name in enumerate(work.layers):
        own = work.layer == index
        sums = (int(each[own].sum()) for each in (flops, work.weight_bytes, work.activation_bytes))
        ms = float(took.each[own].sum()) if took else None
        made.append(LayerTime(name, ms, _bound(took, own) if took else None, *sums))
    return tuple(made)


class Basis(StrEnum):
    """What a ranking stands on."""

    TIME = "predicted time"
    INSTRUCTIONS = "counted instructions"
    BYTES = "moved bytes"


@dataclass(frozen=True, slots=True)
class Ranking:
    """Indices of candidates, the best first; ``why`` says why it does not stand on time where it does not."""

    order: tuple[int, ...]
    basis: Basis
    why: str = ""


def rank(predictions: Sequence[Prediction], instructions: Mapping[int, int] | None = None) -> Ranking:
    """Order candidates. ``instructions``: executed instructions that were counted under emulation, by index.

    One ranking stands on one basis: a time that lacks figures is never compared with one that does not.
    """
    missing = tuple(dict.fromkeys(name for each in predictions for name in each.missing))
    keys: list[float]
    if not missing:
        basis, why = Basis.TIME, ""
        keys = [each.ms for each in predictions if each.ms is not None]
    else:
        why = f"the profile does not know the {', '.join(missing)}"
        counted = instructions or {}
        if all(index in counted for index in range(len(predictions))):
            basis, keys = Basis.INSTRUCTIONS, [float(counted[index]) for index in range(len(predictions))]
        else:
            basis, keys = Basis.BYTES, [float(each.moved_bytes) for each in predictions]
    return Ranking(tuple(sorted(range(len(keys)), key=lambda index: (keys[index], index))), basis, why)


def may_prune(best_ms: float, best_error: PredictionError | None, prediction: Prediction) -> bool:
    """Whether a candidate can be left out: only if it is worse than the best even when both predictions err as far
    as the model itself says. ``best_error`` is None where the best was measured."""
    if prediction.ms is None:
        return False
    fastest = prediction.ms / (1.0 + prediction.error.worst)
    slowest = best_ms * (1.0 + (best_error.worst if best_error else 0.0))
    return fastest > slowest
