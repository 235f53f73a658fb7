"""DSSE envelopes signed by the release key, with its certificate inside: statements, and the certificate of a release.

Whoever carries the release authority's certificate (every vehicle does) can check them without any further key. The
signature is the one that CMS would hold and is judged by the same rules as a bundle's:
issuer, validity, purpose. Exactly one signature. Reads no file; the time is an argument.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import NotCanonicalError, PayloadTypeError, PublicKeyError, SealError
from nwmctl.formats import canonical
from nwmctl.trust.authority import fit_release_key, release_public
from nwmctl.trust.cms import cms_of, verify_cms
from nwmctl.trust.dsse import pre_authentication
from nwmctl.trust.keys import KeyRing

CERTIFICATE_TYPE = "application/vnd.nwmctl.certificate+json"
STATEMENT_TYPE = "application/vnd.in-toto+json"

MAX_SEALED = 64 << 20
_NEXT = "fetch the file again, from where the release was published"

Seal = Callable[[bytes, str], bytes]
"""Signs a payload of a type; gives the envelope."""


def sealer(keyring: KeyRing, passphrase: bytes | None = None) -> Seal:
    """What seals with the key ring's release key, opened once. Raises KeyMissingError, KeyRingError and others."""
    signer = keyring.signer(KeyRole.RELEASE, passphrase)
    certificate = keyring.certificate_pem().decode("ascii")

    def seal(payload: bytes, payload_type: str) -> bytes:
        signature = signer.sign(pre_authentication(payload, payload_type))
        entry: canonical.Plain = {
            "cert": certificate,
            "keyid": signer.public,
            "sig": base64.b64encode(signature).decode(),
        }
        return canonical.encode(
            {"payload": base64.b64encode(payload).decode(), "payloadType": payload_type, "signatures": [entry]}
        )

    return seal


def open_seal(envelope: bytes, payload_type: str, ca_pem: bytes, at_us: int) -> bytes:
    """The payload, if a release certificate of the authority ``ca_pem`` sealed it as ``payload_type``.

    Raises SealError, PayloadTypeError, and what ``verify_cms`` raises.
    """
    payload, kind, certificate, signature, keyid = _open(envelope)
    if kind != payload_type:
        raise PayloadTypeError(
            f"the envelope holds '{kind[:80]}'", why=f"'{payload_type}' is expected here", next=_NEXT
        )
    cms = cms_of(certificate, signature)
    _same_certificate(certificate, keyid)
    verify_cms(pre_authentication(payload, kind), cms, ca_pem, at_us)
    return payload


def told_by_seal(envelope: bytes) -> tuple[bytes, str]:
    """What an envelope holds and whose key it names, nothing of it verified. Raises SealError."""
    payload, _, _, _, keyid = _open(envelope)
    return payload, keyid


def _same_certificate(pem: bytes, keyid: str) -> None:
    """Nothing in an envelope may be written in two ways: not the certificate, and not whose it is."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        public = release_public(fit_release_key(certificate.public_key()))
    except (ValueError, UnsupportedAlgorithm, PublicKeyError) as problem:
        raise _malformed(f"its certificate cannot be read: {problem}") from problem
    if certificate.public_bytes(Encoding.PEM) != pem:
        raise _malformed("its certificate is not in the form that nwmctl writes")
    if public != keyid:
        raise _malformed("its keyid is not that of its certificate")


def _open(envelope: bytes) -> tuple[bytes, str, bytes, bytes, str]:
    if len(envelope) > MAX_SEALED:
        raise _malformed(f"it has {len(envelope)} bytes, at most {MAX_SEALED} are read")
    try:
        table = canonical.decode(envelope, "the envelope")
    except NotCanonicalError as problem:
        raise _malformed(problem.why[:200]) from problem
    if not isinstance(table, dict) or set(table) != {"payload", "payloadType", "signatures"}:
        raise _malformed("it must have payload, payloadType and signatures, and nothing else")
    signatures = table["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise _malformed("it must hold exactly one signature")
    entry = signatures[0]
    if not isinstance(entry, dict) or set(entry) != {"cert", "keyid", "sig"}:
        raise _malformed("its signature must have cert, keyid and sig, and nothing else")
    kind, certificate, keyid = _text(table["payloadType"]), _text(entry["cert"]), _text(entry["keyid"])
    return _base64(table["payload"]), kind, certificate.encode(), _base64(entry["sig"]), keyid


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isascii():
        raise _malformed("payload, payloadType, cert, keyid and sig are ASCII texts")
    return value


def _base64(value: object) -> bytes:
    text = _text(value)
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as problem:
        raise _malformed(f"base64 text is damaged: {problem}") from problem
    if base64.b64encode(data).decode() != text:
        raise _malformed("base64 text is not in the one form that stands for its bytes")
    return data


def _malformed(reason: str) -> SealError:
    return SealError("this is not an envelope that a release key sealed", why=reason, next=_NEXT)
