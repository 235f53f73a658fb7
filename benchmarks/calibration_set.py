"""The calibration set: small generated graphs from whose latencies a host's constants are learned.

Transformer blocks of very different shapes, because a constant shows only where it rules: launches in a tiny one,
arithmetic where many rows share the weights, memory where few do and the weights exceed the caches. Deterministic:
the same shapes give the same bytes. Which recipes are tried on them, how they are built and measured comes in as a
function; this module runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nwmctl.compiler.cost_fit import Measured
from nwmctl.compiler.graph import count_graph
from nwmctl.domain.artifact import Recipe

INPUT = "tokens"
_HEAD = 32


@dataclass(frozen=True, slots=True)
class Block:
    """A stack of ``layers`` transformer blocks over ``tokens`` of ``width``, with ``hidden`` in the feed-forward part;
    without attention where ``attention`` is False."""

    name: str
    tokens: int
    width: int
    hidden: int
    layers: int
    attention: bool = True


SET: tuple[Block, ...] = (
    Block("calibration-small", 12, 96, 384, 4),
    Block("calibration-wide", 192, 512, 2048, 1),
    Block("calibration-streamed", 6, 1024, 4096, 1, attention=False),
    Block("calibration-tiny", 4, 32, 64, 6),
    Block("calibration-thin", 24, 384, 1536, 2),
    Block("calibration-tall", 320, 192, 512, 1),
)
"""The most telling first: whoever has less time takes fewer."""


@dataclass(frozen=True, slots=True)
class CalibrationGraph:
    """A written graph: the model file, its calibration data (as a package has it), and one row of inputs."""

    block: Block
    model: Path
    calibration: Path
    inputs: dict[str, NDArray[np.float32]]


Measure = Callable[[CalibrationGraph, Sequence[Recipe]], dict[int, float]]
"""Builds a graph by each recipe and measures them interleaved: median ms by the recipe's index; a recipe that cannot be
built or run is left out."""


def calibrate(
    recipes: Sequence[Recipe], unit: str, folder: Path, measure: Measure, spent: Callable[[], float], budget_s: float
) -> tuple[Measured, ...]:
    """Measure the set for these recipes until ``budget_s`` seconds are spent (``spent`` tells how many are); the graph
    that is being measured then is finished."""
    found: list[Measured] = []
    for block in SET:
        if spent() >= budget_s:
            break
        graph = write_block(block, folder / block.name)
        count = count_graph(graph.model)
        for index, ms in sorted(measure(graph, recipes).items()):
            found.append(Measured(block.name, count, unit, recipes[index], ms))
    return tuple(found)


def write_block(block: Block, folder: Path) -> CalibrationGraph:
    """Write a block's model and data into ``folder``, which is made."""
    import onnx
    from onnx import TensorProto, helper

    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(block)
    last = writer.write()
    shape: list[str | int | None] = ["B", block.tokens, block.width]
    graph = helper.make_graph(
        writer.nodes,
        block.name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        writer.held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path, data = folder / "model.onnx", folder / "calibration.npz"
    onnx.save(model, str(path))
    rows = np.random.default_rng(3).normal(size=(8, block.tokens, block.width)).astype(np.float32)
    named: dict[str, Any] = {f"in/{INPUT}": rows}
    np.savez(data, **named)
    return CalibrationGraph(block, path, data, {INPUT: rows[:1]})


class _Writer:
    """Nodes and weights of a block, in order."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.nodes: list[Any] = []
        self.held: list[Any] = []
        self._dice = np.random.default_rng(5)

    def write(self) -> str:
        """All layers; the name of the last tensor."""
        flow = INPUT
        for index in range(self.block.layers):
            at = f"/blocks.{index}"
            if self.block.attention:
                flow = self._add("Add", f"{at}/Add", flow, self._attend(self._norm(flow, f"{at}/norm_a"), at))
            up = self._linear(self._norm(flow, f"{at}/norm_b"), f"{at}/up", self.block.width, self.block.hidden)
            gelu = self._gelu(up, at)
            flow = self._add(
                "Add", f"{at}/Add_1", flow, self._linear(gelu, f"{at}/down", self.block.hidden, self.block.width)
            )
        return flow

    def _add(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def _hold(self, name: str, values: NDArray[Any] | np.float32) -> str:
        from onnx import numpy_helper

        self.held.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _linear(self, flow: str, name: str, wide: int, out: int) -> str:
        weights = (self._dice.standard_normal((wide, out), np.float32) / np.float32(np.sqrt(wide))).astype(np.float32)
        product = self._add("MatMul", f"{name}/MatMul", flow, self._hold(f"{name}.weight", weights))
        bias = self._hold(f"{name}.bias", np.full(out, 0.01, np.float32))
        return self._add("Add", f"{name}/Add", product, bias)

    def _norm(self, flow: str, name: str) -> str:
        wide = self.block.width
        scale = self._hold(f"{name}.weight", np.ones(wide, np.float32))
        shift = self._hold(f"{name}.bias", np.zeros(wide, np.float32))
        return self._add("LayerNormalization", f"{name}/LayerNormalization", flow, scale, shift, axis=-1)

    def _gelu(self, flow: str, at: str) -> str:
        number = {value: self._hold(f"{at}.{value}", np.float32(value)) for value in (1.4142135, 1.0, 0.5)}
        bent = self._add("Erf", f"{at}/Erf", self._add("Div", f"{at}/Div", flow, number[1.4142135]))
        part = self._add("Mul", f"{at}/Mul", flow, self._add("Add", f"{at}/Add_2", bent, number[1.0]))
        return self._add("Mul", f"{at}/Mul_1", part, number[0.5])

    def _attend(self, flow: str, at: str) -> str:
        wide, heads = self.block.width, self.block.width // _HEAD
        split = self._hold(f"{at}.split", np.array([0, self.block.tokens, heads, _HEAD], np.int64))
        join = self._hold(f"{at}.join", np.array([0, self.block.tokens, wide], np.int64))
        parts = []
        for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            flat = self._linear(flow, f"{at}/{name}", wide, wide)
            shaped = self._add("Reshape", f"{at}/Reshape_{name}", flat, split)
            parts.append(self._add("Transpose", f"{at}/Transpose_{name}", shaped, perm=order))
        scores = self._add("MatMul", f"{at}/MatMul", parts[0], parts[1])
        scale = self._hold(f"{at}.scale", np.float32(_HEAD**-0.5))
        shares = self._add("Softmax", f"{at}/Softmax", self._add("Mul", f"{at}/Mul_2", scores, scale), axis=-1)
        mixed = self._add("MatMul", f"{at}/MatMul_1", shares, parts[2])
        back = self._add("Transpose", f"{at}/Transpose", mixed, perm=[0, 2, 1, 3])
        return self._linear(self._add("Reshape", f"{at}/Reshape", back, join), f"{at}/mix", wide, wide)
