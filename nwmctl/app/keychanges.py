"""A key folder's life: what it holds and until when, new keys for a role, keys declared lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nwmctl.app.ceremony import NextRoot, follow, pending
from nwmctl.app.clock import SystemClock
from nwmctl.app.passphrases import unlock
from nwmctl.app.project import read_file
from nwmctl.domain.keys import KeyEntry, KeyRole
from nwmctl.trust.expiry import Expiry, ExpiryState, ring_expiries
from nwmctl.trust.keyfolder import Wish, revoke_key, rotate_keys
from nwmctl.trust.keys import KeyRing, load_keyring
from nwmctl.trust.publics import public_or_file

_PINNED = frozenset({KeyRole.SAFETY, KeyRole.MODEL, KeyRole.APPROVER})
"""Roles whose public keys stand in releases."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Something that expires, and how near the end is."""

    expiry: Expiry
    state: ExpiryState


@dataclass(frozen=True, slots=True)
class Listing:
    """A key folder as a person sees it. ``root`` and ``director_root`` are the newest finished versions, 0 before the
    first."""

    ring: KeyRing
    root: int
    director_root: int
    pending: bool
    """Whether the folder's keys differ from what its newest roots name: a next root is still to be finished."""
    watched: tuple[Watched, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What a rotation or a revocation did, and what is still to be done by persons."""

    ring: KeyRing
    new: tuple[KeyEntry, ...]
    roots: tuple[NextRoot, ...]
    """The image repository's next root, the director's, or both, where the change touches them."""
    todo: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewKeys:
    """What takes the place of a role's keys: ``count`` new ones made here, others' (``held``), or those behind URIs,
    each with its public key in ``held`` at the same place."""

    count: int | None = None
    threshold: int | None = None
    held: Sequence[str] = ()
    uris: Sequence[str] = ()

    def wish(self, role: KeyRole, platform: str, now: int) -> Wish:
        """The same as the key folder wants it; ``now`` is how many keys the role has."""
        # A certificate is made of a release key: its whole PEM file is needed, not only the text that names it.
        if role is KeyRole.RELEASE:
            publics = tuple(_pem(text) if self.uris else text for text in self.held)
        else:
            publics = tuple(public_or_file(text) for text in self.held)
        reached = tuple(zip(self.uris, publics, strict=False))
        count = self.count if self.count is not None else (0 if publics else max(now, 1))
        return Wish(role, platform, count, publics[len(reached) :], reached, self.threshold)


def list_keys(folder: Path) -> Listing:
    """What a key folder holds. Raises KeyRingError, RootDraftError."""
    ring = load_keyring(folder)
    return Listing(ring, len(ring.roots()), len(ring.roots(KeyRole.DIRECTOR_ROOT)), pending(ring), watch(ring))


def watch(ring: KeyRing) -> tuple[Watched, ...]:
    """Everything of a ring that expires. Raises KeyRingError, RootDraftError."""
    now_us = SystemClock().now_us()
    return tuple(Watched(expiry, expiry.state(now_us)) for expiry in ring_expiries(ring))


def rotate(folder: Path, role: KeyRole, platform: str, new: NewKeys, passphrase_env: str | None = None) -> Change:
    """New keys for a role; the next roots too, if this folder can sign it. Raises key errors; then nothing changed."""
    ring = load_keyring(folder)
    secret = unlock(ring, passphrase_env)
    _refuse_half(new)
    now = len(ring.document.active(role, platform))
    return _changed(ring, rotate_keys(ring, SystemClock(), new.wish(role, platform, now), secret), secret)


def revoke(folder: Path, public: str, held: Sequence[str] = (), passphrase_env: str | None = None) -> Change:
    """Declare a key lost or stolen. Raises KeyUnknownError and key errors; then nothing changed."""
    ring = load_keyring(folder)
    secret = unlock(ring, passphrase_env)
    publics = tuple(public_or_file(text) for text in held)
    return _changed(ring, revoke_key(ring, SystemClock(), public_or_file(public), publics, secret), secret)


def _changed(before: KeyRing, after: KeyRing, secret: bytes | None) -> Change:
    known = {entry.public for entry in before.document.keys}
    new = tuple(entry for entry in after.document.keys if entry.public not in known)
    states = {entry.public: entry.state for entry in before.document.keys}
    touched = {e.role for e in after.document.keys if states.get(e.public) is not e.state}
    roots = follow(after, secret)
    todo = [
        f"have the root's holders sign {root.path.name}: `nwmctl keys ceremony sign`, then `... finish`"
        for root in roots
        if not root.finished
    ]
    if KeyRole.TARGETS in touched or any(root.view.holders is KeyRole.ROOT for root in roots):
        todo.append("publish what is new: `nwmctl keys refresh RELEASE`")
    if touched & _PINNED:
        todo.append("put the new public keys under 'trust:' in your releases, and remove the old ones")
    if KeyRole.RELEASE in touched:
        todo.append(
            "publish under a higher sequence: bundles of the old certificate stay valid until it expires, and vehicles "
            "hear of a stolen one only from the repository, which then lists other bundles"
        )
    if touched & {KeyRole.DIRECTOR, KeyRole.DIRECTOR_ROOT}:
        todo.append("take the new root over: `nwmctl director root`; then start the gateway again, or `director sign`")
    return Change(after, new, roots, tuple(todo))


def _pem(path: str) -> str:
    return read_file(Path(path), "public key").decode("ascii", "replace")


def _refuse_half(new: NewKeys) -> None:
    from nwmctl.errors import SignerUriError

    if len(new.uris) > len(new.held):
        raise SignerUriError(
            "a URI without its public key",
            why="whether the right key answers is known only from its public part",
            next="give --public KEY for each --uri, in the same order",
        )
