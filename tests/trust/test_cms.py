"""CMS signatures: two other implementations agree, each refusal has its own class, bytes are deterministic."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs7
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import (
    CertificateExpiredError,
    CertificatePurposeError,
    CertificateUntrustedError,
    ContentSignatureError,
    KeyRingError,
    NwmError,
    SignatureFormatError,
)
from nwmctl.trust.authority import CA_DAYS, LEAF_DAYS, issue_leaf, pem_private
from nwmctl.trust.cms import certificate_end_us, sign_cms, verify_cms
from nwmctl.trust.keys import KeyRing, init_keys
from tests.real import require_program
from tests.trust.conftest import real_now

TEXT = b'{"software":{}}'
DAY = 86_400_000_000


@pytest.fixture(scope="module")
def signature(keyring: KeyRing) -> bytes:
    return sign_cms(TEXT, keyring)


def _private(keyring: KeyRing, name: str) -> rsa.RSAPrivateKey:
    key = load_pem_private_key((keyring.folder / name).read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _with_leaf(keyring: KeyRing, tmp_path: Path, leaf_pem: bytes) -> KeyRing:
    """The same ring with another leaf certificate."""
    folder = tmp_path / "ring"
    folder.mkdir(mode=0o700)
    for path in keyring.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).chmod(0o600)
    (folder / "release.crt").write_bytes(leaf_pem)
    return KeyRing(folder, keyring.document)


def test_it_verifies_and_is_deterministic(keyring: KeyRing, signature: bytes) -> None:
    now = keyring.document.created_us
    verify_cms(TEXT, signature, keyring.ca_pem(), now)
    assert sign_cms(TEXT, keyring) == signature
    assert abs(certificate_end_us(signature) - now - LEAF_DAYS * DAY) < 2_000_000


def test_the_bytes_are_those_of_cryptographys_builder(keyring: KeyRing, signature: bytes) -> None:
    leaf = x509.load_pem_x509_certificate(keyring.certificate_pem())
    theirs = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(TEXT)
        .add_signer(leaf, _private(keyring, "release.pem"), SHA256())
        .sign(
            Encoding.DER,
            [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoAttributes],
        )
    )
    assert theirs == signature


def test_openssl_agrees_both_ways(keyring: KeyRing, signature: bytes, tmp_path: Path) -> None:
    openssl = require_program("openssl", "openssl")
    text, sig, ca = tmp_path / "text", tmp_path / "sig", tmp_path / "ca"
    text.write_bytes(TEXT)
    sig.write_bytes(signature)
    ca.write_bytes(keyring.ca_pem())
    check = f"{openssl} cms -verify -binary -inform DER -in {sig} -CAfile {ca} -content {text}".split()
    assert subprocess.run([*check, "-purpose", "any"], capture_output=True).returncode == 0
    text.write_bytes(TEXT + b" ")
    assert subprocess.run([*check, "-purpose", "any"], capture_output=True).returncode != 0
    text.write_bytes(TEXT)
    sign = f"{openssl} cms -sign -binary -noattr -md sha256 -outform DER -in {text}".split()
    keys = ["-signer", str(keyring.folder / "release.crt"), "-inkey", str(keyring.folder / "release.pem")]
    made = subprocess.run([*sign, *keys], capture_output=True, check=True).stdout
    verify_cms(TEXT, made, keyring.ca_pem(), keyring.document.created_us)


def test_each_refusal_has_its_own_class(keyring: KeyRing, signature: bytes, tmp_path: Path) -> None:
    now = keyring.document.created_us
    with pytest.raises(ContentSignatureError):
        verify_cms(TEXT + b" ", signature, keyring.ca_pem(), now)
    for when in (now + (LEAF_DAYS + 1) * DAY, now - 2 * DAY, now + (CA_DAYS + 1) * DAY):
        with pytest.raises(CertificateExpiredError):
            verify_cms(TEXT, signature, keyring.ca_pem(), when)
    other = init_keys(tmp_path / "other", real_now(), [KeyRole.RELEASE], development=True)
    with pytest.raises(CertificateUntrustedError):
        verify_cms(TEXT, signature, other.ca_pem(), now)
    for authority in (b"", keyring.certificate_pem()):
        with pytest.raises(CertificateUntrustedError):
            verify_cms(TEXT, signature, authority, now)
    with pytest.raises(SignatureFormatError):
        verify_cms(TEXT, signature + b"\0", keyring.ca_pem(), now)


def test_a_leaf_that_may_not_sign_code_is_refused(keyring: KeyRing, tmp_path: Path) -> None:
    now = keyring.document.created_us
    public = _private(keyring, "release.pem").public_key()
    leaf = issue_leaf(_private(keyring, "release-ca.pem"), keyring.ca_pem(), public, now, code_signing=False)
    made = sign_cms(TEXT, _with_leaf(keyring, tmp_path, leaf))
    with pytest.raises(CertificatePurposeError, match="may not sign"):
        verify_cms(TEXT, made, keyring.ca_pem(), now)


def test_a_short_key_is_refused(keyring: KeyRing, tmp_path: Path) -> None:
    now = keyring.document.created_us
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024 * 2)
    leaf = issue_leaf(_private(keyring, "release-ca.pem"), keyring.ca_pem(), key.public_key(), now)
    der = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(TEXT)
        .add_signer(x509.load_pem_x509_certificate(leaf), key, SHA256())
        .sign(
            Encoding.DER,
            [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoAttributes],
        )
    )
    with pytest.raises(CertificatePurposeError):
        verify_cms(TEXT, der, keyring.ca_pem(), now)
    ring = _with_leaf(keyring, tmp_path, leaf)
    (ring.folder / "release.pem").write_bytes(pem_private(key, None))
    with pytest.raises(KeyRingError):
        sign_cms(TEXT, ring)


def test_a_certificate_of_another_key_is_noticed_before_signing(keyring: KeyRing, tmp_path: Path) -> None:
    other = init_keys(tmp_path / "other", real_now(), [KeyRole.RELEASE], development=True)
    with pytest.raises(KeyRingError, match="certificate"):
        sign_cms(TEXT, _with_leaf(keyring, tmp_path, other.certificate_pem()))


def test_signed_attributes_and_attached_content_are_refused(keyring: KeyRing) -> None:
    leaf = x509.load_pem_x509_certificate(keyring.certificate_pem())
    builder = pkcs7.PKCS7SignatureBuilder().set_data(TEXT).add_signer(leaf, _private(keyring, "release.pem"), SHA256())
    detached, binary = pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary
    for options in ([detached, binary], [binary, pkcs7.PKCS7Options.NoAttributes]):
        with pytest.raises(SignatureFormatError):
            verify_cms(TEXT, builder.sign(Encoding.DER, options), keyring.ca_pem(), keyring.document.created_us)


@settings(max_examples=500, deadline=None)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
    cut=st.one_of(st.none(), st.floats(0, 1, exclude_max=True)),
)
def test_mutated_signatures_raise_only_our_errors(
    keyring: KeyRing, signature: bytes, changes: list[tuple[float, int]], cut: float | None
) -> None:
    data = bytearray(signature)
    for position, value in changes:
        data[int(position * len(data))] = value
    if cut is not None:
        del data[int(cut * len(data)) :]
    try:
        verify_cms(TEXT, bytes(data), keyring.ca_pem(), keyring.document.created_us)
    except NwmError:
        return
    assert bytes(data) == signature
