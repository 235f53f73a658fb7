"""What activations span over the calibration data of a model package. Runs in the lowering's child process.

The lowered float graph is run once per calibration row by onnxruntime with its graph passes off, and the smallest and
largest value of each asked tensor is kept, widened to include zero. The last bits of such a figure differ between kinds
of machines; ranges are rounded outward to ``_BITS`` bits so that this rarely reaches the artifact's bytes. Data that
does not fit the model is refused with its name; nothing is guessed, reshaped or cast. Does not quantise.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nwmctl.toolchains.lowering_files import first_line
from nwmctl.toolchains.lowering_refusals import Refusal, Refused
from nwmctl.toolchains.quantising_surgery import Range

LEAST_ROWS = 8
"""Fewer rows say too little about what the vehicle will see."""
MOST_ROWS = 256
"""More rows cost time and change nothing."""
_BITS = 10
_PREFIX = "in/"
"""How a package's archives mark inputs, beside outputs; an archive of inputs alone may leave it out."""
_NEXT = "have the model's publisher correct the package's calibration data"

Array = NDArray[Any]


def ranges(model: ir.Model, names: tuple[str, ...], calibration: Path | None) -> dict[str, Range]:
    """The range of each named tensor. Raises Refused where the data does not fit."""
    if calibration is None:
        raise _mismatch("static quantisation needs some, and none was given", "choose 'dynamic' or 'weights'")
    data = _read(calibration)
    rows = _check(data, model)
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    for values in _runs(model, names, data, rows):
        for name, value in zip(names, values, strict=True):
            if not np.isfinite(value).all():
                raise _mismatch(f"with this data the tensor '{name}' is not finite")
            lows[name] = min(lows.get(name, 0.0), float(value.min(initial=0.0)))
            highs[name] = max(highs.get(name, 0.0), float(value.max(initial=0.0)))
    return {name: Range(-_outward(-lows[name]), _outward(highs[name])) for name in names}


def _outward(bound: float) -> float:
    """The next number of ``_BITS`` significant bits that is not smaller; for bounds >= 0."""
    if bound <= 0:
        return 0.0
    fraction, exponent = math.frexp(bound)
    return math.ldexp(math.ceil(fraction * (1 << _BITS)), exponent - _BITS)


def _read(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name.removeprefix(_PREFIX): archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, AttributeError) as problem:
        raise _mismatch(f"it is no archive of arrays: {first_line(problem)}") from problem


def _check(data: Mapping[str, Array], model: ir.Model) -> int:
    """The number of rows; raises Refused unless every input has as many rows of its shape and type."""
    wanted = {str(value.name): value for value in model.graph.inputs}
    missing = sorted(set(wanted) - set(data))
    if missing:
        raise _mismatch(f"it lacks the input {', '.join(map(repr, missing))}; it holds {', '.join(sorted(data))}")
    counts = {name: len(data[name]) if data[name].ndim else 0 for name in wanted}
    if len(set(counts.values())) != 1:
        raise _mismatch(f"its inputs have different numbers of rows: {counts}")
    rows = next(iter(counts.values()))
    if rows < LEAST_ROWS:
        raise _mismatch(f"it has {rows} rows, at least {LEAST_ROWS} are needed")
    for name, value in wanted.items():
        array = data[name]
        assert value.shape is not None
        assert value.dtype is not None
        shape = [dim if isinstance(dim, int) else "?" for dim in value.shape][1:]
        if list(array.shape[1:]) != shape:
            raise _mismatch(f"its '{name}' has rows of shape {list(array.shape[1:])}, the model takes {shape}")
        if array.dtype != value.dtype.numpy():
            raise _mismatch(f"its '{name}' is {array.dtype}, the model takes {value.dtype.numpy()}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _mismatch(f"its '{name}' holds values that are not finite")
    return rows


def _runs(model: ir.Model, names: tuple[str, ...], data: Mapping[str, Array], rows: int) -> Iterator[list[Array]]:
    """The named tensors for one row after the other, at most MOST_ROWS of them, spread over the whole."""
    session, feeds = _session(model, names), [str(value.name) for value in model.graph.inputs]
    count = min(rows, MOST_ROWS)
    for index in (round(place * (rows - 1) / max(1, count - 1)) for place in range(count)):
        yield session.run(list(names), {name: data[name][index : index + 1] for name in feeds})


def _session(model: ir.Model, names: tuple[str, ...]) -> Any:
    """A session that also gives the named tensors out. Large weights are handed over without a copy."""
    import onnxruntime

    proto, held = _with_outputs(model, names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", "1")
    if held:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in held.values()]
        options.add_external_initializers(list(held), values)
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's errors have no common family
        raise Refused(Refusal.UNREADABLE, f"it cannot be run for calibration: {first_line(problem)}") from problem


def _with_outputs(model: ir.Model, names: tuple[str, ...]) -> tuple[Any, dict[str, Array]]:
    """The graph with the named tensors as outputs, and apart from it the weights that are not in memory yet."""
    lazy = [value for value in model.graph.initializers.values() if isinstance(value.const_value, ir.LazyTensor)]
    tensors = {str(value.name): value.const_value for value in lazy}
    held = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items() if tensor is not None}
    for value in lazy:
        name, array = str(value.name), held[str(value.name)]
        place = ir.ExternalTensor(
            "weights", 0, array.nbytes, ir.DataType.from_numpy(array.dtype), shape=ir.Shape(array.shape), name=name
        )
        value.const_value = place
    proto = ir.to_proto(model)
    for value in lazy:
        value.const_value = tensors[str(value.name)]
    given = {value.name for value in proto.graph.output}
    for name in names:
        if name not in given:
            proto.graph.output.add().name = name
    for value in proto.graph.input:
        value.type.tensor_type.shape.dim[0].ClearField("dim_value")
    return proto, held


def _mismatch(why: str, next: str = _NEXT) -> Refused:
    return Refused(Refusal.CALIBRATION, why, next)
