"""Roots: drafted from a key folder, signed by their holders on machines of their own, finished and kept.

Nothing here needs a network, and no holder needs another's key. Where a folder holds enough root keys itself, the
next root is made at once.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from nwmctl.trust.keyfolder import keep_root
from nwmctl.trust.keys import KeyRing, load_keyring
from nwmctl.trust.metadata import MAX_ROOT
from nwmctl.trust.roots import IMAGE_ROLES, RootView, draft_root, finish_root, sign_root, view_root


@dataclass(frozen=True, slots=True)
class NextRoot:
    """What became of a root: ``path`` is the kept root, or the draft that its holders must sign."""

    view: RootView
    path: Path
    finished: bool


def draft(keys: Path, out: Path) -> RootView:
    """Write the next root of a key folder, unsigned. Raises KeyMissingError, KeyThresholdError and key errors."""
    ring = load_keyring(keys)
    data = draft_root(ring.document, _newest(ring), SystemClock().now_us())
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
    own = [entry for entry in ring.document.of(KeyRole.ROOT) if entry.uri]
    if not own:
        raise KeyElsewhereError(
            f"{keys.name} holds no root key",
            why="only a holder of a root key can sign a root",
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
    collected = [one for path in signatures for one in _signatures(path).signatures]
    root = finish_root(data, collected, _read(previous) if previous else _newest(ring))
    view = view_root(root)
    _refuse_other_keys(view, ring)
    return NextRoot(view, keep_root(ring, root, view.version), True)


def follow(ring: KeyRing, secret: bytes | None) -> NextRoot | None:
    """The root that a changed key folder needs: finished where its own root keys suffice, else its draft.

    None where the folder's newest root names its active keys, or where it is no whole ring.
    """
    newest = _newest(ring)
    if not all(ring.has(role) for role in IMAGE_ROLES.values()) or (newest and _names(view_root(newest), ring)):
        return None
    data = draft_root(ring.document, newest, SystemClock().now_us())
    view = view_root(data)
    try:
        signers = list(ring.signers(KeyRole.ROOT, secret))
        if newest is not None:
            before = view_root(newest).role("root")
            signers += ring.signers_of(before.keys, before.threshold, "root", secret)
    except KeyThresholdError:
        path = ring.folder / f"{view.version}.root.draft.json"
        _write(path, data)
        return NextRoot(view, path, False)
    root = finish_root(data, [sign_root(data, signer, newest) for signer in signers], newest)
    return NextRoot(view, keep_root(ring, root, view.version), True)


def names_ring(root: bytes, ring: KeyRing) -> bool:
    """Whether a root names the active keys and thresholds of a ring. Raises RootDraftError."""
    return _names(view_root(root), ring)


def _names(view: RootView, ring: KeyRing) -> bool:
    return all(
        set(view.role(name).keys) == set(ring.publics(role)) and view.role(name).threshold == ring.threshold(role)
        for name, role in IMAGE_ROLES.items()
    )


def _refuse_other_keys(view: RootView, ring: KeyRing) -> None:
    if not _names(view, ring):
        raise RootDraftError(
            "the root does not name the active keys of this key folder",
            why="the folder has changed since the draft was made, or the draft is another folder's",
            next="draft it again with `nwmctl keys ceremony draft` and have the holders sign that one",
        )


def _newest(ring: KeyRing) -> bytes | None:
    roots = ring.roots()
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
