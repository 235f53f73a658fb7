"""The closed loop by itself: intervals, the emulated subset with its time budget, and looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.policy import FleetRules, Rule
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.closed_loop import DEVIATION, FAILURES, SCORE, check_closed_loop, pair
from nwmctl.validation.subject import Looks, Pace, Settings, Subject
from nwmctl.validation.suite import validate_artifact
from tests.validation import plant
from tests.validation.drivers import roads, rule

WIDE = rule(median_path_deviation_m=0.4, failure_rate_shift=0.5, score_shift=0.5)


class Clock:
    """Every look at it takes ``step`` seconds."""

    def __init__(self, step: float) -> None:
        self.seconds, self.step = 0.0, step

    def now_us(self) -> int:
        return 0

    def monotonic(self) -> float:
        self.seconds += self.step
        return self.seconds


def checked(subject: Subject, settings: Settings) -> CheckResult:
    with Candidate(subject.contract, subject.ways[0]) as candidate:
        return check_closed_loop(candidate, subject, settings, WIDE)


@pytest.fixture
def emulated(tmp_path: Path) -> Subject:
    return plant.subject(tmp_path, plant.half_precision, obtained=Obtained.EMULATED, pace=Pace.CRAWL)


def budgeted(step: float, **more: object) -> Settings:
    base = Settings(plant.RULES, seed=3, emulated_scenarios=12, emulated_budget_s=100.0, clock=Clock(step))
    return replace(base, **more)  # type: ignore[arg-type]


def test_an_emulated_artifact_drives_a_subset(emulated: Subject) -> None:
    result = checked(emulated, budgeted(0.01))
    assert (result.verdict, result.obtained) == (Verdict.PASSED, Obtained.EMULATED)
    named = {figure.name: figure.value for figure in result.figures}
    assert named["scenarios"] == 12
    host = replace(emulated.ways[0], pace=Pace.BATCH)
    assert checked(replace(emulated, ways=(host,)), replace(budgeted(0.01), scenarios=12)).figures[2].value == (
        pytest.approx(named[DEVIATION], abs=1e-6)
    )


@pytest.mark.parametrize(("step", "driven"), [(1.0, 4), (200.0, 0)])
def test_a_spent_time_budget_never_passes_on_fewer(emulated: Subject, step: float, driven: int) -> None:
    result = checked(emulated, budgeted(step))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert f"only {driven} of 12 scenarios driven within 100 s" in result.summary
    assert "emulated_budget_s" in result.next
    assert result.needs is None, "more scenarios would not help"
    assert not result.figures


def test_emulated_drives_are_off_unless_asked_for(emulated: Subject) -> None:
    results = validate_artifact(emulated, Settings(plant.RULES, seed=3, random_inputs=4), lambda what, share: None)
    loop = [result for result in results if result.check is Check.CLOSED_LOOP]
    assert [result.verdict for result in loop] == [Verdict.NOT_RUN]
    assert "too slow" in loop[0].summary


def test_a_budget_needs_a_clock() -> None:
    with pytest.raises(ValueError, match="without a clock"):
        Settings(plant.RULES, emulated_scenarios=4)


def test_intervals_are_part_of_the_figures(tmp_path: Path) -> None:
    result = checked(plant.subject(tmp_path, plant.half_precision), Settings(plant.RULES, seed=3, scenarios=20))
    for name in (DEVIATION, FAILURES, SCORE):
        figure = next(figure for figure in result.figures if figure.name == name)
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high


def test_a_further_look_has_wider_intervals_on_the_same_drives() -> None:
    one, other = roads(100, 10), roads(100, 14)
    shifted = replace(other, path=other.path + np.linspace(0.0, 1.0, 100)[:, None, None])
    first, second = (pair(one, shifted, look) for look in (0, 1))
    for before, after in zip(first.estimates(), second.estimates(), strict=True):
        assert after.found.low <= before.found.low <= before.found.high <= after.found.high
        assert after.found != before.found
    assert Looks().scenarios == 0


def test_the_policy_may_say_what_the_few_emulated_scenarios_must_show(emulated: Subject) -> None:
    strict = {"median_path_deviation_m": 0.4, "failure_rate_shift": 0.1}
    named = Rule(Obtained.PROXY, margins=strict)
    verdicts = []
    for each in (named, replace(named, emulated={"failure_rate_shift": 0.3})):
        rules = FleetRules({"*": {"closed_loop": each}})
        results = validate_artifact(emulated, budgeted(0.01, rules=rules, random_inputs=4), lambda what, share: None)
        verdicts.append(next(result.verdict for result in results if result.check is Check.CLOSED_LOOP))
    assert verdicts == [Verdict.INCONCLUSIVE, Verdict.PASSED]
