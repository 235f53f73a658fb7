"""The signing process weighs the envelopes again: evidence may say of outside judges what they signed, and no more."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.judge import Case
from nwmctl.domain.policy import FleetRules, Policy, Rule, judge, tightened
from nwmctl.errors import SigningInputError
from nwmctl.trust.judgements import check_outside_results, sign_evidence, weigh_envelope
from tests.judges.papers import JUDGE, KEY, RULES, evidence, made_up, result, write_key
from tests.project import STRANGER

CASE = Case(digest_bytes(b"model"), digest_bytes(b"artifact"), "nt9", "single/gpu")
TABLE = FleetRules({"*": dict(RULES)})
ENVELOPE = sign_evidence(evidence(CASE), KEY)
THEIRS = weigh_envelope(ENVELOPE, JUDGE, CASE, (), RULES).results
OWN = CheckResult(Check.CONTRACT, Verdict.PASSED, Obtained.PROXY, "fine")


def pack(*results: CheckResult) -> Evidence:
    return Evidence(CASE.model, CASE.artifact, CASE.platform, CASE.build, (OWN, *results), (digest_bytes(ENVELOPE),))


def test_what_was_signed_may_be_said() -> None:
    check_outside_results(pack(*THEIRS), [ENVELOPE], [JUDGE], TABLE)
    check_outside_results(pack(), [], [JUDGE], TABLE)


@pytest.mark.parametrize(
    ("results", "envelope", "said"),
    [
        ((), ENVELOPE, "leaves that out"),
        ((replace(THEIRS[0], summary="better"),), ENVELOPE, "leaves that out"),
        ((*THEIRS, replace(THEIRS[0], check=Check.LOG_REPLAY)), ENVELOPE, "no envelope holds"),
        ((*THEIRS, replace(THEIRS[0], judge="maker")), ENVELOPE, "no envelope holds"),
        (THEIRS, sign_evidence(evidence(CASE), STRANGER), "no judge of the policy has signed"),
        (THEIRS, b"{}", "no judge of the policy has signed"),
        (THEIRS, sign_evidence(evidence(replace(CASE, build="single/cpu")), KEY), "no envelope holds"),
        (THEIRS, sign_evidence(evidence(CASE, replace(result(), verdict=Verdict.FAILED)), KEY), "says 'failed'"),
    ],
)
def test_anything_else_is_refused(results: tuple[CheckResult, ...], envelope: bytes, said: str) -> None:
    with pytest.raises(SigningInputError) as refusal:
        check_outside_results(pack(*results), [envelope], [JUDGE], TABLE)
    assert said in refusal.value.why


def test_a_result_without_its_envelope_is_refused() -> None:
    with pytest.raises(SigningInputError, match="contradicts its outside judges"):
        check_outside_results(pack(*THEIRS), [], [JUDGE], TABLE)


def test_a_failure_needs_no_envelope() -> None:
    """A refused answer is told as a failed check, and names no envelope that anybody could verify."""
    failed = replace(THEIRS[0], verdict=Verdict.FAILED)
    check_outside_results(pack(failed), [], [JUDGE], TABLE)


# --- the policy's own word about judges ---------------------------------------------------------------------------

NEEDS = FleetRules({"*": {"closed_loop": Rule(Obtained.PROXY, judges=("rig",))}})
SIMULATED = CheckResult(Check.CLOSED_LOOP, Verdict.PASSED, Obtained.MEASURED, "our simulator")


def test_a_rule_may_want_a_certain_judge() -> None:
    assert judge(NEEDS, [pack(*THEIRS)]) == ()
    (short,) = judge(NEEDS, [pack(SIMULATED)])
    assert "judge 'rig' has not passed it: it was not asked" in short.reason
    silent = CheckResult(Check.CLOSED_LOOP, Verdict.NOT_RUN, Obtained.NOT_RUN, "asleep", (), "wake it", judge="rig")
    (short,) = judge(NEEDS, [pack(SIMULATED, silent)])
    assert (short.reason, short.settle) == ("judge 'rig' has not passed it: asleep", "wake it")


def test_a_release_may_want_more_judges_and_not_fewer() -> None:
    more = tightened(NEEDS, {"*": {"closed_loop": Rule(Obtained.PROXY, judges=("maker",))}}, 0)
    assert more.platforms["*"]["closed_loop"].judges == ("rig", "maker")
    assert tightened(NEEDS, {"*": {"closed_loop": Rule(Obtained.PROXY)}}, 0) == NEEDS


def test_a_policy_asks_for_judges_that_it_knows() -> None:
    with pytest.raises(ValueError, match="'rig', who is not among"):
        Policy("p", 1, NEEDS, FleetRules({}))
    assert Policy("p", 1, NEEDS, FleetRules({}), (JUDGE,)).judges == (JUDGE,)


# --- the example of the documentation -----------------------------------------------------------------------------


def test_the_example_judge_answers(tmp_path: Path) -> None:
    from nwmctl.validation.judges.protocol import question

    example = Path(__file__).parents[2] / "examples" / "judges" / "braking_rig.py"
    papers = made_up(tmp_path / "papers")
    (tmp_path / "request.json").write_bytes(question(papers.question))
    (tmp_path / "artifact.bin").write_bytes(papers.material.payload.read_bytes())
    done = subprocess.run([sys.executable, str(example), str(write_key(tmp_path))], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    trusted = replace(JUDGE, name="braking-rig", strongest=Obtained.ESTIMATED)
    found = weigh_envelope((tmp_path / "evidence.json").read_bytes(), trusted, papers.case, (), {})
    assert not found.refused
    assert [each.verdict for each in found.results] == [Verdict.PASSED]
