"""Write a trained network as ONNX: opset 17, any batch "B", float32 in SI units, one file, no paths in it.

Invariant: the exported graph is checked, and its outputs agree with the network's on real observations before a byte
is kept. What the tensors mean is written down in ``contract``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch

from examples.training.contract import contract
from examples.training.network import Driver

INPUTS: Final = ("ego", "agents", "route")
OUTPUTS: Final = ("control", "trajectory", "next_agents", "next_ego")
_AGREE: Final = 2.0e-4

Tensors = dict[str, npt.NDArray[np.float32]]


def session(model: bytes) -> ort.InferenceSession:
    """A single-threaded CPU session."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs(model: ort.InferenceSession, observation: Mapping[str, npt.NDArray[np.float32]]) -> Tensors:
    """All outputs for a batch, by name."""
    found = model.run(list(OUTPUTS), {name: observation[name] for name in INPUTS})
    return dict(zip(OUTPUTS, found, strict=True))


def export(model: Driver, observation: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """The ONNX file's bytes, proven on ``observation`` (a batch of real ones). Raises ValueError where they differ."""
    model = model.eval()
    given = tuple(torch.from_numpy(np.ascontiguousarray(observation[name])) for name in INPUTS)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "model.onnx"
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model, given, str(file), input_names=list(INPUTS), output_names=list(OUTPUTS), opset_version=17,
            dynamo=False, dynamic_axes={name: {0: "B"} for name in INPUTS + OUTPUTS},
        )  # fmt: skip
        graph = onnx.load(str(file))
    for node in graph.graph.node:
        node.doc_string = ""
    for tensor in graph.graph.output:
        shape = next(spec.shape for spec in contract().outputs if spec.name == tensor.name)
        tensor.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, onnx.TensorProto.FLOAT, shape))
    onnx.checker.check_model(graph, full_check=True)
    data: bytes = graph.SerializeToString(deterministic=True)
    with torch.inference_mode():
        expected = dict(zip(OUTPUTS, (t.numpy() for t in model(*given)), strict=True))
    for name, values in outputs(session(data), observation).items():
        worst = float(np.abs(values - expected[name]).max())
        if worst > _AGREE:
            raise ValueError(f"the exported {name} differs from the network's by {worst}")
    return data
