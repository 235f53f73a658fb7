"""The graph of the generated driving transformer, written with ONNX's own helper; no training framework is needed.

Nodes are named as exporters name them (``/blocks.0/attention/query/MatMul``), products and their biases are separate
nodes, normalisations are operators of opset 17: what a compiler gets from a usual export. Geometry (the trajectory
out of the controls) is part of the graph. Weights go to the file, or beside it, one after the other, so that no more
than one of them is held where they are kept outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

CAMERAS, ROWS, COLUMNS = 7, 64, 160
HISTORY, EGO, NAVIGATION, HORIZON = 4, 6, 15, 20
RATE_HZ: Final = 10.0
WHEELBASE: Final = 2.9
MOTION_SCALE: Final = (20.0, 0.5, 3.0, 2.0, 0.5, 20.0)
CONTROL_SCALE: Final = (0.5, 4.5, 1.0)
CONTROL_SHIFT: Final = (0.0, -1.5, 0.0)
PATCHES: Final = {112: (32, 20), 224: (16, 20), 280: (16, 16), 448: (8, 20)}
HEAD_WIDTH: Final = 64
_OUTLIERS: Final = 6
_OPSET: Final = 17


@dataclass(frozen=True, slots=True)
class Size:
    """``tokens`` of the images; history, ego and navigation add a few."""

    width: int
    layers: int
    tokens: int

    @property
    def patch(self) -> tuple[int, int]:
        """Rows and columns of an image patch. Raises ValueError for a number of tokens that divides no image."""
        if self.tokens not in PATCHES:
            raise ValueError(f"{self.tokens} tokens: it must be one of {', '.join(map(str, PATCHES))}")
        return PATCHES[self.tokens]

    @property
    def heads(self) -> int:
        """Attention heads, each 64 wide."""
        if self.width % HEAD_WIDTH:
            raise ValueError(f"a width of {self.width}: it must be a multiple of {HEAD_WIDTH}")
        return self.width // HEAD_WIDTH

    @property
    def sequence(self) -> int:
        """All tokens."""
        return self.tokens + HISTORY + 1 + NAVIGATION


def write_graph(path: Path, size: Size, seed: int, data: Path | None = None) -> int:
    """Write the model, its weights into ``data`` if given. Returns the number of parameters."""
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph(size, seed, data)
    try:
        _forward(graph)
    finally:
        graph.close()
    spec = helper.make_tensor_value_info
    inputs = [
        spec("images", TensorProto.FLOAT, ["B", CAMERAS, ROWS, COLUMNS, 3]),
        spec("history", TensorProto.FLOAT, ["B", HISTORY, EGO]),
        spec("ego", TensorProto.FLOAT, ["B", EGO]),
        spec("navigation", TensorProto.FLOAT, ["B", NAVIGATION, 2]),
    ]
    outputs = [spec(name, TensorProto.FLOAT, ["B", HORIZON, 3]) for name in ("control", "trajectory")]
    made = helper.make_graph(graph.nodes, "driving_transformer", inputs, outputs, graph.initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="benchmarks")
    model.ir_version = 9
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    return graph.parameters


class _Graph:
    """Nodes and weights so far."""

    def __init__(self, size: Size, seed: int, data: Path | None) -> None:
        self.size, self.nodes, self.initializers, self.parameters = size, [], [], 0
        self._stream = np.random.default_rng(seed)
        self._out = data.open("wb") if data else None
        self._data, self._constants = data, 0
        self.loud = self._stream.permutation(size.width)[:_OUTLIERS]

    nodes: list[Any]
    initializers: list[Any]

    def close(self) -> None:
        if self._out is not None:
            self._out.close()

    def node(self, where: str, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node at the module path ``where`` and name its output."""
        from onnx import helper

        name = f"{where}/{operator}"
        taken = sum(each.name == name or each.name.startswith(f"{name}_") for each in self.nodes)
        name = f"{name}_{taken}" if taken else name
        output = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name, **attributes))
        return output

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """A small constant that is no parameter."""
        from onnx import numpy_helper

        self._constants += 1
        name = f"constant_{self._constants}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, name: str, values: NDArray[np.floating[Any]]) -> str:
        """A parameter, in the file or beside it."""
        from onnx import TensorProto, external_data_helper, numpy_helper

        values = np.ascontiguousarray(values, np.float32)
        self.parameters += values.size
        if self._out is None or values.nbytes < 1024:
            self.initializers.append(numpy_helper.from_array(values, name))
            return name
        assert self._data is not None
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
        tensor.raw_data = b""
        offset = self._out.tell()
        self._out.write(values.data)
        self._out.write(b"\0" * (-self._out.tell() % 4096))
        external_data_helper.set_external_data(tensor, self._data.name, offset, values.nbytes)
        tensor.ClearField("raw_data")
        self.initializers.append(tensor)
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> NDArray[np.float32]:
        return self._stream.standard_normal(shape, np.float32) * np.float32(scale)

    def linear(self, where: str, source: str, into: int, out: int, gain: float = 1.0, quiet: bool = False) -> str:
        """``source @ weight + bias``. ``quiet`` weights damp the loud channels of the normalisation before them."""
        weight = self.normal(into, out, scale=gain / np.sqrt(into))
        if quiet:
            weight[self.loud] *= 0.3
        path = where.strip("/").replace("/", ".")
        product = self.node(where, "MatMul", [source, self.weight(f"{path}.weight", weight)])
        return self.node(where, "Add", [self.weight(f"{path}.bias", self.normal(out, scale=0.1)), product])

    def norm(self, where: str, source: str, loud: float = 1.0) -> str:
        """A layer normalisation whose loud channels are multiplied by ``loud``."""
        gain = 1.0 + self.normal(self.size.width, scale=0.1)
        gain[self.loud] *= loud
        path = where.strip("/").replace("/", ".")
        scale = self.weight(f"{path}.weight", gain)
        bias = self.weight(f"{path}.bias", self.normal(self.size.width, scale=0.05))
        return self.node(where, "LayerNormalization", [source, scale, bias], axis=-1, epsilon=1e-5)

    def gelu(self, where: str, source: str) -> str:
        """The exact form, as exporters write it below opset 20."""
        error = self.node(where, "Erf", [self.node(where, "Div", [source, self.constant(np.sqrt(2.0))])])
        twice = self.node(where, "Mul", [source, self.node(where, "Add", [error, self.constant(1.0)])])
        return self.node(where, "Mul", [twice, self.constant(0.5)])


