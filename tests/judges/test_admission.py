"""How much of a judge's answer counts: whose it is, about what, how strong, and whether it keeps the margins."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.judge import MAX_TEXT, Admission, Case, JudgeEvidence, admit
from nwmctl.domain.policy import Rule
from nwmctl.formats import canonical, documents
from nwmctl.trust.dsse import sign_dsse
from nwmctl.trust.judgements import JUDGE_EVIDENCE_TYPE, MAX_ENVELOPE, sign_evidence, weigh_envelope
from tests.judges.papers import JUDGE, KEY, RULES, evidence, result
from tests.project import STRANGER

CASE = Case(digest_bytes(b"model"), digest_bytes(b"artifact"), "nt9", "single/gpu")
ASKED = (Check.CLOSED_LOOP,)
GOOD = sign_evidence(evidence(CASE), KEY)


def weigh(envelope: bytes) -> Admission:
    return weigh_envelope(envelope, JUDGE, CASE, ASKED, RULES)


def signed(plain: object) -> bytes:
    """Whatever a judge may put its signature under."""
    data = plain if isinstance(plain, bytes) else json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    return sign_dsse(data, JUDGE_EVIDENCE_TYPE, KEY)


def plain() -> dict[str, object]:
    return json.loads(documents.encode(evidence(CASE)))  # type: ignore[no-any-return]


def only(found: Admission) -> CheckResult:
    assert len(found.results) == 1
    return found.results[0]


def test_a_good_answer_counts() -> None:
    found = weigh(GOOD)
    assert found.refused == ""
    good = only(found)
    assert (good.verdict, good.obtained, good.judge) == (Verdict.PASSED, Obtained.BENCH, "rig")
    assert good.figures[0].limit == RULES["closed_loop"].margins["score_shift"]


DEEP = b"[" * 100_000 + b"]" * 100_000
REFUSED = {
    "not an envelope": (b"{}", "not a DSSE envelope"),
    "nothing": (b"", "not a DSSE envelope"),
    "not text": (b"\xff\xfe\x00", "not a DSSE envelope"),
    "deeply nested": (DEEP, "not a DSSE envelope"),
    "deeply nested inside": (signed(DEEP), "not canonical JSON"),
    "huge": (b" " * (MAX_ENVELOPE + 1), "too large"),
    "a stranger's signature": (sign_evidence(evidence(CASE), STRANGER), "no trusted key has signed"),
    "another kind of document": (sign_dsse(documents.encode(evidence(CASE)), "text/plain", KEY), "holds 'text/plain'"),
    "NaN": (signed(documents.encode(evidence(CASE)).replace(b"0.01", b"NaN")), "not a finite number"),
    "infinity": (signed(documents.encode(evidence(CASE)).replace(b"0.01", b"1e999")), "not canonical"),
    "a number that no float holds": (
        signed(documents.encode(evidence(CASE)).replace(b"0.01", b"9" * 400)), "a finite number",
    ),
    "an unknown key": (signed({**plain(), "mood": "good"}), "unknown key 'mood'"),
    "a missing key": (signed({k: v for k, v in plain().items() if k != "case"}), "key 'case' is missing"),
    "a newer schema": (signed({**plain(), "schema": "nwmctl.judge-evidence/9"}), "judge-evidence/9"),
    "half a surrogate": (
        signed(canonical.encode(plain()).replace(b"drove 400 laps", b"\\ud800")), "not canonical",  # type: ignore[arg-type]
    ),
    "somebody else's name": (sign_evidence(replace(evidence(CASE), judge="maker"), KEY), "speaks for somebody else"),
    "another model": (sign_evidence(evidence(replace(CASE, model=CASE.artifact)), KEY), "another model"),
    "another artifact": (sign_evidence(evidence(replace(CASE, artifact=CASE.model)), KEY), "another artifact"),
    "another platform": (sign_evidence(evidence(replace(CASE, platform="nt8")), KEY), "another platform"),
    "another build": (sign_evidence(evidence(replace(CASE, build="single/cpu")), KEY), "another build"),
    "no result": (sign_evidence(replace(evidence(CASE), results=()), KEY), "holds no result"),
    "a check that it is not trusted with": (
        sign_evidence(evidence(CASE, replace(result(), check=Check.PARITY)), KEY), "answers 'parity'",
    ),
    "a word that is too strong": (
        sign_evidence(evidence(CASE, replace(result(), obtained=Obtained.MEASURED)), KEY), "claims 'measured'",
    ),
    "a figure whose word is too strong": (
        sign_evidence(
            evidence(CASE, replace(result(), figures=(ResultFigure("score_shift", 0.0, "", Obtained.MEASURED),))), KEY
        ),
        "claims 'measured'",
    ),
    "another's verdict": (sign_evidence(evidence(CASE, replace(result(), judge="maker")), KEY), "'maker' judged"),
    "a figure outside its interval": (sign_evidence(evidence(CASE, result(0.5, 0.0, 0.1)), KEY), "own interval"),
    "an interval upside down": (sign_evidence(evidence(CASE, result(0.01, 0.02, 0.0)), KEY), "own interval"),
    "too many results": (sign_evidence(evidence(CASE, *[result()] * 101), KEY), "too long"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_with_an_answer_fails_the_check_and_says_so(what: str) -> None:
    envelope, reason = REFUSED[what]
    found = weigh(envelope)
    failed = only(found)
    assert failed.verdict is Verdict.FAILED
    assert failed.check is Check.CLOSED_LOOP
    assert failed.judge == "rig"
    assert reason in failed.summary
    assert failed.next
    assert found.refused
    documents_hold(found)


def documents_hold(found: Admission) -> None:
    """What came out can be written as evidence: it is text, finite, and not endless."""
    from nwmctl.formats.codec import to_plain

    assert len(canonical.encode(to_plain(list(found.results)))) < 20 * MAX_TEXT * len(found.results) + 1000


MARGINS = {
    "within": (result(0.01, 0.0, 0.02), Verdict.PASSED),
    "over, without an interval": (result(0.06, None, None), Verdict.FAILED),
    "under, on the other side": (result(-0.06, None, None), Verdict.FAILED),
    "whole interval beyond": (result(0.08, 0.06, 0.1), Verdict.FAILED),
    "interval across the margin": (result(0.04, 0.01, 0.07), Verdict.INCONCLUSIVE),
    "interval open above": (result(0.01, 0.0, None), Verdict.INCONCLUSIVE),
    "interval open below": (result(0.01, None, 0.02), Verdict.INCONCLUSIVE),
    "no figure": (replace(result(), figures=()), Verdict.INCONCLUSIVE),
    "one good and one bad figure": (
        replace(result(), figures=(*result().figures, *result(0.06, None, None).figures)), Verdict.FAILED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MARGINS)
def test_what_a_judge_calls_passed_is_compared_with_the_margins(what: str) -> None:
    said, verdict = MARGINS[what]
    found = weigh(sign_evidence(evidence(CASE, said), KEY))
    assert not found.refused
    assert only(found).verdict is verdict


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.INCONCLUSIVE])
def test_a_judges_no_is_taken_as_it_is(verdict: Verdict) -> None:
    said = replace(result(), verdict=verdict, summary="slid\x1b[31m off\n", next="brake earlier")
    found = only(weigh(sign_evidence(evidence(CASE, said), KEY)))
    assert (found.verdict, found.next) == (verdict, "brake earlier")
    assert found.summary == "slid [31m off "


def test_a_check_that_is_left_out_is_not_run() -> None:
    asked = (Check.CLOSED_LOOP, Check.LOG_REPLAY)
    found = weigh_envelope(GOOD, JUDGE, CASE, asked, RULES)
    left = next(each for each in found.results if each.check is Check.LOG_REPLAY)
    assert left.verdict is Verdict.NOT_RUN
    assert "does not mention" in left.summary


def test_without_a_rule_the_word_stands() -> None:
    assert only(weigh_envelope(GOOD, JUDGE, CASE, ASKED, {})).verdict is Verdict.PASSED


def _mutated(data: bytes, cuts: list[tuple[float, int, int]]) -> bytes:
    changed = bytearray(data)
    for place, kind, value in cuts:
        at = int(place * len(changed))
        match kind % 3:
            case 0:
                changed[at : at + 1] = bytes([value])
            case 1:
                del changed[at : at + value % 40]
            case _:
                changed[at:at] = bytes([value]) * (value % 9)
    return bytes(changed)


CUTS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 2), st.integers(0, 255)), min_size=1, max_size=4
)


def _same_statement(envelope: bytes) -> bool:
    """Whether the envelope still holds the signed payload with a good signature: then it may count, and only then."""
    try:
        table, old = json.loads(envelope), json.loads(GOOD)
        payload = base64.b64decode(table["payload"], validate=True)
        return payload == base64.b64decode(old["payload"]) and table["payloadType"] == old["payloadType"]
    except (ValueError, KeyError, TypeError):
        return False


@settings(max_examples=400, deadline=None)
@given(CUTS)
def test_mutated_envelopes_never_raise_and_never_pass(cuts: list[tuple[float, int, int]]) -> None:
    envelope = _mutated(GOOD, cuts)
    found = weigh(envelope)
    documents_hold(found)
    if not _same_statement(envelope):
        assert {each.verdict for each in found.results} == {Verdict.FAILED}


@settings(max_examples=400, deadline=None)
@given(CUTS)
def test_mutated_statements_under_a_good_signature_never_raise(cuts: list[tuple[float, int, int]]) -> None:
    """A judge with a defect signs anything; what passes is a statement about this case all the same."""
    data = _mutated(documents.encode(evidence(CASE)), cuts)
    found = weigh(sign_dsse(data, JUDGE_EVIDENCE_TYPE, KEY))
    documents_hold(found)
    if any(each.verdict is Verdict.PASSED for each in found.results):
        read = documents.decode(JudgeEvidence, data, "a mutation")
        assert (read.case, read.judge) == (CASE, "rig")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_an_answer(data: bytes) -> None:
    assert {each.verdict for each in weigh(data).results} == {Verdict.FAILED}
    assert {each.verdict for each in weigh(sign_dsse(data, JUDGE_EVIDENCE_TYPE, KEY)).results} == {Verdict.FAILED}


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=300, deadline=None)
@given(FINITE, st.none() | FINITE, st.none() | FINITE, st.floats(0, 10))
def test_nothing_passes_whose_interval_leaves_the_margin(
    value: float, low: float | None, high: float | None, limit: float
) -> None:
    rules = {"closed_loop": Rule(Obtained.PROXY, margins={"score_shift": limit})}
    found = only(admit(evidence(CASE, result(value, low, high)), JUDGE, CASE, ASKED, rules))
    if found.verdict is Verdict.PASSED:
        inside = low is None and high is None
        bounds = (value, value) if inside else (low, high)
        assert all(bound is not None and math.fabs(bound) <= limit for bound in bounds)
    else:
        assert found.verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE)
