"""Lets python-tuf sign with our ``Signer``, and turns public keys into its form and back. Holds no key of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from securesystemslib.signer import Key, Signature, SSlibKey
from securesystemslib.signer import Signer as LibrarySigner

from nwmctl.errors import PublicKeyError
from nwmctl.trust.publics import ED25519, parse_public, public_text

if TYPE_CHECKING:
    from nwmctl.trust.signers import Signer


def tuf_key(public: str) -> SSlibKey:
    """The TUF form of a public key. Raises PublicKeyError."""
    try:
        return SSlibKey.from_crypto(parse_public(public))
    except PublicKeyError as problem:
        raise PublicKeyError(
            f"'{public[:80]}' cannot sign repository metadata",
            why=problem.why,
            next="use an ed25519 or ECDSA P-256 key",
        ) from problem


def key_text(key: Key) -> str:
    """A TUF key as text. Raises PublicKeyError for a kind that nwmctl does not use."""
    value = str(key.keyval.get("public", ""))
    return f"{ED25519}:{value}" if key.keytype == "ed25519" else public_text(value.encode())


def tuf_signer(signer: Signer) -> LibrarySigner:
    """A python-tuf signer over ours."""
    return _Adapter(signer)


class _Adapter(LibrarySigner):
    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._key = tuf_key(signer.public)

    @property
    def public_key(self) -> Key:
        return self._key

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._key.keyid, self._signer.sign(payload).hex())

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: Callable[[str], str] | None = None
    ) -> LibrarySigner:
        raise NotImplementedError("keys are opened by nwmctl.trust.signers.load_signer")
