"""Key folders for people: make one, sign a document, find the ring that a deployment uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nwmctl.app.clock import SystemClock
from nwmctl.app.passphrases import new_passphrase, passphrase, unlock
from nwmctl.app.project import load_platforms, read_file
from nwmctl.app.settings import Settings
from nwmctl.domain.digest import Digest
from nwmctl.domain.signing import Approval
from nwmctl.errors import KeyRingError, KeyRingExistsError, KeysNeededError, OutputUnwritableError
from nwmctl.formats import documents
from nwmctl.storage.content import write_atomically
from nwmctl.storage.resources import platforms_folder
from nwmctl.trust.dsse import APPROVAL_TYPE, MODEL_CARD_TYPE, POLICY_TYPE, sign_dsse
from nwmctl.trust.keyfolder import Wish, add_keys, default_wish
from nwmctl.trust.keys import KeyRing, KeyRole, init_keys, load_keyring
from nwmctl.trust.publics import public_or_file

_KINDS = {"policy": (POLICY_TYPE, KeyRole.SAFETY), "model-card": (MODEL_CARD_TYPE, KeyRole.MODEL)}


@dataclass(frozen=True, slots=True)
class Folder:
    """What a new key folder holds. Without ``roles`` all of them; with, one key each: one person's folder.

    ``held`` are public keys of others, as text or as the path of a ``.pub`` file, in place of keys made here;
    ``thresholds`` how many of a role's keys must sign. ``platforms`` get a list of their own; None: all known ones.
    """

    roles: Sequence[KeyRole] = ()
    held: Mapping[KeyRole, Sequence[str]] = field(default_factory=dict)
    thresholds: Mapping[KeyRole, int] = field(default_factory=dict)
    platforms: Sequence[str] | None = None

    def wishes(self) -> list[Wish]:
        """Role by role."""
        found = []
        for role in self.roles or tuple(KeyRole):
            wish = Wish(role) if self.roles else default_wish(role)
            held = tuple(public_or_file(text) for text in self.held.get(role, ()))
            count = 0 if held else wish.count
            least = min(wish.threshold or 1, len(held) or count)
            found.append(Wish(role, count=count, held=held, threshold=self.thresholds.get(role, least)))
        return found


def make_keys(
    folder: Path, *, development: bool, passphrase_env: str | None = None, content: Folder | None = None
) -> KeyRing:
    """A new key folder. Keys are encrypted, unless they are for development and no passphrase is named.

    Raises KeyRingExistsError, KeyRingError, PassphraseNeededError, KeyTwoRolesError, KeyThresholdError.
    """
    content = content or Folder()
    secret = passphrase(passphrase_env) if development else new_passphrase(passphrase_env)
    platforms = content.platforms
    if platforms is None:
        platforms = () if content.roles else sorted(load_platforms(platforms_folder()).profiles)
    return init_keys(
        folder, SystemClock(), content.wishes(), development=development, passphrase=secret, platforms=platforms
    )


def sign_document(kind: str, path: Path, keys: Path, passphrase_env: str | None = None) -> tuple[Path, str]:
    """Sign a file; gives the signature's path and the public key. Raises InputError subclasses."""
    payload_type, role = _KINDS[kind]
    data = read_file(path, kind)
    ring = load_keyring(keys)
    signer = ring.signer(role, unlock(ring, passphrase_env))
    written = path.with_name(path.name + ".sig")
    _write(written, sign_dsse(data, payload_type, signer))
    return written, signer.public


def approve_bundle(
    bundle: str, note: str, keys: Path, out: Path, passphrase_env: str | None = None, as_role: KeyRole | None = None
) -> str:
    """Sign a person's yes to the bundle with this digest; gives the public key. Without ``as_role`` the folder's
    approver key signs, or its safety key where it has no other. Raises InputError subclasses."""
    approval = Approval(Digest.parse(bundle), note)
    ring = load_keyring(keys)
    role = KeyRole.APPROVER if ring.has(KeyRole.APPROVER) else KeyRole.SAFETY
    signer = ring.signer(as_role or role, unlock(ring, passphrase_env))
    _write(out, sign_dsse(documents.encode(approval), APPROVAL_TYPE, signer))
    return signer.public


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{path}' cannot be written", why=problem.strerror or str(problem), next="choose another path"
        ) from problem


def _development_keys(folder: Path) -> KeyRing:
    if folder.exists():
        ring = load_keyring(folder)
        # A folder that an earlier nwmctl has made lacks the roles that came later.
        missing = [default_wish(role) for role in KeyRole if not ring.has(role)]
        return add_keys(ring, SystemClock(), missing) if missing else ring
    try:
        return make_keys(folder, development=True)
    except (KeyRingError, KeyRingExistsError):
        # Another command, in another workspace, may have made them in the same moment.
        if not folder.exists():
            raise
        return load_keyring(folder)


def deployment_keys(settings: Settings, *, virtual: bool) -> KeyRing:
    """The ring that signs a release. A virtual fleet without a named folder gets development keys, made once.

    Raises KeysNeededError for a real fleet without keys of its own.
    """
    if settings.keys is not None:
        ring = load_keyring(settings.keys)
    elif virtual:
        folder = settings.development_keys
        ring = _development_keys(folder)
    else:
        raise KeysNeededError(
            "this release goes to a real fleet and no key folder is named",
            why="development keys protect nothing and are used for virtual fleets only",
            next="make one with `nwmctl keys init FOLDER` and name it with --keys or NWMCTL_KEYS",
        )
    if ring.development and not virtual:
        raise KeysNeededError(
            "these are development keys, and the release goes to a real fleet",
            why="development keys were made without protection",
            next="make keys with `nwmctl keys init FOLDER`",
        )
    return ring
