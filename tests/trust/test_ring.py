"""Several keys per role: thresholds, holders elsewhere, revoked keys, one role per key; and signers by any URI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from nwmctl.domain.keys import KeyEntry, KeyRingDocument, KeyRole, KeyState, RoleThreshold
from nwmctl.errors import (
    KeyElsewhereError,
    KeyFolderOpenError,
    KeyPassphraseError,
    KeyRevokedError,
    KeyRingError,
    KeyThresholdError,
    KeyTwoRolesError,
    KeyUnknownError,
    NwmError,
    PublicKeyError,
    SignerFailedError,
    SignerUriError,
)
from nwmctl.trust.dsse import POLICY_TYPE, sign_dsse, verify_dsse
from nwmctl.trust.keyfolder import Wish, add_keys, revoke_key, rotate_keys
from nwmctl.trust.keys import KeyRing, init_keys, load_keyring, load_signer, verify_signature
from nwmctl.trust.publics import public_or_file, public_text
from tests.trust.conftest import FixedClock

CLOCK = FixedClock(1_800_000_000_000_000)
TUF = [KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return init_keys(tmp_path / "ring", CLOCK, TUF, development=True, platforms=["nt2.0"])


def test_root_has_three_keys_of_which_two_sign(ring: KeyRing) -> None:
    assert (len(ring.publics(KeyRole.ROOT)), ring.threshold(KeyRole.ROOT)) == (3, 2)
    assert [signer.public for signer in ring.signers(KeyRole.ROOT)] == list(ring.publics(KeyRole.ROOT)[:2])
    assert (len(ring.publics(KeyRole.TARGETS)), ring.threshold(KeyRole.TARGETS)) == (1, 1)
    assert ring.publics(KeyRole.TARGETS, "nt2.0") != ring.publics(KeyRole.TARGETS)
    assert ring.document.platforms == ("nt2.0",)
    assert len(ring.roots()) == 1
    assert load_keyring(ring.folder) == ring


def test_a_key_that_is_lost_leaves_the_threshold_within_reach_and_two_do_not(ring: KeyRing) -> None:
    (ring.folder / "root-1.pem").unlink()
    with pytest.raises(KeyRingError, match=r"root-1\.pem"):
        ring.signers(KeyRole.ROOT)
    one = revoke_key(ring, CLOCK, ring.publics(KeyRole.ROOT)[0])
    assert len(one.signers(KeyRole.ROOT)) == 2
    elsewhere = KeyRing(
        one.folder,
        replace(one.document, keys=tuple(replace(e, uri="") if "root-2" in e.uri else e for e in one.document.keys)),
    )
    with pytest.raises(KeyThresholdError, match="needs signatures by 2 keys, 1 of them"):
        elsewhere.signers(KeyRole.ROOT)


def test_a_key_held_elsewhere_cannot_be_opened_here(tmp_path: Path, ring: KeyRing) -> None:
    holder = init_keys(tmp_path / "holder", CLOCK, [Wish(KeyRole.ROOT)], development=True)
    there = holder.public(KeyRole.ROOT)
    more = add_keys(ring, CLOCK, [Wish(KeyRole.DIRECTOR_ROOT, count=0, held=(there,))])
    with pytest.raises(KeyElsewhereError, match="not in ring"):
        more.signer(KeyRole.DIRECTOR_ROOT)
    assert not holder.roots(), "a holder's folder is no whole ring"


def test_a_revoked_key_signs_nothing_any_more(ring: KeyRing) -> None:
    public = ring.public(KeyRole.TIMESTAMP)
    after = revoke_key(ring, CLOCK, public)
    assert after.public(KeyRole.TIMESTAMP) != public, "another one was made in its place"
    lost = next(entry for entry in after.document.keys if entry.public == public)
    assert lost.state is KeyState.REVOKED
    with pytest.raises(KeyRevokedError):
        after.open(lost)
    with pytest.raises(KeyRevokedError, match="cannot be signed"):
        after.signers_of([public], 1, "timestamp")
    assert load_keyring(ring.folder) == after
    with pytest.raises(KeyUnknownError):
        revoke_key(ring, CLOCK, "ed25519:" + "0" * 64)


def test_rotated_keys_retire_and_every_change_is_whole(ring: KeyRing) -> None:
    after = rotate_keys(ring, CLOCK, Wish(KeyRole.TARGETS, count=2, threshold=2))
    assert len(after.publics(KeyRole.TARGETS)) == after.threshold(KeyRole.TARGETS) == 2
    assert after.document.of(KeyRole.TARGETS)[0].state is KeyState.RETIRED
    assert after.publics(KeyRole.TARGETS, "nt2.0") == ring.publics(KeyRole.TARGETS, "nt2.0")
    before = files(ring.folder)
    with pytest.raises(KeyThresholdError, match="threshold of 3"):
        rotate_keys(after, CLOCK, Wish(KeyRole.SNAPSHOT, count=0, threshold=3))
    assert files(ring.folder) == before, "a refusal changes nothing"


def test_one_key_never_has_two_roles(tmp_path: Path, ring: KeyRing) -> None:
    public = ring.public(KeyRole.TARGETS)
    with pytest.raises(KeyTwoRolesError, match="a key of 'targets' already"):
        add_keys(ring, CLOCK, [Wish(KeyRole.SAFETY, count=0, held=(public,))])
    with pytest.raises(ValueError, match="stands there twice"):
        KeyRingDocument(True, 1, (KeyEntry(KeyRole.ROOT, "", "x"), KeyEntry(KeyRole.MODEL, "", "x")))
    text = (ring.folder / "keyring.json").read_text()
    (ring.folder / "keyring.json").write_text(text.replace(ring.public(KeyRole.SNAPSHOT), public))
    with pytest.raises(KeyRingError, match="twice"):
        load_keyring(ring.folder)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RoleThreshold(KeyRole.ROOT, 0),
        lambda: KeyEntry(KeyRole.ROOT, "", "x", platform="nt2.0"),
        lambda: KeyRingDocument(True, 1, (), (RoleThreshold(KeyRole.ROOT, 2), RoleThreshold(KeyRole.ROOT, 3))),
    ],
)
def test_a_ring_that_makes_no_sense_cannot_be_said(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"threshold|platform"):
        make()


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o702])
def test_a_folder_that_others_may_enter_is_refused(ring: KeyRing, mode: int) -> None:
    ring.folder.chmod(mode)
    with pytest.raises(KeyFolderOpenError, match="open to others") as refused:
        ring.signer(KeyRole.TARGETS)
    assert "chmod 700" in refused.value.next
    assert load_keyring(ring.folder).public(KeyRole.TARGETS), "public parts may be read by whoever can"


def test_encrypted_keys_open_with_their_passphrase_alone(tmp_path: Path) -> None:
    made = init_keys(tmp_path / "k", CLOCK, TUF, development=False, passphrase=b"open")
    pems = [path.read_bytes() for path in made.folder.glob("*.pem")]
    assert len(pems) == 6
    assert all(b"ENCRYPTED" in pem for pem in pems)
    for wrong in (None, b"shut"):
        with pytest.raises(KeyPassphraseError):
            made.signers(KeyRole.ROOT, wrong)
    assert len(made.signers(KeyRole.ROOT, b"open")) == 2


@pytest.mark.parametrize("platform", ["a/b", "..", "*", "x" * 70])
def test_a_platform_that_is_no_name_is_refused(tmp_path: Path, platform: str) -> None:
    with pytest.raises(KeyUnknownError, match="no platform's name"):
        init_keys(tmp_path / "k", CLOCK, [KeyRole.TARGETS], development=True, platforms=[platform])
    assert list(tmp_path.iterdir()) == [], "nothing half-made stays"


# --- signers of the library, by URI ---------------------------------------------------------------------------------


def stored(folder: Path, key: object) -> tuple[str, str]:
    """A key as ``file2:`` URI of securesystemslib, and its public part as text."""
    path = folder / "library.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))  # type: ignore[attr-defined]
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    (folder / "library.pub").write_bytes(pem)
    return f"file2:{path}", public_text(pem)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256"])
def test_a_signer_of_the_library_stands_in_place_of_a_file(tmp_path: Path, ring: KeyRing, kind: str) -> None:
    key = Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(SECP256R1())
    uri, public = stored(tmp_path, key)
    assert public.startswith(f"{kind}:")
    assert public_or_file(str(tmp_path / "library.pub")) == public
    after = add_keys(ring, CLOCK, [Wish(KeyRole.SAFETY, count=0, reached=((uri, public),))])
    signer = load_keyring(after.folder).signer(KeyRole.SAFETY)
    assert verify_signature(public, signer.sign(b"data"), b"data")
    assert not verify_signature(public, signer.sign(b"data"), b"other")
    assert verify_dsse(sign_dsse(b"policy", POLICY_TYPE, signer), POLICY_TYPE, [public]).payload == b"policy"


def test_a_device_that_answers_with_another_key_is_noticed(tmp_path: Path, ring: KeyRing) -> None:
    uri, _ = stored(tmp_path, generate_private_key(SECP256R1()))
    (tmp_path / "other").mkdir()
    _, public = stored(tmp_path / "other", generate_private_key(SECP256R1()))
    after = add_keys(ring, CLOCK, [Wish(KeyRole.SAFETY, count=0, reached=((uri, public),))])
    with pytest.raises(SignerFailedError):
        after.signer(KeyRole.SAFETY).sign(b"data")


def test_uris_that_lead_nowhere_are_refused_by_name(tmp_path: Path) -> None:
    public = "ed25519:" + Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    with pytest.raises(SignerUriError, match="by itself"):
        load_signer("hsm:2?label=root")
    with pytest.raises(SignerUriError, match="no signer"):
        load_signer("nowhere:1", public=public)
    with pytest.raises(SignerFailedError, match="cannot be reached"):
        load_signer(f"file2:{tmp_path}/missing.pem", public=public)
    for text in ("rsa3072:00", "ecdsa-p256:04" + "0" * 64, "ecdsa-p256:02" + "f" * 64):
        with pytest.raises(PublicKeyError):
            load_signer("hsm:2", public=text)


def test_a_release_key_needs_its_certificate(tmp_path: Path, ring: KeyRing) -> None:
    with pytest.raises(SignerUriError, match="held elsewhere"):
        add_keys(ring, CLOCK, [Wish(KeyRole.RELEASE, count=0, held=("rsa3072:00",))])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN NOTHING-----", b"ed25519:xyz"])
def test_a_public_key_file_that_holds_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k.pub").write_bytes(content)
    with pytest.raises(NwmError):
        public_or_file(str(tmp_path / "k.pub"))
