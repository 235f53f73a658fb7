"""Key folders and signers.

A key folder lies outside every workspace and holds private keys (PKCS8 PEM, mode 0600), public parts and
``keyring.json``. A folder is made whole or not at all and is never overwritten. Everything that signs goes through
``Signer``, which is reached by URI; another scheme (a hardware module) is one entry in ``SCHEMES``. Certificates are
made in ``authority``. Does not decide who may sign what.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nwmctl.domain.clock import Clock
from nwmctl.domain.keys import KeyEntry, KeyRingDocument, KeyRole
from nwmctl.errors import (
    KeyMissingError,
    KeyPassphraseError,
    KeyRingError,
    KeyRingExistsError,
    NwmError,
    PublicKeyError,
    SignerUriError,
)
from nwmctl.formats import documents

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = ["SCHEMES", "KeyRing", "KeyRole", "Signer", "init_keys", "load_keyring", "load_signer", "verify_ed25519"]

KEYRING_NAME = "keyring.json"
_ED25519 = re.compile(r"ed25519:([0-9a-f]{64})\Z")
_MAX_KEY_FILE = 1 << 16


class Signer(Protocol):
    """Signs bytes with one key, wherever that key lives. ed25519, or RSA PKCS#1 v1.5 with SHA-256: deterministic."""

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
class KeyRing:
    """A key folder, read. Private keys are opened only by ``signer``."""

    folder: Path
    document: KeyRingDocument

    @property
    def development(self) -> bool:
        """Whether these keys were made for trying out."""
        return self.document.development

    def has(self, role: KeyRole) -> bool:
        """Whether the folder has a key for the role."""
        return any(entry.role is role for entry in self.document.keys)

    def entry(self, role: KeyRole) -> KeyEntry:
        """The entry of a role. Raises KeyMissingError."""
        for entry in self.document.keys:
            if entry.role is role:
                return entry
        raise KeyMissingError(
            f"{self.folder.name} has no key for the role '{role}'",
            why=f"it has keys for: {', '.join(entry.role for entry in self.document.keys) or 'nothing'}",
            next="name the folder that holds this key, or make a new folder with `nwmctl keys init`",
        )

    def public(self, role: KeyRole) -> str:
        """The public key of a role as text. Raises KeyMissingError."""
        return self.entry(role).public

    def signer(self, role: KeyRole, passphrase: bytes | None = None) -> Signer:
        """The signer of a role; its key must be the one that the key ring names. Raises KeyRingError and others."""
        entry = self.entry(role)
        signer = load_signer(entry.uri, passphrase, base=self.folder)
        if signer.public != entry.public:
            raise KeyRingError(
                f"the private key of '{role}' is not the one that {KEYRING_NAME} names",
                why=f"it belongs to {signer.public}, the key ring says {entry.public}",
                next="restore the key folder from its backup",
            )
        return signer

    def certificate_pem(self) -> bytes:
        """The release certificate (leaf). Raises KeyMissingError, KeyRingError."""
        return _read(self.folder / self.entry(KeyRole.RELEASE).certificate)

    def ca_pem(self) -> bytes:
        """The certificate of the release authority, which vehicles carry. Raises KeyMissingError, KeyRingError."""
        return _read(self.folder / self.entry(KeyRole.RELEASE).authority)


def verify_ed25519(public: str, signature: bytes, data: bytes) -> bool:
    """Whether the key ``public`` (``ed25519:<hex>``) made ``signature`` over ``data``. Raises PublicKeyError."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    found = _ED25519.match(public)
    if not found:
        raise PublicKeyError(
            f"'{public[:80]}' is not a public key",
            why="a public key is written ed25519: followed by 64 lowercase hexadecimal digits",
            next="copy it from the key folder's .pub file",
        )
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(found.group(1))).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def init_keys(
    folder: Path, clock: Clock, roles: Sequence[KeyRole], *, development: bool, passphrase: bytes | None = None
) -> KeyRing:
    """Make a key folder with one new key per role. Raises KeyRingExistsError if the folder holds anything.

    ``passphrase`` encrypts the private keys; ``development`` marks keys that protect nothing.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise KeyRingExistsError(
            f"'{folder.name}' already holds something",
            why="keys are never overwritten: whatever they signed could no longer be renewed",
            next="choose another folder, or move this one to a safe place first",
        )
    partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(mode=0o700, parents=True)
        now_us = clock.now_us()
        entries = tuple(_make(partial, role, now_us, passphrase) for role in dict.fromkeys(roles))
        document = KeyRingDocument(development, now_us, entries)
        _write(partial / KEYRING_NAME, documents.encode(document), 0o644)
        os.replace(partial, folder)
    except OSError as problem:
        raise KeyRingError(
            f"the key folder '{folder.name}' cannot be written",
            why=str(problem.strerror or problem),
            next="choose a folder that you may write to",
        ) from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return KeyRing(folder, document)


