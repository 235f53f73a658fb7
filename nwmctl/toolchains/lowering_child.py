"""The lowering itself, as a program: ``lowering`` starts it with a folder to work in and an order in JSON.

read -> fix the batch -> fold constants -> optimise -> quantise -> halve -> write -> read back. A process of its own
because graph libraries crash on odd files, and so that its memory is bounded and given back. A model of up to
``fold_with_weights`` bytes is folded whole. Of a larger one only the graph is, with its large weights as if they were
inputs; they stay in their file until they are written, one tensor at a time. Starts no process and compiles nothing.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from nwmctl.domain.artifact import Precision, Quantisation
from nwmctl.toolchains.lowering import ENTRY, LOWERED, LOWERED_DATA, REPORT, Integers, Scope
from nwmctl.toolchains.lowering_files import Source, first_line, read_source
from nwmctl.toolchains.lowering_prepare import prepare
from nwmctl.toolchains.lowering_refusals import Refusal, Refused
from nwmctl.toolchains.lowering_report import operators, report
from nwmctl.toolchains.lowering_write import put_back, set_aside, write

_FOLDED = "folded.onnx"
_BASE = 256 << 20
"""Address space of this process with its libraries and an empty graph."""


def main(argv: list[str]) -> int:
    """Lower what ``argv[0]`` orders, in the working directory. 3 where the graph or the data is at fault."""
    order = json.loads(argv[0])
    try:
        lower_here(order)
    except Refused as problem:
        problem.write(Path())
        sys.stderr.write(f"refused: {problem.why}\n")
        return 3
    return 0


def lower_here(order: dict[str, Any]) -> None:
    """Lower in the working directory what ``lowering.child_order`` says. Raises Refused."""
    precision, scope = Precision(order["precision"]), Scope(order["scope"])
    how = Quantisation(order["quantisation"]) if order["quantisation"] else None
    source = read_source(Path(order["model"]), Path(order["data"]) if order["data"] else None)
    _refuse_too_large(source, order)
    try:
        prepare(source.proto, order["batch"])
    except TypeError as problem:  # protobuf hands text that is not UTF-8 over as bytes
        raise Refused(Refusal.UNREADABLE, "one of its names is not text") from problem
    model, before = _fold(source, order["fold_with_weights"])
    _tidy(model)
    from nwmctl.toolchains import optimising, quantising

    optimising.optimise(model, order["merge"])
    groups = quantising.groups(model)
    if how is not None:
        _quantise(model, how, order)
    if precision is Precision.FP16 or Precision(order["rest"]) is Precision.FP16:
        from nwmctl.toolchains.lowering_halves import half_everything, half_products

        if scope is Scope.MATMUL:
            half_products(model, including_quantised=how is Quantisation.WEIGHTS)
        else:
            model = half_everything(model)
    write(model, Path(LOWERED), Path(LOWERED_DATA), order["external_above"])
    said = report(Path(LOWERED), order["batch"])
    Path(REPORT).write_text(json.dumps({**said, "before": before, "groups": groups}), "utf-8")


def _fold(source: Source, with_weights: int) -> tuple[ir.Model, dict[str, int]]:
    """Constants folded and redundant nodes removed, by onnxruntime's hardware-independent passes; and the operators
    that there were before."""
    try:
        model = ir.from_proto(source.proto)
        whole = source.weights <= with_weights
        for name, tensor in source.outside.items():
            stored: Any = ir.Tensor(tensor.numpy(), tensor.dtype, name=name) if whole else tensor
            model.graph.initializers[name].const_value = stored
        aside = {} if whole else set_aside(model)
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto)
        before = operators(onnx.shape_inference.infer_shapes(proto))
    except Refused:
        raise
    except Exception as problem:  # the checker's, protobuf's and onnx_ir's errors have no common family
        raise Refused(Refusal.UNREADABLE, first_line(problem)) from problem
    _run_passes(proto.SerializeToString())
    del proto, model
    folded = ir.load(_FOLDED)
    put_back(folded, aside)
    return folded, before


def _run_passes(graph: bytes) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = _FOLDED
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's errors have no common family
        raise Refused(Refusal.UNREADABLE, first_line(problem)) from problem


def _tidy(model: ir.Model) -> None:
    """No foreign operator sets, no notes of the exporter, no stale shapes."""
    foreign = sorted({node.domain for node in model.graph.all_nodes() if node.domain not in ("", "ai.onnx")})
    if foreign:  # what came in was checked, so this is a pass of onnxruntime's that is not hardware-independent
        raise Refused(Refusal.OPERATOR, f"folding left operators of {', '.join(foreign)}")
    version = model.opset_imports.get("") or model.opset_imports["ai.onnx"]
    model.opset_imports.clear()
    model.opset_imports[""] = version
    model.graph.name = ENTRY
    model.producer_name, model.producer_version, model.doc_string = "nwmctl", None, None
    model.graph.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()


def _quantise(model: ir.Model, how: Quantisation, order: dict[str, Any]) -> None:
    """Quantise what is asked and hold the result against it."""
    from nwmctl.toolchains import quantising, quantising_ranges

    if (model.opset_imports.get("") or 0) < 13:
        raise Refused(
            Refusal.NOTHING_TO_QUANTISE,
            "its operator set is older than 13, which has no scales per channel",
            "export the model again with opset 17",
        )
    asked = quantising.chosen(model, order["keep"])
    ranges = {}
    if how is Quantisation.STATIC:
        names = quantising.tensors_to_calibrate(asked)
        ranges = quantising_ranges.ranges(model, names, Path(order["calibration"]) if order["calibration"] else None)
    quantising.quantise(model, how, asked, Integers(order["integers"]), ranges)
    found = sum(quantising.count_quantised(model).values())
    if found != len(asked):
        raise Refused(
            Refusal.QUANTISATION_LOST,
            f"{len(asked)} products were to be quantised and {found} are",
            "report this as a defect of nwmctl",
        )


def _refuse_too_large(source: Source, order: dict[str, Any]) -> None:
    """From the header alone: whether the memory that was allowed suffices. The factors were measured on generated
    transformers of 30 and 100 million parameters as address space, and rounded up; see ``benchmarks.large``."""
    weights = source.weights
    static = order["quantisation"] == Quantisation.STATIC
    if weights <= order["fold_with_weights"]:
        needed = _BASE + (10 if static else 6) * weights
    else:
        halves = Precision.FP16 in (order["precision"], order["rest"])
        written = weights // (4 if order["quantisation"] else 2 if halves else 1)
        inside = 3 * written if written <= order["external_above"] else 0
        largest = max((tensor.nbytes for tensor in source.outside.values()), default=0)
        held = source.proto.ByteSize() * 3
        needed = 2 * _BASE + held + inside + 8 * largest + (3 * weights if static else 0)
    if needed > order["memory_bytes"]:
        raise Refused(
            Refusal.TOO_LARGE,
            f"its weights have {_gib(weights)}, which needs {_gib(needed)} of memory here,"
            f" and {_gib(order['memory_bytes'])} are allowed",
            "allow more memory, or choose 'quantisation: weights', which needs least"
            if static
            else "allow more memory, or save the weights beside the graph, where they are read one at a time",
        )


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
