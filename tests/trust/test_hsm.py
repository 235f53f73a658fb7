"""A PKCS#11 token (SoftHSM) holds the timestamp key of a repository; real vehicles' checks accept what it signs."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import KeyPassphraseError, SignerFailedError
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.keyfolder import Wish
from nwmctl.trust.keys import KeyRing, init_keys, load_keyring
from nwmctl.trust.publics import public_text
from nwmctl.trust.repository import add_targets, create_repository
from tests.real import require_program, require_real
from tests.trust.conftest import FixedClock
from tests.trust.test_repository import START, Mirror, bundle

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "4711"
CLOCK = FixedClock(START)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a fresh token with one P-256 key."""
    tool = require_program("softhsm2-util", "softhsm2")
    require_real("python-pkcs11", find_spec("pkcs11") is not None and MODULE.exists(), "pip install python-pkcs11")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    monkeypatch.setenv("PYKCS11LIB", str(MODULE))
    monkeypatch.setenv("TOKEN_PIN", PIN)
    make = [tool, "--init-token", "--free", "--label", "office", "--pin", PIN, "--so-pin", "0815"]
    subprocess.run(make, check=True, capture_output=True, timeout=30)
    import pkcs11

    # The library has read where its tokens lie when it was loaded: another test's folder.
    pkcs11.lib(str(MODULE)).reinitialize()
    return "hsm:2?label=office&pin-env=TOKEN_PIN"


def generate() -> str:
    """A key in the token; its public part as text."""
    return public_text(generate_pem())


def generate_pem() -> bytes:
    """A key in the token; its public part as PEM."""
    import pkcs11
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
    from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

    with pkcs11.lib(str(MODULE)).get_token(token_label="office").open(rw=True, user_pin=PIN) as session:
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        public, _ = parameters.generate_keypair(store=True, id=b"\x02", label="timestamp")
        key = load_der_public_key(encode_ec_public_key(public))
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_token_signs_the_timestamp(tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    public = generate()
    wishes = [KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT]
    there = Wish(KeyRole.TIMESTAMP, count=0, reached=((token, public),))
    ring: KeyRing = init_keys(tmp_path / "ring", CLOCK, [*wishes, there], development=True)
    assert not (ring.folder / "timestamp.pem").exists()
    first = create_repository(load_keyring(ring.folder), CLOCK)
    mirror = Mirror()
    mirror.publish(add_targets(first.state, [bundle()], ring, CLOCK))
    assert refresh(TrustedState(first.state.roots[0]), mirror.fetch, START).resolve(bundle().name) == bundle()

    monkeypatch.setenv("TOKEN_PIN", "0000")
    with pytest.raises(SignerFailedError, match="did not sign"):
        ring.signer(KeyRole.TIMESTAMP).sign(b"data")
    monkeypatch.delenv("TOKEN_PIN")
    with pytest.raises(KeyPassphraseError, match="asks for a secret"):
        ring.signer(KeyRole.TIMESTAMP).sign(b"data")
    shutil.rmtree(tmp_path / "tokens")
    monkeypatch.setenv("TOKEN_PIN", PIN)
    with pytest.raises(SignerFailedError):
        ring.signer(KeyRole.TIMESTAMP).sign(b"data")
