"""Mixed-precision recipes for the host benchmark: few layers left float, to halve full int8's worst figure.

By the product's own means: a graph with switches asks for the error of any set of groups, sensitivities rank them, and
the assignment with the most gain within the room is taken. A group's gain is its share of the products' arithmetic.
Switches predict an error and are not the artifact, so several rooms are offered, each smaller than the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from nwmctl.compiler.graph import graph_cost
from nwmctl.compiler.sensitivity import assign, measure_groups
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import ModelContract
from nwmctl.domain.policy import Rule
from nwmctl.steps.search_judge import worst_share
from nwmctl.toolchains.graph_options import KEEP, graph_order, keep_option
from nwmctl.toolchains.layers import layer_of
from nwmctl.toolchains.lowering import GraphFiles, Integers, LoweringOrder, lower
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.toggles import build_toggles
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.inputs import Golden
from nwmctl.validation.parity import check_parity
from nwmctl.validation.subject import Pace, Way

_ROOMS = (0.48, 0.4, 0.33, 0.27)
"""Of full int8's worst figure."""


def mixed_recipes(
    folder: Path, base: Recipe, contract: ModelContract, golden: Golden, margins: Mapping[str, float], scratch: Path
) -> Iterator[Recipe]:
    """``base`` with ``keep``, for smaller and smaller rooms; nothing for a room that no assignment fits."""
    files = GraphFiles(folder / "model.onnx", None, folder / "calibration.npz")
    order = graph_order(base, None, integers=Integers.NARROW)
    assert order.quantisation is not None
    plain_at, int8_at, toggles_at = (scratch / name for name in ("plain", "int8", "toggles"))
    for each in (plain_at, int8_at, toggles_at):
        each.mkdir(parents=True)
    limits = Limits()
    plain = lower(files, plain_at, LoweringOrder(Precision.FP32, batch=None), limits)
    int8 = lower(files, int8_at, graph_order(Recipe("", Precision.INT8), None, integers=order.integers), limits)
    toggles = build_toggles(
        plain.path, (plain.inputs, plain.outputs), int8.path, (order.quantisation, order.integers), toggles_at, limits
    )
    rule = Rule(Obtained.MEASURED, margins=dict(margins))
    with toggles.open() as session:

        @cache
        def error_of(groups: frozenset[str]) -> float:
            session.quantise(groups)
            way = Way(Obtained.MEASURED, "switches", Pace.ROWS, lambda: session)
            candidate = Candidate(contract, way)
            candidate.ask_alone()
            share = worst_share(check_parity(candidate, golden, rule))
            assert share is not None
            return share

        gains = _gains(folder / "model.onnx")
        effects = measure_groups(toggles.groups, lambda group: gains[group], error_of)
        whole = error_of(frozenset(toggles.groups))
        for room in _ROOMS:
            made = assign(effects, room * whole, error_of)
            if made is not None and made.keep:
                yield Recipe(base.toolchain, Precision.INT8, {**base.options, KEEP: keep_option(made.keep)})


def _gains(model: Path) -> Counter[str]:
    """Operations of the products with weights, by group."""
    found: Counter[str] = Counter()
    for node in graph_cost(model).nodes:
        if node.operator in ("MatMul", "Gemm", "Conv"):
            found[layer_of(node.name)] += node.flops
    return found
