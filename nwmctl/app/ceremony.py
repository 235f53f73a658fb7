"""Roots: drafted from a key folder, signed by their holders on machines of their own, finished and kept.

The image repository and the director have a root each, with holders of their own; both go the same way, and a draft
says by its keys whose it is. Nothing here needs a network, and no holder needs another's key. Where a folder holds
enough root keys itself, the next root is made at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nwmctl.app.clock import SystemClock
from nwmctl.app.passphrases import unlock
from nwmctl.domain.keys import KeyRole, RootSignatures
from nwmctl.errors import (
    FileUnreadableError,
    KeyElsewhereError,
    KeyThresholdError,
    NwmError,
    OutputUnwritableError,
    RootDraftError,
)
from nwmctl.formats import documents
from nwmctl.storage.content import write_atomically
from nwmctl.trust.expiry import root_due
from nwmctl.trust.keyfiles import keep_root
from nwmctl.trust.keys import KeyRing, load_keyring
from nwmctl.trust.metadata import MAX_ROOT
from nwmctl.trust.roots import (
    ROOT_ROLES,
    RootView,
    draft_root,
    finish_reference,
    finish_root,
    names_keys,
    sign_root,
    view_root,
)


@dataclass(frozen=True, slots=True)
class NextRoot:
    """What became of a root: ``path`` is the kept root, or the draft that its holders must sign."""

    view: RootView
    path: Path
    finished: bool


def draft(keys: Path, out: Path, holders: KeyRole = KeyRole.ROOT, previous: Path | None = None) -> RootView:
    """Write the next root of a key folder, unsigned: the image repository's, or (``holders``) the director's.
    ``previous`` stands in for the folder's newest. Raises KeyMissingError, KeyThresholdError and key errors."""
    ring = load_keyring(keys)
    before = _read(previous) if previous else _newest(ring, holders)
    data = draft_root(ring.document, before, SystemClock().now_us(), ROOT_ROLES[holders])
    _write(out, data)
    return view_root(data)


def show(root: Path) -> RootView:
    """What a root or a draft says. Raises RootDraftError, FileUnreadableError."""
    return view_root(_read(root))


def sign(
    draft_path: Path, keys: Path, out: Path, previous: Path | None = None, passphrase_env: str | None = None
) -> tuple[RootView, int]:
    """Sign a draft with the root keys of one's own folder; gives what was signed and with how many keys.

    Raises RootDraftError, UntrustedSignatureError, KeyElsewhereError and what opening a key raises.
    """
    data = _read(draft_path)
    view = view_root(data)
    before = _read(previous) if previous else None
    ring = load_keyring(keys)
    holders = {*view.role("root").keys, *(view_root(before).role("root").keys if before else ())}
    own = [entry for entry in ring.document.of(view.holders) if entry.uri]
    if not own:
        raise KeyElsewhereError(
            f"{keys.name} holds no key of '{view.holders}'",
            why="only a holder of such a key can sign this root",
            next="name your own key folder with --keys",
        )
    secret = unlock(ring, passphrase_env)
    named = [entry for entry in own if entry.public in holders] or own[:1]
    signatures = tuple(sign_root(data, ring.open(entry, secret), before) for entry in named)
    _write(out, documents.encode(RootSignatures(signatures)))
    return view, len(signatures)


def finish(draft_path: Path, signatures: Sequence[Path], keys: Path, previous: Path | None = None) -> NextRoot:
    """Put a draft and its holders' signatures together and keep the root in the key folder.

    Raises KeyThresholdError, UntrustedSignatureError, RootDraftError, RootChainError, KeyRingExistsError.
    """
    ring = load_keyring(keys)
    data = _read(draft_path)
    view = view_root(data)
    collected = [one for path in signatures for one in _signatures(path).signatures]
    before = _read(previous) if previous else _newest(ring, view.holders)
    root, reference = finish_root(data, collected, before), finish_reference(data, collected, before)
    _refuse_other_keys(view, ring)
    return NextRoot(view, keep_root(ring, root, view.version, view.holders, reference), True)


