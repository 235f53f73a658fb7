"""Where a lowered graph can be cut in two, and the two graphs that a cut gives.

A cut lies between two neighbours of the graph's order: everything before it is the first part. Valid is a cut over
which few tensors go, and none that a runtime would keep inside one fused kernel (between a product and its bias, inside
a Gelu, between a sum and its normalisation): there the parts would round differently from the whole. Weights never
cross: a part that reads one holds it. Predicts nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nwmctl.compiler.graph import FREE, Kind, kind_of
from nwmctl.domain.artifact import Port
from nwmctl.domain.split import Crossing
from nwmctl.errors import GraphUnreadableError

MOST_TENSORS = 3
"""Tensors over one cut: beyond that a cut goes through the middle of something."""


@dataclass(frozen=True, slots=True)
class Cut:
    """``position`` nodes lie before the cut."""

    position: int
    crossings: tuple[Crossing, ...]

    @property
    def bytes(self) -> int:
        """Bytes over the cut in one control step."""
        return sum(each.bytes for each in self.crossings)


@dataclass(frozen=True, slots=True)
class Border:
    """What one part takes and gives, by tensor name, in the order of the whole graph and then of the cut."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class SplitGraph:
    """A lowered graph (batch 1, fp32, shapes inferred) that can be cut. ``path`` is its file.

    Raises GraphUnreadableError where a file is no such graph.
    """

    def __init__(self, path: Path) -> None:
        import onnx

        try:
            self._model: Any = onnx.load(str(path))
        except Exception as problem:  # protobuf's and the file system's errors have no common family
            raise _unreadable(f"{type(problem).__name__}: {problem}") from problem
        graph = self._model.graph
        self.nodes: list[Any] = list(graph.node)
        self.weights = {value.name for value in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.weights]
        self.outputs = [value.name for value in graph.output]
        self._ports = {value.name: _port(value) for value in (*graph.input, *graph.value_info, *graph.output)}
        self._readers = Counter(name for node in self.nodes for name in node.input)
        self._readers.update(self.outputs)

    def counted(self) -> list[int]:
        """The position of every node that a count of this graph lists, in its order."""
        return [index for index, node in enumerate(self.nodes) if node.op_type not in FREE]

    def ports(self, names: Sequence[str]) -> tuple[Port, ...]:
        """Tensors by name, with their shapes."""
        return tuple(self._ports[name] for name in names)

    def cuts(self, most: int = MOST_TENSORS) -> tuple[Cut, ...]:
        """Every valid cut, in the order of the graph."""
        last_read = {name: index for index, node in enumerate(self.nodes) for name in node.input}
        live: dict[str, int] = {}
        found = []
        for position in range(1, len(self.nodes)):
            live = {name: last for name, last in live.items() if last >= position}
            written = {name: last_read[name] for name in self.nodes[position - 1].output if name in last_read}
            live |= {name: last for name, last in written.items() if last >= position}
            if self._valid(position, tuple(live), most):
                crossings = tuple(Crossing(self._ports[name], _bytes(self._ports[name])) for name in live)
                found.append(Cut(position, crossings))
        return tuple(found)

    def borders(self, cut: Cut) -> tuple[Border, Border]:
        """What the two parts take and give."""
        before = {name for node in self.nodes[: cut.position] for name in node.output}
        read = [{name for node in part for name in node.input} for part in self._parts(cut)]
        crossing = tuple(each.tensor.name for each in cut.crossings)
        early = tuple(name for name in self.outputs if name in before and name not in crossing)
        late = tuple(name for name in self.outputs if name not in before)
        return (
            Border(tuple(name for name in self.inputs if name in read[0]), crossing + early),
            Border(crossing + tuple(name for name in self.inputs if name in read[1]), late),
        )

    def shared_weight_bytes(self, cut: Cut) -> int:
        """Bytes of the weights that both parts read."""
        from onnx import numpy_helper

        first, second = ({name for node in part for name in node.input} for part in self._parts(cut))
        both = self.weights & first & second
        return sum(numpy_helper.to_array(each).nbytes for each in self._model.graph.initializer if each.name in both)

    def forwarded_bytes(self, cut: Cut) -> int:
        """Bytes of the model's inputs that the second part reads."""
        return sum(_bytes(self._ports[name]) for name in self.borders(cut)[1].inputs if name in self.inputs)

    def write(self, cut: Cut, paths: tuple[Path, Path]) -> None:
        """Write both parts. The same graph and cut give the same bytes."""
        import onnx
        from onnx.utils import Extractor

        extractor = Extractor(self._model)
        for border, path in zip(self.borders(cut), paths, strict=True):
            part = extractor.extract_model(list(border.inputs), list(border.outputs))
            part.producer_name, part.graph.name = self._model.producer_name, self._model.graph.name
            part.ir_version = self._model.ir_version
            try:
                onnx.checker.check_model(part)
            except Exception as problem:
                raise _unreadable(f"a part is no graph: {problem}") from problem
            path.write_bytes(part.SerializeToString(deterministic=True))

    def _parts(self, cut: Cut) -> tuple[list[Any], list[Any]]:
        return self.nodes[: cut.position], self.nodes[cut.position :]

    def _valid(self, position: int, live: tuple[str, ...], most: int) -> bool:
        if not 0 < len(live) <= most or any(name not in self._ports for name in live):
            return False
        after = {name for node in self.nodes[position:] for name in node.output}
        if not any(name in after for name in self.outputs):
            return False
        # A part is a model at batch 1 again, so what it takes has a batch in front.
        if any(self._ports[name].shape[:1] != (1,) for name in live):
            return False
        return not any(self._inside_kernel(name, position) for name in live)

    def _inside_kernel(self, name: str, position: int) -> bool:
        """Whether a tensor goes to one node alone, which a runtime computes together with the node that wrote it."""
        while self._readers[name] == 1:
            reader = next((node for node in self.nodes[position:] if name in node.input), None)
            if reader is None:
                return False
            if reader.op_type not in FREE:
                return kind_of(reader, self.weights) in (Kind.ELEMENTS, Kind.ROWS)
            name = reader.output[0]
        return False


def _port(value: Any) -> Port:
    from onnx import helper

    tensor = value.type.tensor_type
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim)
    return Port(value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, dims)


def _bytes(port: Port) -> int:
    import numpy as np

    return int(np.dtype(port.dtype).itemsize * np.prod([int(each) for each in port.shape], dtype=np.int64))


def _unreadable(why: str) -> GraphUnreadableError:
    return GraphUnreadableError(
        "the graph cannot be split", why=why, next="export the model again as ONNX with static shapes but for the batch"
    )
