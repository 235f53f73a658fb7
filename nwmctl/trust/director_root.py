"""The director's root metadata, in both dialects: which keys the director has.

The director has a root of its own, under keys of its own: with the image repository's root keys, each root would be
accepted as the other's next version. The TUF dialect's root is one that the holders finished together (see ``roots``),
or one that a folder with enough root keys signs by itself. The reference dialect's says the same and has signatures of
its own, which holders make together with the others (``reference_root``): where those are missing and the folder lacks
the keys, there is none, and clients of that dialect are refused until there is. A key folder that keeps finished roots
decides; the chain that vehicles already follow is only ever continued. Pure but for the keys that it opens.
"""

from __future__ import annotations

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import KeyElsewhereError, KeyRevokedError, KeyThresholdError, PublicKeyError, RootChainError
from nwmctl.formats.uptane import DirectorRoot
from nwmctl.trust.keys import KeyRing, Signer
from nwmctl.trust.metadata import translated
from nwmctl.trust.roots import (
    DIRECTOR_ROLES,
    RootRole,
    check_chain,
    draft_root,
    finish_reference,
    finish_root,
    names_keys,
    sign_root,
    view_root,
)


def next_root(
    ring: KeyRing,
    previous: DirectorRoot | None,
    now_us: int,
    passphrase: bytes | None = None,
    finished: bytes | None = None,
) -> DirectorRoot:
    """The first root, or the one after ``previous``, with the keys that the ring has now; signed by the thresholds of
    both. ``finished``: the TUF dialect's, from a ceremony. Raises KeyThresholdError, KeyMissingError, RootChainError,
    RootDraftError, MetadataSignatureError, PublicKeyError and other key errors."""
    version = previous.version + 1 if previous else 1
    before = previous.tuf if previous else None
    if finished is not None:
        tuf = _checked(finished, version, before, ring)
    else:
        draft = draft_root(ring.document, before, now_us, DIRECTOR_ROLES)
        signers = _signers(ring, view_root(draft).role("root"), before, passphrase)
        tuf = finish_root(draft, [sign_root(draft, signer, before) for signer in signers], before)
    return DirectorRoot(version, tuf, _reference(tuf, ring, before, passphrase))


def kept_roots(ring: KeyRing, newest: DirectorRoot | None) -> tuple[DirectorRoot, ...]:
    """The finished roots of a key folder that follow ``newest``; none where its chain is another one.

    Raises RootChainError, MetadataSignatureError, MetadataFormatError for a chain that does not hold together.
    """
    role = KeyRole.DIRECTOR_ROOT
    roots = ring.roots(role)
    done = newest.version if newest else 0
    if newest is not None and roots[done - 1 : done] != (newest.tuf,):
        return ()
    check_chain(roots)
    numbered = list(enumerate(roots, start=1))[done:]
    return tuple(DirectorRoot(version, tuf, ring.reference_root(version, role)) for version, tuf in numbered)


def is_current(root: DirectorRoot, ring: KeyRing) -> bool:
    """Whether ``root`` names exactly the keys that the ring has for the director now."""
    return names_keys(view_root(root.tuf), ring.document)


def _checked(finished: bytes, version: int, before: bytes | None, ring: KeyRing) -> bytes:
    from tuf.api.metadata import Metadata, Root

    view = view_root(finished)
    if view.version != version or not is_current(DirectorRoot(version, finished, b""), ring):
        raise RootChainError(
            "this root does not fit the director",
            why=f"it is version {view.version}, the next one is {version}; or it names other keys than the key folder",
            next="draft it again from this key folder, and have its holders sign it",
        )
    with translated():
        made = Metadata[Root].from_bytes(finished)
        for data in (finished, before):
            if data is not None:
                root = Metadata[Root].from_bytes(data)
                root.signed.verify_delegate("root", made.signed_bytes, made.signatures)
    return finished


def _reference(tuf: bytes, ring: KeyRing, before: bytes | None, passphrase: bytes | None) -> bytes:
    view = view_root(tuf)
    for role in view.roles:
        _check_ed25519(role)
    try:
        signers = _signers(ring, view.role("root"), before, passphrase)
    except (KeyThresholdError, KeyElsewhereError, KeyRevokedError):
        return b""
    return finish_reference(tuf, [sign_root(tuf, signer, before) for signer in signers], before)


def _signers(ring: KeyRing, new: RootRole, before: bytes | None, passphrase: bytes | None) -> list[Signer]:
    """Enough root keys of the new root and of the one before it, each once."""
    roles = [new] if before is None else [new, view_root(before).role("root")]
    found: dict[str, Signer] = {}
    for role in roles:
        for signer in ring.signers_of(role.keys, role.threshold, str(KeyRole.DIRECTOR_ROOT), passphrase):
            found[signer.public] = signer
    return list(found.values())


def _check_ed25519(role: RootRole) -> None:
    for public in role.keys:
        if not public.startswith("ed25519:"):
            raise PublicKeyError(
                f"a key of the director's role '{role.name}' is {public[:24]}...",
                why="the director signs with ed25519 keys only: the reference client knows no others of ours",
                next="give the roles 'director-root' and 'director' ed25519 keys",
            )