def follow(ring: KeyRing, secret: bytes | None) -> tuple[NextRoot, ...]:
    """The roots that a changed key folder needs: each finished where its own root keys suffice, else its draft.

    Nothing where the folder's newest root names its active keys, or where it is no whole ring.
    """
    found = []
    for holders in ROOT_ROLES:
        if not _pending(ring, holders):
            continue
        newest = _newest(ring, holders)
        data = draft_root(ring.document, newest, SystemClock().now_us(), ROOT_ROLES[holders])
        try:
            found.append(_finished(ring, data, newest, secret))
        except KeyThresholdError:
            view = view_root(data)
            path = ring.folder / f"{view.version}.{holders}.draft.json"
            _write(path, data)
            found.append(NextRoot(view, path, False))
    return tuple(found)


def renew(ring: KeyRing, secret: bytes | None, now_us: int) -> tuple[NextRoot, ...]:
    """The next root in place of one that is due, where the folder holds enough root keys; others are left to their
    holders. Raises what opening a key raises."""
    found = []
    for holders in ROOT_ROLES:
        newest = _newest(ring, holders)
        if newest is None or _pending(ring, holders) or not root_due(newest, now_us):
            continue
        with suppress(KeyThresholdError):
            data = draft_root(ring.document, newest, now_us, ROOT_ROLES[holders])
            found.append(_finished(ring, data, newest, secret))
    return tuple(found)


def names_ring(root: bytes, ring: KeyRing) -> bool:
    """Whether a root names the active keys and thresholds of a ring. Raises RootDraftError."""
    return names_keys(view_root(root), ring.document)


def pending(ring: KeyRing) -> bool:
    """Whether a finished root names other keys than the ring has now. Raises RootDraftError."""
    return any(ring.roots(holders) and _pending(ring, holders) for holders in ROOT_ROLES)


def _pending(ring: KeyRing, holders: KeyRole) -> bool:
    newest = _newest(ring, holders)
    whole = all(ring.has(role) for role in ROOT_ROLES[holders].values())
    return whole and (newest is None or not names_ring(newest, ring))


def _finished(ring: KeyRing, data: bytes, newest: bytes | None, secret: bytes | None) -> NextRoot:
    view = view_root(data)
    signers = list(ring.signers(view.holders, secret))
    if newest is not None:
        before = view_root(newest).role("root")
        signers += ring.signers_of(before.keys, before.threshold, str(view.holders), secret)
    signatures = [sign_root(data, signer, newest) for signer in signers]
    root, reference = finish_root(data, signatures, newest), finish_reference(data, signatures, newest)
    return NextRoot(view, keep_root(ring, root, view.version, view.holders, reference), True)


def _refuse_other_keys(view: RootView, ring: KeyRing) -> None:
    if not names_keys(view, ring.document):
        raise RootDraftError(
            "the root does not name the active keys of this key folder",
            why="the folder has changed since the draft was made, or the draft is another folder's",
            next="draft it again with `nwmctl keys ceremony draft` and have the holders sign that one",
        )


def _newest(ring: KeyRing, holders: KeyRole) -> bytes | None:
    roots = ring.roots(holders)
    return roots[-1] if roots else None


def _signatures(path: Path) -> RootSignatures:
    try:
        return documents.decode(RootSignatures, _read(path), path.name)
    except NwmError as problem:
        raise RootDraftError(
            f"'{path.name}' holds no signatures of a root",
            why=problem.why,
            next="use the file that `nwmctl keys ceremony sign` has written",
        ) from problem


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_ROOT + 1)
    except OSError as problem:
        raise FileUnreadableError(
            f"'{path}' cannot be read", why=problem.strerror or str(problem), next="correct the path"
        ) from problem


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{path}' cannot be written", why=problem.strerror or str(problem), next="choose another path"
        ) from problem
