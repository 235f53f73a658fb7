"""The signing process: it signs what policy and evidence allow, and nothing else, whatever it is told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.keys import KeyRole
from nwmctl.domain.policy import Rule
from nwmctl.domain.release import Tighten
from nwmctl.errors import (
    AnchorUnknownError,
    ApprovalNeededError,
    BundleContentsError,
    CertificateExpiredError,
    KeyPassphraseError,
    NwmError,
    PolicyLoosenedError,
    SchemaError,
    SigningInputError,
    SigningProcessError,
    SigningRefusedError,
    UntrustedSignatureError,
)
from nwmctl.trust import signer
from nwmctl.trust.cms import verify_cms
from nwmctl.trust.keyfolder import Wish, rotate_keys
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.signer import request_signature, sign
from nwmctl.trust.signers import Ed25519Signer
from tests.trust.conftest import real_now
from tests.trust.papers import BAD, BENCH, LATENCY, POLICY, PROXY, Desk, approve, lay_out

NOT_RUN = CheckResult(Check.PARITY, Verdict.NOT_RUN, Obtained.NOT_RUN, "no such chip here")


def test_a_process_of_its_own_signs_what_is_allowed(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path, keyring)
    result = request_signature(desk.request)
    signature = bytes.fromhex(result.signature)
    verify_cms(desk.plan.description_bytes, signature, keyring.ca_pem(), desk.request.at_us)
    assert result.policy_key == keyring.public(KeyRole.SAFETY)
    assert (result.virtual_only, result.development) == (True, True)
    assert request_signature(desk.request) == result, "the same papers, the same bytes"


def test_a_refusal_crosses_the_process_border_as_itself(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path, keyring, (BAD,))
    with pytest.raises(SigningRefusedError) as refused:
        request_signature(desk.request)
    assert "they differ" in refused.value.why
    assert "use fp32" in refused.value.next


def test_a_real_fleet_hears_which_bench_would_settle_it(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path, keyring, virtual=False, virtual_only=False)
    with pytest.raises(SigningRefusedError, match="real fleet") as refused:
        sign(desk.request)
    assert "p1 gpu parity: obtained as 'proxy', the policy demands 'bench'" in refused.value.why
    assert "p1 cpu latency: not_run" in refused.value.why
    assert "bench" in refused.value.next
    assert refused.value.next.count("parity:") == 1, "one remedy is said once"


def test_a_bundle_may_not_hide_that_it_is_virtual(keyring: KeyRing, tmp_path: Path) -> None:
    hides = lay_out(tmp_path / "hides", keyring, virtual=True, virtual_only=False)
    with pytest.raises(SigningRefusedError):
        sign(hides.request)
    meant = lay_out(tmp_path / "meant", keyring, (BENCH, LATENCY), virtual=False, virtual_only=True)
    with pytest.raises(SigningRefusedError) as refused:
        sign(meant.request)
    assert "virtual fleets only" in refused.value.why


def test_development_keys_do_not_sign_for_a_real_fleet(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path, keyring, (BENCH, LATENCY), virtual=False, virtual_only=False)
    with pytest.raises(SigningRefusedError, match="development"):
        sign(desk.request)
    real = real_keys(tmp_path / "real", desk)
    at_us = real.document.created_us
    with pytest.raises(KeyPassphraseError):
        sign(desk.replaced(keys=str(real.folder), at_us=at_us))
    request = desk.replaced(keys=str(real.folder), passphrase="word", at_us=at_us)
    result = request_signature(request)
    assert (result.virtual_only, result.development) == (False, False)
    assert "word" not in repr(request)


def real_keys(folder: Path, desk: Desk, held: tuple[str, ...] | None = None) -> KeyRing:
    """A release key of its own, in a folder that names the safety keys of ``desk`` (or those ``held``)."""
    safety = Wish(KeyRole.SAFETY, count=0, held=desk.request.safety_keys if held is None else held)
    return init_keys(folder, real_now(), [KeyRole.RELEASE, safety], development=False, passphrase=b"word")


def test_whose_policy_counts_is_said_by_the_key_folder_not_by_who_asks(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path, keyring, (BENCH, LATENCY), virtual=False, virtual_only=False)
    foreign = real_keys(tmp_path / "foreign", desk, (stranger_public(),))
    asked = desk.replaced(keys=str(foreign.folder), passphrase="word", at_us=foreign.document.created_us)
    with pytest.raises(AnchorUnknownError, match="knows no safety key") as refused:
        request_signature(asked)
    assert "keys rotate safety" in refused.value.next
    # The remedy that the refusal names is enough.
    wish = Wish(KeyRole.SAFETY, count=0, held=desk.request.safety_keys)
    rotate_keys(foreign, real_now(), wish)
    assert request_signature(asked).policy_key in desk.request.safety_keys
    with pytest.raises(AnchorUnknownError, match="knows no approver key"):
        request_signature(replace(asked, approver_keys=(stranger_public(),)))


def stranger_public() -> str:
    return Ed25519Signer(Ed25519PrivateKey.generate()).public


GENEROUS = POLICY.replace(b"weakest: bench, margins", b"weakest: proxy, margins").replace(
    b"latency: {weakest: bench}", b"latency: {weakest: estimated, required: false}"
)
"""A safety role that accepts for vehicles what a host can tell."""


def test_what_a_driver_compiles_further_needs_a_bench_whatever_the_policy_accepts(
    keyring: KeyRing, tmp_path: Path
) -> None:
    lenient = lay_out(tmp_path / "code", keyring, virtual=False, virtual_only=False, policy=GENEROUS)
    with pytest.raises(SigningRefusedError, match="development"):
        sign(lenient.request)  # its evidence is enough; the keys are not
    jit = lay_out(tmp_path / "jit", keyring, virtual=False, virtual_only=False, policy=GENEROUS, jit=True)
    with pytest.raises(SigningRefusedError, match="2 shortfall") as refused:
        sign(jit.request)
    assert "p1 gpu parity: obtained as 'proxy', and a driver in the vehicle compiles" in refused.value.why
    assert "p1 gpu latency: obtained as 'not_run'" in refused.value.why
    assert "cpu" not in refused.value.why
    assert "machine code" in refused.value.next
    seen = (BENCH, LATENCY)
    bench = lay_out(tmp_path / "bench", keyring, seen, virtual=False, virtual_only=False, policy=GENEROUS, jit=True)
    with pytest.raises(SigningRefusedError, match="development"):
        sign(bench.request)


def test_a_virtual_fleet_takes_what_a_driver_compiles_further_and_may_not_hide_it(
    keyring: KeyRing, tmp_path: Path
) -> None:
    honest = lay_out(tmp_path / "honest", keyring, policy=GENEROUS, jit=True)
    assert sign(honest.request).virtual_only
    hides = lay_out(tmp_path / "hides", keyring, virtual_only=False, policy=GENEROUS, jit=True)
    with pytest.raises(SigningRefusedError) as refused:
        sign(hides.request)
    assert "compiles this artifact further" in refused.value.why
    code = lay_out(tmp_path / "code", keyring, virtual_only=False, policy=GENEROUS)
    with pytest.raises(SigningRefusedError, match="development"):
        sign(code.request)


@pytest.mark.parametrize("results", [(), (NOT_RUN,), (BAD, PROXY), (replace(PROXY, figures=()),)])
def test_evidence_that_is_not_enough(keyring: KeyRing, tmp_path: Path, results: tuple[CheckResult, ...]) -> None:
    with pytest.raises(SigningRefusedError):
        sign(lay_out(tmp_path, keyring, results).request)


def test_a_release_tightens_and_never_loosens(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path, keyring)
    tighter = Tighten({"p1": {"parity": Rule(Obtained.BENCH)}})
    with pytest.raises(SigningRefusedError):
        sign(desk.replaced(tighten=tighter))
    with pytest.raises(PolicyLoosenedError):
        sign(desk.replaced(tighten=Tighten({"p1": {"parity": Rule(Obtained.ESTIMATED)}})))


def test_approvals_are_counted_by_key_and_bound_to_the_bundle(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path, keyring)
    request = desk.replaced(tighten=Tighten(approvals=2))
    with pytest.raises(ApprovalNeededError) as waiting:
        sign(request)
    assert "0 of 2" in waiting.value.what
    assert str(digest_bytes(desk.plan.manifest_bytes)) in waiting.value.next
    safety = approve(desk, keyring)
    second = init_keys(tmp_path / "second", real_now(), [KeyRole.SAFETY], development=True)
    keys = (*request.safety_keys, second.public(KeyRole.SAFETY))
    with pytest.raises(ApprovalNeededError):
        sign(replace(request, approvals=(safety, safety), safety_keys=keys))
    (tmp_path / "two").mkdir()
    other = approve(replace(desk, folder=tmp_path / "two"), second)
    assert len(sign(replace(request, approvals=(safety, other), safety_keys=keys)).approved_by) == 2
    with pytest.raises(UntrustedSignatureError):
        sign(replace(request, approvals=(safety, other)))
    elsewhere = approve(desk, keyring, bundle=b"other")
    with pytest.raises(ApprovalNeededError, match="0 of 2"):
        sign(replace(request, approvals=(elsewhere, elsewhere)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"platform": "p2"}, "platform"),
        ({"build": "npu"}, "build"),
        ({"model": "artifact"}, "model"),
        ({"artifact": "model"}, "artifact"),
    ],
)
def test_evidence_about_something_else(keyring: KeyRing, tmp_path: Path, change: dict[str, object], said: str) -> None:
    from nwmctl.domain.digest import digest_bytes

    for name in ("model", "artifact"):
        if name in change:
            change = {name: digest_bytes(b"something else")}
    with pytest.raises(SigningInputError, match=f"another {said}"):
        sign(lay_out(tmp_path, keyring, changes=change).request)


def test_papers_that_do_not_belong_together(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path / "one", keyring)
    other = lay_out(tmp_path / "two", keyring, (BENCH,))
    with pytest.raises(SigningInputError, match="missing"):
        sign(desk.replaced(evidence=desk.request.evidence[1:]))
    with pytest.raises(SigningInputError, match="no payload names"):
        sign(desk.replaced(evidence=desk.request.evidence + other.request.evidence))
    with pytest.raises(BundleContentsError):
        sign(desk.replaced(description=other.request.description))
    with pytest.raises(BundleContentsError):
        sign(desk.replaced(artifacts=desk.request.artifacts[1:]))
    with pytest.raises(SigningInputError, match="cannot be read"):
        sign(desk.replaced(bundle=str(tmp_path / "nothing")))


def test_another_policy_or_an_unsigned_one(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path / "one", keyring)
    looser = lay_out(tmp_path / "two", keyring, policy=POLICY.replace(b"weakest: proxy", b"weakest: estimated"))
    with pytest.raises(SigningInputError, match="another policy"):
        sign(desk.replaced(policy=looser.request.policy, policy_signature=looser.request.policy_signature))
    with pytest.raises(SigningInputError, match="not the one that was signed"):
        sign(desk.replaced(policy=looser.request.policy))
    with pytest.raises(UntrustedSignatureError):
        sign(desk.replaced(safety_keys=(keyring.public(KeyRole.MODEL),)))
    silent = lay_out(tmp_path / "three", keyring, policy=POLICY.replace(b'"*"', b'"p9"'))
    with pytest.raises(SigningRefusedError) as refused:
        sign(silent.request)
    assert "says nothing about 'p1'" in refused.value.why
    damaged = lay_out(tmp_path / "four", keyring, policy=POLICY.replace(b"weakest: proxy", b"weakest: never"))
    with pytest.raises(SchemaError):
        sign(damaged.request)


def test_an_expired_certificate_is_noticed_before_vehicles_do(keyring: KeyRing, tmp_path: Path) -> None:
    desk = lay_out(tmp_path, keyring)
    with pytest.raises(CertificateExpiredError):
        request_signature(desk.replaced(at_us=desk.request.at_us + 6 * 366 * 86_400_000_000))


def test_a_process_that_gives_no_answer(keyring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = lay_out(tmp_path, keyring)
    monkeypatch.setattr(signer, "_MODULE", "nwmctl.trust.no_such_module")
    with pytest.raises(SigningProcessError, match="no answer") as failed:
        request_signature(desk.request)
    assert "no_such_module" in failed.value.why
    monkeypatch.setattr(signer, "_MODULE", "timeit")
    with pytest.raises(SigningProcessError):
        request_signature(desk.request, timeout_s=0.5)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 5000])
def test_a_garbled_request_is_refused_with_an_answer(data: bytes) -> None:
    done = subprocess.run([sys.executable, "-m", "nwmctl.trust.signer"], input=data, capture_output=True)
    assert done.returncode == 5
    assert b"nwmctl.signing-refusal/1" in done.stdout
    assert not done.stderr


def test_only_known_errors_are_rebuilt() -> None:
    from nwmctl.domain.signing import SigningRefusal

    for name in ("SystemExit", "ExitCode", "no"):
        assert isinstance(signer._rebuilt(SigningRefusal(name, "a", "b", "c")), SigningProcessError)
    assert isinstance(signer._rebuilt(SigningRefusal("SigningRefusedError", "a", "b", "c")), NwmError)
