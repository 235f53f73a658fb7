"""Along recorded drives: what a handful of golden rows cannot show, and what each way of executing is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.evidence import CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.commands import command
from nwmctl.validation.inputs import Golden, read_golden
from nwmctl.validation.negative_control import check_negative_control
from nwmctl.validation.parity import check_parity
from nwmctl.validation.recording import Recording, record
from nwmctl.validation.suite import Pace, Way
from tests.validation import plant

RULE = plant.MARGINS["parity"]


def open_reference() -> plant.FunctionSession:
    return plant.FunctionSession(plant.drive)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record(open_reference, "control", 41, 5)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return read_golden(plant.write_golden(tmp_path_factory.mktemp("open") / "golden.npz"), plant.CONTRACT)


def candidate(build: Callable[[], plant.Drive], pace: Pace = Pace.BATCH) -> Candidate:
    way = Way(Obtained.PROXY, "host twin", pace, lambda: plant.FunctionSession(build()))
    return Candidate(plant.CONTRACT, way)


def parity(
    golden: Golden, recording: Recording | None, build: Callable[[], plant.Drive], pace: Pace = Pace.BATCH
) -> CheckResult:
    with candidate(build, pace) as opened:
        return check_parity(opened, golden, RULE, recording)


def values(result: CheckResult) -> dict[str, float]:
    return {figure.name: figure.value for figure in result.figures}


def late_rows() -> plant.Drive:
    """Asked row by row, answers with the control of the row before."""
    last: list[NDArray[np.float32]] = []

    def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        out = plant.drive(seen)
        control = out["control"].copy()
        for row in range(len(control)):
            last.append(control[row].copy())
            control[row] = last[-2] if len(last) > 1 else last[-1]
        return {**out, "control": control}

    return broken


def test_a_recording_is_a_pure_function_of_its_seed(recording: Recording) -> None:
    again, other = (record(open_reference, "control", seed, 5) for seed in (41, 42))
    np.testing.assert_array_equal(recording.answers["control"], again.answers["control"])
    assert recording.answers["control"].shape == (len(recording.steps), 5, 10, 2)
    assert not np.array_equal(recording.steps[0]["ego"], other.steps[0]["ego"])
    assert recording.rows == recording.live.sum() > 200
    ends = np.diff(recording.live.astype(int), axis=0)
    assert ends.max(initial=0) == 0, "a drive that has ended does not begin again"


@pytest.mark.parametrize("pace", [Pace.BATCH, Pace.ROWS])
def test_the_model_itself_answers_alike_on_every_pace(golden: Golden, recording: Recording, pace: Pace) -> None:
    result = parity(golden, recording, lambda: plant.drive, pace)
    assert result.verdict is Verdict.PASSED
    assert all(abs(value) < 1e-9 for value in values(result).values())
    assert result.seeds == (41,)


@pytest.mark.parametrize(("pace", "build"), [(Pace.BATCH, lambda: plant.delayed()), (Pace.ROWS, late_rows)])
def test_a_control_one_decision_late_is_told_as_that(
    golden: Golden, recording: Recording, pace: Pace, build: Callable[[], plant.Drive]
) -> None:
    result = parity(golden, recording, build, pace)
    assert result.verdict is Verdict.FAILED
    found = values(result)
    assert found["steer.delay_steps"] == pytest.approx(1.0, abs=0.2)
    assert found["accel.delay_steps"] == pytest.approx(1.0, abs=0.2)


def test_a_fault_of_rare_rows_alone_is_a_quantile_and_no_delay(golden: Golden, recording: Recording) -> None:
    def build() -> plant.Drive:
        def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
            out = plant.drive(seen)
            slow = (seen["ego"][:, -1, 0].astype(np.float64) < 6.0)[:, None, None]
            return {**out, "control": out["control"] + np.where(slow, np.float32(0.02), np.float32(0.0))}

        return broken

    found = values(parity(golden, recording, build))
    assert found["steer.p99_abs"] == pytest.approx(0.02, abs=1e-4)
    assert abs(found["steer.delay_steps"]) < 0.05


def test_without_drives_a_delay_is_not_asked(golden: Golden) -> None:
    result = parity(golden, None, lambda: plant.drive)
    assert result.verdict is Verdict.PASSED
    assert not any(name.endswith("delay_steps") for name in values(result))


def test_not_a_number_on_a_drive_fails_although_golden_data_pass(golden: Golden, recording: Recording) -> None:
    def build() -> plant.Drive:
        asked = []

        def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
            out = plant.drive(seen)
            asked.append(len(seen["ego"]))
            control = out["control"].copy()
            if sum(asked) > golden.rows + 20:
                control[0, 0, 0] = np.nan
            return {**out, "control": control}

        return broken

    result = parity(golden, recording, build)
    assert result.verdict is Verdict.FAILED
    assert "control holds values that are not finite" in result.summary
    with candidate(build) as opened:
        opened.run_rows(golden.inputs)
        said = command(opened, recording)
    assert said.fault == "its commands along recorded drives are not all finite"


def test_an_artifact_that_does_not_listen_is_found_along_drives(golden: Golden, recording: Recording) -> None:
    def build() -> plant.Drive:
        def deaf(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
            out = plant.drive(seen)
            if len(seen["ego"]) == 1:  # awake for golden data, asleep on the road
                return out
            return {**out, "control": np.broadcast_to(out["control"][:1], out["control"].shape).copy()}

        return deaf

    with candidate(build) as opened:
        result = check_negative_control(opened, golden, RULE.margins, recording)
    assert result.verdict is Verdict.FAILED
    assert "4 drives from different seeds give the same control throughout" in result.summary
    with candidate(lambda: plant.drive) as opened:
        clean = check_negative_control(opened, golden, RULE.margins, recording)
    assert clean.verdict is Verdict.PASSED
    assert "16 other inputs and 5 drives, other outputs" in clean.summary


def test_commands_hold_every_decision_under_way(recording: Recording) -> None:
    with candidate(plant.scaled(0.5, 1.0), Pace.ROWS) as opened:
        said = command(opened, recording)
    assert not said.fault
    assert [len(drive.speed) for drive in said.drives] == recording.live.sum(axis=0).tolist()
    for drive in said.drives:
        np.testing.assert_allclose(drive.steer, np.array(drive.reference_steer) * 0.5, atol=2e-6)
        assert drive.acceleration == drive.reference_acceleration


def test_a_crash_along_a_drive_is_a_fault_and_no_exception(recording: Recording) -> None:
    def build() -> plant.Drive:
        def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
            raise MemoryError("no room")

        return broken

    with candidate(build) as opened:
        said = command(opened, recording)
    assert "it raised MemoryError" in said.fault
    assert not said.drives
