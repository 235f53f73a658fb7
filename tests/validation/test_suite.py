"""What cannot run is not run, with its reason; what is wrong with the inputs is raised; progress is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.policy import FleetRules, Rule
from nwmctl.errors import GoldenDataError, MissingError, ToolchainError
from nwmctl.toolchains.protocol import Session, Tensors
from nwmctl.validation.drives import ModelDrives
from nwmctl.validation.suite import Pace, Settings, Subject, Unreachable, Way, validate_artifact
from tests.validation import plant

FEW = Settings(plant.RULES, seed=3, scenarios=10, row_scenarios=10, random_inputs=4)


def quiet(what: str, share: float) -> None:
    """Progress that nobody watches."""


def of(results: tuple[CheckResult, ...], check: Check) -> list[CheckResult]:
    return [result for result in results if result.check is check]


@pytest.fixture
def clean(tmp_path: Path) -> Subject:
    return plant.subject(tmp_path, plant.half_precision)


def test_every_check_is_reported_in_order(clean: Subject) -> None:
    results = validate_artifact(clean, FEW, quiet)
    others = (Check.LOG_REPLAY, Check.REBUILD)  # steps of their own
    assert [result.check for result in results] == [check for check in Check if check not in others]


def test_too_few_scenarios_are_inconclusive_and_say_how_many_would_do(clean: Subject) -> None:
    result = of(validate_artifact(clean, FEW, quiet), Check.CLOSED_LOOP)[0]
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "failure_rate_shift 0 [-0.308, 0.308], at most 0.15 is allowed" in result.summary
    assert result.next.startswith("about ")
    needed = int(result.next.split()[1])
    enough = validate_artifact(clean, replace(FEW, scenarios=needed), quiet)
    assert of(enough, Check.CLOSED_LOOP)[0].verdict is Verdict.PASSED


def test_rules_without_margins_settle_nothing(clean: Subject) -> None:
    bare = FleetRules({"*": {"parity": Rule(Obtained.PROXY), "closed_loop": Rule(Obtained.PROXY)}})
    results = validate_artifact(clean, replace(FEW, rules=bare), quiet)
    for check in (Check.PARITY, Check.CLOSED_LOOP):
        result = of(results, check)[0]
        assert result.verdict is Verdict.INCONCLUSIVE
        assert "names no margin" in result.summary
        assert result.figures


def test_checks_that_the_policy_does_not_ask_for_are_not_run(clean: Subject) -> None:
    results = validate_artifact(clean, replace(FEW, rules=FleetRules({})), quiet)
    for check in (Check.PARITY, Check.CLOSED_LOOP):
        assert of(results, check)[0].verdict is Verdict.NOT_RUN
        assert "no rule" in of(results, check)[0].summary


def test_a_margin_for_a_figure_that_does_not_exist_never_passes(clean: Subject) -> None:
    odd = {"*": {check: replace(rule, margins={**rule.margins, "horn": 1.0}) for check, rule in plant.MARGINS.items()}}
    results = validate_artifact(clean, replace(FEW, rules=FleetRules(odd)), quiet)
    for check in (Check.PARITY, Check.CLOSED_LOOP):
        assert of(results, check)[0].verdict is Verdict.INCONCLUSIVE
        assert "horn" in of(results, check)[0].summary


def test_a_margin_so_wide_that_swapped_rows_pass_fails_the_negative_control(clean: Subject) -> None:
    wide = {"*": {"parity": Rule(Obtained.PROXY, margins={"steer.max_abs": 1.1})}}
    result = of(validate_artifact(clean, replace(FEW, rules=FleetRules(wide)), quiet), Check.NEGATIVE_CONTROL)[0]
    assert result.verdict is Verdict.FAILED
    assert "parity proves nothing" in result.summary


def test_ways_that_are_missing_or_out_of_reach_are_not_run_with_their_reason(clean: Subject) -> None:
    def missing() -> Session:
        raise MissingError(
            "qemu is not installed", why="qemu-aarch64-static is not on the path", next="apt-get install it"
        )

    emulated = Way(Obtained.EMULATED, "under emulation", Pace.CRAWL, missing)
    bench = Unreachable("bench", "no Orin X is within reach", "register a bench")
    results = validate_artifact(replace(clean, ways=(*clean.ways, emulated), unreachable=(bench,)), FEW, quiet)
    parity = of(results, Check.PARITY)
    assert [result.verdict for result in parity] == [Verdict.PASSED, Verdict.NOT_RUN, Verdict.NOT_RUN]
    assert "qemu is not installed" in parity[1].summary
    assert parity[1].next == "apt-get install it"
    assert parity[2].summary == "bench: no Orin X is within reach"
    assert [result.verdict for result in of(results, Check.CONTRACT)] == [Verdict.PASSED, Verdict.NOT_RUN]


def test_an_artifact_that_nothing_here_can_run_is_not_passed(clean: Subject) -> None:
    results = validate_artifact(replace(clean, ways=()), FEW, quiet)
    executing = (Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL, Check.CLOSED_LOOP, Check.LATENCY)
    for check in executing:
        assert [result.verdict for result in of(results, check)] == [Verdict.NOT_RUN]


def test_a_graph_that_breaks_the_contract_fails_before_anything_runs(clean: Subject) -> None:
    first = clean.contract.inputs[0]
    shorter = replace(clean.contract, inputs=(replace(first, shape=("B", 5, 6)), *clean.contract.inputs[1:]))
    plant.write_graph(clean.weights, shorter)
    result = of(validate_artifact(clean, FEW, quiet), Check.CONTRACT)[0]
    assert result.verdict is Verdict.FAILED
    assert "input 'ego' is float32[B,5,6] in the graph, the contract says float32[B,4,6]" in result.summary


def test_damaged_golden_data_and_a_broken_reference_are_raised(clean: Subject) -> None:
    def broken(seen: Mapping[str, NDArray[np.generic]]) -> Tensors:
        raise ToolchainError("the reference crashed", why="it did", next="reinstall onnxruntime")

    odd = replace(clean, reference=lambda: plant.FunctionSession(broken), drives=ModelDrives())
    with pytest.raises(ToolchainError, match="the reference crashed"):
        validate_artifact(odd, replace(FEW, seed=4), quiet)
    clean.golden.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(GoldenDataError):
        validate_artifact(clean, FEW, quiet)


def test_sessions_are_opened_once_and_closed(clean: Subject) -> None:
    opened: list[plant.FunctionSession] = []

    def open_() -> Session:
        opened.append(plant.FunctionSession(plant.half_precision()))
        return opened[-1]

    validate_artifact(replace(clean, ways=(replace(clean.ways[0], open=open_),)), FEW, quiet)
    assert [session.closed for session in opened] == [1]


def test_progress_rises_to_one(clean: Subject) -> None:
    told: list[tuple[str, float]] = []
    validate_artifact(clean, FEW, lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert told[0][0] == "contract, host twin"


def test_the_reference_drives_once_for_many_artifacts(clean: Subject) -> None:
    drives, opened = ModelDrives(), 0

    def reference() -> Session:
        nonlocal opened
        opened += 1
        return plant.FunctionSession(plant.drive)

    for _ in range(3):
        validate_artifact(replace(clean, reference=reference, drives=drives), replace(FEW, seed=5), quiet)
    assert opened == 2, "once for its recording and once for its drives"


class FixedClock:
    """Every look at it is 1 ms after the last one."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_us(self) -> int:
        return 0

    def monotonic(self) -> float:
        self.seconds += 0.001
        return self.seconds


