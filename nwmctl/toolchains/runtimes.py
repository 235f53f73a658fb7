"""How each runtime loads a payload and executes it, in the worker's process: one thread, and no network.

A loaded payload takes tensors and gives tensors and the seconds of each execution: from the moment when the inputs lie
there as arrays until the outputs do. Where a payload is built for one row, rows go one after the other through buffers
that are made once. What is set here holds for every artifact of a runtime; what is an artifact's own comes with its
manifest as flags. Imports a runtime only when it is asked for.
"""

from __future__ import annotations

import mmap
import sys
import tarfile
import time  # the only clock that can tell a runtime's time is the one in its process
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import Port
from nwmctl.toolchains.lowering import ENTRY
from nwmctl.toolchains.protocol import Tensors

Loaded = Callable[[Tensors], tuple[Tensors, list[float]]]
HINT_FLAG: Final = "--inference-precision-hint="
"""What an OpenVINO payload must be compiled with; without it the runtime chooses by the processor, silently."""
IR_XML, IR_BIN = "model.xml", "model.bin"
_now = time.perf_counter


@dataclass(frozen=True, slots=True)
class Order:
    """What the worker is to load."""

    runtime: str
    payload: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    flags: tuple[str, ...]

    @staticmethod
    def read(value: Mapping[str, Any]) -> Order:
        """Out of the session's JSON."""
        inputs, outputs = (
            tuple(Port(p["name"], p["dtype"], tuple(p["shape"])) for p in value[side]) for side in ("inputs", "outputs")
        )
        return Order(value["runtime"], value["payload"], inputs, outputs, tuple(value["flags"]))

    @property
    def single(self) -> bool:
        """Built for one row."""
        return all(port.shape and port.shape[0] == 1 for port in self.inputs)

    def flag(self, prefix: str) -> str:
        """The value of a flag, '' where there is none."""
        return next((flag.removeprefix(prefix) for flag in self.flags if flag.startswith(prefix)), "")


def _iree(order: Order) -> Loaded:
    """Batch-1 modules. The runtime gives its own arrays; they are copied out."""
    import iree.runtime as runtime

    # Synchronous on this thread: with one thread a task queue only adds waiting.
    module = runtime.load_vm_flatbuffer_file(order.payload, driver="local-sync")
    function = module[ENTRY]
    names = [port.name for port in order.inputs]

    def once(inputs: Tensors) -> list[NDArray[Any]]:
        result = function(*(np.ascontiguousarray(inputs[name]) for name in names))
        return [each.to_host() for each in (result if isinstance(result, (tuple, list)) else (result,))]

    return _row_by_row(order, once)


def _onnxruntime(order: Order) -> Loaded:
    """Whole batches in one call; a single row through bound buffers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(order.payload, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in order.outputs]
    once = _bound(onnxruntime, session, order)
    if order.single:
        return _row_by_row(order, once)

    def run(inputs: Tensors) -> tuple[Tensors, list[float]]:
        begun = _now()
        alone = once is not None and len(next(iter(inputs.values()))) == 1
        outputs = once(inputs) if alone else session.run(names, inputs)
        return dict(zip(names, outputs, strict=True)), [_now() - begun]

    return run


def _bound(onnxruntime: Any, session: Any, order: Order) -> Callable[[Tensors], list[NDArray[Any]]]:
    """One row through buffers that the session knows already."""
    inputs, outputs = (_buffers(ports) for ports in (order.inputs, order.outputs))
    binding = session.io_binding()
    for name, buffer in inputs.items():
        binding.bind_cpu_input(name, buffer)
    for name, buffer in outputs.items():
        binding.bind_output(name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)

    def once(given: Tensors) -> list[NDArray[Any]]:
        for name, buffer in inputs.items():
            np.copyto(buffer, given[name], casting="no")
        session.run_with_iobinding(binding)
        return [buffer.copy() for buffer in outputs.values()]

    return once


def _openvino(order: Order) -> Loaded:
    """Batch-1 models through bound buffers. The precision hint comes with the manifest."""
    openvino = silent_openvino()
    hint = order.flag(HINT_FLAG)
    if not hint:
        raise ValueError("the manifest names no precision hint, and without one the runtime would choose by itself")
    core = openvino.Core()
    text, weights = _ir(order.payload)
    model = core.read_model(text, openvino.Tensor(weights, shared_memory=True))
    request = compile_model(core, model, hint).create_infer_request()
    inputs = _buffers(order.inputs)
    for name, buffer in inputs.items():
        request.set_tensor(name, openvino.Tensor(buffer, shared_memory=True))
    made = [request.get_tensor(port.name) for port in order.outputs]

    def once(given: Tensors, _held: NDArray[np.uint8] = weights) -> list[NDArray[Any]]:
        # The weights are held here because nothing else holds them: OpenVINO keeps a pointer only.
        for name, buffer in inputs.items():
            np.copyto(buffer, given[name], casting="no")
        # In this thread (a started request waits for another one to wake), and without looking at the inputs again.
        request.infer(None, share_inputs=True, share_outputs=True)
        return [tensor.data.copy() for tensor in made]

    return _row_by_row(order, once)


def silent_openvino() -> Any:
    """The package, without the part of it that reports to its maker: importing it would load that part too."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


def compile_model(core: Any, model: Any, hint: str) -> Any:
    """An OpenVINO model for this processor: one thread, and the precision that is asked for, not the fastest one."""
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        # Every process would pin its thread to the same first core.
        "ENABLE_CPU_PINNING": False,
        # Off: it would quantise activations of weights-only graphs, which nobody asked for.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    return core.compile_model(model, "CPU", settings)


def _ir(payload: str) -> tuple[bytes, NDArray[np.uint8]]:
    """The description and the weights out of the payload; the weights stay in the file until they are read."""
    with tarfile.open(payload, "r:") as archive:
        described = archive.extractfile(IR_XML)
        weights = archive.getmember(IR_BIN)
        assert described is not None
        text = described.read()
    with open(payload, "rb") as file:
        # A private copy on write: OpenVINO takes no read-only memory, and writes none of it.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return text, np.frombuffer(mapped, np.uint8, weights.size, weights.offset_data)


def _buffers(ports: tuple[Port, ...]) -> dict[str, NDArray[Any]]:
    """An array for one row of each port."""
    return {port.name: np.zeros((1, *(int(size) for size in port.shape[1:])), port.dtype) for port in ports}


def _row_by_row(order: Order, once: Callable[[Tensors], list[NDArray[Any]]]) -> Loaded:
    names = [port.name for port in order.outputs]

    def run(inputs: Tensors) -> tuple[Tensors, list[float]]:
        rows, seconds = [], []
        for row in range(len(inputs[order.inputs[0].name])):
            given = {name: values[row : row + 1] for name, values in inputs.items()}
            begun = _now()
            rows.append(once(given))
            seconds.append(_now() - begun)
        return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(names)}, seconds

    return run


LOADERS: Final[Mapping[str, Callable[[Order], Loaded]]] = {
    "iree": _iree,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
