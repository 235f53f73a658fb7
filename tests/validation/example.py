"""The example model as the tests of this room see it: its package, its policy, and onnxruntime to run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check
from nwmctl.domain.model import CARD_NAME, ModelContract
from nwmctl.domain.policy import FleetRules, Policy
from nwmctl.formats import model_card
from nwmctl.formats.documents import decode_yaml
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.inputs import Golden, read_golden

EXAMPLES = Path(__file__).parents[2] / "examples"
POLICY = EXAMPLES / "nwm-2.5" / "policy.yaml"
MODEL = EXAMPLES / "nwm-2.5" / "model"


def artifact_rules() -> FleetRules:
    """The example's rules for virtual fleets that are about an artifact: without those about two models, or a log."""
    rules = decode_yaml(Policy, POLICY.read_bytes(), POLICY.name).virtual
    elsewhere = {Check.NON_INFERIORITY, Check.LOG_REPLAY}
    return FleetRules(
        {
            platform: {check: rule for check, rule in table.items() if check not in elsewhere}
            for platform, table in rules.platforms.items()
        }
    )


def contract() -> ModelContract:
    return model_card.decode((MODEL / CARD_NAME).read_bytes(), CARD_NAME).contract


def golden(promised: ModelContract) -> Golden:
    return read_golden(MODEL / "golden.npz", promised)


class OnnxSession:
    """A graph through onnxruntime in this process, one thread."""

    def __init__(self, graph: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._names = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))

    @property
    def seconds(self) -> tuple[float, ...]:
        return ()

    def close(self) -> None:
        """Nothing to end: it is no process of its own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
