"""Log replay: the example model against itself and against what is broken in it, on drives that it never saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.policy import Rule
from nwmctl.driving.scenarios import paired
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.judges.log_replay import RATE, SHIFT, _Events, apart, check_log_replay
from nwmctl.validation.judges.poisson import below, count_interval, rate_interval, settled_by, shift_interval
from nwmctl.validation.judges.record import record_expert
from nwmctl.validation.subject import Pace, Way
from tests.validation.example import MODEL, OnnxSession, contract

CONTRACT = contract()
DRIVES, SEED = 40, 9_300_000
MARGINS = {RATE: 1.0, SHIFT: 2.0}
"""40 drives are 4 km: a figure without an event lies below 0.9 per km with 95 % confidence."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "drives.parquet"
    record_expert(path, CONTRACT, paired(DRIVES, SEED))
    return path


def reference() -> OnnxSession:
    return OnnxSession((MODEL / "model.onnx").read_bytes())


Spoil = Callable[[NDArray[np.float32]], None]
Blinding = Callable[[Mapping[str, NDArray[np.generic]]], Tensors]


class Spoilt(OnnxSession):
    """The model with something wrong in its control [B,10,2]."""

    def __init__(
        self, spoil: Spoil, inputs: Callable[[Mapping[str, NDArray[np.generic]]], Tensors] | None = None
    ) -> None:
        super().__init__((MODEL / "model.onnx").read_bytes())
        self._spoil, self._inputs = spoil, inputs

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        answer = super().run(self._inputs(inputs) if self._inputs else inputs)
        control = np.array(answer["control"], np.float32)
        self._spoil(control)
        return {**answer, "control": control}


def as_it_is(control: NDArray[np.float32]) -> None:
    """Nothing wrong."""


def brakes_at_70(control: NDArray[np.float32]) -> None:
    control[..., 1] *= np.where(control[..., 1] < 0, 0.7, 1.0)


def biased(control: NDArray[np.float32]) -> None:
    control[..., 0] += 0.01


def flipped(control: NDArray[np.float32]) -> None:
    control[..., 0] *= -1


def rounded(control: NDArray[np.float32]) -> None:
    control[:] = control.astype(np.float16)


def nan_now_and_then(control: NDArray[np.float32]) -> None:
    control[::50, 0, 0] = np.nan


def mirrored(inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
    agents = np.array(inputs["agents"], np.float32)
    agents[..., [2, 4, 5]] *= -1
    return {**inputs, "agents": agents}


def judged(
    log: Path, session: Callable[[], OnnxSession], margins: dict[str, float] | None = None,
    strongest: Obtained = Obtained.MEASURED,
) -> CheckResult:  # fmt: skip
    way = Way(Obtained.PROXY, "in a test", Pace.BATCH, session)
    rule = Rule(Obtained.PROXY, margins=MARGINS if margins is None else margins)
    with Candidate(CONTRACT, way) as candidate:
        return check_log_replay(candidate, reference, log, rule, name="drives", strongest=strongest)


def figures(result: CheckResult) -> dict[str, float]:
    return {figure.name: figure.value for figure in result.figures}


@pytest.mark.parametrize("spoil", [as_it_is, rounded])
def test_the_same_model_passes(log: Path, spoil: Spoil) -> None:
    result = judged(log, lambda: Spoilt(spoil))
    assert result.verdict is Verdict.PASSED, result.summary
    assert figures(result)[RATE] == 0
    assert (result.check, result.judge, result.obtained) == (Check.LOG_REPLAY, "", Obtained.PROXY)
    assert f"{DRIVES} drives" in result.summary
    assert 3.5 < figures(result)["kilometres"] < 6
    rate = next(figure for figure in result.figures if figure.name == RATE)
    assert (rate.low, rate.limit) == (0, 1.0)
    assert rate.high == pytest.approx(3.689 / figures(result)["kilometres"], rel=1e-3)


@pytest.mark.parametrize("spoil", [brakes_at_70, biased, flipped])
def test_a_broken_model_fails(log: Path, spoil: Spoil) -> None:
    result = judged(log, lambda: Spoilt(spoil))
    assert result.verdict is Verdict.FAILED, result.summary
    assert RATE in result.summary


def test_a_model_with_mirrored_traffic_does_not_pass(log: Path) -> None:
    assert judged(log, lambda: Spoilt(as_it_is, mirrored)).verdict is not Verdict.PASSED


def test_the_paired_difference_alone_sees_weak_brakes(log: Path) -> None:
    result = judged(log, lambda: Spoilt(brakes_at_70), {SHIFT: 2.0})
    assert result.verdict is not Verdict.PASSED
    both = figures(result)
    assert abs(both["candidate_against_driver_per_km"] - both["reference_against_driver_per_km"]) < both[SHIFT]


def test_nan_fails_whatever_the_margins(log: Path) -> None:
    result = judged(log, lambda: Spoilt(nan_now_and_then), {RATE: 1e6})
    assert result.verdict is Verdict.FAILED
    assert "not finite" in result.summary


def test_too_few_kilometres_are_inconclusive_and_say_how_many_would_do(log: Path) -> None:
    result = judged(log, lambda: Spoilt(as_it_is), {RATE: 0.1})
    assert result.verdict is Verdict.INCONCLUSIVE
    km = int(result.next.split("about ")[1].split(" km")[0])
    assert 36 <= km <= 42
    assert rate_interval(0, km).most <= 0.1


@pytest.mark.parametrize(("margins", "said"), [({}, "names no margin"), ({"smoothness": 1.0}, "does not measure")])
def test_margins_that_settle_nothing(log: Path, margins: dict[str, float], said: str) -> None:
    result = judged(log, lambda: Spoilt(as_it_is), margins)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert said in result.summary


def test_a_log_is_worth_what_the_policy_says_and_no_more(log: Path) -> None:
    assert judged(log, lambda: Spoilt(as_it_is), strongest=Obtained.ESTIMATED).obtained is Obtained.ESTIMATED


def test_a_bad_log_fails_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"PAR1 nothing PAR1")
    result = judged(tmp_path / "log", lambda: Spoilt(as_it_is))
    assert result.verdict is Verdict.FAILED
    assert "the drive log cannot be read" in result.summary
    assert result.next


