"""Latency as a bench tells it: judged like any other, with the word ``bench``, and never made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.measurement import Latency
from nwmctl.domain.policy import FleetRules, Rule
from nwmctl.errors import HostUnreachableError, PlaceUnavailableError, RuntimeFailedError
from nwmctl.toolchains.protocol import BenchOrder
from nwmctl.validation.suite import Settings, Subject, validate_artifact
from tests.validation import plant

FEW = Settings(plant.RULES, seed=3, scenarios=10, row_scenarios=10, random_inputs=4, latency_runs=50)
Inputs = Mapping[str, NDArray[np.generic]]


def result_of(folder: Path, measure: Callable[[Inputs, BenchOrder], Latency], settings: Settings = FEW) -> CheckResult:
    subject: Subject = plant.subject(folder, plant.half_precision)
    [way] = subject.ways
    there = replace(way, obtained=Obtained.BENCH, label="a bench with chip-x", measure=measure)
    results = validate_artifact(replace(subject, ways=(there,)), settings, lambda what, share: None)
    [result] = [each for each in results if each.check is Check.LATENCY]
    return result


def told(inputs: Inputs, order: BenchOrder) -> Latency:
    """One row is asked for, at the model's rate."""
    assert all(len(values) == 1 for values in inputs.values())
    return Latency(order.runs, 2.0, 3.0, 4.0, 5.0, 0, order.deadline_ms, "none", 0.5, Obtained.BENCH)


def test_it_is_measured_without_being_asked_for(tmp_path: Path) -> None:
    rules = {"*": {**plant.MARGINS, "latency": Rule(Obtained.BENCH, margins={"latency_p99_ms": 3.5})}}
    result = result_of(tmp_path, told, replace(FEW, rules=FleetRules(rules)))
    assert (result.verdict, result.obtained) == (Verdict.PASSED, Obtained.BENCH)
    values = {each.name: each.value for each in result.figures}
    assert values["runs"] == 50
    assert (values["latency_p999_ms"], values["latency_most_ms"], values["deadline_misses"]) == (4.0, 5.0, 0)
    assert all(each.obtained is Obtained.BENCH for each in result.figures)
    assert "on a bench with chip-x, load 0.5" in result.summary


def test_a_bench_that_is_too_slow_fails(tmp_path: Path) -> None:
    rules = {"*": {**plant.MARGINS, "latency": Rule(Obtained.BENCH, margins={"latency_p99_ms": 2.5})}}
    result = result_of(tmp_path, told, replace(FEW, rules=FleetRules(rules)))
    assert (result.verdict, result.obtained) == (Verdict.FAILED, Obtained.BENCH)


def refusing(problem: Exception) -> Callable[[Inputs, BenchOrder], Latency]:
    def measure(inputs: Inputs, order: BenchOrder) -> Latency:
        raise problem

    return measure


def test_a_bench_that_tells_no_time_is_not_run(tmp_path: Path) -> None:
    result = result_of(tmp_path, refusing(PlaceUnavailableError("it does not tell", why="no pattern", next="add one")))
    assert (result.verdict, result.obtained) == (Verdict.NOT_RUN, Obtained.NOT_RUN)
    assert "it does not tell" in result.summary


def test_a_runtime_that_fails_there_fails(tmp_path: Path) -> None:
    result = result_of(tmp_path, refusing(RuntimeFailedError("it failed", why="no memory", next="try another")))
    assert result.verdict is Verdict.FAILED


def test_a_bench_that_goes_away_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(HostUnreachableError):
        result_of(tmp_path, refusing(HostUnreachableError("gone", why="cable", next="again")))
