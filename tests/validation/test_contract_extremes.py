"""The dynamic half of the contract: named extremes, and what a batch may and may not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.evidence import CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.contract import BATCH_DEVIATION, check_contract
from nwmctl.validation.extremes import named_extremes
from nwmctl.validation.inputs import Golden, read_golden
from nwmctl.validation.suite import Pace, Way
from tests.validation import plant


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return read_golden(plant.write_golden(tmp_path_factory.mktemp("contract") / "golden.npz", 8), plant.CONTRACT)


def candidate(drive: plant.Drive, pace: Pace = Pace.BATCH) -> Candidate:
    return Candidate(plant.CONTRACT, Way(Obtained.PROXY, "twin", pace, lambda: plant.FunctionSession(drive)))


def check(golden: Golden, drive: plant.Drive, pace: Pace = Pace.BATCH) -> CheckResult:
    with candidate(drive, pace) as opened:
        return check_contract(opened, golden, 8, 3)


def broken_where(met: Callable[[Mapping[str, NDArray[np.generic]]], NDArray[np.bool_]]) -> plant.Drive:
    def drive(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        out = plant.drive(seen)
        control = out["control"].copy()
        control[met(seen)] = np.inf
        return {**out, "control": control}

    return drive


def test_the_cases_say_what_they_are_and_change_one_tensor(golden: Golden) -> None:
    names, rows = named_extremes(plant.CONTRACT, golden)
    assert len(names) == len(set(names)) == len(rows["ego"]) > 30
    for wanted in (
        "ego.speed is 0 (lowest)",
        "ego.speed is 45 (highest)",
        "agents.presence is 0 (lowest)",
        "agents.presence is 1 (highest)",
        "agents is all zero",
        "ego stands still",
        "agents stands still",
        "agents.x is 120 (highest)",
    ):
        assert wanted in names
    for index, name in enumerate(names):
        changed = name.split(".")[0].split(" ")[0]
        for tensor, values in rows.items():
            same = np.array_equal(values[index], golden.inputs[tensor][0])
            assert same or tensor == changed
    held = rows["ego"][names.index("ego stands still")]
    assert (held == held[-1]).all()


def test_a_channel_without_limits_goes_farther_than_ever_recorded(golden: Golden) -> None:
    names, rows = named_extremes(plant.CONTRACT, golden)
    [index] = [i for i, name in enumerate(names) if name.startswith("agents.vx") and "highest" in name]
    assert rows["agents"][index, ..., 3].min() > golden.inputs["agents"][..., 3].max()


@pytest.mark.parametrize(
    ("met", "said"),
    [
        (lambda seen: (seen["ego"][:, -1, 0] == 0.0) & (seen["ego"][:, -1, 5] != 0.0), "ego.speed is 0 (lowest)"),
        (
            lambda seen: (seen["agents"][:, :, -1, 0] == 1.0).all(axis=1) & (seen["agents"][:, 0, 0, 1] != 120.0),
            "agents.presence is 1 (highest)",
        ),
        (
            lambda seen: (seen["ego"][:, 0] == seen["ego"][:, -1]).all(axis=1) & (seen["ego"][:, -1, 0] != 0.0),
            "ego stands still",
        ),
    ],
)
def test_an_infinity_on_a_rare_input_is_found_and_the_input_is_named(
    golden: Golden, met: Callable[[Mapping[str, NDArray[np.generic]]], NDArray[np.bool_]], said: str
) -> None:
    result = check(golden, broken_where(met))
    assert result.verdict is Verdict.FAILED
    assert "output values are not finite" in result.summary
    assert said in result.summary


def test_a_batch_is_compared_with_its_rows_alone(golden: Golden) -> None:
    result = check(golden, plant.drive)
    value = {figure.name: figure.value for figure in result.figures}
    assert result.verdict is Verdict.PASSED
    assert value[BATCH_DEVIATION] < 1e-6
    rows = check(golden, plant.drive, Pace.ROWS)
    assert BATCH_DEVIATION not in {figure.name for figure in rows.figures}, "such a way has no batches"


def normalised_over_the_batch(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
    """As a graph that was exported in training mode, or quantised with scales of the moment."""
    out = plant.drive(seen)
    control = out["control"].astype(np.float64)
    usual = control.mean(axis=0) if len(control) > 1 else np.zeros(control.shape[1:])
    return {**out, "control": (control - usual).astype(np.float32)}


def depends_on_order(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
    out = plant.drive(seen)
    return {**out, "control": np.maximum.accumulate(out["control"], axis=0)}


@pytest.mark.parametrize("drive", [normalised_over_the_batch, depends_on_order])
def test_an_artifact_that_answers_otherwise_in_a_batch_is_asked_row_by_row(golden: Golden, drive: plant.Drive) -> None:
    with candidate(drive) as opened:
        result = check_contract(opened, golden, 8, 3)
        together = opened.run(golden.inputs)["control"]
    assert result.verdict is Verdict.PASSED, "a vehicle asks one row at a time, and these rows are right"
    assert "it answers otherwise in a batch" in result.summary
    np.testing.assert_array_equal(together, plant.drive(golden.inputs)["control"])


def test_a_crash_in_a_batch_alone_fails(golden: Golden, tmp_path: Path) -> None:
    def drive(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        if len(seen["ego"]) > 1:
            raise RuntimeError("only one row at a time")
        return plant.drive(seen)

    result = check(golden, drive)
    assert result.verdict is Verdict.FAILED
    assert "only one row at a time" in result.summary
