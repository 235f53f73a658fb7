"""What one control step of a graph reads and computes: operations, bytes of weights, bytes of activations.

Counted per node over the graph that compilers get (lowered at batch 1): ``count_graph`` in elements, for predictions
that choose a number format per node; ``graph_cost`` in bytes at one precision. An estimate of work, not of time: caches
and layouts are not modelled. Activations are counted as if every node wrote its outputs to memory once and every reader
read them once; which nodes a compiler would fuse is only marked. Does not run the model.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from nwmctl.domain.artifact import Precision
from nwmctl.domain.cost import LayerCost, StepCost
from nwmctl.errors import GraphUnreadableError
from nwmctl.toolchains.layers import layer_of
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder, lower
from nwmctl.toolchains.process import Limits

BYTES: Mapping[Precision, int] = {Precision.FP32: 4, Precision.FP16: 2, Precision.BF16: 2, Precision.INT8: 1}
"""Bytes of one element."""
FREE = frozenset({"Constant", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Shape", "Cast"})
"""Nodes that move and compute nothing once a graph is compiled."""
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
_COPIES = frozenset(
    {"Gather", "Concat", "Transpose", "Slice", "Split", "Expand", "Pad", "Where", "ConstantOfShape", "Tile"}
)
_WHOLE = frozenset({"Softmax", "LayerNormalization", "RMSNormalization", "CumSum", "TopK", "ArgMax"})
"""Nodes that look at a whole row before they can write its first element."""
_PER_ELEMENT: Mapping[str, int] = {
    "Softmax": 5,
    "LayerNormalization": 8,
    "Gelu": 8,
    "Sigmoid": 4,
    "Tanh": 4,
    "Exp": 2,
    "Erf": 4,
}
"""Operations per output element; one where nothing is listed."""

_FLOATS = (1, 10, 11, 16)
"""ONNX's numbers of the floating-point element types."""
_LOWERING_S = 120.0

Shape = tuple[int, ...]


class Kind(StrEnum):
    """What a node is to a machine."""

    PRODUCT = "product"
    """Activations times weights: what is quantised."""
    ATTENTION = "attention"
    """Activations times activations."""
    ROWS = "rows"
    """Reads whole rows: softmax, normalisation, reductions."""
    ELEMENTS = "elements"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class NodeCount:
    """One node, in elements. ``flops`` counts a multiply-add as two; ``reads`` and ``writes`` are activations only.

    ``rows``: of a product, how many rows share one read of the weights; 0 otherwise. ``fusable``: elementwise, and its
    ``chained`` elements come from one node that nobody else reads, so that a compiler can do both at once; ``plain``:
    so plain a case (a bias, a Gelu written out) that interpreters of graphs do it too.
    """

    name: str
    operator: str
    layer: str
    kind: Kind
    flops: int
    weights: int
    reads: int
    writes: int
    rows: int = 0
    fusable: bool = False
    plain: bool = False
    chained: int = 0


@dataclass(frozen=True, slots=True)
class GraphCount:
    """A whole graph at batch 1, in the order in which it runs."""

    nodes: tuple[NodeCount, ...]
    parameters: int

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers in the order of the graph."""
        return tuple(dict.fromkeys(node.layer for node in self.nodes))

    @property
    def groups(self) -> tuple[str, ...]:
        """The layers that have something to quantise."""
        return tuple(dict.fromkeys(node.layer for node in self.nodes if node.kind is Kind.PRODUCT))


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
    """A whole graph at batch 1, at one precision."""

    nodes: tuple[NodeCost, ...]
    parameters: int
    step: StepCost
    """The same counts by layer, in the order of the graph."""

    @property
    def flops(self) -> int:
        """Operations of one control step."""
        return self.step.flops

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one control step reads."""
        return self.step.weight_bytes

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations that one control step writes and reads."""
        return self.step.activation_bytes

    @property
    def intensity(self) -> float:
        """Operations per byte: what decides between bandwidth and arithmetic as the limit."""
        return self.flops / self.step.moved_bytes if self.step.moved_bytes else 0.0


def graph_cost(model: Path, precision: Precision = Precision.FP32, data: Path | None = None) -> GraphCost:
    """Count a graph at one precision. Raises GraphUnreadableError if the file is no graph that can be lowered."""
    count, size = count_graph(model, data), BYTES[precision]
    costs = [
        NodeCost(node.name, node.operator, node.flops, size * node.weights, size * (node.reads + node.writes))
        for node in count.nodes
    ]
    sums: dict[str, list[int]] = {}
    for node, cost in zip(count.nodes, costs, strict=True):
        entry = sums.setdefault(node.layer, [0, 0, 0])
        for index, number in enumerate((cost.weight_bytes, cost.activation_bytes, cost.flops)):
            entry[index] += number
    layers = tuple(LayerCost(name, *entry) for name, entry in sums.items())
    step = StepCost(
        sum(layer.weight_bytes for layer in layers),
        sum(layer.activation_bytes for layer in layers),
        sum(layer.flops for layer in layers),
        layers,
    )
    return GraphCost(tuple(costs), count.parameters, step)


def count_graph(model: Path, data: Path | None = None) -> GraphCount:
    """Count a model as it was trained. Raises GraphUnreadableError if the file is no graph that can be lowered.

    Lowered first, in a process of its own: then constants are folded, and every shape is known.
    """
    with tempfile.TemporaryDirectory(prefix="nwmctl-graph-") as scratch:
        lowered = lower(GraphFiles(model, data), Path(scratch), LoweringOrder(Precision.FP32), Limits(_LOWERING_S))
        return count_lowered(lowered.path)


def count_lowered(path: Path) -> GraphCount:
    """Count a graph that was lowered at batch 1 in fp32. Raises GraphUnreadableError where a shape is not known."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    shapes, counted = _shapes(graph)
    weights = {value.name: math.prod(value.dims) for value in graph.initializer if value.data_type in _FLOATS}
    chains = _Chains(graph, shapes, weights.keys())
    charged: set[str] = set()
    nodes: list[NodeCount] = []
    for index, node in enumerate(graph.node):
        if node.op_type in FREE:
            continue
        own = [name for name in node.input if name in weights and name not in charged]
        charged.update(own)  # a weight that two nodes share is read once: it fits into a cache or it is fused
        reads, writes = (
            sum(math.prod(shapes[name]) for name in side if name and name not in weights and name in counted)
            for side in (node.input, node.output)
        )
        name, kind = node.name or f"{node.op_type}_{index}", kind_of(node, weights.keys())
        held = sum(weights[name] for name in own)
        fusable, plain, chained = chains.of(node, kind)
        nodes.append(
            NodeCount(
                name, node.op_type, layer_of(name), kind, _flops(node, shapes), held, reads, writes,
                _rows(node, shapes) if kind is Kind.PRODUCT else 0, fusable, plain, chained,
            )
        )  # fmt: skip
    return GraphCount(tuple(nodes), sum(weights.values()))