def _forward(graph: _Graph) -> None:
    width, layers = graph.size.width, graph.size.layers
    hidden = _tokens(graph)
    for index in range(layers):
        block = f"/blocks.{index}"
        # The loud channels grow towards the middle: layers differ in what reduced precision costs them.
        loud = 2.0 + 4.0 * float(np.sin(np.pi * (index + 0.5) / layers))
        seen = graph.norm(f"{block}/norm_a", hidden, loud / 2)
        hidden = graph.node(block, "Add", [hidden, _attention(graph, f"{block}/attention", seen, seen, layers)])
        seen = graph.norm(f"{block}/norm_b", hidden, loud)
        hidden = graph.node(block, "Add", [hidden, _feed(graph, f"{block}/feed", seen, layers)])
    memory = graph.norm("/norm", hidden, 2.0)
    queries = graph.weight("queries", graph.normal(1, HORIZON, width, scale=0.3))
    read = _attention(graph, "/decoder/attention", graph.norm("/decoder/norm_a", queries), memory, 1, sharp=2.0)
    planned = graph.node("/decoder", "Add", [queries, read])
    fed = _feed(graph, "/decoder/feed", graph.norm("/decoder/norm_b", planned, 3.0), 1)
    planned = graph.node("/decoder", "Add", [planned, fed])
    raw = graph.linear("/head/out", graph.norm("/head/norm", planned), width, 3, gain=0.4)
    bounded = graph.node("/head", "Tanh", [raw])
    scaled = graph.node("/head", "Mul", [bounded, graph.constant(CONTROL_SCALE)])
    _trajectory(graph, graph.node("/head", "Add", [scaled, graph.constant(CONTROL_SHIFT)], "control"))


