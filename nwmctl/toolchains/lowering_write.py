"""The lowered graph as bytes: shapes inferred and checked, weights inside or in one file beside it.

Weights go into the data file in the order of the graph, each at a multiple of 4096 bytes (so that they can be mapped),
one at a time. The same graph gives the same bytes. Does not rename what is published; the folder is scratch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from nwmctl.toolchains.lowering_files import first_line
from nwmctl.toolchains.lowering_refusals import Refusal, Refused

_ALIGNMENT = 4096
_INSIDE = 1024
"""Tensors of fewer bytes stay in the graph: shapes and the like are needed to infer shapes."""


def write(model: ir.Model, graph: Path, data: Path, external_above: int) -> None:
    """Write ``graph``, and ``data`` where the weights have more than ``external_above`` bytes. Raises Refused."""
    weights = [value for value in model.graph.initializers.values() if value.const_value is not None]
    outside = sum(value.const_value.nbytes for value in weights if value.const_value is not None) > external_above
    if outside:
        _externalise(weights, data)
    else:
        _compute(weights)
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    try:
        proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        if not outside:
            onnx.checker.check_model(proto, full_check=True)
        graph.write_bytes(proto.SerializeToString(deterministic=True))
        if outside:
            onnx.checker.check_model(str(graph))
    except Exception as problem:  # the checker's and the inference's errors have no common family
        raise Refused(Refusal.UNREADABLE, f"its shapes cannot be inferred: {first_line(problem)}") from problem


def _externalise(weights: list[ir.Value], data: Path) -> None:
    with data.open("wb") as file:
        for value in weights:
            tensor: Any = value.const_value
            if tensor.nbytes < _INSIDE:
                continue
            file.write(bytes(-file.tell() % _ALIGNMENT))
            start, content = file.tell(), tensor.tobytes()
            file.write(content)
            value.const_value = ir.ExternalTensor(
                data.name, start, len(content), tensor.dtype, shape=ir.Shape(tensor.shape), name=str(value.name)
            )
            if hasattr(tensor, "release"):
                tensor.release()


def _compute(weights: list[ir.Value]) -> None:
    """Weights that are computed when they are read are read now, so that a refusal in it comes out as one."""
    for value in weights:
        if isinstance(value.const_value, ir.LazyTensor):
            value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
