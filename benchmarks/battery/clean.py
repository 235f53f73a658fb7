"""Artifacts that a good toolchain makes of the model: other precisions, other threads, other batch, other compiler.

Nobody would call one of these broken, so a check that fails one raises a false alarm. The twin of an artifact of
another toolchain is no graph; ``twin.py`` opens it.
"""

from __future__ import annotations

from numpy.random import Generator

from benchmarks.battery import precision
from benchmarks.battery.kinds import Kind
from benchmarks.battery.shop import UNPACK, Artifact, Shop


def half_products(shop: Shop, dice: Generator) -> Artifact:
    """fp16 around the matrix products, as nwmctl's own lowering makes it."""
    return Artifact(shop.halves.bytes(), "matrix products")


def half_everywhere(shop: Shop, dice: Generator) -> Artifact:
    """Every operator in fp16."""
    return Artifact(precision.half_everywhere(shop.base).bytes(), "every operator")


def bf16_weights(shop: Shop, dice: Generator) -> Artifact:
    """Weights in bfloat16."""
    graph = shop.base.copy()
    for weight in graph.weights():
        graph.put(weight.name, precision.bf16_rounded(graph.floats(weight.name)))
    return Artifact(graph.bytes(), "weights only")


def bf16_products(shop: Shop, dice: Generator) -> Artifact:
    """Both operands of every product in bfloat16, sums in fp32."""
    graph = shop.base.copy()
    for weight in graph.weights():
        precision.bf16_product(graph, weight)
    return Artifact(graph.bytes(), "both operands")


def int8_weights(shop: Shop, dice: Generator) -> Artifact:
    """Weights in int8 with a scale per output channel."""
    graph = shop.base.copy()
    for weight in graph.weights():
        precision.integer_weight(graph, weight, 8, per_channel=True)
    return Artifact(graph.bytes(), "a scale per output channel", session=UNPACK)


def mixed(shop: Shop, dice: Generator) -> Artifact:
    """Each product in a precision of its own, chosen by dice."""
    graph, chosen = shop.base.copy(), []
    for weight in graph.weights():
        choice = ("fp32", "fp16", "bf16 weights", "int8 weights")[int(dice.integers(4))]
        chosen.append(choice[0] if choice != "fp32" else "w")
        if choice == "fp16":
            precision.half_product(graph, weight)
        elif choice == "bf16 weights":
            graph.put(weight.name, precision.bf16_rounded(graph.floats(weight.name)))
        elif choice == "int8 weights":
            precision.integer_weight(graph, weight, 8, per_channel=True)
    return Artifact(graph.bytes(), "".join(chosen), session=UNPACK)


def other_threads(shop: Shop, dice: Generator) -> Artifact:
    """The same graph with two threads, or without the runtime's own optimisations."""
    if dice.integers(2):
        return Artifact(shop.base.bytes(), "two threads", session={"threads": 2})
    return Artifact(shop.base.bytes(), "not optimised", session={"level": 0})


def batch_one(shop: Shop, dice: Generator) -> Artifact:
    """fp16 products at batch 1, where the reference drives a whole batch."""
    return Artifact(shop.halves.bytes(), "row by row", rows=True)


ROW_BY_ROW = "fp16 at batch 1"
"""A kind whose trials take longer than others'."""
CLEAN: dict[str, Kind] = {
    "fp16 products": half_products,
    "fp16 everywhere": half_everywhere,
    "bf16 weights": bf16_weights,
    "bf16 products": bf16_products,
    "int8 weights per channel": int8_weights,
    "mixed by layer": mixed,
    "other threads": other_threads,
    ROW_BY_ROW: batch_one,
}
"""By the name under which they are counted."""


def int8_static(shop: Shop, dice: Generator) -> Artifact:
    """Weights and activations in int8, calibrated on the package's own data."""
    return Artifact(precision.static_int8(shop.base, shop.calibration).bytes(), "the package's calibration data")


GREY: dict[str, Kind] = {"static int8, well calibrated": int8_static}
"""Neither broken nor as good as the model: shown, and counted on neither side."""
