"""Lower precisions as real graphs: half precision, bfloat16, integer weights, static int8.

Each function changes or returns a graph that onnxruntime executes with those numbers, not an imitation in numpy. The
same functions serve clean artifacts (fine scales) and broken ones (coarse scales, wrong calibration).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.battery.surgery import Graph, Weaver, Weight

HALF, BF16, _FLOAT = 10, 16, 1
"""ONNX's numbers of the types."""


def half_everywhere(graph: Graph) -> Graph:
    """Every operator that the converter knows in fp16; inputs and outputs stay fp32."""
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = onnx_ir.serde.deserialize_model(convert_float_to_float16(graph.copy().model, keep_io_types=True))
    half.graph.sort()
    return Graph(onnx_ir.serde.serialize_model(half))


def bf16_rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """To the nearest bfloat16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def bf16_product(graph: Graph, weight: Weight) -> None:
    """One product with both operands rounded to bfloat16, summed up in fp32, as matrix units do it."""
    graph.put(weight.name, bf16_rounded(graph.floats(weight.name)))
    narrow_operand(graph, weight, BF16)


def half_product(graph: Graph, weight: Weight) -> None:
    """One product with both operands rounded to fp16, summed up in fp32."""
    graph.put(weight.name, graph.floats(weight.name).astype(np.float16).astype(np.float32))
    narrow_operand(graph, weight, HALF)


def narrow_operand(graph: Graph, weight: Weight, kind: int) -> None:
    """Cast a product's other operand to a narrow type and back."""
    product = graph.maker(weight.reads)
    weave = Weaver(graph, f"narrow/{weight.reads}")
    product.input[0] = narrowed(weave, product.input[0], kind)
    graph.insert_before(product, weave.nodes)


def narrowed(weave: Weaver, tensor: str, kind: int) -> str:
    """A tensor as a narrow type leaves it."""
    return weave("Cast", weave("Cast", tensor, to=kind), to=_FLOAT)


def integer_weight(graph: Graph, weight: Weight, bits: int, *, per_channel: bool, clip: float = 1.0) -> None:
    """Store one matrix as integers with a DequantizeLinear before its product. ``clip`` (0..1] shrinks the range."""
    values = graph.floats(weight.name)
    most = 2 ** (bits - 1) - 1
    if per_channel:
        reach = np.abs(values).max(axis=1 - weight.axis)
    else:
        reach = np.asarray(np.abs(values).max(), np.float32)
    scale = (np.maximum(reach, 1e-12) * clip / most).astype(np.float32)
    spread = np.expand_dims(scale, 1 - weight.axis) if per_channel else scale
    held = np.clip(np.rint(values / spread), -most, most).astype(np.int8)
    weave = Weaver(graph, f"integer/{weight.name}")
    attributes = {"axis": weight.axis} if per_channel else {}
    stored, zero = weave.const(held, np.int8), weave.const(np.zeros_like(scale, np.int8), np.int8)
    restored = weave("DequantizeLinear", stored, weave.const(scale), zero, **attributes)
    product = graph.maker(weight.reads)
    product.input[1] = restored
    graph.insert_before(product, weave.nodes)


def static_int8(graph: Graph, calibration: Mapping[str, NDArray[np.generic]]) -> Graph:
    """Weights per channel and activations per tensor in int8, ranges from the calibration data."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rows = len(next(iter(calibration.values())))
            self.parts = iter([{n: v[i : i + 16] for n, v in calibration.items()} for i in range(0, rows, 16)])

        def get_next(self) -> dict[str, NDArray[np.generic]] | None:
            return next(self.parts, None)

    with tempfile.TemporaryDirectory(prefix="nwmctl-battery-") as folder:
        out = Path(folder) / "int8.onnx"
        logging.disable(logging.WARNING)  # it advises a preparation that the lowered graph has had
        quantize_static(
            graph.copy().model,
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=[graph.maker(weight.reads).name for weight in graph.weights()],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        logging.disable(logging.NOTSET)
        return Graph.load(out)
