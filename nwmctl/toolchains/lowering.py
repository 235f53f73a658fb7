"""From the model as trained to the graph that a compiler gets: batch, precision, folded constants.

The result is deterministic and holds no path and no word of the exporter's about its own source. ``lower`` runs the
work in a child process (this module as a program), because graph libraries crash on odd files. Precision fp16 has two
scopes: ``matmul`` casts only the matrix products (what tensor cores speed up) and leaves the geometry in fp32, ``all``
converts every operator that onnxruntime's converter knows. bf16 is left to the compiler: the graph stays fp32.
Does not quantise and does not compile.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from nwmctl.domain.artifact import Port, Precision, Quantisation
from nwmctl.errors import CompileFailedError, GraphUnreadableError
from nwmctl.toolchains.process import Command, Limits, own_path, python_module, run_tool

LOWERED = "lowered.onnx"
ENTRY = "model"
"""The graph's name, and so the name of the function in a compiled module."""
_REPORT = "lowered.json"
_REFUSED = "refused: "
_HALF = "__fp16"
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})


class Scope(StrEnum):
    """What fp16 is applied to."""

    MATMUL = "matmul"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class GraphFiles:
    """A model as trained: its ONNX file, the external data file beside it, calibration data (``.npz``)."""

    model: Path
    data: Path | None = None
    calibration: Path | None = None


@dataclass(frozen=True, slots=True)
class LoweringOrder:
    """What a graph is to become. ``batch`` replaces the symbolic batch, None keeps it. ``keep``: groups that an int8
    graph leaves unquantised."""

    precision: Precision
    scope: Scope = Scope.MATMUL
    batch: int | None = 1
    quantisation: Quantisation | None = None
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lowered:
    """The lowered graph's file, its tensors in order, and its operators (``MatMul.float16``) counted after reading
    the file back. ``before``: operators of the model as given; ``quantised``: products that were quantised, by
    operator; ``groups``: everything that could be."""

    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: dict[str, int]
    before: dict[str, int] = field(default_factory=dict)
    quantised: dict[str, int] = field(default_factory=dict)
    groups: tuple[str, ...] = ()

    @property
    def products(self) -> dict[str, int]:
        """Matrix products by element type."""
        found: Counter[str] = Counter()
        for name, count in self.operators.items():
            operator, _, dtype = name.partition(".")
            if operator in _PRODUCTS:
                found[dtype] += count
        return dict(found)


def lower(files: GraphFiles, scratch: Path, order: LoweringOrder, limits: Limits) -> Lowered:
    """Write ``lowered.onnx`` into ``scratch``.

    Raises GraphUnreadableError where the file is no graph that can be lowered, and what ``run_tool`` raises.
    """
    arguments = (str(files.model.resolve()), order.precision.value, order.scope.value, str(order.batch or 0))
    command = Command(
        "the lowering of the graph",
        python_module("nwmctl.toolchains.lowering", *arguments),
        scratch,
        limits,
        own_path(),
        error_pattern="",
    )
    try:
        run_tool(command)
        report = json.loads((scratch / _REPORT).read_text("utf-8"))
    except CompileFailedError as problem:
        refused = problem.why.rpartition(_REFUSED)[2] if _REFUSED in problem.why else ""
        if not refused:
            raise
        raise GraphUnreadableError(
            "the model's graph cannot be lowered",
            why=refused,
            next="export the model again as one ONNX file with a symbolic batch and static shapes otherwise",
        ) from problem
    return Lowered(
        scratch / LOWERED,
        tuple(Port(p["name"], p["dtype"], tuple(p["shape"])) for p in report["inputs"]),
        tuple(Port(p["name"], p["dtype"], tuple(p["shape"])) for p in report["outputs"]),
        report["operators"],
    )


# --- in the child process -----------------------------------------------------------------------------------------


class _Refused(Exception):
    """The graph is at fault, not the tools."""


def _main(argv: list[str]) -> int:
    model, precision, scope, batch = argv
    try:
        graph = _load(Path(model))
        _fix_batch(graph, int(batch))
        _fold(graph, Path(LOWERED))
        graph = _tidy(Path(LOWERED))
        if Precision(precision) is Precision.FP16:
            graph = _half_products(graph) if Scope(scope) is Scope.MATMUL else _half_everything(graph)
        _save(graph, Path(LOWERED))
        Path(_REPORT).write_text(json.dumps(_report(Path(LOWERED), int(batch))), "utf-8")
    except _Refused as problem:
        sys.stderr.write(f"{_REFUSED}{problem}\n")
        return 3
    return 0


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or ["no message"])[0]


