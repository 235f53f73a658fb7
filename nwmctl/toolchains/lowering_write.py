"""The lowered graph as bytes: shapes inferred and checked, weights inside or in one file beside it. In the child.

Shapes are inferred without the large weights, which are then written one at a time: into the data file, each at a
multiple of 4096 bytes (so that it can be mapped), or into the graph's own file behind the rest of the graph. The latter
is plain protobuf: a message that comes twice is one whose repeated fields go on. The same graph gives the same bytes.
Does not rename what is published; the folder is scratch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from nwmctl.toolchains.lowering_files import first_line
from nwmctl.toolchains.lowering_refusals import Refusal, Refused

LARGE = 64 << 10
"""Bytes from which a weight is kept apart while the graph is worked on."""
_ALIGNMENT = 4096


def write(model: ir.Model, graph: Path, data: Path, external_above: int) -> None:
    """Write ``graph``, and ``data`` where the weights have more than ``external_above`` bytes. Raises Refused."""
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    aside = set_aside(model)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.LazyTensor):  # computed here, so that a refusal in it comes out as one
            value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
    try:
        proto = ir.to_proto(model)
        del proto.graph.value_info[:]
        proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        onnx.checker.check_model(proto, full_check=True)
    except Exception as problem:  # the checker's and the inference's errors have no common family
        raise Refused(Refusal.UNREADABLE, f"its shapes cannot be inferred: {first_line(problem)}") from problem
    put_back(model, aside)
    inputs = [value for value in proto.graph.input if value.name not in aside]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    used = {name: tensor for name, tensor in aside.items() if name in model.graph.initializers}
    if weights > external_above:
        _write_beside(used, data, proto)
        graph.write_bytes(proto.SerializeToString(deterministic=True))
        return
    with graph.open("wb") as file:
        file.write(proto.SerializeToString(deterministic=True))
        for name, tensor in used.items():
            part = onnx.ModelProto()
            _describe(part.graph.initializer.add(), name, tensor).raw_data = tensor.tobytes()
            file.write(part.SerializeToString(deterministic=True))


def set_aside(model: ir.Model) -> dict[str, Any]:
    """Take the large weights out; the graph keeps them as inputs of known shape."""
    aside: dict[str, Any] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < LARGE or value.is_graph_output() or value.is_graph_input():
            continue
        aside[name] = tensor
        del model.graph.initializers[name]
        value.const_value = None
        value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        model.graph.inputs.append(value)
    return aside


def put_back(model: ir.Model, aside: dict[str, Any]) -> None:
    """Undo ``set_aside``, but for weights that nothing reads any more."""
    for value in [value for value in model.graph.inputs if value.name in aside]:
        model.graph.inputs.remove(value)
        if value.uses():
            value.const_value = aside[str(value.name)]
            model.graph.register_initializer(value)


def _describe(entry: Any, name: str, tensor: Any) -> Any:
    entry.name, entry.data_type = name, int(tensor.dtype)
    entry.dims.extend(int(size) for size in tensor.shape.numpy())
    return entry


def _write_beside(weights: dict[str, Any], data: Path, proto: Any) -> None:
    """The weights into the data file, and where they lie into the graph."""
    with data.open("wb") as file:
        for name, tensor in weights.items():
            file.write(bytes(-file.tell() % _ALIGNMENT))
            start = file.tell()
            file.write(tensor.tobytes())
            entry = _describe(proto.graph.initializer.add(), name, tensor)
            entry.data_location = onnx.TensorProto.EXTERNAL
            for key, said in (("location", data.name), ("offset", start), ("length", file.tell() - start)):
                entry.external_data.add(key=key, value=str(said))
