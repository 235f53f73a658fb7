"""Public keys as text, and what they verify: ``ed25519:<hex>`` and ``ecdsa-p256:<hex of the compressed point>``.

Ed25519 is what nwmctl makes; ECDSA is what most hardware modules and key services can do. Holds no private key.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from nwmctl.errors import PublicKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    PublicKey = Ed25519PublicKey | EllipticCurvePublicKey

ED25519 = "ed25519"
ECDSA = "ecdsa-p256"
_MAX_FILE = 1 << 16
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ED25519 = re.compile(r"ed25519:([0-9a-f]{64})\Z")
_ECDSA = re.compile(r"ecdsa-p256:(0[23][0-9a-f]{64})\Z")


def parse_public(public: str) -> PublicKey:
    """The key behind its text. Raises PublicKeyError."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        if found := _ED25519.match(public):
            return Ed25519PublicKey.from_public_bytes(bytes.fromhex(found.group(1)))
        if found := _ECDSA.match(public):
            return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), bytes.fromhex(found.group(1)))
    except ValueError as problem:
        raise _malformed(public) from problem
    raise _malformed(public)


def public_text(pem: bytes) -> str:
    """The text of a public key in a PEM file (SubjectPublicKeyInfo). Raises PublicKeyError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise _malformed("this file") from problem
    match key:
        case Ed25519PublicKey():
            return f"{ED25519}:{key.public_bytes_raw().hex()}"
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return f"{ECDSA}:{key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()}"
        case _:
            raise _malformed("this file")


def public_or_file(text: str) -> str:
    """A public key from its text, from a ``.pub`` file or from a PEM file. Raises PublicKeyError."""
    path = Path(text)
    if not path.is_file():
        parse_public(text)
        return text
    with path.open("rb") as file:
        data = file.read(_MAX_FILE)
    if data.lstrip().startswith(b"-----BEGIN"):
        return public_text(data)
    public = data.decode("utf-8", "replace").strip()
    parse_public(public)
    return public


def verify_signature(public: str, signature: bytes, data: bytes) -> bool:
    """Whether the key ``public`` made ``signature`` over ``data``. Raises PublicKeyError."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA as Ecdsa
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    key = parse_public(public)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, data)
        else:
            key.verify(signature, data, Ecdsa(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def low_s(signature: bytes) -> bytes:
    """An ECDSA P-256 signature (DER) in the one form that stands for it: strict DER, the lower of its two values s.

    Of every signature anybody can make a second one that verifies too; with one form only, there is none. Raises
    ValueError for other bytes.
    """
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, min(s, _P256_ORDER - s))


def verify_ed25519(public: str, signature: bytes, data: bytes) -> bool:
    """As ``verify_signature``, for places where nothing but ed25519 is accepted. Raises PublicKeyError."""
    if not _ED25519.match(public):
        raise _malformed(public)
    return verify_signature(public, signature, data)


def _malformed(public: str) -> PublicKeyError:
    return PublicKeyError(
        f"'{public[:80]}' is not a public key",
        why="a public key is written ed25519: and 64 lowercase hexadecimal digits, or ecdsa-p256: and 66",
        next="copy it from the key folder's .pub file, or from `nwmctl keys list`",
    )
