"""The example policy says what it promises, and its margins are about figures that exist and counts that suffice."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.domain.amounts import Validation
from nwmctl.domain.evidence import Check
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import CARD_NAME
from nwmctl.domain.policy import Policy
from nwmctl.domain.scenario import Family, Trap
from nwmctl.formats import model_card
from nwmctl.formats.documents import decode_yaml
from nwmctl.validation import closed_loop
from nwmctl.validation.envelope import EXCESS, GUARDED, INFEASIBLE, LIMITED
from nwmctl.validation.latency import P50, P99
from nwmctl.validation.non_inferiority import COMPARED, RECOVERY
from nwmctl.validation.parity import DELAY, parity_figures
from nwmctl.validation.statistics import score_interval, shift_interval
from tests.validation.example import MODEL, POLICY, golden


@pytest.fixture(scope="module")
def policy() -> Policy:
    return decode_yaml(Policy, POLICY.read_bytes(), str(POLICY.name))


VEHICLES = ("nt2.0", "nt2.5", "nt3.0")


@pytest.mark.parametrize("platform", VEHICLES)
def test_a_real_fleet_demands_the_vehicles_chip(policy: Policy, platform: str) -> None:
    for check in (Check.PARITY, Check.CLOSED_LOOP, Check.LATENCY):
        rule = policy.real.rule(platform, check)
        assert rule is not None
        assert rule.required
        assert rule.weakest is Obtained.BENCH
        assert rule.margins
    assert policy.real.approvals >= 1


@pytest.mark.parametrize("platform", VEHICLES)
def test_a_virtual_fleet_accepts_the_host_twin(policy: Policy, platform: str) -> None:
    for check in Check:
        rule = policy.virtual.rule(platform, check)
        assert rule is not None
        assert rule.required is (check is not Check.LATENCY)
    parity = policy.virtual.rule(platform, Check.PARITY)
    assert parity is not None
    assert parity.weakest is Obtained.PROXY


def test_the_virtual_platform_is_measured(policy: Policy) -> None:
    for check in (Check.CONTRACT, Check.PARITY, Check.CLOSED_LOOP, Check.NEGATIVE_CONTROL):
        rule = policy.virtual.rule("virtual", check)
        assert rule is not None
        assert rule.weakest is Obtained.MEASURED


def test_real_rules_are_nowhere_weaker_than_virtual_ones(policy: Policy) -> None:
    for check in Check:
        real, virtual = policy.real.rule("nt2.0", check), policy.virtual.rule("nt2.0", check)
        assert real is not None
        assert virtual is not None
        assert real.weakest.satisfies(virtual.weakest)
        assert all(real.margins[name] <= limit for name, limit in virtual.margins.items())


def test_every_margin_is_about_a_figure_that_a_check_gives(policy: Policy) -> None:
    card = model_card.decode((MODEL / CARD_NAME).read_bytes(), CARD_NAME)
    held = golden(card.contract)
    figures = parity_figures(card.contract, held.outputs, held.outputs, Obtained.MEASURED)
    control = next(spec for spec in card.contract.outputs if spec.name == card.contract.control_output)
    compared = {f"{prefix}{name}" for prefix in ("", *(f"{family}." for family in Family)) for name in COMPARED}
    known = {
        Check.PARITY: {figure.name for figure in figures} | {f"{each.name}{DELAY}" for each in control.channels},
        Check.CONTROL_ENVELOPE: {LIMITED, GUARDED, INFEASIBLE, EXCESS, "guarded_shift"},
        Check.NON_INFERIORITY: compared | {RECOVERY},
        Check.TRAP_SUITE: {RECOVERY} | {f"{trap}.{RECOVERY}" for trap in Trap},
        Check.CLOSED_LOOP: {
            closed_loop.DEVIATION,
            closed_loop.FAILURES,
            closed_loop.SCORE,
            closed_loop.CHANGE,
        },
        Check.LATENCY: {P50, P99},
    }
    for rules in (policy.virtual, policy.real):
        for table in rules.platforms.values():
            for name, rule in table.items():
                if name != Check.LOG_REPLAY:  # its figures are its judge's
                    assert set(rule.margins) <= known.get(Check(name), set())


def test_the_usual_number_of_scenarios_can_settle_the_virtual_margin(policy: Policy) -> None:
    rule = policy.virtual.rule("nt2.0", Check.CLOSED_LOOP)
    assert rule is not None
    usual = Validation().amounts()
    # One pair in which only the artifact fails must not yet make the check inconclusive.
    assert shift_interval(1, 0, usual.scenarios).most <= rule.margins[closed_loop.FAILURES]
    traps = policy.virtual.rule("nt2.0", Check.TRAP_SUITE)
    assert traps is not None
    # And where no trap tells them apart, that is enough.
    assert score_interval(0, 0, usual.traps).high <= traps.margins[RECOVERY]


def test_the_policy_lies_beside_the_release() -> None:
    assert Path(POLICY.parent / "release.yaml").exists()
