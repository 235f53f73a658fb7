"""Key folders: made whole or not at all, never overwritten, private parts private."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import (
    KeyMissingError,
    KeyPassphraseError,
    KeyRingError,
    KeyRingExistsError,
    PublicKeyError,
    SignerUriError,
)
from nwmctl.trust.keys import KeyRing, init_keys, load_keyring, load_signer, verify_ed25519
from tests.trust.conftest import FixedClock

CLOCK = FixedClock(1_800_000_000_000_000)


def test_a_ring_is_read_back_and_signs(keyring: KeyRing) -> None:
    again = load_keyring(keyring.folder)
    assert again == keyring
    assert again.development
    for role in KeyRole:
        signer = again.signer(role)
        assert signer.public == again.public(role)
        assert signer.sign(b"x") == signer.sign(b"x"), "signatures are deterministic"
        if role is not KeyRole.RELEASE:
            assert verify_ed25519(signer.public, signer.sign(b"x"), b"x")
            assert not verify_ed25519(signer.public, signer.sign(b"x"), b"y")
    assert len({again.public(role) for role in KeyRole}) == len(KeyRole)
    assert again.public(KeyRole.RELEASE).startswith("rsa3072:")
    assert b"BEGIN CERTIFICATE" in again.ca_pem()
    assert again.ca_pem() != again.certificate_pem()


def test_private_files_are_private(keyring: KeyRing) -> None:
    private = [path for path in keyring.folder.iterdir() if b"PRIVATE" in path.read_bytes()]
    assert len(private) == len(KeyRole) + 4 + 1, "one per role, three for each root, and the authority's"
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in private)


def test_a_readable_private_key_is_refused(tmp_path: Path) -> None:
    ring = init_keys(tmp_path / "k", CLOCK, [KeyRole.MODEL], development=True)
    (tmp_path / "k" / "model.pem").chmod(0o644)
    with pytest.raises(KeyRingError, match=r"model\.pem") as refused:
        ring.signer(KeyRole.MODEL)
    assert "chmod 600" in refused.value.why


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "k"
    init_keys(folder, CLOCK, [KeyRole.MODEL], development=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(KeyRingExistsError):
        init_keys(folder, CLOCK, [KeyRole.MODEL], development=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["k"], "no partial folder is left"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    assert init_keys(tmp_path / "k", CLOCK, [KeyRole.SAFETY], development=False).has(KeyRole.SAFETY)


def test_a_passphrase_is_needed_where_one_was_given(tmp_path: Path) -> None:
    ring = init_keys(tmp_path / "k", CLOCK, [KeyRole.MODEL], development=False, passphrase=b"secret")
    assert ring.signer(KeyRole.MODEL, b"secret").public == ring.public(KeyRole.MODEL)
    for wrong in (None, b"other"):
        with pytest.raises(KeyPassphraseError):
            ring.signer(KeyRole.MODEL, wrong)
    plain = init_keys(tmp_path / "p", CLOCK, [KeyRole.MODEL], development=True)
    with pytest.raises(KeyPassphraseError):
        plain.signer(KeyRole.MODEL, b"secret")


def test_a_missing_role_says_which_roles_there_are(tmp_path: Path) -> None:
    ring = init_keys(tmp_path / "k", CLOCK, [KeyRole.MODEL], development=True)
    with pytest.raises(KeyMissingError) as refused:
        ring.signer(KeyRole.RELEASE)
    assert "model" in refused.value.why


def test_a_swapped_key_is_refused(tmp_path: Path) -> None:
    ring = init_keys(tmp_path / "k", CLOCK, [KeyRole.MODEL, KeyRole.SAFETY], development=True)
    (ring.folder / "model.pem").write_bytes((ring.folder / "safety.pem").read_bytes())
    with pytest.raises(KeyRingError, match="not the one"):
        ring.signer(KeyRole.MODEL)


@pytest.mark.parametrize("damage", ["missing", "not json", "no key"])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str) -> None:
    ring = init_keys(tmp_path / "k", CLOCK, [KeyRole.MODEL], development=True)
    match damage:
        case "missing":
            (ring.folder / "keyring.json").unlink()
        case "not json":
            (ring.folder / "keyring.json").write_text("{")
        case _:
            (ring.folder / "model.pem").write_text("nothing")
    with pytest.raises(KeyRingError):
        load_keyring(ring.folder).signer(KeyRole.MODEL)


def test_an_unknown_uri_scheme_names_the_known_ones() -> None:
    with pytest.raises(SignerUriError, match="pkcs11") as refused:
        load_signer("pkcs11:slot=1")
    assert "file:" in refused.value.why


@pytest.mark.parametrize(
    "text", ["", "ed25519:00", "ed25519:" + "G" * 64, "rsa3072:" + "0" * 64, "ed25519:" + "A" * 64]
)
def test_a_malformed_public_key_is_refused(text: str) -> None:
    with pytest.raises(PublicKeyError):
        verify_ed25519(text, b"", b"")
