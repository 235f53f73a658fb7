"""The example model, its policy and real lowered graphs: clean ones pass, ones with damaged weights do not.

Every artifact here is a real ONNX graph made from the model's own, run by onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.policy import judge
from nwmctl.validation.suite import Pace, Settings, StepCost, Subject, Way, validate_artifact
from tests.validation import plant
from tests.validation.example import MODEL, OnnxSession, artifact_rules, contract

Change = Callable[[str, NDArray[np.float32]], NDArray[np.float32]]
RULES = artifact_rules()


def with_weights(change: Change) -> bytes:
    """The model's graph with its large weights changed."""
    import onnx

    model = onnx.load(str(MODEL / "model.onnx"))
    for value in model.graph.initializer:
        weights = onnx.numpy_helper.to_array(value)
        if weights.dtype == np.float32 and weights.ndim == 2 and min(weights.shape) > 8:
            value.CopyFrom(onnx.numpy_helper.from_array(change(value.name, weights).astype(np.float32), value.name))
    return bytes(model.SerializeToString())


def bf16(name: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    bits = weights.copy().view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def int8(name: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    step = np.abs(weights).max(axis=0, keepdims=True) / 127.0 + 1e-12
    return np.asarray(np.rint(weights / step) * step)


def int4(name: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    step = np.abs(weights).max() / 7.0
    return np.asarray(np.rint(weights / step) * step)


def noisy(name: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    return weights * (1.0 + 0.03 * np.random.default_rng(1).normal(size=weights.shape))


def half_precision() -> bytes:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(str(MODEL / "model.onnx")), keep_io_types=True)
    return bytes(model.SerializeToString())


def validate(graph: bytes, scenarios: int = 100) -> tuple[CheckResult, ...]:
    profile = plant.profile()
    weights = MODEL / "model.onnx"
    subject = Subject(
        contract=contract(),
        weights=weights,
        weights_digest=digest_bytes(weights.read_bytes()),
        golden=MODEL / "golden.npz",
        manifest=plant.manifest(recipe=Recipe("iree", Precision.FP32)),
        profile=profile,
        build=profile.variants[0].builds[0],
        reference=lambda: OnnxSession(weights.read_bytes()),
        ways=(Way(Obtained.PROXY, "lowered graph through onnxruntime", Pace.BATCH, lambda: OnnxSession(graph)),),
        cost=StepCost(2_700_000, 400_000, 20_000_000),
        vehicles=(plant.vehicle(),),
    )
    return validate_artifact(subject, Settings(RULES, scenarios=scenarios), lambda what, share: None)


@pytest.mark.parametrize(
    ("graph", "scenarios"),
    [
        (half_precision, 50),
        (lambda: with_weights(bf16), 50),
        pytest.param(lambda: with_weights(int8), 100, marks=pytest.mark.long),
    ],
)
def test_clean_precisions_satisfy_the_example_policy(graph: Callable[[], bytes], scenarios: int) -> None:
    results = validate(graph(), scenarios)
    evidence = Evidence(digest_bytes(b"m"), digest_bytes(b"a"), "nt2.0", "main", results)
    assert {short.check for short in judge(RULES, [evidence])} == {Check.REBUILD}, "a step of its own builds again"


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        (int4, {Check.PARITY, Check.CLOSED_LOOP}),
        (noisy, {Check.PARITY}),
    ],
)
def test_damaged_weights_are_caught(change: Change, caught: set[Check]) -> None:
    results = validate(with_weights(change), scenarios=40)
    failed = {result.check for result in results if result.verdict is Verdict.FAILED}
    assert caught <= failed, [f"{result.check}: {result.summary}" for result in results]


def test_the_model_itself_has_no_error_at_all() -> None:
    results = validate((MODEL / "model.onnx").read_bytes(), scenarios=40)
    parity = next(result for result in results if result.check is Check.PARITY)
    assert {figure.value for figure in parity.figures if figure.name.endswith(".max_abs")} == {0.0}