def load_keyring(folder: Path) -> KeyRing:
    """Read a key folder's list; opens no private key. Raises KeyRingError."""
    data = _read(folder / KEYRING_NAME)
    try:
        document = documents.decode(KeyRingDocument, data, KEYRING_NAME)
    except NwmError as problem:
        raise KeyRingError(problem.what, why=problem.why, next="restore the key folder from its backup") from problem
    return KeyRing(folder, document)


Scheme = Callable[[str, bytes | None, Path | None], Signer]


def load_signer(uri: str, passphrase: bytes | None = None, *, base: Path | None = None) -> Signer:
    """The signer behind ``uri``; a relative ``file:`` path starts at ``base``. Raises SignerUriError, KeyRingError."""
    scheme, _, rest = uri.partition(":")
    load = SCHEMES.get(scheme)
    if load is None or not rest:
        raise SignerUriError(
            f"no signer for '{uri[:80]}'",
            why=f"known are: {', '.join(f'{name}:' for name in SCHEMES)}",
            next="write file: and the path of a PKCS8 PEM file",
        )
    return load(rest, passphrase, base)


def _load_file(rest: str, passphrase: bytes | None, base: Path | None) -> Signer:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = (base or Path()) / rest
    pem = _read(path, private=True)
    try:
        key = load_pem_private_key(pem, passphrase)
    except TypeError as problem:
        raise KeyPassphraseError(
            f"the key '{path.name}' and the passphrase do not go together",
            why=str(problem),
            next="give the passphrase that the key was made with, or none if it has none",
        ) from problem
    except (ValueError, UnsupportedAlgorithm) as problem:
        if passphrase is not None:
            raise KeyPassphraseError(
                f"the key '{path.name}' does not open",
                why="the passphrase is wrong or the file is damaged",
                next="give the passphrase that the key was made with",
            ) from problem
        raise _bad_file(path, "it is not a PKCS8 PEM private key") from problem
    match key:
        case Ed25519PrivateKey():
            return Ed25519Signer(key)
        case RSAPrivateKey():
            return RsaSigner(key)
        case _:
            raise _bad_file(path, "only ed25519 and RSA keys are used here")


SCHEMES: dict[str, Scheme] = {"file": _load_file}
"""URI scheme -> loader(rest of the URI, passphrase, base folder)."""


def _make(folder: Path, role: KeyRole, now_us: int, passphrase: bytes | None) -> KeyEntry:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from nwmctl.trust.authority import make_authority, pem_private

    if role is not KeyRole.RELEASE:
        signer = Ed25519Signer(Ed25519PrivateKey.generate())
        _write(folder / f"{role}.pem", pem_private(signer.key, passphrase), 0o600)
        _write(folder / f"{role}.pub", f"{signer.public}\n".encode(), 0o644)
        return KeyEntry(role, f"file:{role}.pem", signer.public)
    made = make_authority(now_us)
    public = RsaSigner(made.leaf_key).public
    _write(folder / "release-ca.pem", pem_private(made.ca_key, passphrase), 0o600)
    _write(folder / "release.pem", pem_private(made.leaf_key, passphrase), 0o600)
    _write(folder / "release-ca.crt", made.ca_pem, 0o644)
    _write(folder / "release.crt", made.leaf_pem, 0o644)
    _write(folder / "release.pub", f"{public}\n".encode(), 0o644)
    return KeyEntry(role, "file:release.pem", public, "release.crt", "release-ca.crt")


def _write(path: Path, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_KEY_FILE:
                raise _bad_file(path, "it is not a small regular file")
            if private and status.st_mode & 0o077:
                raise _bad_file(path, f"others may read it (mode {status.st_mode & 0o777:o}); chmod 600 is needed")
            return file.read()
    except OSError as problem:
        raise _bad_file(path, str(problem.strerror or problem)) from problem


def _bad_file(path: Path, reason: str) -> KeyRingError:
    return KeyRingError(
        f"the key file '{path.name}' cannot be used",
        why=reason,
        next="name the right key folder, restore it from its backup, or make one with `nwmctl keys init`",
    )
