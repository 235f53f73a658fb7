"""Who signed a model: nwmctl's own signature of the card, or an OpenSSF model signature, from bytes alone.

An OpenSSF signature is a Sigstore bundle: a DSSE envelope around an in-toto statement that lists every file with its
digest. Signatures by an elliptic-curve key are judged here, offline, so that a chain can be walked years later without
the package that made them; ``sources`` has that package judge the files themselves when a model is pulled. Keyless
(Fulcio) signatures are not accepted: their verification needs a transparency log's keys of the day. Pure.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.model import CARD_NAME, ModelOrigin, SignatureMethod
from nwmctl.errors import (
    EnvelopeError,
    ModelSignatureError,
    NwmError,
    PublicKeyError,
    SignatureOfOtherCardError,
    UntrustedSignatureError,
)
from nwmctl.trust.dsse import MODEL_CARD_TYPE, pre_authentication, verify_dsse

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

EC_KEY = re.compile(r"p256:(0[23][0-9a-f]{64})\Z")
"""A P-256 public key: the compressed point in hexadecimal digits."""

_MEDIA = "application/vnd.dev.sigstore.bundle"
_STATEMENT_TYPE = "application/vnd.in-toto+json"
_PREDICATE = "https://model_signing/signature/v1.0"
_MAX_BUNDLE = 16 << 20
_NEXT = "ask the model's publisher; never add a key that arrived with the model"


def is_openssf(signature: bytes) -> bool:
    """Whether these bytes look like a Sigstore bundle; says nothing about its worth."""
    return _MEDIA.encode() in signature[: _MAX_BUNDLE + 1]


def verify_model_signature(card: bytes, signature: bytes, trusted: Sequence[str]) -> ModelOrigin:
    """Who of ``trusted`` (``ed25519:<hex>`` or ``p256:<hex>``) signed the model with this card.

    Raises ModelSignatureError, SignatureOfOtherCardError, UntrustedSignatureError, EnvelopeError, PayloadTypeError,
    PublicKeyError.
    """
    model = digest_bytes(card)
    if is_openssf(signature):
        files, signer = openssf_files(signature, trusted)
        if files.get(CARD_NAME) != model:
            raise _refuse(f"it does not cover this '{CARD_NAME}' ({model.short})")
        return ModelOrigin(model, SignatureMethod.OPENSSF, signer)
    verified = verify_dsse(signature, MODEL_CARD_TYPE, [key for key in trusted if not EC_KEY.match(key)])
    if verified.payload != card:
        raise SignatureOfOtherCardError(
            "the signature beside the model card was made for another card",
            why=f"it signs {digest_bytes(verified.payload).short}, the card is {model.short}",
            next="ask the model's publisher; do not change the digest in the release unless they confirm the new one",
        )
    return ModelOrigin(model, SignatureMethod.MODEL_CARD, verified.key)


def openssf_files(bundle: bytes, trusted: Sequence[str]) -> tuple[dict[str, Digest], str]:
    """The files that an OpenSSF signature covers, by their paths, and which of ``trusted`` made it.

    Raises ModelSignatureError, UntrustedSignatureError, EnvelopeError.
    """
    payload, signatures = _open(bundle)
    signed = pre_authentication(payload, _STATEMENT_TYPE)
    keys = [key for key in trusted if EC_KEY.match(key)]
    signer = next((key for key in keys if any(_signed(key, each, signed) for each in signatures)), None)
    if signer is None:
        raise UntrustedSignatureError(
            "no trusted key has signed this model",
            why=f"{len(keys)} trusted key(s) of the form p256:<hex> were tried against its OpenSSF signature",
            next="check 'trust: model_keys:' in the release; never add a key that arrived with the model",
        )
    try:
        return _files(json.loads(payload)), signer
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, NwmError) as problem:
        raise _refuse(f"its statement cannot be read: {str(problem)[:200]}") from problem


def ec_public_key(text: str) -> EllipticCurvePublicKey:
    """A key out of its text. Raises PublicKeyError."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

    found = EC_KEY.match(text)
    try:
        if found:
            return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), bytes.fromhex(found.group(1)))
        why = "it is written p256: and the 66 hexadecimal digits of the compressed point"
    except ValueError as problem:
        why = str(problem)
    raise PublicKeyError(f"'{text[:80]}' is not a P-256 public key", why=why, next="copy it from the model's publisher")


def ec_text(key: EllipticCurvePublicKey) -> str:
    """A P-256 public key as text."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return f"p256:{key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()}"


def _signed(key: str, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        ec_public_key(key).verify(signature, data, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _open(bundle: bytes) -> tuple[bytes, list[bytes]]:
    if len(bundle) > _MAX_BUNDLE:
        raise _malformed(f"it has {len(bundle)} bytes, at most {_MAX_BUNDLE} are read")
    try:
        table = json.loads(bundle.decode("utf-8"))
        if not str(table["mediaType"]).startswith(_MEDIA):
            raise _malformed(f"its media type is '{str(table['mediaType'])[:80]}'")
        envelope = table["dsseEnvelope"]
        if envelope["payloadType"] != _STATEMENT_TYPE:
            raise _malformed("it does not hold an in-toto statement")
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in envelope["signatures"][:16]]
        return base64.b64decode(envelope["payload"], validate=True), signatures
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, binascii.Error) as problem:
        raise _malformed(f"{type(problem).__name__}: {str(problem)[:200]}") from problem


def _files(statement: Any) -> dict[str, Digest]:
    if statement["predicateType"] != _PREDICATE:
        raise _refuse(f"its statement is a '{str(statement['predicateType'])[:80]}'")
    predicate = statement["predicate"]
    if predicate["serialization"]["method"] != "files":
        raise _refuse("it lists pieces of files; sign whole files")
    found: dict[str, Digest] = {}
    for entry in predicate["resources"]:
        if entry["algorithm"] != "sha256":
            raise _refuse(f"it uses {str(entry['algorithm'])[:40]}; only sha256 is read")
        if found.setdefault(str(entry["name"]), Digest.parse(f"sha256:{entry['digest']}")).hex != entry["digest"]:
            raise _refuse(f"it lists '{str(entry['name'])[:80]}' twice")
    return found


def _refuse(why: str) -> ModelSignatureError:
    return ModelSignatureError("the model's signature does not hold", why=why, next=_NEXT)


def _malformed(reason: str) -> EnvelopeError:
    return EnvelopeError("this is not an OpenSSF model signature", why=reason, next=_NEXT)
