"""The peers of the host benchmark, each as its users would run it, one thread, in a process of its own.

``python -m benchmarks.host_peers ORDER`` speaks the worker's language (see ``nwmctl.toolchains.worker``), so that peers
are asked and timed exactly as artifacts are: from the moment when the inputs lie there as arrays until the outputs do.
onnxruntime and OpenVINO load the model as it was trained, with their own defaults: whatever precision they choose.
torch runs the same weights, eagerly or compiled by Inductor.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import Port
from nwmctl.toolchains import worker
from nwmctl.toolchains.process import Command, Limits, MemoryLimit, own_path, python_module
from nwmctl.toolchains.protocol import Tensors
from nwmctl.toolchains.runtimes import Loaded, Order, silent_openvino
from nwmctl.toolchains.sessions import WorkerSession

ORT, OPENVINO, EAGER, COMPILED = "onnxruntime default", "OpenVINO default", "torch eager", "torch.compile"
PEERS = (ORT, OPENVINO, EAGER, COMPILED)
"""IREE is a peer too; its artifact comes from its driver."""


def open_peer(name: str, model: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> WorkerSession:
    """Load ``model`` through a peer. Raises ToolchainError subclasses where it does not load."""
    order = {
        "runtime": name,
        "payload": str(model.resolve()),
        "inputs": [{"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in inputs],
        "outputs": [{"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in outputs],
        "flags": [],
    }
    command = Command(
        f"the peer {name}",
        python_module("benchmarks.host_peers", json.dumps(order)),
        Path(tempfile.mkdtemp(prefix="nwmctl-peer-")),
        Limits(memory=MemoryLimit.DATA),
        own_path(),
    )
    return WorkerSession(command, inputs, outputs, timeout_s=1200.0)


def absent(name: str) -> str:
    """Why a peer cannot be measured here; '' if it can."""
    if name == COMPILED and not any(shutil.which(each) for each in ("c++", "g++", "clang++")):
        return "no C++ compiler here"
    return ""


def _timed(names: list[str], once: Callable[[Tensors], list[NDArray[Any]]]) -> Loaded:
    def run(inputs: Tensors) -> tuple[Tensors, list[float]]:
        begun = time.perf_counter()
        outputs = once(inputs)
        return dict(zip(names, outputs, strict=True)), [time.perf_counter() - begun]

    return run


def _onnxruntime(order: Order) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(order.payload, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in order.outputs]
    return _timed(names, lambda given: session.run(names, given))


def _openvino(order: Order) -> Loaded:
    openvino = silent_openvino()
    model = openvino.Core().read_model(order.payload)
    model.reshape({port.name: [1, *port.shape[1:]] for port in order.inputs})
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
    names = [port.name for port in order.outputs]

    def once(given: Tensors) -> list[NDArray[Any]]:
        found = compiled(given)
        return [np.array(found[name]) for name in names]

    return _timed(names, once)


def _torch(order: Order, *, compiled: bool) -> Loaded:
    import torch

    # Inductor starts its compiler in another folder, where the worker's relative one leads nowhere.
    tempfile.tempdir = os.environ["TMPDIR"] = str(Path.cwd())
    torch.set_num_threads(1)
    network = _network(Path(order.payload))
    function = torch.compile(network) if compiled else network
    inputs, outputs = [port.name for port in order.inputs], [port.name for port in order.outputs]

    def once(given: Tensors) -> list[NDArray[Any]]:
        with torch.inference_mode():
            return [each.numpy() for each in function(*(torch.from_numpy(given[name]) for name in inputs))]

    return _timed(outputs, once)


def _network(model: Path) -> Any:
    """The generated model, or the example model."""
    import onnx

    held = {value.name for value in onnx.load(str(model)).graph.initializer}
    if "queries" in held:
        from benchmarks.model_torch import load

        return load(model)
    return _example(model)


def _example(model: Path) -> Any:
    """The example network with the weights of its ONNX file: the exporter keeps the modules' names on the nodes, and
    transposes the weights of a product that is not a Gemm."""
    import onnx
    import torch
    from onnx import numpy_helper

    from examples.training.network import Driver

    graph = onnx.load(str(model)).graph
    held = {each.name: numpy_helper.to_array(each).copy() for each in graph.initializer}
    state = {name: held[name] for name in held if "::" not in name}
    by_name = {node.name: node for node in graph.node}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1].startswith("onnx::"):
            path = ".".join(node.name.strip("/").split("/")[:-1])
            # Modules in a list are named twice: once for the list, once for themselves.
            parts = path.split(".")
            state[f"{'.'.join(parts[1:] if parts[:1] == parts[1:2] else parts)}.weight"] = held[node.input[1]].T
    kinds = [
        held[next(i for i in by_name[name].input if i.startswith("onnx::"))] for name in ("/Add", "/Add_1", "/Add_2")
    ]
    state["kind"] = np.concatenate([each.reshape(-1, each.shape[-1]) for each in kinds])
    network = Driver()
    network.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in state.items()})
    return network.eval()


LOADERS: dict[str, Callable[[Order], Loaded]] = {
    ORT: _onnxruntime,
    OPENVINO: _openvino,
    EAGER: lambda order: _torch(order, compiled=False),
    COMPILED: lambda order: _torch(order, compiled=True),
}

if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], LOADERS))
