"""From a counted graph and a recipe to pieces of work, and from pieces of work and constants to time.

The one formula of the cost model, used by predictions and by the fit alike. A kernel's time is its launch, then two
roofs (its arithmetic; its weights and activations), then the conversion of its activations into another form and back.
A part with many threads in flight does both at once, so the higher roof counts; a core of a CPU does one after the
other for the most part, so both do. What is fused into the kernel before it has no launch and moves only what that
kernel does not hold.
Pure; arrays have one entry for each piece of work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.compiler.cost_forms import INTERPRETERS, ONE_AFTER_THE_OTHER, Forms, forms_of, held_bytes
from nwmctl.compiler.graph import GraphCount, Kind, NodeCount
from nwmctl.domain.artifact import Recipe
from nwmctl.domain.prediction import Form, Rate

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

NAMES: tuple[str, ...] = (
    *(str(rate) for rate in Rate),
    *(f"product {form}" for form in Form),
    *(f"convert {form}" for form in Form),
)
"""Every constant of a toolchain: times in us first, then 10^9 operations, elements or bytes per s."""
INDEX: Mapping[str, int] = {name: index for index, name in enumerate(NAMES)}
_RATE_OF: Mapping[Kind, Rate] = {
    Kind.ATTENTION: Rate.ATTENTION,
    Kind.ROWS: Rate.ROWS,
    Kind.ELEMENTS: Rate.ELEMENTS,
    Kind.COPY: Rate.ELEMENTS,
}


@dataclass(frozen=True, slots=True)
class Work:
    """Pieces of work in the order of the graph: ``layer`` indexes ``layers``, ``roof`` and ``form`` index ``NAMES``."""

    layers: tuple[str, ...]
    layer: Indices
    launches: Floats
    operations: Floats
    roof: Indices
    weight_bytes: Floats
    activation_bytes: Floats
    converted: Floats
    form: Indices
    cached: bool
    overlaps: bool

    @property
    def names(self) -> frozenset[str]:
        """The constants that this work needs."""
        weights = Rate.CACHED if self.cached else Rate.WEIGHTS
        used = {str(rate) for rate in (Rate.CALL, Rate.KERNEL, Rate.ACTIVATIONS, weights)}
        used |= {NAMES[index] for index in self.roof[self.operations > 0]}
        return frozenset(used | {NAMES[index] for index in self.form[self.converted > 0]})


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of each piece of work, by what they are spent on; ``call`` once for all."""

    call: float
    launch: Floats
    arithmetic: Floats
    weights: Floats
    activations: Floats
    conversion: Floats
    overlaps: bool

    @property
    def memory(self) -> Floats:
        """The roof of the bytes."""
        total: Floats = self.weights + self.activations
        return total

    @property
    def each(self) -> Floats:
        """Every piece, without the call."""
        both = np.maximum(self.arithmetic, self.memory) if self.overlaps else self.arithmetic + self.memory
        total: Floats = self.launch + both + self.conversion
        return total

    @property
    def ms(self) -> float:
        """The whole control step."""
        return self.call + float(self.each.sum())


def work_of(count: GraphCount, recipe: Recipe, unit: str, cache_bytes: int | None) -> Work:
    """The pieces of work of a graph that is built by ``recipe`` for ``unit``."""
    forms, interpreted = forms_of(recipe), recipe.toolchain in INTERPRETERS
    held = {form: held_bytes(recipe.toolchain, unit, form) for form in Form}
    layers = {name: index for index, name in enumerate(count.layers)}
    rows = [_piece(node, forms, interpreted, held) for node in count.nodes]
    table = np.array(rows, np.float64).reshape(len(rows), 7)
    total = float(table[:, 3].sum())
    return Work(
        layers=count.layers,
        layer=np.array([layers[node.layer] for node in count.nodes], np.int64),
        launches=table[:, 0],
        operations=table[:, 1],
        roof=table[:, 2].astype(np.int64),
        weight_bytes=table[:, 3],
        activation_bytes=table[:, 4],
        converted=table[:, 5],
        form=table[:, 6].astype(np.int64),
        cached=cache_bytes is not None and total <= cache_bytes,
        overlaps=unit not in ONE_AFTER_THE_OTHER,
    )


def _piece(node: NodeCount, forms: Forms, interpreted: bool, held: Mapping[Form, int]) -> tuple[float, ...]:
    form = forms.of(node)
    fused = node.plain if interpreted else node.fusable
    product = node.kind is Kind.PRODUCT
    roof = f"product {form}" if product else str(_RATE_OF[node.kind])
    operations = node.flops if node.kind is not Kind.COPY else node.writes
    # Fused: the kernel before still holds what it wrote, and this node's result takes that place.
    moved = node.reads - node.chained if fused else node.reads + node.writes
    between = Form.FP16 if forms.wide else Form.FP32
    multiplies = product or node.kind is Kind.ATTENTION
    converted = node.reads + node.writes if multiplies and form not in (between, Form.WEIGHTS) else 0
    size = held[form] if product else forms.activation_bytes
    # An interpreter converts in a kernel of its own: activations into the product's form, or its weights out of theirs.
    converts = interpreted and multiplies and form not in (between, Form.FP32)
    return (
        float(not fused) + float(converts), float(operations), INDEX[roof], float(size * node.weights),
        float(forms.activation_bytes * moved), float(converted), INDEX[f"convert {form}"],
    )  # fmt: skip


def times(work: Work, constants: Floats) -> Times:
    """What the work takes with these constants (one for each of ``NAMES``, all positive)."""
    weights = constants[INDEX[Rate.CACHED if work.cached else Rate.WEIGHTS]]
    return Times(
        call=float(constants[INDEX[Rate.CALL]]) / 1e3,
        launch=work.launches * constants[INDEX[Rate.KERNEL]] / 1e3,
        arithmetic=work.operations / constants[work.roof] / 1e6,
        weights=work.weight_bytes / weights / 1e6,
        activations=work.activation_bytes / constants[INDEX[Rate.ACTIVATIONS]] / 1e6,
        conversion=work.converted / constants[work.form] / 1e6,
        overlaps=work.overlaps,
    )


def vector(*tables: Mapping[str, float]) -> Floats:
    """Constants by name as an array. What no table names is 1: only for work that does not need it (see ``names``)."""
    merged: dict[str, float] = {}
    for table in tables:
        merged.update(table)
    return np.array([merged.get(name, 1.0) for name in NAMES])
