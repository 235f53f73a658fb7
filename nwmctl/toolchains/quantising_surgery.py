"""How one product of a graph becomes integers: the nodes and the numbers. Runs in the lowering's child process.

Weights are symmetric per output channel, activations asymmetric per tensor with an exact zero. Weights are computed
when they are written and not before, one tensor at a time, so that a model's size does not matter here. Names are made
of the names that are there; no count and no order of a set reaches the bytes. Does not choose what is quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nwmctl.toolchains.lowering import Integers

Array = NDArray[Any]
INT32_MOST = float((1 << 31) - 1)


@dataclass(frozen=True, slots=True)
class Range:
    """What a tensor's values span over the calibration data; ``low`` <= 0 <= ``high``."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Product:
    """A product that can be quantised. ``axis`` is the axis of the output channels in ``weights``."""

    node: ir.Node
    group: str
    activation: ir.Value
    weights: ir.Value
    axis: int

    @property
    def operator(self) -> str:
        """MatMul, Gemm or Conv."""
        return self.node.op_type


def channel_scales(weights: Array, axis: int, most: int) -> Array:
    """Symmetric scales per channel, so that the largest weight of each becomes ``most``. Shape: the axis' length."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    largest = np.abs(weights.astype(np.float32)).max(axis=others)
    scales = (largest / np.float32(most)).astype(np.float32)
    return np.where(scales >= np.finfo(np.float32).tiny, scales, np.float32(1))


def to_int8(weights: Array, axis: int, most: int) -> Array:
    """Weights as int8 by ``channel_scales``, rounded half to even."""
    scales = channel_scales(weights, axis, most)
    shape = [1] * weights.ndim
    shape[axis] = -1
    steps = np.rint(weights.astype(np.float32) / scales.reshape(shape))
    return np.clip(steps, -most, most).astype(np.int8)


def activation_scale(span: Range, integers: Integers) -> tuple[np.float32, int]:
    """Scale and zero point of an activation. Zero itself is exact, as padding and Relu need it."""
    least, most = (-128, 127) if integers is Integers.SIGNED else (0, 255)
    scale = np.float32((span.high - span.low) / 255)
    if scale < np.finfo(np.float32).tiny:  # nothing was ever there but zero
        return np.float32(1), least if span.low == 0 else most
    zero = int(np.clip(np.rint(least - span.low / float(scale)), least, most))
    return scale, zero


class Surgery:
    """Replaces products one after the other; what several products share is made once."""

    def __init__(self, model: ir.Model, integers: Integers, ranges: Mapping[str, Range]) -> None:
        self.graph, self.ranges, self.integers = model.graph, ranges, integers
        self.most = 63 if integers is Integers.NARROW else 127
        self.middle = 128 if integers is Integers.WIDE else 0
        self._done: dict[str, tuple[ir.Value, ...]] = {}

    def weights_only(self, product: Product) -> None:
        product.node.replace_input_with(1, self._weights(product, product.node))

    def static(self, product: Product) -> None:
        """Q and DQ before the product. Runtimes ask for an int32 bias inside a Gemm or Conv, and for a quantised
        output of a Conv; a Gemm with another kind of bias becomes MatMul and Add."""
        node = product.node
        activation = self._through_integers(product.activation, node)
        if product.operator == "Gemm" and not self._plain_bias(product):
            weights = self._weights(product, node, flipped=product.axis == 0)
            self._instead(node, self._add(node, "MatMul", [activation, weights], "product"))
            return
        node.replace_input_with(1, self._weights(product, node))
        node.replace_input_with(0, activation)
        self._integer_bias(product)
        if product.operator == "Conv":
            self._quantised_output(node)

    def dynamic(self, product: Product) -> None:
        node, name = product.node, str(product.activation.name)
        if name not in self._done:
            steps = ir.node("DynamicQuantizeLinear", [product.activation], num_outputs=3, name=f"{name}__q8")
            for value, word in zip(steps.outputs, ("", "_scale", "_zero"), strict=True):
                value.name = f"{name}__q8{word}"
            self.graph.insert_before(node, steps)
            self._done[name] = tuple(steps.outputs)
        steps_of, scale, zero = self._done[name]
        weights, scales = self._integer_weights(product, flipped=product.operator == "Gemm" and product.axis == 0)
        kind = "ConvInteger" if product.operator == "Conv" else "MatMulInteger"
        attributes = dict(node.attributes) if product.operator == "Conv" else {}
        inputs: list[ir.Value | None] = [steps_of, weights, zero]
        if self.middle:
            inputs.append(self._middles(product, single=product.operator == "Conv"))
        sums = self._add(node, kind, inputs, "sums", attributes)
        wide = self._add(node, "Cast", [sums], "float", {"to": ir.DataType.FLOAT})
        if product.operator == "Conv":
            scales = self._spread(product, scales)
        both = self._add(node, "Mul", [scale, scales], "scale")
        self._instead(node, self._add(node, "Mul", [wide, both], "product"))

    def drop_unused(self) -> None:
        """The float weights that no node reads any more."""
        for name in [name for name, value in self.graph.initializers.items() if not value.uses()]:
            if not self.graph.initializers[name].is_graph_output():
                del self.graph.initializers[name]

    def _add(
        self,
        before: ir.Node,
        kind: str,
        inputs: list[ir.Value | None],
        word: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """A node before another one, with its name and ``word``."""
        name = f"{before.name or before.outputs[0].name}__int_{word}"
        node = ir.node(kind, inputs, attributes or {}, name=name)
        node.outputs[0].name = f"{before.outputs[0].name}__int_{word}"
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def _instead(self, node: ir.Node, result: ir.Value) -> None:
        """``result`` and the node's bias take the place of the node."""
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None:
            if node.op_type == "Conv":
                bias = self._spread_bias(node, bias)
            result = self._add(node, "Add", [result, bias], "biased")
        last, out = result.producer(), node.outputs[0]
        assert last is not None
        result.shape, result.type, name = out.shape, out.type, out.name
        ir.convenience.replace_all_uses_with(out, result, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        last.name, result.name = node.name or last.name, name

    def _constant(
        self, name: str, like: ir.Value, dtype: ir.DataType, shape: Iterable[int], compute: Callable[[Array], Array]
    ) -> ir.Value:
        """An initializer that is computed from another one when it is written."""
        if name not in self.graph.initializers:
            source, sizes = like.const_value, ir.Shape(list(shape))
            assert source is not None
            tensor = ir.LazyTensor(
                lambda: ir.Tensor(np.ascontiguousarray(compute(source.numpy())), name=name), dtype, sizes, name=name
            )
            value = ir.Value(name=name, shape=sizes, type=ir.TensorType(dtype), const_value=tensor)
            self.graph.register_initializer(value)
        return self.graph.initializers[name]

    def _number(self, name: str, array: Array) -> ir.Value:
        if name not in self.graph.initializers:
            self.graph.register_initializer(ir.Value(name=name, const_value=ir.Tensor(array, name=name)))
        return self.graph.initializers[name]

    def _integer_weights(self, product: Product, flipped: bool = False) -> tuple[ir.Value, ir.Value]:
        """int8 weights and their scales; ``flipped`` stores a matrix transposed."""
        name, axis, most = str(product.weights.name), product.axis, self.most
        assert product.weights.shape is not None
        shape = [int(size) for size in product.weights.shape.numpy()]

        def steps(array: Array) -> Array:
            whole = to_int8(array, axis, most)
            moved = (whole.astype(np.int16) + middle).astype(np.uint8) if middle else whole
            return moved.T if flipped else moved

        word, middle = f"{name}__i8{'t' if flipped else ''}_{axis}", self.middle
        kind = ir.DataType.UINT8 if middle else ir.DataType.INT8
        weights = self._constant(word, product.weights, kind, shape[::-1] if flipped else shape, steps)
        scales = self._constant(
            f"{name}__i8_{axis}_scale",
            product.weights,
            ir.DataType.FLOAT,
            [shape[axis]],
            lambda array: channel_scales(array, axis, most),
        )
        return weights, scales

    def _weights(self, product: Product, before: ir.Node, flipped: bool = False) -> ir.Value:
        """The weights as a DequantizeLinear of int8."""
        weights, scales = self._integer_weights(product, flipped)
        axis = 1 - product.axis if flipped else product.axis
        inputs: list[ir.Value | None] = [weights, scales, self._middles(product)]
        return self._add(before, "DequantizeLinear", inputs, "weights", {"axis": axis})

    def _middles(self, product: Product, single: bool = False) -> ir.Value:
        """The zero points of weights: one per channel, or a ``single`` one."""
        assert product.weights.shape is not None
        count = 1 if single else int(product.weights.shape.numpy()[product.axis])
        kind = np.uint8 if self.middle else np.int8
        return self._number(f"zeros_{kind.__name__}_{count}", np.full(count, self.middle, kind))

    def _pair(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point of a calibrated tensor."""
        scale, zero = activation_scale(self.ranges[str(value.name)], self.integers)
        kind = np.int8 if self.integers is Integers.SIGNED else np.uint8
        return (
            self._number(f"{value.name}__q8_scale", np.asarray(scale, np.float32)),
            self._number(f"{value.name}__q8_zero", np.asarray(zero, kind)),
        )

    def _through_integers(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """Q and DQ of an activation, once for all products that read it."""
        name = str(value.name)
        if name not in self._done:
            scale, zero = self._pair(value)
            steps = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}__q8")
            back = ir.node("DequantizeLinear", [steps.outputs[0], scale, zero], name=f"{name}__dq8")
            steps.outputs[0].name, back.outputs[0].name = f"{name}__q8", f"{name}__dq8"
            self.graph.insert_before(before, (steps, back))
            self._done[name] = (back.outputs[0],)
        return self._done[name][0]

    def _plain_bias(self, product: Product) -> bool:
        """Whether there is no bias, or a constant one with one entry per output channel."""
        bias = product.node.inputs[2] if len(product.node.inputs) > 2 else None
        if bias is None or not bias.is_initializer() or bias.shape is None or product.weights.shape is None:
            return bias is None
        return list(bias.shape) == [product.weights.shape[product.axis]]

    def _integer_bias(self, product: Product) -> None:
        """The bias inside a product as int32 in steps of activation scale x weight scale."""
        node = product.node
        if len(node.inputs) < 3 or node.inputs[2] is None or not self._plain_bias(product):
            return
        weights, bias, axis = product.weights.const_value, node.inputs[2], product.axis
        assert weights is not None
        assert bias.shape is not None
        step, _ = activation_scale(self.ranges[str(product.activation.name)], self.integers)
        most = self.most

        def scales(array: Array) -> Array:
            return (channel_scales(array, axis, most) * step).astype(np.float32)

        def steps(array: Array) -> Array:
            exact = array.astype(np.float64) / scales(weights.numpy()).astype(np.float64)
            return np.rint(np.clip(exact, -INT32_MOST, INT32_MOST)).astype(np.int32)

        size = bias.shape.numpy()
        name = f"{node.name or node.outputs[0].name}__bias"
        whole = self._constant(f"{name}_i32", bias, ir.DataType.INT32, size, steps)
        scale = self._constant(f"{name}_i32_scale", product.weights, ir.DataType.FLOAT, size, scales)
        zeros = self._number(f"{name}_i32_zero", np.zeros(size, np.int32))
        node.replace_input_with(2, self._add(node, "DequantizeLinear", [whole, scale, zeros], "bias", {"axis": 0}))

    def _quantised_output(self, node: ir.Node) -> None:
        """Q and DQ behind a node."""
        out = node.outputs[0]
        scale, zero = self._pair(out)
        steps = ir.node("QuantizeLinear", [out, scale, zero], name=f"{out.name}__q8_after")
        back = ir.node("DequantizeLinear", [steps.outputs[0], scale, zero], name=f"{out.name}__dq8_after")
        back.outputs[0].shape, back.outputs[0].type = out.shape, out.type
        ir.convenience.replace_all_uses_with(out, back.outputs[0], replace_graph_outputs=True)
        steps.replace_input_with(0, out)
        self.graph.insert_after(node, (steps, back))
        name = str(out.name)
        out.name, steps.outputs[0].name, back.outputs[0].name = f"{name}__exact", f"{name}__q8_after", name

    def _spread(self, product: Product, scales: ir.Value) -> ir.Value:
        """Scales per channel in the shape of a Conv's output: (1, C, 1, ...)."""
        assert product.weights.shape is not None
        rank, most = len(product.weights.shape), self.most
        channels = int(product.weights.shape.numpy()[0])
        return self._constant(
            f"{scales.name}_spread",
            product.weights,
            ir.DataType.FLOAT,
            [1, channels, *[1] * (rank - 2)],
            lambda array: channel_scales(array, 0, most).reshape(1, channels, *[1] * (rank - 2)),
        )

    def _spread_bias(self, node: ir.Node, bias: ir.Value) -> ir.Value:
        """A Conv's bias in the shape of its output."""
        weights = node.inputs[1]
        assert weights is not None
        assert weights.shape is not None
        shape = [1, int(weights.shape.numpy()[0]), *[1] * (len(weights.shape) - 2)]
        if bias.is_initializer():
            return self._constant(f"{bias.name}_spread", bias, ir.DataType.FLOAT, shape, lambda a: a.reshape(shape))
        target = self._number(f"shape_{'_'.join(map(str, shape))}", np.asarray(shape, np.int64))
        return self._add(node, "Reshape", [bias, target], "bias")
