"""Lets python-tuf sign with our ``Signer``, and gives it our public keys. Holds no key of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from securesystemslib.signer import Key, Signature, SSlibKey
from securesystemslib.signer import Signer as LibrarySigner

from nwmctl.errors import PublicKeyError

if TYPE_CHECKING:
    from nwmctl.trust.keys import Signer


def tuf_key(public: str) -> SSlibKey:
    """The TUF form of ``ed25519:<hex>``. Raises PublicKeyError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    kind, _, text = public.partition(":")
    try:
        if kind != "ed25519":
            raise ValueError("only ed25519 keys sign repository metadata")
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)))
    except ValueError as problem:
        raise PublicKeyError(
            f"'{public[:80]}' cannot sign repository metadata", why=str(problem), next="use an ed25519 key"
        ) from problem


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
        raise NotImplementedError("keys are opened by nwmctl.trust.keys.load_signer")
