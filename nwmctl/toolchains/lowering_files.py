"""An ONNX file and the file of its weights, read without trust. Runs in the lowering's child process.

Nothing that a graph says about other files is followed: weights outside the graph are read from the one file that the
caller gives, after their offsets and lengths were held against its size. They stay in that file until one of them is
needed, which is then read, and freed by whoever is done with it: a mapping would keep the whole file in the address
space that the child is allowed. Does not change the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from nwmctl.toolchains.lowering_refusals import Refusal, Refused

_LARGEST_GRAPH = (1 << 31) - 1
_RESEND = "have the model's publisher send the file again"


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed graph. ``outside`` are its weights in the other file, by name; ``weights`` the bytes of all of them."""

    proto: Any
    outside: dict[str, ir.LazyTensor]
    weights: int


def read_source(model: Path, data: Path | None) -> Source:
    """Read a graph; of the weights' file only its size. Raises Refused."""
    if model.stat().st_size > _LARGEST_GRAPH:
        raise Refused(
            Refusal.TOO_LARGE,
            "the graph's own file is over 2 GiB, which the format cannot hold",
            "save the weights as one external data file beside the graph, and list it in the card as 'weights_data'",
        )
    try:
        proto = onnx.load(str(model), load_external_data=False)
    except Exception as problem:  # protobuf's and the file system's errors have no common family
        raise Refused(Refusal.UNREADABLE, f"it is no ONNX file: {first_line(problem)}") from problem
    if not proto.HasField("graph") or not proto.graph.node or not proto.opset_import:
        raise Refused(Refusal.UNREADABLE, "it is no ONNX file: it has no graph, or names no operator set")
    outside = _outside(proto, data)
    held = {value.name for value in proto.graph.initializer}
    within = sum(value.ByteSize() for value in proto.graph.initializer if value.name not in outside)
    if len(held) != len(proto.graph.initializer):
        raise Refused(Refusal.UNREADABLE, "two of its weights have the same name")
    return Source(proto, outside, within + sum(tensor.nbytes for tensor in outside.values()))


def first_line(problem: BaseException) -> str:
    """What a library says, without its trace."""
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)[:300]


def _outside(proto: Any, data: Path | None) -> dict[str, ir.LazyTensor]:
    """The tensors that lie in the weights' file."""
    entries = {v.name: v for v in proto.graph.initializer if v.data_location == onnx.TensorProto.EXTERNAL}
    hidden = [v.name for v in _tensors_of_nodes(proto.graph) if v.data_location == onnx.TensorProto.EXTERNAL]
    if hidden:
        raise Refused(Refusal.DATA_OUTSIDE, f"the constant '{hidden[0]}' of a node lies in another file")
    if not entries:
        return {}
    said = {name: {entry.key: entry.value for entry in value.external_data} for name, value in entries.items()}
    locations = sorted({words.get("location", "") for words in said.values()})
    for location in locations:
        _check_location(location)
    if len(locations) > 1:
        raise Refused(
            Refusal.DATA_MISSING,
            f"they lie in {len(locations)} files ({', '.join(locations[:3])}); a package holds one",
            "save the model with all external data in one file",
        )
    if data is None:
        raise Refused(
            Refusal.DATA_MISSING,
            f"the graph names the file '{locations[0]}' for {len(entries)} weights",
            "add that file to the model package and list it in the card's files as 'weights_data'",
        )
    if data.is_symlink():
        raise Refused(
            Refusal.DATA_OUTSIDE,
            "the file of the weights is a link, and what it points to belongs to no package",
            "put the file itself into the package",
        )
    if not data.is_file():
        raise Refused(Refusal.DATA_MISSING, f"the file '{data.name}' is not there", "pull the model again")
    size = data.stat().st_size
    return {name: _tensor(value, said[name], data, size) for name, value in entries.items()}


def _check_location(location: str) -> None:
    path = PurePosixPath(location)
    windows = "\\" in location or location[1:2] == ":"
    if not location or path.is_absolute() or ".." in path.parts or windows or "\0" in location:
        raise Refused(
            Refusal.DATA_OUTSIDE,
            f"it says that weights lie in '{location[:120]}'",
            "save the model with its external data in one file beside the graph, named without a folder",
        )


def _tensor(value: Any, said: dict[str, str], data: Path, size: int) -> ir.LazyTensor:
    """One tensor of the weights' file, with its place checked."""
    try:
        dtype = ir.DataType(value.data_type)
        needed = (_elements(value) * dtype.bitwidth + 7) // 8
        offset = int(said.get("offset", "0"))
        length = int(said.get("length", str(needed)))
    except (ValueError, TypeError) as problem:
        raise Refused(Refusal.UNREADABLE, f"the place of the weights '{value.name}' cannot be read") from problem
    if length != needed:
        raise Refused(
            Refusal.DATA_DAMAGED, f"'{value.name}' needs {needed} bytes and the graph gives it {length}", _RESEND
        )
    if offset < 0 or offset + length > size:
        raise Refused(
            Refusal.DATA_DAMAGED,
            f"'{value.name}' would lie at byte {offset} to {offset + length}, and the file has {size}",
            _RESEND,
        )
    if dtype.bitwidth % 8:
        raise Refused(Refusal.UNREADABLE, f"'{value.name}' has elements of {dtype.bitwidth} bits")
    sizes, name = list(value.dims), value.name

    def read() -> ir.TensorProtocol:
        content = np.fromfile(data, np.uint8, length, offset=offset).view(dtype.numpy())
        if content.nbytes != length:
            raise Refused(Refusal.DATA_DAMAGED, f"the file ends inside of '{name}'", _RESEND)
        return ir.Tensor(content.reshape(sizes), dtype, name=name)

    return ir.LazyTensor(read, dtype, ir.Shape(sizes), name=name)


def _elements(value: Any) -> int:
    count = 1
    for size in value.dims:
        if size < 0:
            raise ValueError(size)
        count *= size
    return count


def _tensors_of_nodes(graph: Any) -> Iterator[Any]:
    """The tensors in nodes' attributes, those of inner graphs included."""
    for node in graph.node:
        for entry in node.attribute:
            if entry.HasField("t"):
                yield entry.t
            yield from entry.tensors
            for inner in (*([entry.g] if entry.HasField("g") else ()), *entry.graphs):
                yield from inner.initializer
                yield from _tensors_of_nodes(inner)
