"""Which layer eats the bandwidth: the budget's table, layer by layer, and reading it back out of evidence.

A network's appetite is bytes per operation. A weight that meets many places of an image is read once for all of them;
one that meets a handful of tokens is read for those alone, so a transformer at batch 1 moves many times the bytes of a
convolution for the same arithmetic. Each layer's operations per byte stand beside what the chip balances (its peak over
the bandwidth it may use): a layer below that waits for memory, however fast the chip computes. Counted, not timed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nwmctl.domain.cost import LayerCost, StepCost
from nwmctl.domain.evidence import CheckResult
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.validation.figures import figure

TOP = 8
"""Layers that evidence names; the others are one row together."""
OTHERS = "(all others)"
INTENSITY, BALANCE, HUNGER = "operations_per_byte", "chip_operations_per_byte", "bandwidth_hunger"
_PREFIX = "layer."
_WEIGHTS, _ACTIVATIONS, _OPERATIONS = "weight_mb", "activation_mb", "operations_m"
_MEGA = 1e6


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One line of the table: megabytes per control step, share (0..1) of all bytes of the step, GB/s at the model's
    rate, share of the chip's bandwidth (None: the profile does not know it), operations per byte."""

    layer: str
    weight_mb: float
    activation_mb: float
    share: float
    gb_per_s: float
    bandwidth_share: float | None
    operations_per_byte: float


def layer_figures(cost: StepCost, obtained: Obtained) -> tuple[ResultFigure, ...]:
    """The heaviest layers as figures: three per layer, named ``layer.<name>.<what>``. None where nobody counted."""
    made: list[ResultFigure] = []
    for layer in heaviest(cost):
        counts = (layer.weight_bytes, layer.activation_bytes, layer.flops)
        for what, unit, count in zip((_WEIGHTS, _ACTIVATIONS, _OPERATIONS), ("MB", "MB", "M"), counts, strict=True):
            made.append(figure(f"{_PREFIX}{layer.name}.{what}", count / _MEGA, unit, obtained))
    return tuple(made)


def heaviest(cost: StepCost, top: int = TOP) -> tuple[LayerCost, ...]:
    """The layers that move most bytes, the first first, and the others as one."""
    ranked = sorted(cost.layers, key=lambda layer: (-layer.moved_bytes, layer.name))
    named, rest = ranked[:top], ranked[top:]
    if not rest:
        return tuple(named)
    sums = (sum(each) for each in zip(*((x.weight_bytes, x.activation_bytes, x.flops) for x in rest), strict=True))
    return (*named, LayerCost(OTHERS, *sums))


def hunger_figures(cost: StepCost, balance: float | None, obtained: Obtained) -> tuple[ResultFigure, ...]:
    """Operations per byte of the whole step, what the chip balances, and how many times more bandwidth per operation
    the step asks for than that. ``balance`` is None where the profile knows no peak or no bandwidth."""
    if not cost.moved_bytes or not cost.flops:
        return ()
    own = cost.flops / cost.moved_bytes
    made = [figure(INTENSITY, own, "", obtained)]
    if balance is not None:
        made += [figure(BALANCE, balance, "", obtained), figure(HUNGER, balance / own, "", obtained)]
    return tuple(made)


def layer_rows(result: CheckResult) -> tuple[LayerRow, ...]:
    """The table out of a budget's evidence, heaviest first; empty where nobody counted by layer."""
    value = {item.name: item.value for item in result.figures}
    found: dict[str, dict[str, float]] = {}
    for name, number in value.items():
        if name.startswith(_PREFIX):
            layer, _, what = name.removeprefix(_PREFIX).rpartition(".")
            found.setdefault(layer, {})[what] = number
    total = math.fsum(each.get(_WEIGHTS, 0.0) + each.get(_ACTIVATIONS, 0.0) for each in found.values())
    speed, share = value.get("bandwidth_gb_per_s", 0.0), value.get("bandwidth_share")
    rows: list[LayerRow] = []
    for layer, each in found.items():
        weights, activations = each.get(_WEIGHTS, 0.0), each.get(_ACTIVATIONS, 0.0)
        part = (weights + activations) / total if total else 0.0
        dense = each.get(_OPERATIONS, 0.0) / (weights + activations) if weights + activations else 0.0
        of_chip = None if share is None else part * share
        rows.append(LayerRow(layer, weights, activations, part, part * speed, of_chip, dense))
    return tuple(rows)
