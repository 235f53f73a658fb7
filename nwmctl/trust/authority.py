"""The release authority: a small certificate authority and one leaf certificate that signs bundles.

Vehicles carry the authority's certificate and accept only what its leaf has signed. The leaf may sign code and
nothing else of weight; it carries emailProtection too because that is what SWUpdate asks for by default. Times come
in as an argument. Writes no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

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
    ca_key, leaf_key = new_rsa_key(), new_rsa_key()
    ca_pem = _certify("nwmctl release authority", ca_key, now_us, CA_DAYS)
    leaf_pem = issue_leaf(ca_key, ca_pem, leaf_key.public_key(), now_us, days=leaf_days)
    return Authority(ca_key, leaf_key, ca_pem, leaf_pem)


def new_rsa_key() -> RSAPrivateKey:
    """A new key of the size that releases use."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


def issue_leaf(
    ca_key: RSAPrivateKey,
    ca_pem: bytes,
    public: RSAPublicKey,
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
