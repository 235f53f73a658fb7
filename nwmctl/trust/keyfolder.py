"""Makes key folders and changes them: new ones, keys rotated in, keys declared lost.

A folder is made whole or not at all and is never overwritten. A change writes new private keys first and
``keyring.json`` last, by renaming: a crash leaves key files that nobody names, and the list as it was. No private key
is ever removed or replaced. Roots are finished elsewhere (``roots``); a folder that holds enough root keys makes its
first root at once. Certificates are made in ``authority``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nwmctl.domain.clock import Clock
from nwmctl.domain.keys import (
    OFFLINE,
    OFFLINE_KEYS,
    OFFLINE_THRESHOLD,
    KeyEntry,
    KeyRingDocument,
    KeyRole,
    KeyState,
    RoleThreshold,
)
from nwmctl.errors import (
    KeyRingError,
    KeyRingExistsError,
    KeyThresholdError,
    KeyTwoRolesError,
    KeyUnknownError,
    SignerUriError,
)
from nwmctl.formats import documents
from nwmctl.trust.publics import parse_public
from nwmctl.trust.ring import KEYRING_NAME, KeyRing

if TYPE_CHECKING:
    from nwmctl.trust.authority import ReleaseKey

_PLATFORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Wish:
    """What keys a role gets: ``count`` new ones in this folder, and those of others (``held``) or behind URIs.

    ``reached`` are pairs of URI and public key; a release key's is the text of its PEM file, because a certificate is
    made of it. ``threshold`` None keeps the one that the role has.
    """

    role: KeyRole
    platform: str = ""
    count: int = 1
    held: tuple[str, ...] = ()
    reached: tuple[tuple[str, str], ...] = ()
    threshold: int | None = None


def default_wish(role: KeyRole) -> Wish:
    """Offline roles: two of three keys. All others: one."""
    if role in OFFLINE:
        return Wish(role, count=OFFLINE_KEYS, threshold=OFFLINE_THRESHOLD)
    return Wish(role)


def init_keys(
    folder: Path,
    clock: Clock,
    roles: Sequence[KeyRole | Wish],
    *,
    development: bool,
    passphrase: bytes | None = None,
    platforms: Sequence[str] = (),
) -> KeyRing:
    """Make a key folder with the keys of ``roles`` (a bare role: ``default_wish``) and one for each platform's list.

    ``passphrase`` encrypts the private keys; ``development`` marks keys that protect nothing. Raises
    KeyRingExistsError if the folder holds anything, KeyTwoRolesError, KeyThresholdError, KeyRingError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise KeyRingExistsError(
            f"'{folder.name}' already holds something",
            why="keys are never overwritten: whatever they signed could no longer be renewed",
            next="choose another folder, or move this one to a safe place first",
        )
    wishes = [wish if isinstance(wish, Wish) else default_wish(wish) for wish in dict.fromkeys(roles)]
    wishes += [Wish(KeyRole.TARGETS, platform) for platform in dict.fromkeys(platforms)]
    partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(mode=0o700, parents=True)
        now_us = clock.now_us()
        ring = KeyRing(partial, KeyRingDocument(development, now_us, ()))
        for wish in wishes:
            ring = _granted(ring, wish, now_us, passphrase)
        _write(partial / KEYRING_NAME, documents.encode(ring.document), 0o644)
        _first_root(ring, now_us, passphrase)
        os.replace(partial, folder)
    except OSError as problem:
        raise _unwritable(folder, problem) from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return KeyRing(folder, ring.document)


def add_keys(ring: KeyRing, clock: Clock, wishes: Sequence[Wish], passphrase: bytes | None = None) -> KeyRing:
    """The ring with more keys; existing ones stay active. Raises KeyTwoRolesError, KeyThresholdError, KeyRingError."""
    try:
        more = ring
        for wish in wishes:
            more = _granted(more, wish, clock.now_us(), passphrase)
        return _saved(more)
    except OSError as problem:
        raise _unwritable(ring.folder, problem) from problem


def rotate_keys(ring: KeyRing, clock: Clock, wish: Wish, passphrase: bytes | None = None) -> KeyRing:
    """The ring with new keys for a role, the active ones retired. They take effect with the next root (or, for a
    platform's list, the next publication). Raises what ``add_keys`` raises."""
    retired = tuple(
        replace(entry, state=KeyState.RETIRED)
        if (entry.role, entry.platform, entry.state) == (wish.role, wish.platform, KeyState.ACTIVE)
        else entry
        for entry in ring.document.keys
    )
    return add_keys(KeyRing(ring.folder, replace(ring.document, keys=retired)), clock, [wish], passphrase)


