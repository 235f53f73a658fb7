"""What a validate step drives, and what it wants more of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nwmctl.domain.amounts import Amounts, Profile, Validation, orders_needed, raised
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.policy import FleetRules
from nwmctl.domain.work import ValidateWork
from nwmctl.steps.orders import about_the_artifact, cut_short, settings_of, wanted
from tests.fakes import FakeClock

WORK = ValidateWork("virtual", "host", "host", FleetRules({}), Amounts(100, 40, emulated_scenarios=16), 1)


def result(
    check: Check,
    verdict: Verdict = Verdict.INCONCLUSIVE,
    count: int = 100,
    needs: int | None = None,
    obtained: Obtained = Obtained.PROXY,
    judge: str = "",
) -> CheckResult:
    name = {Check.TRAP_SUITE: "traps", Check.NON_INFERIORITY: "pairs"}.get(check, "scenarios")
    figures = (ResultFigure(name, float(count), "", obtained),)
    return CheckResult(check, verdict, obtained, "said", figures, judge=judge, needs=needs)


def test_the_profiles_and_what_a_release_may_name() -> None:
    assert (Validation().amounts().scenarios, Validation(Profile.FULL).amounts().scenarios) == (100, 250)
    assert Validation(Profile.FULL, scenarios=60).amounts().scenarios == 60
    for wrong in ({"scenarios": 0}, {"pairs": -1}, {"emulated_budget_s": 0.0}, {"most_pairs": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Validation(**wrong)  # type: ignore[arg-type]


def test_settings_follow_the_order_and_what_was_raised() -> None:
    work = replace(WORK, more_scenarios=1, more_traps=2, more_emulated=1, more_pairs=1)
    settings = settings_of(work, FakeClock())
    assert (settings.scenarios, settings.row_scenarios, settings.traps, settings.emulated_scenarios) == (
        400, 400, 640, 64,
    )  # fmt: skip
    assert (settings.looks.scenarios, settings.looks.traps, settings.looks.pairs) == (1, 2, 1)
    assert settings_of(work, None).emulated_scenarios == 0


def test_nothing_is_raised_beyond_the_most_or_lowered_to_it() -> None:
    assert [raised(100, times, 1000) for times in range(4)] == [100, 400, 1000, 1000]
    assert raised(5000, 1, 1000) == 5000
    assert [orders_needed(100, needs) for needs in (1, 100, 101, 400, 401)] == [0, 0, 1, 1, 2]
    assert Amounts(100, 40, most_scenarios=100).orders() == {"more_traps": 1, "more_pairs": 2}


def test_an_open_check_wants_as_many_orders_as_would_settle_it() -> None:
    assert wanted(WORK, [result(Check.CLOSED_LOOP, needs=390)]) == {"more_scenarios": 1}
    assert wanted(WORK, [result(Check.CLOSED_LOOP, needs=1200)]) == {"more_scenarios": 2}
    assert wanted(WORK, [result(Check.TRAP_SUITE, count=40, needs=41)]) == {"more_traps": 1}
    assert wanted(WORK, [result(Check.NON_INFERIORITY, count=250, needs=900)]) == {"more_pairs": 1}
    late = result(Check.CLOSED_LOOP, count=16, needs=40, obtained=Obtained.EMULATED)
    assert wanted(WORK, [late, result(Check.TRAP_SUITE, count=40, needs=99)]) == {"more_emulated": 1, "more_traps": 1}
    again = replace(WORK, more_scenarios=1)
    assert wanted(again, [result(Check.CLOSED_LOOP, count=400, needs=410)]) == {"more_scenarios": 2}


@pytest.mark.parametrize(
    "results",
    [
        [result(Check.CLOSED_LOOP, needs=390), result(Check.PARITY, Verdict.FAILED)],
        [result(Check.CLOSED_LOOP, needs=390), result(Check.PARITY)],
        [result(Check.CLOSED_LOOP, needs=50_000)],
        [result(Check.CLOSED_LOOP)],
        [result(Check.CLOSED_LOOP, Verdict.PASSED)],
        [result(Check.LOG_REPLAY, needs=200, judge="rig")],
    ],
)
def test_what_more_scenarios_do_not_settle_wants_none(results: list[CheckResult]) -> None:
    assert wanted(WORK, results) == {}


def test_what_is_said_about_the_model_sends_no_artifact_to_another_recipe() -> None:
    both = (result(Check.CLOSED_LOOP, Verdict.FAILED), result(Check.NON_INFERIORITY, Verdict.FAILED))
    assert about_the_artifact(both) == both[:1]


def test_a_spent_time_budget_is_not_kept() -> None:
    late = CheckResult(Check.CLOSED_LOOP, Verdict.INCONCLUSIVE, Obtained.EMULATED, "only 4 of 16")
    assert cut_short([late])
    assert not cut_short([result(Check.CLOSED_LOOP, obtained=Obtained.EMULATED)])
    assert not cut_short([replace(late, obtained=Obtained.PROXY)])
