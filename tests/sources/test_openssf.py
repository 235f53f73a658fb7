"""Models that carry an OpenSSF signature, made by the package that defines them."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nwmctl.app import doctor
from nwmctl.domain.model import CARD_NAME, OPENSSF_NAME, SIGNATURE_NAME, ModelOrigin, SignatureMethod
from nwmctl.errors import (
    EnvelopeError,
    ModelSignatureError,
    ModelSignerMissingError,
    NwmError,
    PublicKeyError,
    SignatureUnknownError,
    UntrustedSignatureError,
)
from nwmctl.sources import openssf
from nwmctl.sources.fetch import ModelPackage, fetch_model, open_package
from nwmctl.trust.model_signature import ec_public_key, ec_text, openssf_files, verify_model_signature
from tests.real import require_real
from tests.sources.package import BIG, TRUSTED, Made, make_package


@pytest.fixture(scope="module")
def key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def sign(folder: Path, key: EllipticCurvePrivateKey, scratch: Path) -> None:
    """Sign a folder as a publisher does."""
    require_real("model-signing", not openssf.missing_packages(), openssf.INSTALL)
    pem = scratch / "private.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signing = import_module("model_signing.signing")
    (folder / SIGNATURE_NAME).unlink(missing_ok=True)
    (folder / OPENSSF_NAME).unlink(missing_ok=True)
    signing.Config().use_elliptic_key_signer(private_key=pem).sign(folder, folder / OPENSSF_NAME)


@pytest.fixture
def made(tmp_path: Path, key: EllipticCurvePrivateKey) -> Made:
    package = make_package(tmp_path / "published", size=2000)
    sign(package.folder, key, tmp_path)
    return package


def fetch(made: Made, into: Path, trusted: tuple[str, ...]) -> ModelPackage:
    into.parent.mkdir(exist_ok=True)
    return fetch_model(made.reference, trusted, into, base=Path("/"), sleep=lambda s: None)


def test_a_signed_folder_is_fetched_and_its_signer_known(
    made: Made, tmp_path: Path, key: EllipticCurvePrivateKey
) -> None:
    text = ec_text(key.public_key())
    package = fetch(made, tmp_path / "work" / "model", (*TRUSTED, text))
    assert package.origin == ModelOrigin(made.reference.digest, SignatureMethod.OPENSSF, text)
    assert (package.folder / package.signature).read_bytes() == (made.folder / OPENSSF_NAME).read_bytes()
    assert not (package.folder / SIGNATURE_NAME).exists()
    assert open_package(package.folder, made.reference, (text,)).origin == package.origin


def test_the_bytes_alone_say_the_same(made: Made, key: EllipticCurvePrivateKey) -> None:
    """What a chain is walked by years later, without the package."""
    text = ec_text(key.public_key())
    card, signature = (made.folder / CARD_NAME).read_bytes(), (made.folder / OPENSSF_NAME).read_bytes()
    assert verify_model_signature(card, signature, (text,)).signer == text
    files, _ = openssf_files(signature, (text,))
    assert files[BIG] == made.card.files["weights"].digest
    with pytest.raises(ModelSignatureError, match="does not hold"):
        verify_model_signature(card + b" ", signature, (text,))


def test_another_key_is_not_trusted(made: Made, tmp_path: Path) -> None:
    stranger = ec_text(generate_private_key(SECP256R1()).public_key())
    for trusted in (TRUSTED, (stranger,), ()):
        with pytest.raises(SignatureUnknownError):
            fetch(made, tmp_path / "work" / "model", trusted)
    assert list((tmp_path / "work").iterdir()) == []


def test_the_card_must_list_what_was_signed(made: Made, tmp_path: Path, key: EllipticCurvePrivateKey) -> None:
    """A file that changed after the signature: the card lists the new bytes and is signed with the old ones."""
    trusted = (ec_text(key.public_key()),)
    (made.folder / "note.txt").write_text("nobody lists me")
    sign(made.folder, key, tmp_path)
    with pytest.raises(ModelSignatureError, match="not what its OpenSSF signature covers"):
        fetch(made, tmp_path / "one" / "model", trusted)
    (made.folder / "note.txt").unlink()
    other = (made.folder / "calibration.npz").read_bytes()
    (made.folder / "calibration.npz").write_bytes(b"changed")
    sign(made.folder, key, tmp_path)
    (made.folder / "calibration.npz").write_bytes(other)
    with pytest.raises(ModelSignatureError, match=r"disagree about 'calibration\.npz'"):
        fetch(made, tmp_path / "two" / "model", trusted)
    assert list((tmp_path / "two").iterdir()) == []


def test_without_the_package_it_says_what_to_install(
    made: Made, tmp_path: Path, key: EllipticCurvePrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssf, "find_spec", lambda name: None if name == "OpenSSL" else object())
    with pytest.raises(ModelSignerMissingError, match="not installed") as missing:
        fetch(made, tmp_path / "work" / "model", (ec_text(key.public_key()),))
    assert "OpenSSL" in missing.value.why
    assert "nwmctl[signatures]" in missing.value.next


@pytest.mark.parametrize("there", [True, False])
def test_doctor_says_whether_it_is_installed(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    require_real("model-signing", not openssf.missing_packages(), openssf.INSTALL)
    if not there:
        monkeypatch.setattr(openssf, "find_spec", lambda name: None)
    finding = doctor._model_signatures()
    assert finding.health is (doctor.Health.OK if there else doctor.Health.OPTIONAL)
    assert finding.install == ("" if there else openssf.INSTALL)


def test_spoilt_signatures(made: Made, key: EllipticCurvePrivateKey) -> None:
    trusted, good = (ec_text(key.public_key()),), (made.folder / OPENSSF_NAME).read_bytes()
    table = json.loads(good)
    cases: list[tuple[object, type[NwmError]]] = [
        ({**table, "dsseEnvelope": {**table["dsseEnvelope"], "payload": "e30="}}, UntrustedSignatureError),
        ({**table, "dsseEnvelope": {**table["dsseEnvelope"], "payloadType": "text/plain"}}, EnvelopeError),
        ({**table, "dsseEnvelope": {**table["dsseEnvelope"], "signatures": [{"sig": "?"}]}}, EnvelopeError),
        ({**table, "dsseEnvelope": {**table["dsseEnvelope"], "signatures": []}}, UntrustedSignatureError),
        ({**table, "dsseEnvelope": 7}, EnvelopeError),
        ({**table, "mediaType": "text/plain"}, EnvelopeError),
        ([], EnvelopeError),
    ]
    for spoilt, error in cases:
        with pytest.raises(error):
            openssf_files(json.dumps(spoilt).encode(), trusted)
    for garbage in (b"", b"[" * 100_000, good[:-40]):
        with pytest.raises(EnvelopeError):
            openssf_files(garbage, trusted)
    for text in ("p256:", "p256:02" + "f" * 64, "ed25519:" + "0" * 64):
        with pytest.raises(PublicKeyError):
            ec_public_key(text)