def revoke_key(
    ring: KeyRing, clock: Clock, public: str, held: tuple[str, ...] = (), passphrase: bytes | None = None
) -> KeyRing:
    """The ring with a key declared lost or stolen; nothing opens it any more. ``held`` are keys of others in its
    place; without them, a new one is made here if the role would have fewer than its threshold.

    Raises KeyUnknownError and what ``add_keys`` raises; then nothing has changed.
    """
    lost = next((entry for entry in ring.document.keys if entry.public == public), None)
    if lost is None:
        raise KeyUnknownError(
            f"no key of {ring.folder.name} is '{public[:80]}'",
            why=f"it names {len(ring.document.keys)} keys, none with this public part",
            next="copy the public key from `nwmctl keys list`",
        )
    keys = tuple(
        replace(entry, state=KeyState.REVOKED) if entry.public == public else entry for entry in ring.document.keys
    )
    revoked = KeyRing(ring.folder, replace(ring.document, keys=keys))
    short = len(revoked.document.active(lost.role, lost.platform)) < ring.threshold(lost.role, lost.platform)
    wish = Wish(lost.role, lost.platform, count=int(short and not held), held=held)
    return add_keys(revoked, clock, [wish], passphrase)


def keep_root(ring: KeyRing, root: bytes, version: int) -> Path:
    """Keep a finished root. Raises KeyRingExistsError for a version that is kept with other bytes, KeyRingError."""
    path = ring.root_path(version)
    try:
        if path.exists() and path.read_bytes() != root:
            raise KeyRingExistsError(
                f"version {version} of the root is kept already, with other content",
                why="vehicles may have seen it; a root is never replaced",
                next="draft the next version on top of it",
            )
        _replace(path, root)
    except OSError as problem:
        raise _unwritable(ring.folder, problem) from problem
    return path


def _granted(ring: KeyRing, wish: Wish, now_us: int, passphrase: bytes | None) -> KeyRing:
    if wish.platform and not _PLATFORM.match(wish.platform):
        raise KeyUnknownError(
            f"'{wish.platform[:80]}' is no platform's name",
            why="a name is made of letters, digits, '.', '_' and '-'",
            next="see `nwmctl platforms list`",
        )
    known = {entry.public: entry for entry in ring.document.keys}
    if wish.role is KeyRole.RELEASE:
        return _granted_release(ring, wish, known, now_us, passphrase)
    for public in (*wish.held, *(public for _, public in wish.reached)):
        parse_public(public)
        if public in known:
            raise _two_roles(public, known[public], wish)
    entries = [_make(ring, wish, now_us, passphrase, number) for number in range(wish.count)]
    entries += [KeyEntry(wish.role, "", public, platform=wish.platform) for public in wish.held]
    entries += [KeyEntry(wish.role, uri, public, platform=wish.platform) for uri, public in wish.reached]
    document = replace(ring.document, keys=(*ring.document.keys, *entries))
    return KeyRing(ring.folder, _with_threshold(document, wish))


def _with_threshold(document: KeyRingDocument, wish: Wish) -> KeyRingDocument:
    threshold = wish.threshold or document.threshold(wish.role, wish.platform)
    active = len(document.active(wish.role, wish.platform))
    if active < threshold:
        raise KeyThresholdError(
            f"'{wish.role}' would have {active} active keys and a threshold of {threshold}",
            why="nobody could ever sign for it",
            next="ask for more keys, or for a lower threshold",
        )
    others = tuple(one for one in document.thresholds if (one.role, one.platform) != (wish.role, wish.platform))
    own = (RoleThreshold(wish.role, threshold, wish.platform),) if threshold > 1 else ()
    return replace(document, thresholds=others + own)


def _make(ring: KeyRing, wish: Wish, now_us: int, passphrase: bytes | None, number: int) -> KeyEntry:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from nwmctl.trust.authority import pem_private
    from nwmctl.trust.signers import Ed25519Signer

    name = _free_name(ring.folder, f"{wish.role}-{wish.platform}" if wish.platform else str(wish.role), wish.count > 1)
    signer = Ed25519Signer(Ed25519PrivateKey.generate())
    _write(ring.folder / f"{name}.pem", pem_private(signer.key, passphrase), 0o600)
    _write(ring.folder / f"{name}.pub", f"{signer.public}\n".encode(), 0o644)
    return KeyEntry(wish.role, f"file:{name}.pem", signer.public, platform=wish.platform)


