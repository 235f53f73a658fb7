"""The CMS signature over ``sw-description``: detached, DER, SHA-256, no signed attributes.

The key is RSA (PKCS#1 v1.5) or, where a device holds it, ECDSA P-256; the certificate decides which. Without signed
attributes nothing but the content, the key and the certificate enters the signature, so with RSA two builds are
identical, signature included. Of ECDSA, whose signatures differ each time, only the form with the lower s is believed:
nobody can turn one signature into another.

The verifier reads the certificate and the signature out of the DER, builds the structure that nwmctl (or OpenSSL)
writes around them, and refuses if the bytes differ: there is no room for a second signer, an unsigned attribute or an
odd encoding. Reads no file, knows no clock; the time is an argument.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import (
    CertificateExpiredError,
    CertificatePurposeError,
    CertificateUntrustedError,
    ContentSignatureError,
    KeyRingError,
    PublicKeyError,
    SignatureFormatError,
)
from nwmctl.trust.authority import fit_release_key, release_public
from nwmctl.trust.keys import KeyRing

if TYPE_CHECKING:
    from cryptography import x509

    from nwmctl.trust.authority import ReleaseKey

MAX_SIGNATURE = 64 << 10

_SEQUENCE, _SET, _INTEGER, _OCTETS, _NULL, _TAGGED = 0x30, 0x31, 0x02, 0x04, 0x05, 0xA0
_OID_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_OID_DATA = bytes.fromhex("06092a864886f70d010701")
_OID_SHA256 = bytes.fromhex("0609608648016503040201")
_OID_RSA = bytes.fromhex("06092a864886f70d010101")
_OID_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")


def sign_cms(description: bytes, keyring: KeyRing, passphrase: bytes | None = None) -> bytes:
    """The detached signature (DER) of the key ring's release key; from an RSA key the same bytes for the same
    description.

    Raises KeyMissingError, KeyRingError, KeyPassphraseError, and SignerFailedError of a key behind a URI.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    signer = keyring.signer(KeyRole.RELEASE, passphrase)
    try:
        certificate = x509.load_pem_x509_certificate(keyring.certificate_pem())
        same = release_public(_key(certificate)) == signer.public
    except (ValueError, CertificatePurposeError) as problem:
        raise _ring(str(problem)) from problem
    if not same:
        raise _ring("the certificate belongs to another key")
    return _build(certificate.public_bytes(Encoding.DER), certificate, signer.sign(description))


def verify_cms(description: bytes, signature: bytes, ca_pem: bytes, at_us: int) -> None:
    """Return if a leaf of the authority ``ca_pem`` signed ``description`` and both certificates hold at ``at_us``.

    Raises SignatureFormatError, CertificateUntrustedError, CertificateExpiredError, CertificatePurposeError and
    ContentSignatureError, in this order of looking.
    """
    leaf, value = _open(signature)
    authority = _authority(ca_pem)
    _check_issuer(leaf, authority)
    for certificate, what in ((leaf, "release certificate"), (authority, "release authority")):
        _check_time(certificate, what, at_us)
    if not _signed(_check_purpose(leaf), value, description):
        raise ContentSignatureError(
            "the bundle's description is not the one that was signed",
            why="the signature does not belong to these bytes",
            next="fetch the bundle again; do not install it",
        )


def cms_of(certificate_pem: bytes, signature: bytes) -> bytes:
    """The detached CMS signature (DER) that ``sign_cms`` would have given, out of its two parts: the certificate and
    the raw signature. Raises SignatureFormatError."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        return _build(certificate.public_bytes(Encoding.DER), certificate, signature)
    except (ValueError, OverflowError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as problem:
        raise _malformed(str(problem) or type(problem).__name__) from problem


def certificate_end_us(signature: bytes) -> int:
    """When the signature's certificate expires, in microseconds since 1970 UTC. Raises SignatureFormatError."""
    return int(_open(signature)[0].not_valid_after_utc.timestamp()) * 1_000_000


