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
    KeyRingExistsError,
    KeyThresholdError,
    KeyTwoRolesError,
    KeyUnknownError,
    SignerUriError,
)
from nwmctl.formats import documents
from nwmctl.trust.keyfiles import free_name, keep_root, replace_file, unwritable, write_new
from nwmctl.trust.publics import parse_public
from nwmctl.trust.release_keys import certify_again, make_release_key, reach_release_key, release_text
from nwmctl.trust.ring import KEYRING_NAME, KeyRing

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
        write_new(partial / KEYRING_NAME, documents.encode(ring.document), 0o644)
        _first_roots(ring, now_us, passphrase)
        os.replace(partial, folder)
    except OSError as problem:
        raise unwritable(folder, problem) from problem
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
        raise unwritable(ring.folder, problem) from problem


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


def renew_certificate(ring: KeyRing, clock: Clock, passphrase: bytes | None = None) -> KeyRing:
    """The ring with a fresh certificate for its release key, by the same authority; the key stays, wherever it is.

    Raises KeyMissingError, KeyRingError, KeyPassphraseError; then nothing has changed.
    """
    before = ring.entry(KeyRole.RELEASE)
    try:
        fresh = certify_again(ring.folder, before, clock.now_us(), passphrase)
        keys = tuple(fresh if entry == before else entry for entry in ring.document.keys)
        return _saved(KeyRing(ring.folder, replace(ring.document, keys=keys)))
    except OSError as problem:
        raise unwritable(ring.folder, problem) from problem


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

    stem = f"{wish.role}-{wish.platform}" if wish.platform else str(wish.role)
    name = free_name(ring.folder, stem, numbered=wish.count > 1)
    signer = Ed25519Signer(Ed25519PrivateKey.generate())
    write_new(ring.folder / f"{name}.pem", pem_private(signer.key, passphrase), 0o600)
    write_new(ring.folder / f"{name}.pub", f"{signer.public}\n".encode(), 0o644)
    return KeyEntry(wish.role, f"file:{name}.pem", signer.public, platform=wish.platform)


def _saved(ring: KeyRing) -> KeyRing:
    replace_file(ring.folder / KEYRING_NAME, documents.encode(ring.document))
    return ring


def _granted_release(
    ring: KeyRing, wish: Wish, known: Mapping[str, KeyEntry], now_us: int, passphrase: bytes | None
) -> KeyRing:
    if wish.held:
        raise SignerUriError(
            "a release key that is held elsewhere cannot sign here",
            why="one process judges the papers and signs at once; it must reach the key",
            next="give the URI of the device or service that holds it (--uri) with its public part (--public)",
        )
    for _, pem in wish.reached:
        if (text := release_text(pem)) in known:
            raise _two_roles(text, known[text], wish)
    entries = [make_release_key(ring.folder, now_us, passphrase) for _ in range(wish.count)]
    entries += [reach_release_key(ring.folder, uri, pem, now_us, passphrase) for uri, pem in wish.reached]
    document = replace(ring.document, keys=(*ring.document.keys, *entries))
    return KeyRing(ring.folder, _with_threshold(document, wish))


def _two_roles(public: str, known: KeyEntry, wish: Wish) -> KeyTwoRolesError:
    return KeyTwoRolesError(
        f"{public} is a key of '{known.label}' already",
        why="one key never has two roles: who steals it would get both",
        next=f"make a key of its own for '{wish.role}'",
    )


def _first_roots(ring: KeyRing, now_us: int, passphrase: bytes | None) -> None:
    """The first root of both repositories, where enough of the root keys are here."""
    from nwmctl.trust.roots import ROOT_ROLES, draft_root, finish_reference, finish_root, sign_root

    for role, roles in ROOT_ROLES.items():
        here = sum(bool(entry.uri) for entry in ring.document.active(role))
        if not all(ring.has(one) for one in roles.values()) or here < ring.threshold(role):
            continue
        draft = draft_root(ring.document, None, now_us, roles)
        signatures = [sign_root(draft, signer) for signer in ring.signers(role, passphrase)]
        keep_root(ring, finish_root(draft, signatures), 1, role, finish_reference(draft, signatures))
