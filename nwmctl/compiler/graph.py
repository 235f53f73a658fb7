"""What one control step of a graph reads and computes: operations, bytes of weights, bytes of activations.

Counted per node over the graph that compilers get (lowered at batch 1), at a given precision of weights and tensors.
An estimate of work, not of time: caches, fusion and layouts are not modelled. Activations are counted as if every node
wrote its outputs to memory once and every reader read them once. Does not run the model.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nwmctl.domain.artifact import Precision
from nwmctl.domain.cost import LayerCost, StepCost
from nwmctl.errors import GraphUnreadableError
from nwmctl.toolchains.lowering import Scope, lower
from nwmctl.toolchains.process import Limits

_BYTES: Mapping[Precision, int] = {Precision.FP32: 4, Precision.FP16: 2, Precision.BF16: 2, Precision.INT8: 1}
_FREE = frozenset({"Constant", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Shape", "Cast"})
"""Nodes that move and compute nothing once a graph is compiled."""
_PER_ELEMENT: Mapping[str, int] = {"Softmax": 5, "LayerNormalization": 8, "Gelu": 8, "Sigmoid": 4, "Tanh": 4, "Exp": 2}
"""Operations per output element; one where nothing is listed."""

_FLOATS = (1, 10, 11, 16)
"""ONNX's numbers of the floating-point element types."""
_LOWERING_S = 120.0
OUTSIDE = "(outside any module)"
_OPERATOR = re.compile(r"[A-Z][A-Za-z0-9]*(_\d+)?\Z")
"""How exporters name an operator, as against a module."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NodeCost:
    """One node. ``flops`` counts a multiply-add as two; bytes as described in the module."""

    name: str
    operator: str
    flops: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class GraphCost:
    """A whole graph at batch 1."""

    nodes: tuple[NodeCost, ...]
    parameters: int

    @property
    def flops(self) -> int:
        """Operations of one control step."""
        return sum(node.flops for node in self.nodes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one control step reads."""
        return sum(node.weight_bytes for node in self.nodes)

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations that one control step writes and reads."""
        return sum(node.activation_bytes for node in self.nodes)

    @property
    def step(self) -> StepCost:
        """The same counts by layer, in the order of the graph."""
        sums: dict[str, list[int]] = {}
        for node in self.nodes:
            entry = sums.setdefault(layer_of(node.name), [0, 0, 0])
            for index, count in enumerate((node.weight_bytes, node.activation_bytes, node.flops)):
                entry[index] += count
        layers = tuple(LayerCost(name, *counts) for name, counts in sums.items())
        return StepCost(self.weight_bytes, self.activation_bytes, self.flops, layers)

    @property
    def intensity(self) -> float:
        """Operations per byte: what decides between bandwidth and arithmetic as the limit."""
        moved = self.weight_bytes + self.activation_bytes
        return self.flops / moved if moved else 0.0


def graph_cost(model: Path, precision: Precision = Precision.FP32) -> GraphCost:
    """Count a graph. Raises GraphUnreadableError if the file is no graph that can be lowered."""
    graph = _lowered(model)
    shapes, counted = _shapes(graph)
    weights = {value.name: math.prod(value.dims) for value in graph.initializer if value.data_type in _FLOATS}
    size = _BYTES[precision]
    charged: set[str] = set()
    nodes: list[NodeCost] = []
    for index, node in enumerate(graph.node):
        if node.op_type in _FREE:
            continue
        own = [name for name in node.input if name in weights and name not in charged]
        charged.update(own)  # a weight that two nodes share is read once: it fits into a cache or it is fused
        moved = [name for name in (*node.input, *node.output) if name and name not in weights and name in counted]
        nodes.append(
            NodeCost(
                node.name or f"{node.op_type}_{index}",
                node.op_type,
                _flops(node, shapes),
                size * sum(weights[name] for name in own),
                size * sum(math.prod(shapes[name]) for name in moved),
            )
        )
    return GraphCost(tuple(nodes), sum(weights.values()))


def layer_of(node: str) -> str:
    """The layer that a node belongs to, after the path that exporters give it: ``/blocks.0/key/MatMul`` belongs to
    ``blocks.0.key``. Two levels are named; what lies in no module is ``OUTSIDE``."""
    path = [part for part in node.split("/")[:-1] if part and not _OPERATOR.match(part)]
    if len(path) > 1:
        return path[1] if path[1].startswith(f"{path[0]}.") else f"{path[0]}.{path[1]}"
    return path[0] if path else OUTSIDE


def _lowered(model: Path) -> Any:
    """The lowered graph at batch 1: constants are folded, so every shape is known. In a process of its own."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="nwmctl-graph-") as scratch:
        lowered = lower(model, Path(scratch), Precision.FP32, Scope.MATMUL, 1, Limits(_LOWERING_S))
        return onnx.load(str(lowered.path)).graph


def _shapes(graph: Any) -> tuple[dict[str, Shape], set[str]]:
    """Shapes by tensor name, and the names of the floating-point tensors among them (integers steer, they do not
    carry data)."""
    shapes: dict[str, Shape] = {value.name: tuple(value.dims) for value in graph.initializer}
    floats = {value.name for value in graph.initializer if value.data_type in _FLOATS}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
        elif tensor.elem_type in _FLOATS:
            raise GraphUnreadableError(
                "the model's graph cannot be counted",
                why=f"the shape of '{value.name}' is not known even at batch 1",
                next="export the model again with static shapes except for the batch",
            )
        if tensor.elem_type in _FLOATS:
            floats.add(value.name)
    return shapes, floats


def _flops(node: Any, shapes: Mapping[str, Shape]) -> int:
    """Operations of one node; 0 where its output's shape is not known (integer bookkeeping)."""
    if not node.output or node.output[0] not in shapes:
        return 0
    out = math.prod(shapes[node.output[0]])
    match node.op_type:
        case "MatMul":
            return 2 * out * shapes[node.input[0]][-1]
        case "Gemm":
            flipped = any(entry.name == "transA" and entry.i for entry in node.attribute)
            depth = shapes[node.input[0]][0 if flipped else 1]
            return 2 * out * depth + (out if len(node.input) > 2 else 0)
        case "Conv":
            return 2 * out * math.prod(shapes[node.input[1]][1:])
        case "Gather" | "Concat" | "Transpose" | "Slice" | "Split" | "Expand" | "Pad" | "Where" | "ConstantOfShape":
            return 0
        case _ if node.op_type.startswith("Reduce"):
            return math.prod(shapes[node.input[0]])
        case _:
            return out * _PER_ELEMENT.get(node.op_type, 1)
