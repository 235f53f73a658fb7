"""A model whose weights lie outside its graph, laid out so that a plain runtime can open it.

The graph names its weights' file; the content store names files by digest. ``lay_out`` puts both into one folder under
the names that belong together: as hard links where the folder is on the same disk, else as copies (libraries refuse
links to elsewhere). Lowering does not need it. Does not check the weights' places in their file; lowering does.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from nwmctl.domain.artifact import Precision
from nwmctl.errors import ExternalDataOutsideError, GraphUnreadableError, UnsupportedRecipeError
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder

GRAPH = "model.onnx"
_MESSAGE_BYTES = 2 << 30
"""What one protobuf message, and so one ONNX file, cannot reach."""


def lay_out(files: GraphFiles, folder: Path) -> Path:
    """The graph's path: the file itself where it holds its weights, else ``model.onnx`` in ``folder`` with them beside.

    ``folder`` exists and is the caller's to clean up. Raises GraphUnreadableError, ExternalDataOutsideError.
    """
    if files.data is None:
        return files.model
    name = _location(files.model)
    path = PurePosixPath(name)
    if len(path.parts) != 1 or path.is_absolute() or name in ("", ".", "..", GRAPH) or "\\" in name:
        raise ExternalDataOutsideError(
            "the model names a file outside its package",
            why=f"it says that its weights lie in '{name[:120]}'",
            next="save the model with its external data in one file beside the graph, named without a folder",
        )
    graph = folder / GRAPH
    for source, place in ((files.model, graph), (files.data, folder / name)):
        _link(source, place)
    return graph


def check_single_message(toolchain: str, files: GraphFiles, order: LoweringOrder, why: str) -> None:
    """Refuse at once what could not become one ONNX file: lowering and compiling for minutes would end the same.

    ``why`` says what in the toolchain needs it. Raises UnsupportedRecipeError.
    """
    given = files.model.stat().st_size + (files.data.stat().st_size if files.data else 0)
    halves = order.precision in (Precision.FP16, Precision.BF16) or order.rest is Precision.FP16
    least = given // 4 if order.quantisation is not None else given // 2 if halves else given
    if least >= _MESSAGE_BYTES:
        raise UnsupportedRecipeError(
            f"the toolchain '{toolchain}' does not build weights of this size",
            why=f"{why}, and these weights have at least {least / (1 << 30):.1f} GiB in this precision",
            next="choose a recipe with smaller weights (fp16, int8) or another toolchain",
        )


def _location(model: Path) -> str:
    """The name that the graph has for its weights' file."""
    import onnx

    try:
        graph = onnx.load(str(model), load_external_data=False).graph
    except Exception as problem:  # protobuf's errors are not of one family
        raise GraphUnreadableError(
            "the model's graph cannot be read",
            why=f"{type(problem).__name__} while reading '{model.name}'",
            next="export the model again as ONNX",
        ) from problem
    for value in graph.initializer:
        for entry in value.external_data:
            if entry.key == "location":
                return str(entry.value)
    return f"{GRAPH}.data"


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source.resolve(), place)
    except OSError:
        shutil.copyfile(source, place)