def _build(der: bytes, certificate: x509.Certificate, signature: bytes, *, bare: bool = False) -> bytes:
    """The one CMS structure that nwmctl writes; ``bare`` leaves out the digest's NULL parameter, as OpenSSL does."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    null = _tlv(_NULL)
    sha256 = _tlv(_SEQUENCE, _OID_SHA256) if bare else _tlv(_SEQUENCE, _OID_SHA256, null)
    serial = certificate.serial_number
    issuer = _tlv(
        _SEQUENCE,
        certificate.issuer.public_bytes(),
        _tlv(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
    )
    version = _tlv(_INTEGER, b"\x01")
    curve = isinstance(certificate.public_key(), EllipticCurvePublicKey)
    algorithm = _tlv(_SEQUENCE, _OID_ECDSA_SHA256) if curve else _tlv(_SEQUENCE, _OID_RSA, null)
    signer = _tlv(_SEQUENCE, version, issuer, sha256, algorithm, _tlv(_OCTETS, signature))
    signed = _tlv(
        _SEQUENCE,
        version,
        _tlv(_SET, sha256),
        _tlv(_SEQUENCE, _OID_DATA),
        _tlv(_TAGGED, der),
        _tlv(_SET, signer),
    )
    return _tlv(_SEQUENCE, _OID_SIGNED_DATA, _tlv(_TAGGED, signed))


def _open(data: bytes) -> tuple[x509.Certificate, bytes]:
    """The certificate and the raw signature. Raises SignatureFormatError."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    if len(data) > MAX_SIGNATURE:
        raise _malformed(f"it has {len(data)} bytes, at most {MAX_SIGNATURE} are read")
    try:
        _, tagged = _children(data, 2)
        *_, certificates, signers = _children(_inside(tagged), 5)
        der = _inside(certificates)
        certificate = x509.load_der_x509_certificate(der)
        value = _inside(_children(_inside(signers), 5)[4])
        same = any(_build(der, certificate, value, bare=bare) == data for bare in (False, True))
    except (ValueError, OverflowError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as problem:
        raise _malformed(str(problem) or type(problem).__name__) from problem
    if not same:
        raise _malformed("it is not exactly one signature without attributes and its certificate")
    return certificate, value


def _authority(pem: bytes) -> x509.Certificate:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        authority = x509.load_pem_x509_certificate(pem)
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.InvalidVersion) as problem:
        raise _untrusted(f"the trusted authority's certificate cannot be used: {problem}") from problem
    if not constraints.ca:
        raise _untrusted("the trusted certificate is not an authority's")
    return authority


def _check_issuer(leaf: x509.Certificate, authority: x509.Certificate) -> None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise _untrusted("it was issued by another authority") from problem


def _check_time(certificate: x509.Certificate, what: str, at_us: int) -> None:
    at = datetime.fromtimestamp(at_us / 1e6, UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= at <= end:
        raise CertificateExpiredError(
            f"the {what} does not hold at {at:%Y-%m-%d}",
            why=f"it holds from {start:%Y-%m-%d} to {end:%Y-%m-%d}",
            next="sign the bundle again with a current certificate, or correct this machine's clock",
        )


def _check_purpose(leaf: x509.Certificate) -> ReleaseKey:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        extensions = leaf.extensions
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as problem:
        raise _purpose(str(problem)) from problem
    if ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise _purpose("its extended key usage lacks codeSigning")
    if not usage.digital_signature or constraints.ca:
        raise _purpose("it is not a signer's certificate")
    return _key(leaf)


def _key(certificate: x509.Certificate) -> ReleaseKey:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return fit_release_key(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise _purpose(str(problem)) from problem
    except PublicKeyError as problem:
        raise _purpose(problem.why) from problem


def _signed(key: ReleaseKey, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    from nwmctl.trust.publics import low_s

    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, data, PKCS1v15(), SHA256())
            return True
        key.verify(signature, data, ECDSA(SHA256()))
        return low_s(signature) == signature
    except (InvalidSignature, ValueError):
        return False


def _tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + body


def _children(element: bytes, count: int) -> list[bytes]:
    """The ``count`` elements (each with tag and length) inside ``element``."""
    body = _inside(element)
    found: list[bytes] = []
    while body:
        size = _size(body)
        found.append(body[:size])
        body = body[size:]
    if len(found) != count:
        raise ValueError(f"{len(found)} elements where {count} are expected")
    return found


def _inside(element: bytes) -> bytes:
    if _size(element) != len(element):
        raise ValueError("bytes follow an element")
    return element[_head(element) :]


def _head(data: bytes) -> int:
    return 2 if data[1] < 0x80 else 2 + (data[1] & 0x7F)


def _size(data: bytes) -> int:
    """Length of the first element with its head. Only the shapes that DER has; the rebuild proves the rest."""
    if len(data) < 2 or data[1] == 0x80 or data[1] > 0x84 or len(data) < _head(data):
        raise ValueError("an element is cut off")
    size = data[1] if data[1] < 0x80 else int.from_bytes(data[2 : _head(data)], "big")
    if _head(data) + size > len(data):
        raise ValueError("an element is cut off")
    return _head(data) + size


def _ring(reason: str) -> KeyRingError:
    return KeyRingError(
        "the release certificate cannot be used", why=reason, next="restore the key folder from its backup"
    )


def _malformed(reason: str) -> SignatureFormatError:
    return SignatureFormatError(
        "this is not a bundle's signature", why=reason, next="fetch the bundle again; if it stays so, sign it again"
    )


def _untrusted(reason: str) -> CertificateUntrustedError:
    return CertificateUntrustedError(
        "the bundle's certificate is not trusted here",
        why=reason,
        next="compare the authority's certificate with the one that your vehicles carry",
    )


def _purpose(reason: str) -> CertificatePurposeError:
    return CertificatePurposeError(
        "the bundle's certificate may not sign bundles",
        why=reason,
        next="sign with the release certificate that `nwmctl keys init` makes",
    )
