"""Private keys at work: files of a key folder, and anything that securesystemslib reaches by URI.

Everything that signs goes through ``Signer``. ``file:`` is ours (PKCS8 PEM, encrypted or not, readable by its owner
alone); every other scheme that securesystemslib has registered (``hsm:`` for PKCS#11, ``awskms:``, ``gcpkms:``,
``azurekms:``, ``hv:`` and more) stands in place of a file, and the public key that the key ring names says which key
must answer: a signature by any other is refused. Does not decide who may sign what.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, urlsplit

from nwmctl.errors import (
    KeyFolderOpenError,
    KeyPassphraseError,
    KeyRingError,
    NwmError,
    SignerFailedError,
    SignerUriError,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
    from securesystemslib.signer import Signer as LibrarySigner

FILE_SCHEME = "file"
PIN_VARIABLE = "pin-env"
"""Part of a URI's query: the environment variable with the secret that this device asks for. Without it the key
folder's passphrase is tried."""
_MAX_KEY_FILE = 1 << 16


class Signer(Protocol):
    """Signs bytes with one key, wherever that key lives: ed25519, ECDSA P-256 with SHA-256, or RSA PKCS#1 v1.5 with
    SHA-256. All but ECDSA are deterministic."""

    @property
    def public(self) -> str:
        """The public part as text, see ``KeyEntry.public``."""
        ...

    def sign(self, data: bytes) -> bytes:
        """The raw signature over ``data``."""
        ...


@dataclass(frozen=True, slots=True)
class Ed25519Signer:
    """A signer in memory."""

    key: Ed25519PrivateKey

    @property
    def public(self) -> str:
        return f"ed25519:{self.key.public_key().public_bytes_raw().hex()}"

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data)


