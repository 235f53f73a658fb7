"""DSSE envelopes: a document's bytes, its type, and signatures (ed25519, or ECDSA P-256) over both (DSSE v1).

Detached use: the envelope lies beside the document and carries the same bytes as payload. ``verify_dsse`` returns the
payload it verified; whoever reads the document beside it must use that payload, or compare. The key id in an envelope
is a hint that anybody can write, so it decides nothing: every trusted key is tried. Does not read files.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nwmctl.errors import EnvelopeError, PayloadTypeError, UntrustedSignatureError
from nwmctl.formats import canonical
from nwmctl.trust.keys import Signer, verify_signature

MODEL_CARD_TYPE = "application/vnd.nwmctl.model-card+json"
POLICY_TYPE = "application/vnd.nwmctl.policy+yaml"
APPROVAL_TYPE = "application/vnd.nwmctl.approval+json"

_MAX_ENVELOPE = 64 << 20
_MAX_SIGNATURES = 64
_NEXT = "fetch the document and its signature again, from where they were published"


@dataclass(frozen=True, slots=True)
class VerifiedPayload:
    """Bytes that ``key`` (``ed25519:<hex>``) has signed. ``keys`` are all trusted keys that signed them."""

    payload: bytes
    key: str
    keys: tuple[str, ...]


def pre_authentication(payload: bytes, payload_type: str) -> bytes:
    """The bytes that are signed (DSSE's PAE): type and payload, each with its length."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_dsse(payload: bytes, payload_type: str, signer: Signer, *more: Signer) -> bytes:
    """An envelope around ``payload``, as canonical JSON; the same inputs give the same bytes."""
    signed = pre_authentication(payload, payload_type)
    signatures: list[canonical.Plain] = [
        {"keyid": one.public, "sig": base64.b64encode(one.sign(signed)).decode()} for one in (signer, *more)
    ]
    return canonical.encode(
        {"payload": base64.b64encode(payload).decode(), "payloadType": payload_type, "signatures": signatures}
    )


def verify_dsse(envelope: bytes, payload_type: str, trusted: Sequence[str]) -> VerifiedPayload:
    """The payload, if at least one ``trusted`` key (``ed25519:<hex>``) signed it as ``payload_type``.

    Raises EnvelopeError, PayloadTypeError, UntrustedSignatureError, and PublicKeyError for a malformed trusted key.
    """
    payload, kind, signatures = _open(envelope)
    if kind != payload_type:
        raise PayloadTypeError(
            f"the envelope holds '{kind[:80]}'", why=f"'{payload_type}' is expected here", next=_NEXT
        )
    signed = pre_authentication(payload, payload_type)
    keys = tuple(key for key in dict.fromkeys(trusted) if _any_signed(key, signatures, signed))
    if not keys:
        raise UntrustedSignatureError(
            "no trusted key has signed this document",
            why=f"{len(signatures)} signature(s) were tried against {len(trusted)} trusted key(s)",
            next="check which public keys the release trusts; never add a key that arrived with the document",
        )
    return VerifiedPayload(payload, keys[0], keys)


def _any_signed(key: str, signatures: Iterable[bytes], signed: bytes) -> bool:
    return any(verify_signature(key, signature, signed) for signature in signatures)


def _open(envelope: bytes) -> tuple[bytes, str, list[bytes]]:
    if len(envelope) > _MAX_ENVELOPE:
        raise _malformed(f"it has {len(envelope)} bytes, at most {_MAX_ENVELOPE} are read")
    try:
        table = json.loads(envelope.decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise _malformed(f"it is not JSON: {problem}") from problem
    if not isinstance(table, dict) or set(table) != {"payload", "payloadType", "signatures"}:
        raise _malformed("it must have payload, payloadType and signatures, and nothing else")
    signatures = table["signatures"]
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= _MAX_SIGNATURES:
        raise _malformed(f"it must hold 1 to {_MAX_SIGNATURES} signatures")
    if not isinstance(table["payloadType"], str):
        raise _malformed("payloadType is not a text")
    return _base64(table["payload"]), table["payloadType"], [_signature(entry) for entry in signatures]


def _signature(entry: object) -> bytes:
    if not isinstance(entry, dict) or not {"sig"} <= set(entry) <= {"keyid", "sig"}:
        raise _malformed("a signature has sig, may have keyid, and nothing else")
    return _base64(entry["sig"])


def _base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise _malformed("base64 text is expected")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as problem:
        raise _malformed(f"base64 text is damaged: {problem}") from problem


def _malformed(reason: str) -> EnvelopeError:
    return EnvelopeError("this is not a DSSE envelope", why=reason, next=_NEXT)
