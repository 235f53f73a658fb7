"""A signing process with a key folder of its own: whoever asks has neither the key nor the passphrase."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nwmctl.errors import AnchorUnknownError, KeyRingError, SigningProcessError
from nwmctl.trust.cms import verify_cms
from nwmctl.trust.keys import KeyRing, load_keyring
from nwmctl.trust.signer import SIGNER, SIGNER_KEYS, SIGNER_PASSPHRASE, request_signature, sign
from nwmctl.trust.signers import Ed25519Signer
from tests.trust.papers import BENCH, LATENCY, Desk, lay_out
from tests.trust.test_signer import real_keys


@pytest.fixture
def desk(keyring: KeyRing, tmp_path: Path) -> Desk:
    return lay_out(tmp_path, keyring, (BENCH, LATENCY), virtual=False, virtual_only=False)


def test_the_asking_side_needs_no_key(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = real_keys(tmp_path / "theirs", desk)
    ours = tmp_path / "ours"
    shutil.copytree(ring.folder, ours, ignore=shutil.ignore_patterns("*.pem"))
    assert not list(ours.glob("*.pem"))
    request = desk.replaced(keys=str(ours), at_us=ring.document.created_us)
    with pytest.raises(KeyRingError, match=r"release\.pem"):
        request_signature(request)
    own = f"env {SIGNER_KEYS}={shlex.quote(str(ring.folder))} {SIGNER_PASSPHRASE}=word"
    monkeypatch.setenv(SIGNER, f"{own} {shlex.quote(sys.executable)} -m")
    result = request_signature(request)
    signature = bytes.fromhex(result.signature)
    verify_cms(desk.plan.description_bytes, signature, load_keyring(ours).ca_pem(), ring.document.created_us)
    assert (
        request_signature(desk.replaced(keys=str(tmp_path / "nowhere"), at_us=request.at_us, passphrase="x")) == result
    )


def test_a_request_cannot_bring_its_own_folder(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that the asker made know the asker's policy; the account's folder does not."""
    theirs = real_keys(tmp_path / "theirs", desk, held=(Ed25519Signer(Ed25519PrivateKey.generate()).public,))
    asker = real_keys(tmp_path / "asker", desk)
    request = desk.replaced(keys=str(asker.folder), passphrase="word", at_us=theirs.document.created_us)
    sign(request)
    monkeypatch.setenv(SIGNER_KEYS, str(theirs.folder))
    monkeypatch.setenv(SIGNER_PASSPHRASE, "word")
    with pytest.raises(AnchorUnknownError):
        sign(request)


def test_a_command_that_starts_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("/nowhere/signer", "false"):
        monkeypatch.setenv(SIGNER, command)
        with pytest.raises(SigningProcessError):
            request_signature(desk.request)
