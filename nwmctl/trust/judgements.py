"""Envelopes of outside judges: from bytes that anybody may have sent to results that count.

``weigh_envelope`` never raises on account of the bytes: whatever is wrong with them becomes a failed result. The
validate step and the signing process both come through here, each with bytes of its own reading. Does not ask anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.judge import Admission, Case, DriveLog, JudgeEvidence, admit, refuse
from nwmctl.domain.policy import FleetRules, Rule, TrustedJudge
from nwmctl.errors import DriveLogUntrustedError, JudgeEvidenceError, NwmError, SigningInputError
from nwmctl.formats import documents
from nwmctl.trust.dsse import sign_dsse, verify_dsse
from nwmctl.trust.keys import Signer

JUDGE_EVIDENCE_TYPE = "application/vnd.nwmctl.judge-evidence+json"
DRIVE_LOG_TYPE = "application/vnd.nwmctl.drive-log+json"
MAX_ENVELOPE = 4 << 20
"""Bytes. Evidence holds figures, not recordings."""


def sign_evidence(evidence: JudgeEvidence, signer: Signer) -> bytes:
    """A judge's answer in its envelope; the same answer and key give the same bytes."""
    return sign_dsse(documents.encode(evidence), JUDGE_EVIDENCE_TYPE, signer)


def open_evidence(envelope: bytes, key: str) -> JudgeEvidence:
    """The evidence in an envelope that ``key`` (``ed25519:<hex>``) has signed.

    Raises JudgeEvidenceError for too many bytes, and what ``verify_dsse`` and ``documents.decode`` raise.
    """
    if len(envelope) > MAX_ENVELOPE:
        raise JudgeEvidenceError(
            "the evidence is too large",
            why=f"it has {len(envelope)} bytes, at most {MAX_ENVELOPE} are read",
            next="have the judge put figures into its evidence and keep its recordings",
        )
    verified = verify_dsse(envelope, JUDGE_EVIDENCE_TYPE, (key,))
    return documents.decode(JudgeEvidence, verified.payload, "judge evidence")


def weigh_envelope(
    envelope: bytes, judge: TrustedJudge, case: Case, asked: tuple[Check, ...], rules: Mapping[str, Rule]
) -> Admission:
    """What counts of an envelope that is said to come from ``judge``. ``rules`` are the platform's, by check."""
    try:
        evidence = open_evidence(envelope, judge.key)
    except NwmError as problem:
        return refuse(judge.name, asked, problem.what, problem.why, problem.next)
    return admit(evidence, judge, case, asked, rules)


def open_drive_log(envelope: bytes, judge: TrustedJudge) -> DriveLog:
    """What the owner of a drive log signed about it. Raises DriveLogUntrustedError."""
    try:
        verified = verify_dsse(envelope, DRIVE_LOG_TYPE, (judge.key,))
        return documents.decode(DriveLog, verified.payload, "drive log")
    except NwmError as problem:
        raise DriveLogUntrustedError(
            f"the drive log of '{judge.name}' is not trusted: {problem.what}",
            why=problem.why,
            next="have the owner of its key sign it: `nwmctl judge sign-log LOG --key FILE`",
        ) from problem


def check_outside_results(
    pack: Evidence, envelopes: Sequence[bytes], judges: Sequence[TrustedJudge], rules: FleetRules
) -> None:
    """Return if the pack says of outside judges what their envelopes say, no more and no less.

    For the signing process: ``envelopes`` are those that the pack names, ``judges`` and ``rules`` the signed policy's.
    Raises SigningInputError.
    """
    known = {check.value: rule for check in Check if (rule := rules.rule(pack.platform, check)) is not None}
    found: list[CheckResult] = []
    for envelope in envelopes:
        found += _admitted(pack, envelope, judges, known)
    for result in found:
        if result not in pack.results:
            said = f"judge '{result.judge}' says '{result.verdict}' about {result.check}"
            raise _contradiction(pack, f"{said}, and it leaves that out")
    for result in pack.results:
        if result.judge and result.verdict is Verdict.PASSED and result not in found:
            raise _contradiction(pack, f"no envelope holds what it says about judge '{result.judge}', {result.check}")


def _admitted(
    pack: Evidence, envelope: bytes, judges: Sequence[TrustedJudge], rules: Mapping[str, Rule]
) -> tuple[CheckResult, ...]:
    case = Case(pack.model, pack.artifact, pack.platform, pack.build)
    for judge in judges:
        try:
            evidence = open_evidence(envelope, judge.key)
        except NwmError:
            continue  # another judge's; if it is nobody's, the refusal below says so
        if evidence.judge == judge.name:
            return admit(evidence, judge, case, (), rules).results
    raise _contradiction(pack, "it names an envelope that no judge of the policy has signed")


def _contradiction(pack: Evidence, why: str) -> SigningInputError:
    return SigningInputError(
        f"the evidence of {pack.build} contradicts its outside judges",
        why=why,
        next="run the release again from `validate`, so that all papers are its own",
    )
