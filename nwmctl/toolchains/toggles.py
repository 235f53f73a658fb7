"""One graph in which every group of layers can be switched between float and int8 while it is loaded.

Made to ask many times "what if only these groups were quantised" without lowering and loading a graph each time: each
quantisable product becomes an ``If`` whose one branch is the product as it was and whose other branch sees rounded
weights and rounded activations (the very scales of the int8 graph where its scales are constants). The arithmetic in
both is float, so this predicts an artifact's *error*, to the rounding of the integer units, and says nothing about its
speed. Groups and their names are those of the int8 lowering. ``build_toggles`` works in a child process, because graph
libraries crash on odd files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import Port, Quantisation
from nwmctl.toolchains.lowering import Integers
from nwmctl.toolchains.process import Command, Limits, own_path, python_module, run_tool
from nwmctl.toolchains.protocol import Session, Tensors
from nwmctl.toolchains.sessions import open_worker

TOGGLES = "toggles.onnx"
FLAGS = "__quantised_groups"
"""The additional input [B,G]: above zero in any row quantises the group in the whole batch."""
_REPORT = "toggles.json"


@dataclass(frozen=True, slots=True)
class Toggles:
    """The graph and its groups in the order of the flags. ``alone``: activations get their scale at run time, so rows
    must be asked one by one."""

    path: Path
    groups: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    alone: bool

    def open(self, timeout_s: float = 120.0) -> ToggleSession:
        """Load it in a process of its own."""
        flags = Port(FLAGS, "float32", ("B", len(self.groups)))
        return ToggleSession(
            self, open_worker("onnxruntime", self.path, (*self.inputs, flags), self.outputs, timeout_s)
        )


def build_toggles(
    plain: Path,
    ports: tuple[tuple[Port, ...], tuple[Port, ...]],
    quantised: Path | None,
    how: tuple[Quantisation, Integers],
    scratch: Path,
    limits: Limits,
) -> Toggles:
    """Make the graph in ``scratch`` out of the lowered float graph ``plain`` with its input and output ports.

    ``quantised`` is the same model lowered to static int8, whose scales are taken over; None for the other forms.
    Raises what ``run_tool`` raises.
    """
    static = str(quantised.resolve()) if quantised else ""
    arguments = (str(plain.resolve()), static, *(word.value for word in how))
    module = python_module("nwmctl.toolchains.toggles", *arguments)
    run_tool(Command("the preparation of the sensitivity", module, scratch, limits, own_path(), error_pattern=""))
    groups = tuple(json.loads((scratch / _REPORT).read_text("utf-8")))
    return Toggles(scratch / TOGGLES, groups, *ports, alone=how[0] is Quantisation.DYNAMIC)


class ToggleSession:
    """The loaded graph. ``quantise`` chooses the groups for everything that is asked afterwards; a ``Session``."""

    def __init__(self, toggles: Toggles, session: Session) -> None:
        self._toggles, self._session = toggles, session
        self._flags = np.zeros(len(toggles.groups), np.float32)

    def quantise(self, groups: frozenset[str]) -> None:
        """Quantise these groups and no others."""
        self._flags = np.array([group in groups for group in self._toggles.groups], np.float32)

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """See ``Session.run``."""
        rows = len(next(iter(inputs.values())))
        if not self._toggles.alone or rows == 1:
            return self._session.run({**inputs, FLAGS: np.tile(self._flags, (rows, 1))})
        parts = [self.run({name: values[row : row + 1] for name, values in inputs.items()}) for row in range(rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @property
    def seconds(self) -> tuple[float, ...]:
        """See ``Session.seconds``. Simulated integers tell no time."""
        return ()

    def close(self) -> None:
        """See ``Session.close``."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- in the child process -----------------------------------------------------------------------------------------


def _main(argv: list[str]) -> int:
    import onnx
    import onnx_ir

    from nwmctl.toolchains.quantising import products

    plain, quantised, how = Path(argv[0]), argv[1], (Quantisation(argv[2]), Integers(argv[3]))
    found = {str(p.node.outputs[0].name): (p.group, p.axis) for p in products(onnx_ir.load(str(plain)))}
    groups = tuple(dict.fromkeys(group for group, _ in found.values()))
    work = _Surgery(onnx.load(str(plain)), groups, how, _scales(quantised) if quantised else {})
    work.rewrite(found)
    Path(TOGGLES).write_bytes(work.model.SerializeToString(deterministic=True))
    Path(_REPORT).write_text(json.dumps(groups), "utf-8")
    return 0


def _scales(path: str) -> dict[str, tuple[Any, Any]]:
    """Scale and zero point (as initializers) by the tensor that is quantised with them."""
    import onnx

    graph = onnx.load(path).graph
    held = {value.name: value for value in graph.initializer}
    return {
        node.input[0]: (held[node.input[1]], held[node.input[2]])
        for node in graph.node
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and {*node.input[1:3]} <= held.keys()
    }


