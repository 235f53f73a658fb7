"""Margins for what was obtained under emulation hold there and nowhere else, and a release cannot loosen them."""

from __future__ import annotations

import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.policy import FleetRules, Rule, judge, tightened
from nwmctl.errors import PolicyLoosenedError

RULE = Rule(Obtained.PROXY, margins={"shift": 0.1}, emulated={"shift": 0.3})
RULES = FleetRules({"*": {"closed_loop": RULE}})


def shortfalls(rules: FleetRules, **values: float) -> list[str]:
    results = tuple(
        CheckResult(
            Check.CLOSED_LOOP, Verdict.PASSED, Obtained(name), "", (ResultFigure("shift", value, "", Obtained(name)),)
        )
        for name, value in values.items()
    )
    digest = digest_bytes(b"x")
    return [found.reason for found in judge(rules, [Evidence(digest, digest, "nt2.0", "a/b", results)])]


def test_each_figure_is_held_against_the_margin_of_its_way() -> None:
    assert shortfalls(RULES, proxy=0.05, emulated=0.25) == []
    assert "the policy allows 0.1" in shortfalls(RULES, proxy=0.25, emulated=0.25)[0]
    assert "the policy allows 0.3" in shortfalls(RULES, proxy=0.05, emulated=0.35)[0]


@pytest.mark.parametrize(
    ("rule", "new"),
    [
        (RULE, Rule(Obtained.PROXY, emulated={"shift": 0.4})),
        (Rule(Obtained.PROXY, margins={"shift": 0.1}), Rule(Obtained.PROXY, emulated={"shift": 0.2})),
    ],
)
def test_a_release_does_not_loosen_them(rule: Rule, new: Rule) -> None:
    with pytest.raises(PolicyLoosenedError, match="under emulation"):
        tightened(FleetRules({"*": {"closed_loop": rule}}), {"*": {"closed_loop": new}}, 0)


def test_a_release_tightens_them() -> None:
    found = tightened(RULES, {"*": {"closed_loop": Rule(Obtained.PROXY, emulated={"shift": 0.2})}}, 0)
    assert found.rule("nt2.0", Check.CLOSED_LOOP) == Rule(
        Obtained.PROXY, margins={"shift": 0.1}, emulated={"shift": 0.2}
    )
