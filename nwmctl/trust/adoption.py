"""Which roots a repository goes by: those of the key ring, where they continue what the repository has.

A ring that keeps finished roots is believed where the repository's roots are the beginning of its own; a ring without
them (or another ring that took over) where the newest root names exactly the ring's active keys. Anything else is
another owner's repository, or a ring out of an old backup, and is refused. Opens root keys only to make a first root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nwmctl.errors import MetadataSignatureError, NwmError
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import translated
from nwmctl.trust.roots import IMAGE_ROLES, check_chain, draft_root, finish_root, sign_root, view_root

if TYPE_CHECKING:
    from nwmctl.domain.keys import RootSignature


def first_roots(keyring: KeyRing, now_us: int, passphrase: bytes | None) -> tuple[bytes, ...]:
    """The roots of a new repository. Raises KeyThresholdError where the holders have not signed one yet."""
    kept = keyring.roots()
    if kept:
        check_chain(kept)
        return kept
    draft = draft_root(keyring.document, None, now_us)
    return (finish_root(draft, _signatures(draft, None, [keyring], passphrase)),)


def followed_roots(newest: bytes, old: KeyRing, new: KeyRing, now_us: int, passphrase: bytes | None) -> bytes:
    """The root that leads from one ring's keys to another's. Raises KeyThresholdError and other key errors."""
    draft = draft_root(new.document, newest, now_us)
    return finish_root(draft, _signatures(draft, newest, [old, new], passphrase), newest)


def adopted_roots(roots: Sequence[bytes], keyring: KeyRing) -> tuple[bytes, ...]:
    """The roots that a repository with ``roots`` has from now on.

    Raises MetadataSignatureError where ring and repository do not belong together, MetadataFormatError for damage.
    """
    kept = keyring.roots()
    if kept[: len(roots)] == tuple(roots):
        check_chain(kept)
        return kept
    try:
        same = _names_our_keys(roots[-1], keyring)
    except NwmError as problem:
        raise _stranger(f"its newest root cannot be read: {problem.why}") from problem
    if not same:
        raise _stranger("the root metadata name other keys")
    with translated():
        check_chain(roots)
    return tuple(roots)


def _names_our_keys(root: bytes, keyring: KeyRing) -> bool:
    view = view_root(root)
    return all(
        set(view.role(name).keys) == set(keyring.publics(role)) and view.role(name).threshold == keyring.threshold(role)
        for name, role in IMAGE_ROLES.items()
    )


def _signatures(
    draft: bytes, previous: bytes | None, rings: Sequence[KeyRing], passphrase: bytes | None
) -> list[RootSignature]:
    signers = [signer for ring in rings for signer in ring.signers(IMAGE_ROLES["root"], passphrase)]
    return [sign_root(draft, signer, previous) for signer in signers]


def _stranger(why: str) -> MetadataSignatureError:
    return MetadataSignatureError(
        "the repository is not the key ring's",
        why=why,
        next="use the key folder that this repository was made with, restore its newest backup, or rotate its keys",
    )
