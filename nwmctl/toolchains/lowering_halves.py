"""fp16 in a graph: only the matrix products, or every operator. Runs in the lowering's child process.

``half_products`` puts casts around every float product: fp16 operands, an fp32 rest; weights are converted when they
are written. ``half_everything`` is onnxruntime's converter, which holds the model in memory. Does not touch integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from nwmctl.toolchains.lowering_refusals import Refusal, Refused

_HALF = "__fp16"
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
_WHOLE_LIMIT = 1 << 30


def half_products(model: ir.Model, including_quantised: bool = False) -> None:
    """Casts around every matrix product, in place. A product that is quantised stays as it is, unless its arithmetic
    is float (weights only). Raises Refused where weights leave the range of fp16."""
    graph = model.graph
    halves: dict[str, ir.Value] = {}
    for node in list(graph):
        if node.op_type not in _PRODUCTS or (not including_quantised and _in_integers(node)):
            continue
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            name = str(value.name)
            if name not in halves:
                halves[name] = _half_weights(graph, value) if _constant(value) else _cast(graph, node, value)
            node.replace_input_with(index, halves[name])
        _widen(graph, node)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        if not graph.initializers[name].is_graph_output():
            del graph.initializers[name]


def half_everything(model: ir.Model) -> ir.Model:
    """Every operator that onnxruntime's converter knows."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if weights > _WHOLE_LIMIT:
        raise Refused(
            Refusal.TOO_LARGE,
            f"its weights have {weights / (1 << 30):.1f} GiB, and the conversion of every operator holds them all",
            "choose fp16_scope: matmul, which converts one tensor at a time",
        )
    half: ir.Model = ir.from_proto(convert_float_to_float16(ir.to_proto(model), keep_io_types=True))
    half.graph.sort()  # the converter appends its casts at the end
    return half


def _in_integers(node: ir.Node) -> bool:
    """Whether a product's operands come out of integers."""
    return any(
        value is not None and (source := value.producer()) is not None and source.op_type == "DequantizeLinear"
        for value in node.inputs
    )


def _constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input()


def _cast(graph: ir.Graph, before: ir.Node, value: ir.Value) -> ir.Value:
    name = f"{value.name}{_HALF}"
    cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT16}, name=name)
    cast.outputs[0].name = name
    graph.insert_before(before, cast)
    return cast.outputs[0]


def _widen(graph: ir.Graph, node: ir.Node) -> None:
    """The product's result back in fp32, under its old name."""
    out = node.outputs[0]
    up = ir.node("Cast", [out], {"to": ir.DataType.FLOAT}, name=f"{out.name}{_HALF}_out_up")
    wide = up.outputs[0]
    wide.shape, wide.type = out.shape, out.type
    ir.convenience.replace_all_uses_with(out, wide, replace_graph_outputs=True)
    up.replace_input_with(0, out)
    graph.insert_after(node, up)
    wide.name, out.name = out.name, f"{out.name}{_HALF}_out"
    out.type = ir.TensorType(ir.DataType.FLOAT16)


def _half_weights(graph: ir.Graph, value: ir.Value) -> ir.Value:
    source, name = value.const_value, f"{value.name}{_HALF}"
    assert source is not None

    def halved() -> ir.TensorProtocol:
        weights: Any = source.numpy()
        if np.abs(weights).max(initial=0.0) > np.finfo(np.float16).max:
            raise Refused(
                Refusal.WEIGHTS_RANGE,
                f"the weights '{value.name}' leave the range of fp16",
                "choose bf16 or fp32 for this model",
            )
        return ir.Tensor(weights.astype(np.float16), name=name)

    shape, kind = ir.Shape(source.shape.numpy()), ir.TensorType(ir.DataType.FLOAT16)
    tensor = ir.LazyTensor(halved, ir.DataType.FLOAT16, shape, name=name)
    half = ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
    graph.register_initializer(half)
    return half
