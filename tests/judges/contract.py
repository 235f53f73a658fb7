"""What every judge must do, whoever it is: the contract suite. ``test_contract.py`` runs it for each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Verdict
from nwmctl.domain.judge import Admission, Case
from nwmctl.errors import NwmError
from nwmctl.trust.judgements import weigh_envelope
from nwmctl.validation.judges.protocol import Judge
from tests.judges.papers import JUDGE, RULES, Papers
from tests.project import STRANGER


@dataclass(frozen=True)
class Seat:
    """A judge with something that it can judge. ``away`` is the same judge where it cannot be reached."""

    judge: Judge
    papers: Papers
    away: Judge


def weighed(seat: Seat, envelope: bytes, case: Case | None = None) -> Admission:
    """What counts of an answer."""
    checks = seat.papers.question.checks
    return weigh_envelope(envelope, JUDGE, case or seat.papers.case, checks, RULES)


def answers_what_it_was_asked(seat: Seat) -> None:
    found = weighed(seat, seat.judge.ask(seat.papers.question, seat.papers.material))
    assert not found.refused
    assert {result.check for result in found.results} == set(seat.papers.question.checks)
    assert {result.verdict for result in found.results} == {Verdict.PASSED}
    assert {result.judge for result in found.results} == {JUDGE.name}
    assert all(JUDGE.strongest.satisfies(result.obtained) for result in found.results)
    assert all(result.figures for result in found.results)


def says_the_same_again(seat: Seat) -> None:
    question, material = seat.papers.question, seat.papers.material
    assert seat.judge.ask(question, material) == seat.judge.ask(question, material)
    assert seat.judge.fingerprint() == seat.judge.fingerprint()


def is_believed_about_this_artifact_only(seat: Seat) -> None:
    envelope = seat.judge.ask(seat.papers.question, seat.papers.material)
    other = digest_bytes(b"another")
    for case in (
        replace(seat.papers.case, artifact=other),
        replace(seat.papers.case, model=other),
        replace(seat.papers.case, platform="nt9"),
        replace(seat.papers.case, build="host/other"),
    ):
        found = weighed(seat, envelope, case)
        assert found.refused
        assert {result.verdict for result in found.results} == {Verdict.FAILED}


def is_believed_with_its_own_key_only(seat: Seat) -> None:
    envelope = seat.judge.ask(seat.papers.question, seat.papers.material)
    stranger = replace(JUDGE, key=STRANGER.public)
    found = weigh_envelope(envelope, stranger, seat.papers.case, seat.papers.question.checks, RULES)
    assert {result.verdict for result in found.results} == {Verdict.FAILED}
    assert "no trusted key has signed" in found.refused


def says_so_when_it_is_not_there(seat: Seat) -> None:
    with pytest.raises(NwmError) as refusal:
        seat.away.ask(seat.papers.question, seat.papers.material)
    assert all((refusal.value.what, refusal.value.why, refusal.value.next))


SUITE: tuple[Callable[[Seat], None], ...] = (
    answers_what_it_was_asked,
    says_the_same_again,
    is_believed_about_this_artifact_only,
    is_believed_with_its_own_key_only,
    says_so_when_it_is_not_there,
)