def _granted_release(
    ring: KeyRing, wish: Wish, known: Mapping[str, KeyEntry], now_us: int, passphrase: bytes | None
) -> KeyRing:
    """Release keys made here, or behind URIs: each gets a certificate of the ring's authority."""
    from nwmctl.trust.authority import new_rsa_key, pem_private, release_key, release_public

    if wish.held:
        raise SignerUriError(
            "a release key that is held elsewhere cannot sign here",
            why="one process judges the papers and signs at once; it must reach the key",
            next="give the URI of the device or service that holds it (--uri) with its public part (--public)",
        )
    entries = []
    for _ in range(wish.count):
        key, name = new_rsa_key(), _free_name(ring.folder, "release", False)
        # The certificate first: it needs the authority's key, and without that nothing is written.
        entry = _certified(ring, f"file:{name}.pem", key.public_key(), name, now_us, passphrase)
        _write(ring.folder / f"{name}.pem", pem_private(key, passphrase), 0o600)
        entries.append(entry)
    for uri, pem in wish.reached:
        public = release_key(pem.encode())
        if (text := release_public(public)) in known:
            raise _two_roles(text, known[text], wish)
        entries.append(_certified(ring, uri, public, _free_name(ring.folder, "release", False), now_us, passphrase))
    document = replace(ring.document, keys=(*ring.document.keys, *entries))
    return KeyRing(ring.folder, _with_threshold(document, wish))


def _certified(
    ring: KeyRing, uri: str, public: ReleaseKey, name: str, now_us: int, passphrase: bytes | None
) -> KeyEntry:
    """A certificate for a release key by the ring's authority, made with the first one and kept: vehicles carry it."""
    from nwmctl.trust.authority import issue_leaf, make_ca, pem_private, release_public
    from nwmctl.trust.signers import RsaSigner, load_signer

    folder = ring.folder
    if not (folder / "release-ca.crt").exists():
        ca_key, ca_pem = make_ca(now_us)
        _write(folder / "release-ca.pem", pem_private(ca_key, passphrase), 0o600)
        _write(folder / "release-ca.crt", ca_pem, 0o644)
    else:
        authority = load_signer("file:release-ca.pem", passphrase, base=folder)
        if not isinstance(authority, RsaSigner):
            raise KeyRingError(
                "the release authority's key is no RSA key",
                why="'release-ca.pem' holds a key of another kind",
                next="restore the key folder from its backup",
            )
        ca_key, ca_pem = authority.key, (folder / "release-ca.crt").read_bytes()
    text = release_public(public)
    _write(folder / f"{name}.crt", issue_leaf(ca_key, ca_pem, public, now_us), 0o644)
    _write(folder / f"{name}.pub", f"{text}\n".encode(), 0o644)
    return KeyEntry(KeyRole.RELEASE, uri, text, f"{name}.crt", "release-ca.crt")


def _free_name(folder: Path, stem: str, numbered: bool) -> str:
    # A key behind a URI has no private file here, but a public one.
    def taken(name: str) -> bool:
        return any((folder / f"{name}.{kind}").exists() for kind in ("pem", "pub"))

    if not numbered and not taken(stem):
        return stem
    number = 1 if numbered else 2
    while taken(f"{stem}-{number}"):
        number += 1
    return f"{stem}-{number}"


def _first_root(ring: KeyRing, now_us: int, passphrase: bytes | None) -> None:
    from nwmctl.trust.roots import IMAGE_ROLES, draft_root, finish_root, sign_root

    if not all(ring.has(role) for role in IMAGE_ROLES.values()):
        return
    if sum(bool(entry.uri) for entry in ring.document.active(KeyRole.ROOT)) < ring.threshold(KeyRole.ROOT):
        return
    draft = draft_root(ring.document, None, now_us)
    signatures = [sign_root(draft, signer) for signer in ring.signers(KeyRole.ROOT, passphrase)]
    keep_root(ring, finish_root(draft, signatures), 1)


def _saved(ring: KeyRing) -> KeyRing:
    _replace(ring.folder / KEYRING_NAME, documents.encode(ring.document))
    return ring


def _write(path: Path, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, data: bytes) -> None:
    hidden = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        _write(hidden, data, 0o644)
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _two_roles(public: str, known: KeyEntry, wish: Wish) -> KeyTwoRolesError:
    return KeyTwoRolesError(
        f"{public} is a key of '{known.label}' already",
        why="one key never has two roles: who steals it would get both",
        next=f"make a key of its own for '{wish.role}'",
    )


def _unwritable(folder: Path, problem: OSError) -> KeyRingError:
    return KeyRingError(
        f"the key folder '{folder.name}' cannot be written",
        why=str(problem.strerror or problem),
        next="choose a folder that you may write to",
    )
