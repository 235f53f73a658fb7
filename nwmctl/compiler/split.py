"""Splits a graph over two chips of one kind so that they finish as many control steps per second as they can.

Of all valid cuts the one is taken whose slower stage is fastest, the transfer counted to the first stage. What is not
known stays unknown: without the link's bandwidth the transfer is left out of the balance (and, among cuts that balance
about as well, the one with the least traffic is taken); without a peak of the chip the stages are balanced by
operations and have no times. Writes the two graphs; compiles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from nwmctl.compiler.cost import node_ms, predict
from nwmctl.compiler.graph import GraphCount, count_lowered
from nwmctl.compiler.split_cuts import Cut, SplitGraph
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Figure
from nwmctl.domain.platform import Chip
from nwmctl.domain.prediction import CostFit, Prediction
from nwmctl.domain.roofline import memory_ms
from nwmctl.domain.split import SplitPlan, Stage
from nwmctl.errors import GraphNotSplittableError
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder, lower
from nwmctl.toolchains.process import Limits

BY_TIME, BY_OPERATIONS = "predicted time", "operations"
_AS_GOOD = 1.05
"""Without a link's bandwidth, cuts whose slower stage is within this factor of the best count as equally good."""
PART_NAMES = ("stage-1.onnx", "stage-2.onnx")


@dataclass(frozen=True, slots=True)
class SplitOrder:
    """What to split for what: a part of a chip, a recipe for both parts, and the link between two such chips (GB/s;
    unknown where nobody knows it)."""

    model: Digest
    chip: Chip
    unit: str
    recipe: Recipe
    link: Figure
    rate_hz: float
    fit: CostFit | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """The plan, the lowered whole, and the files of its two parts."""

    plan: SplitPlan
    whole: Path
    parts: tuple[Path, Path]


def split_model(files: GraphFiles, order: SplitOrder, limits: Limits, scratch: Path) -> Split:
    """Split a model. Writes the lowered whole and its parts into ``scratch``.

    Raises GraphUnreadableError, GraphNotSplittableError where no cut is valid, and what the lowering raises.
    """
    whole = lower(files, scratch, LoweringOrder(Precision.FP32), limits).path
    graph, count = SplitGraph(whole), count_lowered(whole)
    cuts = graph.cuts()
    if not cuts:
        raise GraphNotSplittableError(
            "the model's graph cannot be split over two chips",
            why="there is no place at which few tensors go from one half to the other",
            next="run it on one chip, or train a model that has such a place",
        )
    cut, balanced_by = _best(graph, count, cuts, order)
    parts = (scratch / PART_NAMES[0], scratch / PART_NAMES[1])
    graph.write(cut, parts)
    return Split(_plan(graph, count, cut, balanced_by, order, parts), whole, parts)


def choose(before: Sequence[float], after: Sequence[float], traffic: Sequence[int], gb_per_s: float | None) -> int:
    """The index of the best cut: ``before`` and ``after`` are what both stages take (ms, or any measure of work where
    ``gb_per_s`` is None), ``traffic`` the bytes over each cut."""
    if gb_per_s is not None:
        sent = [memory_ms(count, gb_per_s) for count in traffic]
        slower = [max(one + way, two) for one, way, two in zip(before, sent, after, strict=True)]
        return min(range(len(slower)), key=lambda index: (slower[index], traffic[index], index))
    slower = [max(one, two) for one, two in zip(before, after, strict=True)]
    good = [index for index, value in enumerate(slower) if value <= _AS_GOOD * min(slower)]
    return min(good, key=lambda index: (traffic[index], slower[index], index))


def _best(graph: SplitGraph, count: GraphCount, cuts: Sequence[Cut], order: SplitOrder) -> tuple[Cut, str]:
    predicted = node_ms(count, order.chip, order.unit, order.recipe, order.fit)
    call, each = predicted if predicted else (0.0, tuple(float(node.flops) for node in count.nodes))
    work = [0.0] * len(graph.nodes)
    for position, amount in zip(graph.counted(), each, strict=True):
        work[position] = amount
    sums = [0.0, *accumulate(work)]
    before = [call + sums[cut.position] for cut in cuts]
    after = [call + sums[-1] - sums[cut.position] for cut in cuts]
    link = order.link.value if predicted else None
    chosen = choose(before, after, [cut.bytes for cut in cuts], link)
    return cuts[chosen], BY_TIME if predicted else BY_OPERATIONS


def _plan(
    graph: SplitGraph, count: GraphCount, cut: Cut, balanced_by: str, order: SplitOrder, parts: tuple[Path, Path]
) -> SplitPlan:
    def asked(counted: GraphCount) -> Prediction:
        return predict(counted, order.chip, order.unit, order.recipe, order.fit, order.rate_hz)

    whole = asked(count)
    counts = [count_lowered(part) for part in parts]
    found = [asked(counted) for counted in counts]
    transfer = memory_ms(cut.bytes, order.link.value) if order.link.value is not None else None
    first, second = (each.ms for each in found)
    latency = throughput = None
    if first is not None and second is not None and transfer is not None:
        latency, throughput = first + transfer + second, 1e3 / max(first + transfer, second)
    missing = [*dict.fromkeys(name for each in found for name in each.missing)]
    if transfer is None:
        missing.append(f"bandwidth of the link between two {order.chip.name}")
    return SplitPlan(
        model=order.model,
        chip=order.chip.name,
        unit=order.unit,
        recipe=order.recipe,
        rate_hz=order.rate_hz,
        crossings=cut.crossings,
        bytes_per_frame=cut.bytes,
        forwarded_bytes=graph.forwarded_bytes(cut),
        shared_weight_bytes=graph.shared_weight_bytes(cut),
        stages=tuple(
            Stage(
                file_digest(part), counted.layers, each.flops, each.weight_bytes, each.activation_bytes, each.ms,
                each.bound,
            )
            for part, counted, each in zip(parts, counts, found, strict=True)
        ),
        link=order.link,
        balanced_by=balanced_by,
        whole_ms=whole.ms,
        transfer_ms=transfer,
        latency_ms=latency,
        throughput_hz=throughput,
        error=whole.error,
        source=whole.source,
        why=tuple(f"not known: the {name}" for name in missing),
    )  # fmt: skip
