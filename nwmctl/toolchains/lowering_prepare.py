"""What is done to a graph before any library looks at it: names, functions, operators, the batch. In the child process.

Refuses what no driver gets, by name: an operator that cannot be compiled ahead of time, a dimension that nobody fixed.
Does not fold and does not read weights.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import onnx

from nwmctl.toolchains.lowering_files import first_line
from nwmctl.toolchains.lowering_operators import nearest_rewrite, refused_everywhere
from nwmctl.toolchains.lowering_refusals import Refusal, Refused

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter notes which modules a node lies in."""
_MANY = 3


def prepare(proto: Any, batch: int) -> None:
    """In place. ``batch`` replaces the symbolic batch; 0 keeps it. Raises Refused."""
    if proto.functions:
        _inline(proto)
    _name_by_module(proto.graph)
    _check_operators(proto)
    _fix_batch(proto, batch)


def _inline(proto: Any) -> None:
    import onnx.inliner

    try:
        proto.CopyFrom(onnx.inliner.inline_local_functions(proto))
    except Exception as problem:  # the inliner's errors have no common family
        raise Refused(Refusal.UNREADABLE, f"its functions cannot be inlined: {first_line(problem)}") from problem


def _name_by_module(graph: Any) -> None:
    """Give nodes without a path the path of the module that the exporter noted; layers are told apart by it."""
    for index, node in enumerate(graph.node):
        if "/" in node.name:
            continue
        noted = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
        try:
            scopes = [scope for scope in ast.literal_eval(noted) if isinstance(scope, str)] if noted else []
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue  # the note is only a hint: without it the layer is told by the weights' name, or not at all
        # The last entry names the operation; before it come the modules, each with its whole path.
        path = scopes[-2] if len(scopes) > 1 else ""
        if path:
            node.name = f"/{path.replace('/', '.')}/{node.op_type}_{index}"


def _check_operators(proto: Any) -> None:
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    version = versions.get("", versions.get("ai.onnx", 0))
    if not version:
        raise Refused(Refusal.UNREADABLE, "it does not say which version of the standard operators it uses")
    seen: dict[str, str] = {}
    hint = ""
    for node in _all_nodes(proto.graph):
        if node.op_type in seen:
            continue
        why = refused_everywhere(node.domain, node.op_type)
        if not why and not onnx.defs.has(node.op_type, max(1, version), ""):
            why = f"'{node.op_type}' is no operator of version {version} of the standard set"
        if why:
            seen[node.op_type] = f"{why} (node '{node.name}')"
            hint = hint or f"'{node.op_type}': {nearest_rewrite(node.op_type, node.domain)}"
    if seen:
        reasons = list(seen.values())
        more = f"; and {len(reasons) - _MANY} other operators" if len(reasons) > _MANY else ""
        raise Refused(Refusal.OPERATOR, "; ".join(reasons[:_MANY]) + more, f"{hint}; then export the model again")


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for entry in node.attribute:
            for inner in (*([entry.g] if entry.HasField("g") else ()), *entry.graphs):
                yield from _all_nodes(inner)


def _fix_batch(proto: Any, batch: int) -> None:
    """Replace the inputs' symbolic first dimension."""
    held = {value.name for value in proto.graph.initializer}
    symbols: set[str] = set()
    for value in proto.graph.input:
        if value.name in held:
            continue
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            raise Refused(
                Refusal.DIMENSION,
                f"the input '{value.name}' has no shape at all",
                f"give '{value.name}' a shape when exporting: a symbolic batch first, then numbers",
            )
        _check_dimensions(value)
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            symbols.add(dims[0].dim_param)
            if batch:
                dims[0].dim_value = batch
    if len(symbols) > 1:
        raise Refused(
            Refusal.DIMENSION,
            f"the inputs have several symbolic batches: {', '.join(map(repr, sorted(symbols)))}",
            "give the first dimension of every input the same name when exporting, as in dynamic_axes={'x': {0: 'B'}}",
        )
    # What the exporter noted about other shapes may contradict the fixed batch; it is inferred anew.
    del proto.graph.value_info[:]
    if batch:
        for value in proto.graph.output:
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()


def _check_dimensions(value: Any) -> None:
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value"):
            if dim.dim_value < 1:
                raise Refused(
                    Refusal.DIMENSION,
                    f"dimension {axis} of the input '{value.name}' is {dim.dim_value}",
                    f"export with a positive number there, or with a symbol if it is the batch of '{value.name}'",
                )
        elif axis:
            symbol = f" but '{dim.dim_param}'" if dim.dim_param else ""
            raise Refused(
                Refusal.DIMENSION,
                f"dimension {axis} of the input '{value.name}' is not a number{symbol}, and nothing bounds it",
                "export with a number there; only the batch may be open, as in"
                f" dynamic_axes={{'{value.name}': {{0: 'B'}}}}; pad what varies to its largest size and mask it",
            )
