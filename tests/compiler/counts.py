"""Counted graphs without a model file, and chips whose figures are known exactly."""

from __future__ import annotations

from nwmctl.compiler.graph import GraphCount, Kind, NodeCount
from nwmctl.domain.artifact import Option, Precision, Recipe
from nwmctl.domain.figure import Confidence, Figure
from nwmctl.domain.platform import Chip


def known(value: float | None, unit: str) -> Figure:
    return Figure(value, unit, "a data sheet", Confidence.PUBLIC if value is not None else Confidence.UNKNOWN)


def chip(bandwidth: float | None = 100.0, **peaks: float | None) -> Chip:
    """A chip; peaks as ``gpu_fp16=40.0``, None for unknown ones."""
    named = {name.replace("_", "."): known(value, "TFLOPS") for name, value in peaks.items()}
    return Chip("chip", "a chip", known(bandwidth, "GB/s"), known(None, "GB"), named)


def product(name: str, rows: int, wide: int, out: int) -> NodeCount:
    return NodeCount(
        f"/{name}/MatMul",
        "MatMul",
        name,
        Kind.PRODUCT,
        2 * rows * wide * out,
        wide * out,
        rows * wide,
        rows * out,
        rows,
    )


def relu(name: str, elements: int) -> NodeCount:
    return NodeCount(
        f"/{name}/Relu", "Relu", name, Kind.ELEMENTS, elements, 0, elements, elements, 0, True, False, elements
    )


def stack(rows: int, wide: int, layers: int) -> GraphCount:
    """``layers`` products with a nonlinearity after each."""
    nodes = [
        node
        for index in range(layers)
        for node in (product(f"layer{index}", rows, wide, wide), relu(f"layer{index}", rows * wide))
    ]
    return GraphCount(tuple(nodes), layers * wide * wide)


def recipe(toolchain: str = "iree", precision: str = "fp32", **options: Option) -> Recipe:
    return Recipe(toolchain, Precision(precision), dict(options))
