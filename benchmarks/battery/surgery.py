"""Surgery on a lowered ONNX graph: change weights, put nodes behind an input or before an output.

A ``Graph`` is changed in place; take a ``copy`` first. The result is an ordinary ONNX model with the same inputs and
outputs, so the runtime that executes it cannot tell it from a compiler's. Knows nothing about which change is harmful.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix that a product multiplies by. ``reads`` is the product's output tensor, ``axis`` the output channels."""

    name: str
    reads: str
    axis: int


class Weaver:
    """Makes nodes one after the other: ``weave("Mul", x, weave.const(2.0))`` gives the name of the result."""

    def __init__(self, graph: Graph, prefix: str) -> None:
        self._graph, self._prefix = graph, prefix
        self.nodes: list[Any] = []

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        result = self._graph.fresh(f"{self._prefix}/{operator}")
        self.nodes.append(helper.make_node(operator, list(inputs), [result], result, **attributes))
        return result

    def const(self, value: object, dtype: type[np.generic] = np.float32) -> str:
        """A constant tensor."""
        return self._graph.hold(f"{self._prefix}/const", np.asarray(value, dtype))

    def pick(self, tensor: str, indices: list[int], axis: int) -> str:
        """Some entries along an axis, which stays."""
        return self("Gather", tensor, self.const(indices, np.int64), axis=axis)


Change = Callable[[Weaver, str], str]
"""Makes nodes that read a tensor and returns the name of what takes its place."""


class Graph:
    """One ONNX model under the knife."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._count = 0

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a model file."""
        import onnx

        return cls(onnx.load(str(path)))

    def copy(self) -> Graph:
        """An independent copy."""
        import onnx

        twin = onnx.ModelProto()
        twin.CopyFrom(self.model)
        return Graph(twin)

    def bytes(self) -> bytes:
        """The model as a file's content."""
        return bytes(self.model.SerializeToString())

    def fresh(self, stem: str) -> str:
        """A tensor name that is not taken."""
        self._count += 1
        return f"{stem}:{self._count}"

    def hold(self, stem: str, values: Array) -> str:
        """Add an initializer."""
        from onnx import numpy_helper

        name = self.fresh(stem)
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    # --- weights --------------------------------------------------------------------------------------------------

    def constant(self, name: str) -> Array:
        """The values of an initializer."""
        from onnx import numpy_helper

        values: Array = numpy_helper.to_array(self._initializer(name))
        return values

    def floats(self, name: str) -> F32:
        """The same, of a float32 initializer."""
        return self.constant(name).astype(np.float32)

    def put(self, name: str, values: Array) -> None:
        """Replace an initializer's values."""
        from onnx import numpy_helper

        held = self._initializer(name)
        held.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))

    def weights(self) -> list[Weight]:
        """All learned matrices, in the order in which they are multiplied by."""
        shapes = {held.name: tuple(held.dims) for held in self.model.graph.initializer}
        found: list[Weight] = []
        for node in self.model.graph.node:
            if node.op_type not in ("MatMul", "Gemm") or len(shapes.get(node.input[1], ())) != 2:
                continue
            # The rollout sums up with a triangle of ones, which nobody learned.
            if not np.isin(self.constant(node.input[1]), (0.0, 1.0)).all():
                flipped = any(entry.name == "transB" and entry.i for entry in node.attribute)
                found.append(Weight(node.input[1], node.output[0], 0 if flipped else 1))
        return found

    def weight(self, part: str) -> Weight:
        """The one matrix whose product's name contains ``part``."""
        (found,) = (weight for weight in self.weights() if part in weight.reads)
        return found

    def _initializer(self, name: str) -> Any:
        return next(held for held in self.model.graph.initializer if held.name == name)

    # --- nodes ----------------------------------------------------------------------------------------------------

    def nodes(self, operator: str) -> Iterator[Any]:
        """All nodes of one operator."""
        return (node for node in self.model.graph.node if node.op_type == operator)

    def maker(self, tensor: str) -> Any:
        """The node that makes a tensor."""
        return next(node for node in self.model.graph.node if tensor in node.output)

    def readers(self, tensor: str) -> list[Any]:
        """The nodes that read a tensor."""
        return [node for node in self.model.graph.node if tensor in node.input]

    def behind_input(self, name: str, change: Change) -> None:
        """Everything that reads the input ``name`` reads what ``change`` makes of it."""
        readers = self.readers(name)
        weave = Weaver(self, f"behind/{name}")
        _reconnect(readers, name, change(weave, name))
        self._insert(0, weave.nodes)

    def behind(self, tensor: str, change: Change) -> None:
        """Everything that reads an inner tensor reads what ``change`` makes of it."""
        readers = self.readers(tensor)
        weave = Weaver(self, f"behind/{tensor}")
        _reconnect(readers, tensor, change(weave, tensor))
        self._insert(list(self.model.graph.node).index(self.maker(tensor)) + 1, weave.nodes)

    def before_output(self, name: str, change: Change, *, inside: bool = True) -> None:
        """The output ``name`` becomes what ``change`` makes of it. ``inside``: for the rest of the graph as well."""
        from onnx import helper

        maker, readers = self.maker(name), self.readers(name)
        raw = self.fresh(f"raw/{name}")
        _rename_output(maker, name, raw)
        weave = Weaver(self, f"before/{name}")
        made = change(weave, raw)
        weave.nodes.append(helper.make_node("Identity", [made], [name], self.fresh(f"out/{name}")))
        if not inside:
            _reconnect(readers, name, raw)
        self._insert(list(self.model.graph.node).index(maker) + 1, weave.nodes)

    def insert_before(self, node: Any, nodes: list[Any]) -> None:
        """Put nodes right before one that is there."""
        self._insert(list(self.model.graph.node).index(node), nodes)

    def _insert(self, place: int, nodes: list[Any]) -> None:
        kept = list(self.model.graph.node)
        kept[place:place] = nodes
        copies = [_copied(node) for node in kept]
        del self.model.graph.node[:]
        self.model.graph.node.extend(copies)
        del self.model.graph.value_info[:]  # shapes noted before the surgery may be wrong after it


def _copied(node: Any) -> Any:
    import onnx

    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    return twin


def _reconnect(readers: list[Any], old: str, new: str) -> None:
    for node in readers:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _rename_output(node: Any, old: str, new: str) -> None:
    for index, name in enumerate(node.output):
        if name == old:
            node.output[index] = new