def _load(path: Path) -> Any:
    import onnx

    try:
        # External data could name any file of this machine.
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model)
    except Exception as problem:  # protobuf's, the checker's and the file system's errors have no common family
        raise _Refused(f"{type(problem).__name__}: {_first_line(problem)}") from problem
    return model


def _fix_batch(model: Any, batch: int) -> None:
    """Replace the inputs' symbolic first dimension; 0 keeps it."""
    held = {value.name for value in model.graph.initializer}
    symbols = set()
    for value in model.graph.input:
        if value.name in held:
            continue
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                continue
            if axis:
                raise _Refused(f"dimension {axis} of the input '{value.name}' is not a number")
            symbols.add(dim.dim_param)
            if batch:
                dim.dim_value = batch
    if len(symbols) > 1:
        raise _Refused(f"the inputs have several symbolic batches: {', '.join(sorted(symbols))}")
    # What the exporter noted about other shapes may contradict the fixed batch; it is inferred anew.
    del model.graph.value_info[:]
    if batch:
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")


def _fold(model: Any, out: Path) -> None:
    """Constants folded and redundant nodes removed, by onnxruntime's hardware-independent passes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's errors have no common family
        raise _Refused(_first_line(problem)) from problem


def _tidy(path: Path) -> Any:
    """The folded graph without foreign operator sets, notes of the exporter and stale shapes."""
    import onnx

    model = onnx.load(str(path))
    foreign = sorted({node.domain for node in model.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise _Refused(f"it has operators of {', '.join(foreign)}, which other compilers do not know")
    kept = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    version = kept[0].version
    del model.opset_import[:]
    model.opset_import.add().version = version
    model.graph.name = ENTRY
    model.producer_name, model.producer_version, model.doc_string = "nwmctl", "", ""
    model.graph.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return model


def _half_products(model: Any) -> Any:
    """Casts around every matrix product: fp16 operands, an fp32 rest."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    constants = {value.name: value for value in model.graph.initializer}
    halves: dict[str, str] = {}
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type not in _PRODUCTS:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if not name:
                continue
            if name not in halves:
                halves[name] = name + _HALF
                if name in constants:
                    weights = numpy_helper.to_array(constants[name])
                    if np.abs(weights).max(initial=0.0) > np.finfo(np.float16).max:
                        raise _Refused(f"the weights '{name}' leave the range of fp16")
                    model.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float16), halves[name]))
                else:
                    cast = helper.make_node("Cast", [name], [halves[name]], halves[name], to=TensorProto.FLOAT16)
                    nodes.append(cast)
            node.input[index] = halves[name]
        wide = node.output[0]
        node.output[0] = wide + _HALF + "_out"
        nodes.append(node)
        nodes.append(helper.make_node("Cast", [node.output[0]], [wide], node.output[0] + "_up", to=TensorProto.FLOAT))
    used = {name for node in nodes for name in node.input} | {value.name for value in model.graph.output}
    weights_kept = [value for value in model.graph.initializer if value.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights_kept)
    del model.graph.value_info[:]
    return model


def _half_everything(model: Any) -> Any:
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = onnx_ir.serde.deserialize_model(convert_float_to_float16(model, keep_io_types=True))
    half.graph.sort()  # the converter appends its casts at the end
    return onnx_ir.serde.serialize_model(half)


def _save(model: Any, out: Path) -> None:
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except Exception as problem:
        raise _Refused(f"its shapes cannot be inferred: {_first_line(problem)}") from problem
    out.write_bytes(model.SerializeToString(deterministic=True))


def _report(path: Path, batch: int) -> dict[str, object]:
    """Ports and operators of the file as it lies there."""
    import onnx

    model = onnx.load(str(path))
    ports = {"inputs": [_port(v) for v in model.graph.input], "outputs": [_port(v) for v in model.graph.output]}
    for port in ports["inputs"] + ports["outputs"]:
        loose = [dim for dim in port["shape"][0 if batch else 1 :] if isinstance(dim, str)]
        if loose:
            raise _Refused(f"the shape of '{port['name']}' is not known: {port['shape']}")
    return {**ports, "operators": _operators(model)}


def _port(value: Any) -> dict[str, Any]:
    import onnx

    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, "shape": dims}


def _operators(model: Any) -> dict[str, int]:
    """Nodes by operator and the element type of their first input."""
    from onnx import helper

    kinds = {value.name: value.data_type for value in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kinds[value.name] = value.type.tensor_type.elem_type
    found: Counter[str] = Counter()
    for node in model.graph.node:
        kind = kinds.get(node.input[0], 0) if node.input else 0
        dtype = helper.tensor_dtype_to_np_dtype(kind).name if kind else ""
        found[f"{node.op_type}.{dtype}" if dtype else node.op_type] += 1
    return dict(sorted(found.items()))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