class _Surgery:
    """The rewriting of one graph."""

    def __init__(
        self,
        model: Any,
        groups: tuple[str, ...],
        how: tuple[Quantisation, Integers],
        scales: Mapping[str, tuple[Any, Any]],
    ) -> None:
        self.model, self.groups, self.scales = model, groups, scales
        self.how, self.most = how[0], 63 if how[1] is Integers.NARROW else 127
        self.weights = {value.name: value for value in model.graph.initializer}
        self.rounded: dict[str, str] = {}

    def rewrite(self, products: Mapping[str, tuple[str, int]]) -> None:
        """Every product in ``products`` (by output: its group and its weights' axis) becomes an ``If``."""
        graph, nodes = self.model.graph, list(self.model.graph.node)
        rewritten = [self._switch(n, *products[n.output[0]]) if n.output[0] in products else n for n in nodes]
        del graph.node[:], graph.value_info[:]
        graph.node.extend([*self._flags(), *rewritten])

    def _flags(self) -> list[Any]:
        """One condition for each group out of the additional input."""
        from onnx import TensorProto, helper, numpy_helper

        graph, count = self.model.graph, len(self.groups)
        graph.input.append(helper.make_tensor_value_info(FLAGS, TensorProto.FLOAT, ["B", count]))
        first, half = f"{FLAGS}.axis", f"{FLAGS}.half"
        graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), half))
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), first))
        nodes = [helper.make_node("Gather", [FLAGS, first], [f"{FLAGS}.row"], axis=0)]
        for index, _ in enumerate(self.groups):
            place = f"{FLAGS}.{index}"
            graph.initializer.append(numpy_helper.from_array(np.array(index, np.int64), f"{place}.index"))
            nodes.append(helper.make_node("Gather", [f"{FLAGS}.row", f"{place}.index"], [f"{place}.value"], axis=0))
            nodes.append(helper.make_node("Greater", [f"{place}.value", half], [place]))
        return nodes

    def _switch(self, node: Any, group: str, axis: int) -> Any:
        from onnx import helper

        out = node.output[0]
        branches = {
            "then_branch": self._rounded_branch(node, axis, f"{out}.int8"),
            "else_branch": _branch([_copy(node, list(node.input), f"{out}.float")], f"{out}.float"),
        }
        condition = f"{FLAGS}.{self.groups.index(group)}"
        return helper.make_node("If", [condition], [out], f"{node.name or out}.switch", **branches)

    def _rounded_branch(self, node: Any, axis: int, out: str) -> Any:
        nodes: list[Any] = []
        activation = node.input[0]
        if self.how is not Quantisation.WEIGHTS:
            activation = self._round(nodes, node.input[0], f"{out}.in")
        inputs = [activation, self._round_weights(node.input[1], axis), *self._round_bias(node, axis)]
        output_too = node.op_type == "Conv" and node.output[0] in self.scales
        nodes.append(_copy(node, inputs, f"{out}.raw" if output_too else out))
        if output_too:
            self._round(nodes, node.output[0], out, f"{out}.raw", out)
        return _branch(nodes, out)

    def _round(self, nodes: list[Any], tensor: str, stem: str, source: str = "", result: str = "") -> str:
        """Quantise and dequantise a tensor; returns the rounded one's name."""
        from onnx import helper

        source, result = source or tensor, result or f"{stem}.back"
        if self.how is Quantisation.DYNAMIC:
            parts = [f"{stem}.q", f"{stem}.s", f"{stem}.z"]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [source], parts))
            nodes.append(helper.make_node("DequantizeLinear", parts, [result]))
            return result
        if tensor not in self.scales:
            return source  # the int8 lowering leaves this tensor as it is
        scale, zero = (self._borrow(value, tensor) for value in self.scales[tensor])
        nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [f"{stem}.q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{stem}.q", scale, zero], [result]))
        return result

    def _borrow(self, value: Any, tensor: str) -> str:
        name = f"{tensor}.{value.name}"
        if name not in self.weights:
            copy = type(value)()
            copy.CopyFrom(value)
            copy.name = name
            self.weights[name] = copy
            self.model.graph.initializer.append(copy)
        return name

    def _round_bias(self, node: Any, axis: int) -> list[str]:
        """A constant bias inside a product, in steps of both scales, as the static lowering has it. The differences are
        tiny, and decide on which side of a half the activations behind it are rounded."""
        from onnx import numpy_helper

        from nwmctl.toolchains.quantising_surgery import INT32_MOST, channel_scales

        names = list(node.input[2:])
        if self.how is not Quantisation.STATIC or not names or node.input[0] not in self.scales:
            return names
        weights, bias = (self.weights.get(name) for name in node.input[1:3])
        if weights is None or bias is None or list(bias.dims) != [weights.dims[axis]]:
            return names
        step = numpy_helper.to_array(self.scales[node.input[0]][0])
        scales = (channel_scales(numpy_helper.to_array(weights), axis, self.most) * step).astype(np.float32)
        exact = numpy_helper.to_array(bias).astype(np.float64) / scales.astype(np.float64)
        rounded = np.rint(np.clip(exact, -INT32_MOST, INT32_MOST)).astype(np.int32).astype(np.float32) * scales
        name = f"{node.output[0]}.bias"
        self.model.graph.initializer.append(numpy_helper.from_array(rounded, name))
        return [name]

    def _round_weights(self, name: str, axis: int) -> str:
        """Weights rounded as the lowering rounds them, in floats again."""
        from onnx import numpy_helper

        from nwmctl.toolchains.quantising_surgery import channel_scales, to_int8

        if name not in self.rounded:
            values = numpy_helper.to_array(self.weights[name])
            shape = [-1 if index == axis else 1 for index in range(values.ndim)]
            steps = to_int8(values, axis, self.most).astype(np.float32)
            rounded = steps * channel_scales(values, axis, self.most).reshape(shape)
            self.rounded[name] = f"{name}.rounded"
            self.model.graph.initializer.append(numpy_helper.from_array(rounded, self.rounded[name]))
        return self.rounded[name]


def _copy(node: Any, inputs: list[str], out: str) -> Any:
    copy = type(node)()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.append(out)
    return copy


def _branch(nodes: list[Any], out: str) -> Any:
    from onnx import TensorProto, helper

    result = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, out, [], [result])


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