def test_latency_is_measured_on_this_host_on_request_only(tmp_path: Path) -> None:
    here = plant.subject(tmp_path, plant.half_precision, obtained=Obtained.MEASURED)
    silent = of(validate_artifact(here, FEW, quiet), Check.LATENCY)[0]
    assert silent.verdict is Verdict.NOT_RUN
    assert "not asked for" in silent.summary
    asked = replace(FEW, measure_latency=True, latency_runs=20, clock=FixedClock())
    result = of(validate_artifact(here, asked, quiet), Check.LATENCY)[0]
    assert result.verdict is Verdict.PASSED
    assert result.obtained is Obtained.MEASURED
    figures = {f.name: f.value for f in result.figures}
    assert (figures["runs"], figures["deadline_misses"]) == (20, 0)
    assert {figures[f"latency_{name}_ms"] for name in ("p50", "p99", "p999", "most")} == {1.0}
    assert "20 runs at batch 1 on this machine, load" in result.summary
    late = {"*": {**plant.MARGINS, "latency": Rule(Obtained.MEASURED, margins={"latency_p99_ms": 0.5})}}
    result = of(validate_artifact(here, replace(asked, rules=FleetRules(late)), quiet), Check.LATENCY)[0]
    assert result.verdict is Verdict.FAILED


def test_settings_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Settings(plant.RULES, scenarios=0)
    with pytest.raises(ValueError, match="without a clock"):
        Settings(plant.RULES, measure_latency=True)
    with pytest.raises(ValueError, match="nothing executes"):
        Way(Obtained.ESTIMATED, "", Pace.BATCH, lambda: plant.FunctionSession(plant.drive))