class _Chains:
    """Which nodes only go over the elements that one other node has just written."""

    def __init__(self, graph: Any, shapes: Mapping[str, Shape], weights: Iterable[str]) -> None:
        self.shapes, self.weights = shapes, frozenset(weights)
        self.readers = Counter(name for node in graph.node for name in node.input)
        self.readers.update(value.name for value in graph.output)
        self.makers = {name: node for node in graph.node for name in node.output}
        self.gelus = self._gelus(graph)

    def of(self, node: Any, kind: Kind) -> tuple[bool, bool, int]:
        """Whether it can be fused, whether interpreters do so too, and the elements that it then gets."""
        if kind is not Kind.ELEMENTS:
            return False, False, 0
        own = self.shapes.get(node.output[0], ())
        for name in node.input:
            maker = self._maker(name)
            if maker is None or self.shapes.get(name) is None or math.prod(self.shapes[name]) != math.prod(own):
                continue
            others = [other for other in node.input if other != name]
            bias = maker.op_type in _PRODUCTS and all(other in self.weights for other in others)
            return True, bias or node.name in self.gelus, math.prod(own)
        return False, False, 0

    def _gelus(self, graph: Any) -> frozenset[str]:
        """Names of the nodes from Erf on in every Gelu that is written out as Div, Erf, Add, Mul, Mul."""
        users = {name: node for node in graph.node for name in node.input if self.readers[name] == 1}
        found: set[str] = set()
        for node in (each for each in graph.node if each.op_type == "Erf"):
            chain = [node]
            while len(chain) < 4 and chain[-1].output[0] in users:
                chain.append(users[chain[-1].output[0]])
            if [each.op_type for each in chain] == ["Erf", "Add", "Mul", "Mul"]:
                found.update(each.name for each in chain)
        return frozenset(found)

    def _maker(self, name: str) -> Any:
        """The node that wrote a tensor for one reader alone, through whatever only renames it."""
        while self.readers[name] == 1 and name in self.makers:
            maker = self.makers[name]
            if maker.op_type not in FREE:
                return None if maker.op_type in _COPIES else maker
            name = maker.input[0] if maker.input else ""
        return None


def kind_of(node: Any, weights: Iterable[str]) -> Kind:
    if node.op_type in _PRODUCTS:
        return Kind.PRODUCT if any(name in weights for name in node.input[:2]) else Kind.ATTENTION
    if node.op_type in _WHOLE or node.op_type.startswith("Reduce"):
        return Kind.ROWS
    return Kind.COPY if node.op_type in _COPIES else Kind.ELEMENTS


def _rows(node: Any, shapes: Mapping[str, Shape]) -> int:
    """Rows of a product that share the weights; a convolution's are its places."""
    out = shapes.get(node.output[0], ())
    if not out:
        return 1
    wide = out[1] if node.op_type == "Conv" and len(out) > 1 else out[-1]
    return max(1, math.prod(out) // max(1, wide))


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
        case _ if node.op_type in _COPIES:
            return 0
        case _ if node.op_type.startswith("Reduce"):
            return math.prod(shapes[node.input[0]])
        case _:
            return out * _PER_ELEMENT.get(node.op_type, 1)