def test_an_artifact_that_crashes_fails(log: Path) -> None:
    def crash(control: NDArray[np.float32]) -> None:
        raise RuntimeError("out of luck")

    result = judged(log, lambda: Spoilt(crash))
    assert result.verdict is Verdict.FAILED
    assert "out of luck" in result.summary


def test_without_pyarrow_it_is_not_run(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    result = judged(log, lambda: Spoilt(as_it_is))
    assert result.verdict is Verdict.NOT_RUN
    assert "nwmctl[logs]" in result.next


def test_a_run_of_steps_is_one_event_in_any_parts() -> None:
    drives = tuple("aaaaaabbbb")
    flags = np.array([0, 1, 1, 0, 1, 1, 1, 0, 0, 1], bool)
    for size in (1, 2, 3, 10):
        events = _Events()
        for start in range(0, 10, size):
            events.add(drives[start : start + size], flags[start : start + size])
        assert events.count == 4


def test_disagreement_is_half_a_metre_per_second_squared() -> None:
    speed = np.array([10.0, 10.0, 10.0, 0.0, 10.0])
    one = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [np.nan, 0.0]])
    steer = math.atan(0.51 * 2.8 / 100)
    other = np.array([[0.0, 0.49], [0.0, 0.51], [steer, 0.0], [0.5, 0.0], [0.0, 0.0]])
    assert apart(one, other, speed, 2.8).tolist() == [False, True, True, False, True]


# --- Poisson ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0.0, 3.68888), (1, 0.02532, 5.57164), (5, 1.62349, 11.66833), (10, 4.79539, 18.39036), (100, 81.36, 121.63)],
)
def test_intervals_are_garwoods(count: int, low: float, high: float) -> None:
    """Reference values: half the chi-squared quantiles, as printed in tables."""
    found = count_interval(count)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400))
def test_intervals_cut_off_their_tails(count: int) -> None:
    found = count_interval(count)
    assert found.low <= count <= found.high
    assert below(count, found.high) == pytest.approx(0.025, rel=0.02)
    if count:
        assert 1 - below(count - 1, found.low) == pytest.approx(0.025, rel=0.02)


def test_intervals_cover_what_they_promise() -> None:
    dice = np.random.default_rng(5)
    for mean in (0.5, 3.0, 20.0):
        drawn = dice.poisson(mean, 2000)
        covered = np.mean([count_interval(int(n)).low <= mean <= count_interval(int(n)).high for n in drawn])
        assert covered >= 0.95


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.5, 50), st.floats(0.05, 20))
def test_the_kilometres_that_are_named_would_settle_it(more: int, less: int, km: float, limit: float) -> None:
    way = settled_by(more, less, km, limit)
    if way is None:
        return
    found = (
        shift_interval(round(more * way / km), round(less * way / km), way)
        if less
        else rate_interval(round(more * way / km), way)
    )
    slack = 3.7 / way  # whole events: one more or less may fall into the rounding
    assert found.most <= limit + slack or found.least > limit - slack