@dataclass(frozen=True, slots=True)
class RsaSigner:
    """A signer in memory; PKCS#1 v1.5 with SHA-256."""

    key: RSAPrivateKey

    @property
    def public(self) -> str:
        from nwmctl.trust.authority import rsa_public

        return rsa_public(self.key.public_key())

    def sign(self, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        return self.key.sign(data, PKCS1v15(), SHA256())


@dataclass(frozen=True, slots=True)
class RemoteSigner:
    """A key that securesystemslib reaches; what comes back is verified before anybody uses it."""

    public: str
    signer: LibrarySigner
    authority: RSAPublicKey | None = None
    """The public key of an RSA signer, whose text is only a digest."""

    def sign(self, data: bytes) -> bytes:
        """Raises SignerFailedError."""
        scheme = type(self.signer).__name__
        try:
            signature = bytes.fromhex(self.signer.sign(data).signature)
        except NwmError:
            raise
        except Exception as problem:  # the library's signers document no closed set of errors
            raise SignerFailedError(
                f"the signer of {self.public[:24]}... did not sign",
                why=f"{scheme}: {problem or type(problem).__name__}",
                next="check that the device or service is reachable and that its passphrase or PIN is right",
            ) from problem
        signature = self._one_form(signature)
        if not self._made(signature, data):
            raise SignerFailedError(
                f"the signature is not one of {self.public[:24]}...",
                why=f"{scheme} answered with a signature of another key",
                next="correct the URI in the key ring; it names another key than the ring's public part",
            )
        return signature

    def _one_form(self, signature: bytes) -> bytes:
        from nwmctl.trust.publics import ECDSA, low_s

        if not self.public.startswith(ECDSA):
            return signature
        try:
            return low_s(signature)
        except ValueError:
            return signature  # and refused as nobody's signature

    def _made(self, signature: bytes, data: bytes) -> bool:
        from nwmctl.trust.publics import verify_signature

        if self.authority is None:
            return verify_signature(self.public, signature, data)
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            self.authority.verify(signature, data, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


Scheme = Callable[[str, bytes | None, Path | None], Signer]


def load_signer(
    uri: str,
    passphrase: bytes | None = None,
    *,
    base: Path | None = None,
    public: str = "",
    certificate: bytes = b"",
) -> Signer:
    """The signer behind ``uri``. A relative ``file:`` path starts at ``base``; any scheme but ``file:`` needs the
    ``public`` key that must answer, and for an RSA key its PEM ``certificate``. ``passphrase`` is the key file's, or
    what a device asks for (a PIN). Raises SignerUriError, SignerFailedError, KeyRingError, KeyPassphraseError."""
    scheme, _, rest = uri.partition(":")
    load = SCHEMES.get(scheme)
    if load is not None and rest:
        return load(rest, passphrase, base)
    if not rest or scheme not in _library_schemes():
        known = ", ".join(f"{name}:" for name in dict.fromkeys([*SCHEMES, *sorted(_library_schemes())]))
        raise SignerUriError(
            f"no signer for '{uri[:80]}'",
            why=f"known are: {known}",
            next="write file: and the path of a PKCS8 PEM file, or the URI of a device or key service",
        )
    if not public:
        raise SignerUriError(
            f"'{uri[:80]}' cannot be used by itself",
            why="whether the right key answers is known only from a key ring, which names its public part",
            next="add it to a key folder with `nwmctl keys rotate ROLE --uri URI --public KEY`",
        )
    return _load_remote(uri, passphrase, public, certificate)


def check_folder(folder: Path) -> None:
    """Return if nobody but its owner may look into the folder. Raises KeyFolderOpenError, KeyRingError."""
    try:
        mode = folder.stat().st_mode
    except OSError as problem:
        raise bad_file(folder, str(problem.strerror or problem)) from problem
    if mode & 0o077:
        raise KeyFolderOpenError(
            f"the key folder '{folder.name}' is open to others",
            why=f"its mode is {mode & 0o777:o}; who may enter or change it may copy or exchange what is in it",
            next=f"chmod 700 {folder}",
        )


def read_small(path: Path, *, private: bool = False) -> bytes:
    """A small file of a key folder. Raises KeyRingError, also for a ``private`` one that others may read."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_KEY_FILE:
                raise bad_file(path, "it is not a small regular file")
            if private and status.st_mode & 0o077:
                raise bad_file(path, f"others may read it (mode {status.st_mode & 0o777:o}); chmod 600 is needed")
            return file.read()
    except OSError as problem:
        raise bad_file(path, str(problem.strerror or problem)) from problem


def bad_file(path: Path, reason: str) -> KeyRingError:
    """A refusal of a file in a key folder."""
    return KeyRingError(
        f"the key file '{path.name}' cannot be used",
        why=reason,
        next="name the right key folder, restore it from its backup, or make one with `nwmctl keys init`",
    )


def _load_file(rest: str, passphrase: bytes | None, base: Path | None) -> Signer:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = (base or Path()) / rest
    pem = read_small(path, private=True)
    try:
        key = load_pem_private_key(pem, passphrase)
    except TypeError as problem:
        raise KeyPassphraseError(
            f"the key '{path.name}' and the passphrase do not go together",
            why=str(problem),
            next="give the passphrase that the key was made with (--passphrase-env), or none if it has none",
        ) from problem
    except (ValueError, UnsupportedAlgorithm) as problem:
        if passphrase is not None:
            raise KeyPassphraseError(
                f"the key '{path.name}' does not open",
                why="the passphrase is wrong or the file is damaged",
                next="give the passphrase that the key was made with",
            ) from problem
        raise bad_file(path, "it is not a PKCS8 PEM private key") from problem
    match key:
        case Ed25519PrivateKey():
            return Ed25519Signer(key)
        case RSAPrivateKey():
            return RsaSigner(key)
        case _:
            raise bad_file(path, "only ed25519 and RSA keys are used here")


def _load_remote(uri: str, passphrase: bytes | None, public: str, certificate: bytes) -> Signer:
    from securesystemslib.signer import RSA_PKCS1V15_SHA256, SSlibKey
    from securesystemslib.signer import Signer as LibrarySigner

    from nwmctl.trust.publics import parse_public

    def secret(what: str) -> str:
        named = dict(parse_qsl(urlsplit(uri).query)).get(PIN_VARIABLE)
        found = os.environ.get(named) if named else passphrase.decode() if passphrase is not None else None
        if not found:
            raise KeyPassphraseError(
                f"'{uri[:80]}' asks for a secret: {what}",
                why=f"the variable {named} is not set" if named else "none was given",
                next=f"write {PIN_VARIABLE}=VARIABLE into the URI's query and set that variable, or --passphrase-env",
            )
        return found

    rsa = _certified_rsa(certificate) if certificate else None
    try:
        key = (
            SSlibKey.from_crypto(rsa, scheme=RSA_PKCS1V15_SHA256) if rsa else SSlibKey.from_crypto(parse_public(public))
        )
        return RemoteSigner(public, LibrarySigner.from_priv_key_uri(uri, key, secret), rsa)
    except NwmError:
        raise
    except Exception as problem:  # the library's signers document no closed set of errors
        raise SignerFailedError(
            f"the signer behind '{uri[:80]}' cannot be reached",
            why=str(problem) or type(problem).__name__,
            next="install what this scheme needs (securesystemslib names it), and check the URI",
        ) from problem


def _certified_rsa(certificate: bytes) -> RSAPublicKey | None:
    """The RSA key of a certificate; None for one of another kind, whose text is the whole key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        key = x509.load_pem_x509_certificate(certificate).public_key()
    except ValueError as problem:
        raise bad_file(Path("release.crt"), "it is not a PEM certificate") from problem
    return key if isinstance(key, RSAPublicKey) else None


def _library_schemes() -> frozenset[str]:
    from securesystemslib.signer import SIGNER_FOR_URI_SCHEME

    return frozenset(SIGNER_FOR_URI_SCHEME)


SCHEMES: dict[str, Scheme] = {FILE_SCHEME: _load_file}
"""URI scheme -> loader(rest of the URI, passphrase, base folder). All others are securesystemslib's."""
