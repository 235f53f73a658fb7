"""The release key in a PKCS#11 token: its CMS signatures are believed by us, by OpenSSL and by the real swupdate."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nwmctl.app import keychanges
from nwmctl.bundling.bundle import plan_bundle
from nwmctl.bundling.write import write_bundle
from nwmctl.domain.keys import KeyRole, KeyState
from nwmctl.errors import (
    ContentSignatureError,
    KeyTwoRolesError,
    PublicKeyError,
    SignerFailedError,
    SignerUriError,
)
from nwmctl.formats.swu import selection
from nwmctl.trust.cms import sign_cms, verify_cms
from nwmctl.trust.expiry import ring_expiries
from nwmctl.trust.keyfolder import Wish, renew_certificate
from nwmctl.trust.keys import KeyRing, init_keys, load_keyring
from nwmctl.trust.publics import low_s
from nwmctl.trust.seal import STATEMENT_TYPE, open_seal, sealer
from nwmctl.trust.signers import RemoteSigner
from tests.bundling import samples
from tests.bundling.test_swupdate import _LOST, _TRIES
from tests.real import require_program
from tests.trust.conftest import real_now
from tests.trust.test_hsm import generate_pem, token

__all__ = ["token"]
TEXT = b'{"software":{}}'


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """A key folder with its release key in a file; RSA keys take long to make."""
    return init_keys(tmp_path_factory.mktemp("hsm") / "ring", real_now(), [KeyRole.RELEASE], development=True)


@pytest.fixture
def own(tmp_path: Path, before: KeyRing) -> KeyRing:
    shutil.copytree(before.folder, tmp_path / "ring")
    return load_keyring(tmp_path / "ring")


@pytest.fixture
def ring(tmp_path: Path, token: str, own: KeyRing) -> KeyRing:
    """A key folder whose release key was moved into the token, as a person does it."""
    pem = tmp_path / "token.pem"
    pem.write_bytes(generate_pem())
    change = keychanges.rotate(own.folder, KeyRole.RELEASE, "", keychanges.NewKeys(held=[str(pem)], uris=[token]))
    assert [entry.uri for entry in change.new] == [token]
    found = load_keyring(own.folder)
    assert found.ca_pem() == own.ca_pem(), "vehicles carry it"
    return found


def test_a_token_signs_bundles(ring: KeyRing, tmp_path: Path) -> None:
    states = {entry.uri.partition(":")[0]: entry.state for entry in ring.document.of(KeyRole.RELEASE)}
    assert states == {"file": KeyState.RETIRED, "hsm": KeyState.ACTIVE}
    signature = sign_cms(TEXT, ring)
    now = real_now().us
    verify_cms(TEXT, signature, ring.ca_pem(), now)
    with pytest.raises(ContentSignatureError):
        verify_cms(TEXT + b" ", signature, ring.ca_pem(), now)
    sealed = sealer(ring)(TEXT, STATEMENT_TYPE)
    assert open_seal(sealed, STATEMENT_TYPE, ring.ca_pem(), now) == TEXT
    assert {expiry.name for expiry in ring_expiries(ring)} >= {"release certificate", "release authority"}
    # The key stays in the token when its certificate ends.
    later = replace(real_now(), us=now + 1000 * 86_400_000_000)
    fresh = renew_certificate(ring, later)
    assert fresh.entry(KeyRole.RELEASE).uri.startswith("hsm:")
    verify_cms(TEXT, sign_cms(TEXT, fresh), ring.ca_pem(), later.us + 1000 * 86_400_000_000)

    openssl = require_program("openssl", "openssl")
    for name, data in (("text", TEXT), ("sig", signature), ("ca", ring.ca_pem())):
        (tmp_path / name).write_bytes(data)
    check = [openssl, "cms", "-verify", "-binary", "-inform", "DER", "-in", "sig", "-CAfile", "ca", "-content", "text"]
    check += ["-purpose", "any"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "text").write_bytes(TEXT + b" ")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode != 0


def test_the_real_swupdate_accepts_what_a_token_signed(ring: KeyRing, tmp_path: Path) -> None:
    program = require_program("swupdate", "swupdate")
    store = samples.payload_folder(tmp_path / "store")
    plan = plan_bundle(samples.inputs(str(tmp_path / "car")))
    good, bad = tmp_path / "good.swu", tmp_path / "bad.swu"
    signature = sign_cms(plan.description_bytes, ring)
    write_bundle(plan, signature, lambda digest: store / digest.hex, good)
    write_bundle(plan, signature[:-1] + bytes([signature[-1] ^ 1]), lambda digest: store / digest.hex, bad)

    def said(bundle: Path) -> str:
        order = [program, "-c", "-l", "5", "-k", str(ring.folder / "release-ca.crt"), "--cert-purpose", "codeSigning"]
        order += ["-e", selection("r1", "copy1"), "-H", "p1:r1", "-i", str(bundle)]
        for _ in range(_TRIES):
            environment = {**os.environ, "TMPDIR": tempfile.mkdtemp(dir=tmp_path)}
            done = subprocess.run(order, capture_output=True, env=environment, cwd=tmp_path, timeout=60)
            log = (done.stdout + done.stderr).decode(errors="replace")
            if "SWUPDATE" in log and not any(mark in log for mark in _LOST):
                return log
        return log

    log = said(good)
    assert "SWUPDATE successful" in log, log
    log = said(bad)
    assert "SWUPDATE successful" not in log, log
    assert "ignature" in log


def test_nobody_makes_a_second_signature_of_one(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of (r, s) also (r, n - s) verifies; only the lower is believed, and only that is ever given out."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signature = sign_cms(TEXT, ring)
    place = signature.rindex(b"\x04", 0, len(signature) - 60)
    raw = signature[place + 2 :]
    assert low_s(raw) == raw
    r, s = decode_dss_signature(raw)
    flipped = encode_dss_signature(r, order - s)
    assert low_s(flipped) == raw
    monkeypatch.setattr(RemoteSigner, "sign", lambda self, data: flipped)
    other = sign_cms(TEXT, ring)
    assert other != signature
    with pytest.raises(ContentSignatureError):
        verify_cms(TEXT, other, ring.ca_pem(), real_now().us)


def test_a_token_with_another_key_signs_nothing(ring: KeyRing) -> None:
    """The URI leads to a key that is not the certified one."""
    import pkcs11

    from tests.trust.test_hsm import MODULE, PIN

    with pkcs11.lib(str(MODULE)).get_token(token_label="office").open(rw=True, user_pin=PIN) as session:
        for key in list(session.get_objects()):
            key.destroy()
    generate_pem()
    with pytest.raises(SignerFailedError, match="not one of"):
        sign_cms(TEXT, ring)


def test_what_cannot_be_a_release_key_is_refused_and_changes_nothing(tmp_path: Path, own: KeyRing) -> None:
    made = own
    before = (made.folder / "keyring.json").read_bytes()

    def add(pem: bytes) -> None:
        (tmp_path / "key.pem").write_bytes(pem)
        new = keychanges.NewKeys(held=[str(tmp_path / "key.pem")], uris=["awskms:arn:x"])
        keychanges.rotate(made.folder, KeyRole.RELEASE, "", new)

    def pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(PublicKeyError, match="cannot sign bundles"):
            add(pem(key.public_key()))
    with pytest.raises(PublicKeyError):
        add(b"nothing")
    with pytest.raises(SignerUriError, match="held elsewhere"):
        keychanges.rotate(made.folder, KeyRole.RELEASE, "", keychanges.NewKeys(held=[made.public(KeyRole.RELEASE)]))
    assert (made.folder / "keyring.json").read_bytes() == before
    # A key service with an RSA key is certified like any; the same key twice is not.
    big = pem(rsa.generate_private_key(65537, 3072).public_key())
    add(big)
    found = load_keyring(made.folder)
    assert found.entry(KeyRole.RELEASE).uri == "awskms:arn:x"
    assert found.public(KeyRole.RELEASE).startswith("rsa3072:")
    with pytest.raises(KeyTwoRolesError):
        add(big)
    wish = Wish(KeyRole.RELEASE, count=0, reached=(("awskms:arn:x", big.decode()),))
    fresh = init_keys(tmp_path / "fresh", real_now(), [wish], development=True)
    assert not (fresh.folder / "release.pem").exists()
    assert replace(fresh.entry(KeyRole.RELEASE), certificate="") == replace(
        found.entry(KeyRole.RELEASE), certificate=""
    )
