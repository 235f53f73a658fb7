"""int8 in a graph: what can be quantised, what is, and the count that proves it. Runs in the lowering's child process.

A *product* is a MatMul, Gemm or Conv with constant weights of at least ``LEAST_WEIGHTS`` elements (below that integers
win nothing). Products belong to *groups*, one per layer; a group that is kept stays float. Nothing else becomes
integer: not the products of two activations, not additions, norms or softmax, whose error is large and whose gain is
small. Three forms:

``static``   QuantizeLinear and DequantizeLinear around activations (scales from calibration data) and per-channel
             weights. The output of a MatMul stays float: quantising it too costs accuracy and no driver gains from it.
``dynamic``  DynamicQuantizeLinear and MatMulInteger (ConvInteger): the activation's scale is taken at run time.
``weights``  per-channel int8 weights and a DequantizeLinear; the arithmetic stays float.

The graph surgery is done here and not by onnxruntime's ``quantize_static``/``quantize_dynamic``: those rename Gemms, so
that a list of nodes quantises nothing without a word, and hold the model several times in memory. The tests hold this
file's numbers against theirs. Weights are computed when they are written, one tensor at a time. Does not choose groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nwmctl.domain.artifact import Quantisation
from nwmctl.toolchains.layers import OUTSIDE, layer_of
from nwmctl.toolchains.lowering import Integers
from nwmctl.toolchains.lowering_refusals import Refusal, Refused
from nwmctl.toolchains.quantising_surgery import Product, Range, Surgery

LEAST_WEIGHTS = 1024
"""Products with fewer weights are left alone; they are geometry more often than layers."""

Array = NDArray[Any]


def products(model: ir.Model) -> tuple[Product, ...]:
    """All products that can be quantised, in the order of the graph."""
    found = (_product(node) for node in model.graph)
    return tuple(product for product in found if product is not None)


def groups(model: ir.Model) -> tuple[str, ...]:
    """The groups of those products, in the order of the graph."""
    return tuple(dict.fromkeys(product.group for product in products(model)))


def chosen(model: ir.Model, keep: Iterable[str]) -> tuple[Product, ...]:
    """The products whose group is not kept. Raises Refused for an unknown group, and where nothing is left."""
    able = products(model)
    known = {product.group for product in able}
    if not able:
        raise Refused(
            Refusal.NOTHING_TO_QUANTISE,
            f"no MatMul, Gemm or Conv has constant float weights of at least {LEAST_WEIGHTS} elements",
            "choose another precision for this model",
        )
    kept = set(keep)
    if kept - known:
        wrong = ", ".join(map(repr, sorted(kept - known)))
        raise Refused(
            Refusal.GROUP_UNKNOWN,
            f"there is no group {wrong}; the groups are {', '.join(sorted(known))}",
            "write names of that list into the recipe's option 'keep'",
        )
    asked = tuple(product for product in able if product.group not in kept)
    if not asked:
        raise Refused(
            Refusal.NOTHING_TO_QUANTISE,
            "every group is kept, so that nothing would be quantised",
            "shorten the recipe's option 'keep', or choose a float precision",
        )
    return asked


def tensors_to_calibrate(asked: Iterable[Product]) -> tuple[str, ...]:
    """The tensors whose range static quantisation must know."""
    names: dict[str, None] = {}
    for product in asked:
        names[str(product.activation.name)] = None
        if product.operator == "Conv":
            names[str(product.node.outputs[0].name)] = None
    return tuple(names)


def quantise(
    model: ir.Model, how: Quantisation, asked: tuple[Product, ...], integers: Integers, ranges: Mapping[str, Range]
) -> None:
    """Quantise exactly ``asked``, in place.

    ``ranges``: for static, of all ``tensors_to_calibrate``; else not looked at.
    """
    work = Surgery(model, integers, ranges)
    for product in asked:
        match how:
            case Quantisation.WEIGHTS:
                work.weights_only(product)
            case Quantisation.STATIC:
                work.static(product)
            case Quantisation.DYNAMIC:
                work.dynamic(product)
    work.drop_unused()


def count_quantised(model: ir.Model) -> dict[str, int]:
    """Quantised products by operator, read from a graph alone: products with integer operands, and products whose
    weights come out of a DequantizeLinear of int8. The counterpart of what ``quantise`` says it did."""
    found: Counter[str] = Counter()
    for node in model.graph:
        if node.op_type in ("MatMulInteger", "ConvInteger"):
            found[node.op_type.removesuffix("Integer")] += 1
        elif node.op_type in ("MatMul", "Gemm", "Conv") and len(node.inputs) > 1:
            source = node.inputs[1].producer() if node.inputs[1] is not None else None
            if source is not None and source.op_type == "Cast":
                source = source.inputs[0].producer() if source.inputs[0] is not None else None
            if source is not None and source.op_type == "DequantizeLinear":
                found[node.op_type] += 1
    return dict(sorted(found.items()))


def _product(node: ir.Node) -> Product | None:
    if node.op_type not in ("MatMul", "Gemm", "Conv") or node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return None
    activation, weights = node.inputs[0], node.inputs[1]
    if activation is None or weights is None or not _is_constant(weights) or _is_constant(activation):
        return None
    shape = weights.shape
    if shape is None or not shape.is_static() or weights.dtype is not ir.DataType.FLOAT:
        return None
    axis = 0 if node.op_type == "Conv" else 1
    if node.op_type == "Gemm":
        plain = not _number(node, "transA", 0) and _number(node, "alpha", 1.0) == 1.0 == _number(node, "beta", 1.0)
        axis = 0 if _number(node, "transB", 0) else 1
        if not plain:
            return None
    if (node.op_type != "Conv" and len(shape) != 2) or int(np.prod(shape.numpy())) < LEAST_WEIGHTS:
        return None
    return Product(node, _group(node, weights), activation, weights, axis)


def _group(node: ir.Node, weights: ir.Value) -> str:
    """The layer, by the node's name; by the weights' name where exporters gave the node no path."""
    layer = layer_of(node.name or "")
    if layer != OUTSIDE:
        return layer
    stem, dot, last = str(weights.name).rpartition(".")
    return stem if dot and last.startswith("weight") and "," not in stem else OUTSIDE


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input()


def _number(node: ir.Node, name: str, default: float) -> float:
    entry = node.attributes.get(name)
    return default if entry is None else entry.value
