"""What a graph holds: ports, operators, quantised products. Read from the graph alone, in the child process.

The lowered graph's report comes from the file as it lies there, not from what was meant to be written.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx import helper

from nwmctl.toolchains.lowering_operators import nearest_rewrite
from nwmctl.toolchains.lowering_refusals import Refusal, Refused
from nwmctl.toolchains.quantising import count_quantised


def report(path: Path, batch: int) -> dict[str, Any]:
    """Ports, operators and quantised products of a file. Raises Refused where a shape is not known."""
    model = onnx.load(str(path), load_external_data=False)
    ports = {"inputs": [_port(v) for v in model.graph.input], "outputs": [_port(v) for v in model.graph.output]}
    for port in ports["inputs"] + ports["outputs"]:
        loose = [dim for dim in port["shape"][0 if batch else 1 :] if isinstance(dim, str)]
        if loose:
            raise Refused(
                Refusal.DIMENSION,
                f"the shape of '{port['name']}' is not known: {port['shape']}",
                "find the operator whose result has as many rows as the data says (NonZero and the like), and"
                f" {nearest_rewrite('NonZero')}",
            )
    quantised = count_quantised(ir.from_proto(model))
    return {**ports, "operators": operators(model), "quantised": quantised}


def operators(model: Any) -> dict[str, int]:
    """Nodes by operator and the element type of their first input; a product whose operands were quantised counts
    under the type that they were quantised to."""
    kinds = {value.name: value.data_type for value in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kinds[value.name] = value.type.tensor_type.elem_type
    whole = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found: Counter[str] = Counter()
    for node in model.graph.node:
        first = node.input[0] if node.input else ""
        if node.op_type in ("MatMul", "Gemm", "Conv") and all(name in whole for name in node.input[:2]):
            first = whole[first]
        kind = kinds.get(first, 0)
        dtype = helper.tensor_dtype_to_np_dtype(kind).name if kind else ""
        found[f"{node.op_type}.{dtype}" if dtype else node.op_type] += 1
    return dict(sorted(found.items()))


def _port(value: Any) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, "shape": dims}
