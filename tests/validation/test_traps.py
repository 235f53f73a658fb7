"""Recovery from traps: a driver that lost it fails, a clean artifact passes, every trap is listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.scenario import Trap
from nwmctl.driving import traps
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.subject import Settings
from nwmctl.validation.traps import check_traps, losses
from tests.validation import plant
from tests.validation.drivers import outcomes, rule

SETTINGS = Settings(plant.RULES, seed=3, traps=40)


def checked(folder: Path, build: Callable[[], plant.Drive], **margins: float) -> CheckResult:
    subject = plant.subject(folder, build)
    with Candidate(subject.contract, subject.ways[0]) as candidate:
        return check_traps(candidate, subject, SETTINGS, rule(**margins))


def test_a_clean_artifact_recovers_like_its_model(tmp_path: Path) -> None:
    result = checked(tmp_path, plant.half_precision, recovery_loss=0.2)
    assert (result.check, result.verdict) == (Check.TRAP_SUITE, Verdict.PASSED)
    named = {figure.name: figure for figure in result.figures}
    assert named["traps"].value == 40
    for trap in Trap:
        assert 0.0 <= named[f"{trap}.recovered"].value <= 1.0
    assert named["recovery_loss"].limit == 0.2
    assert named["recovery_loss"].high is not None
    assert "40 traps" in result.summary


def test_a_driver_that_cannot_steer_back_fails(tmp_path: Path) -> None:
    result = checked(tmp_path, plant.scaled(-1.0, 1.0), recovery_loss=0.2)
    assert result.verdict is Verdict.FAILED
    assert "recovery_loss" in result.summary


def test_a_margin_for_one_trap_is_judged_on_that_trap(tmp_path: Path) -> None:
    result = checked(tmp_path, plant.half_precision, recovery_loss=0.3, stalled__recovery_loss=0.1)
    assert result.verdict is Verdict.INCONCLUSIVE, "five times the same trap say little about one in ten"
    assert "stalled.recovery_loss" in result.summary
    assert result.needs is not None
    assert result.needs > 40


def test_controls_that_are_no_numbers_and_a_dead_artifact_fail(tmp_path: Path) -> None:
    broken = plant.on_control(lambda control: np.full_like(control, np.nan))
    assert "not finite" in checked(tmp_path, broken, recovery_loss=0.9).summary

    def dead() -> plant.Drive:
        raise RuntimeError("gone")

    result = checked(tmp_path, dead, recovery_loss=0.9)
    assert result.verdict is Verdict.FAILED
    assert "gone" in result.summary


def test_a_rule_without_margins_settles_nothing(tmp_path: Path) -> None:
    assert checked(tmp_path, plant.half_precision).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("lost", [0, 3])
def test_losses_count_only_what_the_model_had(lost: int) -> None:
    ids = traps.paired(80, 1)
    model = outcomes(ids, np.arange(80) < 5)
    other = outcomes(ids, np.arange(80) < 5 + lost)
    overall, *single = losses(model, other)
    assert overall.found.value == pytest.approx(lost / 80)
    assert [each.name for each in single] == [f"{trap}.recovery_loss" for trap in Trap]
    better = losses(other, model)[0]
    assert better.found.value == pytest.approx(-lost / 80)
    assert better.within(0.1)


def test_another_number_of_traps_begins_with_the_same_ones() -> None:
    assert replace(SETTINGS, traps=80).traps == 80
    assert traps.paired(80, 3)[:40] == traps.paired(40, 3)
