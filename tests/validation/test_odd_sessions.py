"""Whatever a session returns, the suite ends with results and never with somebody else's exception."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.formats import documents
from nwmctl.validation.figures import LARGEST, against, figure
from nwmctl.validation.suite import Pace, Settings, Way, validate_artifact
from tests.validation import plant

FEW = Settings(plant.RULES, seed=3, scenarios=2, row_scenarios=2, random_inputs=2)

ODD_NUMBERS = st.sampled_from([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 0.0, 0.3])


def replaced(value: Any) -> plant.Drive:
    def broken(seen: Mapping[str, NDArray[np.generic]]) -> Any:
        out: dict[str, Any] = dict(plant.drive(seen))
        out["control"] = value
        return out

    return broken


def filled(number: float, where: int) -> plant.Drive:
    def broken(seen: Mapping[str, NDArray[np.generic]]) -> Any:
        out = plant.drive(seen)
        control = out["control"].copy()
        control.reshape(-1)[where % control.size] = number
        return {**out, "control": control, "outlook": np.full_like(out["outlook"], number)}

    return broken


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


def failed(folder: Path, function: Any) -> set[Check]:
    whole = plant.subject(folder, plant.half_precision)
    way = Way(Obtained.PROXY, "odd", Pace.BATCH, lambda: plant.FunctionSession(function))
    results = validate_artifact(replace(whole, ways=(way,)), FEW, lambda what, share: None)
    # Evidence is canonical JSON, which refuses numbers that are not finite.
    documents.encode(Evidence(whole.weights_digest, whole.weights_digest, "nt2.0", "main", results))
    return {result.check for result in results if result.verdict is Verdict.FAILED}


@pytest.mark.parametrize(
    "answer",
    [None, [], 7, "text", {}, {1: 2}, {"control": None}, {"control": [[1.0]]}, {"control": np.zeros(0, np.float32)}],
)
def test_an_answer_that_is_no_set_of_tensors_fails(folder: Path, answer: Any) -> None:
    assert {Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL, Check.CLOSED_LOOP} <= failed(
        folder, lambda seen: answer
    )


@pytest.mark.parametrize(
    "value",
    [np.zeros((1, 10, 2), np.int32), np.zeros((1, 10, 2), object), np.zeros((2, 1), np.float32), np.array("x")],
)
def test_a_tensor_of_another_kind_fails(folder: Path, value: Any) -> None:
    assert {Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL} <= failed(folder, replaced(value))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=ODD_NUMBERS, where=st.integers(0, 19))
def test_odd_numbers_never_end_the_run_and_bad_ones_fail(folder: Path, number: float, where: int) -> None:
    found = failed(folder, filled(number, where))
    if not np.isfinite(number):
        assert {Check.CONTRACT, Check.PARITY} <= found


def test_what_is_not_a_number_exceeds_every_limit() -> None:
    odd = figure("f", float("nan"), "", Obtained.PROXY)
    assert abs(odd.value) == LARGEST
    assert against({"f": 1e300}, [odd]).exceeded
