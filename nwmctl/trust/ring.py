"""A key folder, read: which keys it names, how many must sign, and how to open one.

A folder holds ``keyring.json``, public parts, certificates, the finished root metadata (``N.root.json``, and the
director's as ``N.director-root.json``) and the private keys that belong here; others' keys are named by their public
part alone. Reading the list opens no private key; opening one demands a folder and a file that nobody else may read.
Revoked keys are never opened. Writes nothing, see ``keyfolder``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.keys import KeyEntry, KeyRingDocument, KeyRole, KeyState
from nwmctl.errors import (
    KeyElsewhereError,
    KeyMissingError,
    KeyRevokedError,
    KeyRingError,
    KeyThresholdError,
    NwmError,
)
from nwmctl.formats import documents
from nwmctl.trust.metadata import MAX_ROOT, MAX_ROOTS
from nwmctl.trust.signers import Signer, check_folder, load_signer, read_small

KEYRING_NAME = "keyring.json"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """A key folder, read. Private keys are opened only by ``signer`` and its siblings."""

    folder: Path
    document: KeyRingDocument

    @property
    def development(self) -> bool:
        """Whether these keys were made for trying out."""
        return self.document.development

    def has(self, role: KeyRole, platform: str = "") -> bool:
        """Whether the ring names an active key for the role."""
        return bool(self.document.active(role, platform))

    def entry(self, role: KeyRole, platform: str = "") -> KeyEntry:
        """The first active key of a role, one of this folder before others'. Raises KeyMissingError."""
        entries = sorted(self.document.active(role, platform), key=lambda entry: not entry.uri)
        if entries:
            return entries[0]
        active = [entry.label for entry in self.document.keys if entry.state is KeyState.ACTIVE]
        raise KeyMissingError(
            f"{self.folder.name} has no key for the role '{role}'",
            why=f"it has keys for: {', '.join(dict.fromkeys(active)) or 'nothing'}",
            next="name the folder that holds this key, or make a new folder with `nwmctl keys init`",
        )

    def public(self, role: KeyRole, platform: str = "") -> str:
        """The public key of a role as text, the first one of several. Raises KeyMissingError."""
        return self.entry(role, platform).public

    def publics(self, role: KeyRole, platform: str = "") -> tuple[str, ...]:
        """All active public keys of a role."""
        return tuple(entry.public for entry in self.document.active(role, platform))

    def threshold(self, role: KeyRole, platform: str = "") -> int:
        """How many keys of the role must sign."""
        return self.document.threshold(role, platform)

    def signer(self, role: KeyRole, passphrase: bytes | None = None, platform: str = "") -> Signer:
        """The signer of a role; its key must be the one that the ring names. Raises KeyRingError and others."""
        return self.open(self.entry(role, platform), passphrase)

    def signers(self, role: KeyRole, passphrase: bytes | None = None, platform: str = "") -> tuple[Signer, ...]:
        """As many signers of a role as its threshold demands. Raises KeyThresholdError, KeyMissingError and others."""
        label = self.entry(role, platform).label
        return self.signers_of(self.publics(role, platform), self.threshold(role, platform), label, passphrase)

    def signers_of(
        self, publics: Collection[str], threshold: int, label: str, passphrase: bytes | None = None
    ) -> tuple[Signer, ...]:
        """``threshold`` signers among the keys ``publics`` that metadata name for ``label``.

        Raises KeyThresholdError where too few are in this folder, KeyRevokedError where revoked ones would be needed.
        """
        named = [entry for entry in self.document.keys if entry.public in publics]
        here = [entry for entry in named if entry.uri and entry.state is not KeyState.REVOKED]
        if len(here) < threshold:
            revoked = [entry for entry in named if entry.state is KeyState.REVOKED]
            if len(here) + len(revoked) >= threshold:
                raise KeyRevokedError(
                    f"'{label}' cannot be signed: {len(revoked)} of its keys is revoked",
                    why="the metadata in force still name the revoked key",
                    next="finish the root that names its successor: `nwmctl keys ceremony draft`, then sign and finish",
                )
            raise KeyThresholdError(
                f"'{label}' needs signatures by {threshold} keys, {len(here)} of them in {self.folder.name}",
                why=f"{len(publics)} keys may sign it; the others are held elsewhere or unknown to this key folder",
                next=_NEXT_ROOT if label.endswith("root") else "name the key folder that holds them with --keys",
            )
        here.sort(key=lambda entry: entry.state is not KeyState.ACTIVE)
        return tuple(self.open(entry, passphrase) for entry in here[:threshold])

    def open(self, entry: KeyEntry, passphrase: bytes | None = None) -> Signer:
        """The signer of one entry. Raises KeyElsewhereError, KeyRevokedError, KeyFolderOpenError, KeyRingError,
        KeyPassphraseError, SignerUriError, SignerFailedError."""
        if entry.state is KeyState.REVOKED:
            raise KeyRevokedError(
                f"a key of '{entry.label}' is revoked",
                why=f"{entry.public} was declared lost or stolen",
                next="use its successor, see `nwmctl keys list`",
            )
        if not entry.uri:
            raise KeyElsewhereError(
                f"the private key of '{entry.label}' is not in {self.folder.name}",
                why=f"{entry.public} is held by another person; this folder knows its public part",
                next="have its holder sign: `nwmctl keys ceremony sign`, or name the holder's folder with --keys",
            )
        check_folder(self.folder)
        certificate = read_small(self.folder / entry.certificate) if entry.certificate else b""
        signer = load_signer(entry.uri, passphrase, base=self.folder, public=entry.public, certificate=certificate)
        if signer.public != entry.public:
            raise KeyRingError(
                f"the private key of '{entry.label}' is not the one that {KEYRING_NAME} names",
                why=f"it belongs to {signer.public}, the key ring says {entry.public}",
                next="restore the key folder from its backup",
            )
        return signer

    def certificate_pem(self) -> bytes:
        """The release certificate (leaf). Raises KeyMissingError, KeyRingError."""
        return read_small(self.folder / self.entry(KeyRole.RELEASE).certificate)

    def ca_pem(self) -> bytes:
        """The certificate of the release authority, which vehicles carry. Raises KeyMissingError, KeyRingError."""
        return read_small(self.folder / self.entry(KeyRole.RELEASE).authority)

    def roots(self, role: KeyRole = KeyRole.ROOT) -> tuple[bytes, ...]:
        """The finished root metadata from version 1 on, of the image repository or (``role``) of the director; empty
        where no ceremony was finished yet. Raises KeyRingError."""
        found: list[bytes] = []
        while len(found) < MAX_ROOTS and (path := self.root_path(len(found) + 1, role)).exists():
            found.append(read_root(path))
        return tuple(found)

    def root_path(self, version: int, role: KeyRole = KeyRole.ROOT) -> Path:
        """Where a finished root is kept."""
        return self.folder / f"{version}.{role}.json"

    def reference_root(self, version: int, role: KeyRole = KeyRole.ROOT) -> bytes:
        """The same root in the reference dialect; empty where its holders have not signed one. Raises KeyRingError."""
        path = self.reference_path(version, role)
        return read_root(path) if path.exists() else b""

    def reference_path(self, version: int, role: KeyRole = KeyRole.ROOT) -> Path:
        """Where that is kept."""
        return self.folder / f"{version}.{role}.reference.json"


_NEXT_ROOT = (
    "have the holders sign: `nwmctl keys ceremony draft`, each `nwmctl keys ceremony sign`, then `... ceremony finish`"
)


def read_root(path: Path) -> bytes:
    """A root's bytes. Raises KeyRingError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ROOT + 1)
    except OSError as problem:
        raise _root(path, str(problem.strerror or problem)) from problem
    if len(data) > MAX_ROOT:
        raise _root(path, f"it has more than {MAX_ROOT} bytes")
    return data


def load_keyring(folder: Path) -> KeyRing:
    """Read a key folder's list; opens no private key. Raises KeyRingError."""
    data = read_small(folder / KEYRING_NAME)
    try:
        document = documents.decode(KeyRingDocument, data, KEYRING_NAME)
    except NwmError as problem:
        raise KeyRingError(problem.what, why=problem.why, next="restore the key folder from its backup") from problem
    return KeyRing(folder, document)


def _root(path: Path, reason: str) -> KeyRingError:
    return KeyRingError(
        f"the root metadata '{path.name}' cannot be read", why=reason, next="restore the key folder from its backup"
    )
