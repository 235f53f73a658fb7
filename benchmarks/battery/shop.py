"""What artifacts are made from: the example models as their package holds them, lowered, and their calibration data.

An ``Artifact`` is bytes that a runtime executes, and how. Loading is done once per process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.battery.surgery import Graph
from nwmctl.domain.artifact import Precision
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.model import CARD_NAME, ModelCard
from nwmctl.formats import model_card
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder, Scope, lower
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.protocol import Tensors

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL, PREVIOUS = EXAMPLES / "nwm-2.5" / "model", EXAMPLES / "nwm-2.0" / "model"
POLICY = EXAMPLES / "nwm-2.5" / "policy.yaml"
_LIMITS = Limits(120.0)


UNPACK: Mapping[str, int] = {"unpack": 1}


@dataclass(frozen=True, slots=True)
class Artifact:
    """``graph`` for onnxruntime. ``detail`` says what this one realisation is. ``late``: its session gives the answer
    to the question before; ``freezes``: after so many questions it repeats its last answer. ``rows``: it is run at
    batch 1. ``session`` are options of the runtime."""

    graph: bytes
    detail: str = ""
    late: bool = False
    freezes: int = 0
    rows: bool = False
    session: Mapping[str, int] = field(default_factory=dict)


class OnnxSession:
    """A graph through onnxruntime in this process. ``threads`` and ``level`` (of graph optimisation) as given;
    ``unpack`` restores integer weights when the graph is loaded instead of at every run."""

    def __init__(self, graph: bytes, threads: int = 1, level: int = 99, unpack: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_quant_qdq", str(unpack))
        self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._names = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """See ``toolchains.protocol.Session``; the graph's batch is symbolic."""
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))

    def close(self) -> None:
        """Nothing to end: it is no process of its own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OneByOne(OnnxSession):
    """The same at batch 1, as a vehicle runs it."""

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """Row after row."""
        rows = len(next(iter(inputs.values())))
        parts = [super(OneByOne, self).run({n: v[i : i + 1] for n, v in inputs.items()}) for i in range(rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Late(OnnxSession):
    """A runtime that hands out the answer to the question before: a double buffer read on the wrong side."""

    _last: Tensors | None = None

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """The first question, and one with another number of rows, is answered at once."""
        now = super().run(inputs)
        before, self._last = self._last, now
        same = before is not None and all(before[name].shape == values.shape for name, values in now.items())
        return before if before is not None and same else now


class Freezing(OnnxSession):
    """A runtime that repeats its last answer for ever after ``left`` rows."""

    left = 0
    _last: Tensors | None = None

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """Rows are counted one by one, as if each were a decision of a vehicle."""
        now = super().run(inputs)
        rows = len(next(iter(now.values())))
        fresh = min(rows, self.left)
        self.left -= fresh
        if fresh:
            self._last = {name: values[fresh - 1 : fresh] for name, values in now.items()}
        assert self._last is not None
        held = self._last
        return {n: np.concatenate([v[:fresh], np.repeat(held[n], rows - fresh, axis=0)]) for n, v in now.items()}


def open_artifact(artifact: Artifact) -> OnnxSession:
    """Load an artifact into the runtime."""
    if artifact.freezes:
        session = Freezing(artifact.graph, **artifact.session)
        session.left = artifact.freezes
        return session
    kind = Late if artifact.late else OneByOne if artifact.rows else OnnxSession
    return kind(artifact.graph, **artifact.session)


@dataclass(frozen=True, slots=True)
class Shop:
    """The example model and its predecessor, as packaged and lowered."""

    card: ModelCard
    weights: Path
    weights_digest: Digest
    golden: Path
    base: Graph
    halves: Graph
    """Lowered to fp16 around the matrix products, as the toolchain does it."""
    previous: Graph
    calibration: Tensors


@cache
def shop() -> Shop:
    """The material, prepared once per process."""
    weights = MODEL / "model.onnx"
    with np.load(MODEL / "calibration.npz") as held:
        calibration: Tensors = {name.removeprefix("in/"): held[name] for name in held.files}
    return Shop(
        card=model_card.decode((MODEL / CARD_NAME).read_bytes(), CARD_NAME),
        weights=weights,
        weights_digest=digest_bytes(weights.read_bytes()),
        golden=MODEL / "golden.npz",
        base=lowered(weights, Precision.FP32),
        halves=lowered(weights, Precision.FP16),
        previous=lowered(PREVIOUS / "model.onnx", Precision.FP32),
        calibration=calibration,
    )


def lowered(weights: Path, precision: Precision, scope: Scope = Scope.MATMUL) -> Graph:
    """The graph that a compiler gets, its batch symbolic."""
    with tempfile.TemporaryDirectory(prefix="nwmctl-battery-") as scratch:
        return Graph.load(
            lower(GraphFiles(weights), Path(scratch), LoweringOrder(precision, scope, None), _LIMITS).path
        )


def observed(graph: Graph, tensor: str) -> NDArray[np.float32]:
    """What an inner tensor holds on the calibration data."""
    from onnx import TensorProto, helper

    open_graph = graph.copy()
    open_graph.model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    values: NDArray[np.float32] = OnnxSession(open_graph.bytes()).run(shop().calibration)[tensor].astype(np.float32)
    return values