def _tokens(graph: _Graph) -> str:
    """[B, sequence, width]."""
    width, (high, wide) = graph.size.width, graph.size.patch
    shape = graph.constant([0, CAMERAS, ROWS // high, high, COLUMNS // wide, wide * 3], np.int64)
    centred = graph.node("/image_in", "Sub", ["images", graph.constant(0.5)])
    patches = graph.node(
        "/image_in", "Reshape", [graph.node("/image_in", "Mul", [centred, graph.constant(3.0)]), shape]
    )
    patches = graph.node("/image_in", "Transpose", [patches], perm=[0, 1, 2, 4, 3, 5])
    depth = high * wide * 3
    patches = graph.node("/image_in", "Reshape", [patches, graph.constant([0, graph.size.tokens, depth], np.int64)])
    parts = [graph.linear("/image_in/embed", patches, depth, width)]
    scale = graph.constant(MOTION_SCALE)
    parts.append(graph.linear("/history_in/embed", graph.node("/history_in", "Div", ["history", scale]), EGO, width))
    now = graph.node("/ego_in", "Unsqueeze", ["ego", graph.constant([1], np.int64)])
    parts.append(graph.linear("/ego_in/embed", graph.node("/ego_in", "Div", [now, scale]), EGO, width))
    route = graph.node("/navigation_in", "Div", ["navigation", graph.constant(30.0)])
    parts.append(graph.linear("/navigation_in/embed", route, 2, width))
    joined = graph.node("", "Concat", parts, axis=1)
    places = graph.weight("places", graph.normal(1, graph.size.sequence, width, scale=0.2))
    return graph.node("", "Add", [joined, places])


def _attention(graph: _Graph, where: str, asks: str, told: str, layers: int, sharp: float = 1.0) -> str:
    """Multi-head attention with its output projection; ``sharp`` attention chooses, else it averages."""
    width, heads = graph.size.width, graph.size.heads
    split = graph.constant([0, -1, heads, HEAD_WIDTH], np.int64)

    def headed(name: str, source: str, perm: list[int], gain: float) -> str:
        projected = graph.linear(f"{where}/{name}", source, width, width, gain, quiet=True)
        return graph.node(where, "Transpose", [graph.node(where, "Reshape", [projected, split])], perm=perm)

    query = headed("query", asks, [0, 2, 1, 3], sharp)
    key = headed("key", told, [0, 2, 3, 1], sharp)
    value = headed("value", told, [0, 2, 1, 3], 1.0)
    logits = graph.node(where, "Mul", [graph.node(where, "MatMul", [query, key]), graph.constant(HEAD_WIDTH**-0.5)])
    mixed = graph.node(where, "MatMul", [graph.node(where, "Softmax", [logits], axis=-1), value])
    joined = graph.node(where, "Transpose", [mixed], perm=[0, 2, 1, 3])
    joined = graph.node(where, "Reshape", [joined, graph.constant([0, -1, width], np.int64)])
    return graph.linear(f"{where}/mix", joined, width, width, gain=1.0 / np.sqrt(2 * layers))


def _feed(graph: _Graph, where: str, source: str, layers: int) -> str:
    width = graph.size.width
    up = graph.gelu(f"{where}/gelu", graph.linear(f"{where}/up", source, width, 4 * width, quiet=True))
    return graph.linear(f"{where}/down", up, 4 * width, width, gain=1.0 / np.sqrt(2 * layers))


def _trajectory(graph: _Graph, control: str) -> None:
    """The bicycle's poses after each command, from the speed of now."""
    where, step = "/trajectory", graph.constant(1.0 / RATE_HZ)
    last = graph.constant(1, np.int64)

    def column(source: str, index: int) -> str:
        return graph.node(where, "Gather", [source, graph.constant([index], np.int64)], axis=-1)

    def integral(source: str) -> str:
        return graph.node(where, "CumSum", [graph.node(where, "Mul", [source, step]), last])

    start = graph.node(where, "Unsqueeze", [column("ego", 0), graph.constant([1], np.int64)])
    speed = graph.node(where, "Relu", [graph.node(where, "Add", [start, integral(column(control, 1))])])
    steer = column(control, 0)
    tangent = graph.node(where, "Div", [graph.node(where, "Sin", [steer]), graph.node(where, "Cos", [steer])])
    turn = graph.node(where, "Mul", [speed, graph.node(where, "Div", [tangent, graph.constant(WHEELBASE)])])
    heading = integral(turn)
    ahead = integral(graph.node(where, "Mul", [speed, graph.node(where, "Cos", [heading])]))
    aside = integral(graph.node(where, "Mul", [speed, graph.node(where, "Sin", [heading])]))
    graph.node(where, "Concat", [ahead, aside, heading], "trajectory", axis=-1)
