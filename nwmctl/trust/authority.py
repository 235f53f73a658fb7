"""The release authority: a small certificate authority and one leaf certificate that signs bundles.

Vehicles carry the authority's certificate and accept only what its leaf has signed. The leaf may sign code and
nothing else of weight; it carries emailProtection too because that is what SWUpdate asks for by default. The leaf's key
is RSA, or ECDSA P-256 where a device holds it that can do nothing else. Times come in as an argument. Writes no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nwmctl.errors import PublicKeyError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

    ReleaseKey = RSAPublicKey | EllipticCurvePublicKey
    """What a release certificate may certify: RSA of at least ``RSA_BITS``, or ECDSA on P-256."""

RSA_BITS = 3072
CA_DAYS = 7300
LEAF_DAYS = 1825
_BACKDATED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority and its leaf, keys in memory."""

    ca_key: RSAPrivateKey
    leaf_key: RSAPrivateKey
    ca_pem: bytes
    leaf_pem: bytes


def make_authority(now_us: int, *, leaf_days: int = LEAF_DAYS) -> Authority:
    """A new authority whose certificates hold from an hour before ``now_us``; vehicles' clocks lag."""
    ca_key, ca_pem = make_ca(now_us)
    leaf_key = new_rsa_key()
    leaf_pem = issue_leaf(ca_key, ca_pem, leaf_key.public_key(), now_us, days=leaf_days)
    return Authority(ca_key, leaf_key, ca_pem, leaf_pem)


def make_ca(now_us: int) -> tuple[RSAPrivateKey, bytes]:
    """An authority without a leaf: its key, and its certificate (PEM)."""
    key = new_rsa_key()
    return key, _certify("nwmctl release authority", key, now_us, CA_DAYS)


def new_rsa_key() -> RSAPrivateKey:
    """A new key of the size that releases use."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


def issue_leaf(
    ca_key: RSAPrivateKey,
    ca_pem: bytes,
    public: ReleaseKey,
    now_us: int,
    *,
    days: int = LEAF_DAYS,
    code_signing: bool = True,
) -> bytes:
    """A leaf certificate (PEM) for ``public`` under the authority, valid for ``days``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID

    ca = x509.load_pem_x509_certificate(ca_pem)
    purposes = [ExtendedKeyUsageOID.EMAIL_PROTECTION]
    if code_signing:
        purposes.append(ExtendedKeyUsageOID.CODE_SIGNING)
    start = datetime.fromtimestamp(now_us / 1e6, UTC).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("nwmctl release"))
        .issuer_name(ca.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _BACKDATED)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pem_private(key: Ed25519PrivateKey | RSAPrivateKey, passphrase: bytes | None) -> bytes:
    """A private key as PKCS8 PEM, encrypted if there is a passphrase."""
    from cryptography.hazmat.primitives import serialization

    secret: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        secret = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)


def release_key(pem: bytes) -> ReleaseKey:
    """The public key (PEM, SubjectPublicKeyInfo) that a release certificate can be made for. Raises PublicKeyError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise _unfit("it is no PEM file of a public key") from problem
    return fit_release_key(key)


def fit_release_key(key: object) -> ReleaseKey:
    """``key`` itself, if it may sign bundles. Raises PublicKeyError."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    match key:
        case RSAPublicKey() if key.key_size >= RSA_BITS:
            return key
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return key
        case _:
            raise _unfit(f"it is {getattr(key, 'key_size', 'no')} bits of {type(key).__name__.lstrip('_')}")


def release_public(key: ReleaseKey) -> str:
    """The text of a release key: ``rsa3072:<digest>`` or ``ecdsa-p256:<point>``."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(key, RSAPublicKey):
        return rsa_public(key)
    return f"ecdsa-p256:{key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()}"


def rsa_public(key: RSAPublicKey) -> str:
    """An RSA public key as text: ``rsa<bits>:`` and the sha256 of its SubjectPublicKeyInfo."""
    from cryptography.hazmat.primitives import serialization

    from nwmctl.domain.digest import digest_bytes

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"rsa{key.key_size}:{digest_bytes(der).hex}"


def _certify(title: str, key: RSAPrivateKey, now_us: int, days: int) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    start = datetime.fromtimestamp(now_us / 1e6, UTC).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(title))
        .issuer_name(_name(title))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _BACKDATED)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(title: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, title)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _unfit(reason: str) -> PublicKeyError:
    return PublicKeyError(
        "this key cannot sign bundles",
        why=f"{reason}; a release key is RSA with at least {RSA_BITS} bits, or ECDSA P-256",
        next="make such a key in the device, and export its public part as PEM",
    )
