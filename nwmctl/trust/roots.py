"""Root metadata: drafted from a key ring, signed by its holders one by one, finished when the thresholds are reached.

A root says which keys the other roles have. Its holders may sit at separate machines that are never connected: what
travels is the draft (the unsigned root) and, from each holder, one signature that names the draft's digest. A finished
root that follows another carries signatures by the thresholds of the old and of the new root keys, so whoever trusts
the old one can follow. A holder signs each root in both dialects (``reference_root``). Pure: bytes in, bytes out; keys
are opened by the caller, the time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.keys import KeyRingDocument, KeyRole, RootSignature
from nwmctl.errors import KeyMissingError, KeyThresholdError, RootChainError, RootDraftError, UntrustedSignatureError
from nwmctl.trust.metadata import MAX_ROOT, moment, translated
from nwmctl.trust.publics import ED25519, verify_signature
from nwmctl.trust.reference_root import is_director, reference_file, reference_text, role_keys
from nwmctl.trust.signers import Signer
from nwmctl.trust.tuf_signer import key_text, tuf_key

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root

ROOT_LIFETIME = timedelta(days=1825)
IMAGE_ROLES: Mapping[str, KeyRole] = {
    "root": KeyRole.ROOT,
    "targets": KeyRole.TARGETS,
    "snapshot": KeyRole.SNAPSHOT,
    "timestamp": KeyRole.TIMESTAMP,
}
"""TUF's role -> whose keys it has, for the image repository."""
DIRECTOR_ROLES: Mapping[str, KeyRole] = {
    "root": KeyRole.DIRECTOR_ROOT,
    "targets": KeyRole.DIRECTOR,
    "snapshot": KeyRole.DIRECTOR,
    "timestamp": KeyRole.DIRECTOR,
}
"""The same for the director, which publishes targets alone."""
ROOT_ROLES: Mapping[KeyRole, Mapping[str, KeyRole]] = {
    KeyRole.ROOT: IMAGE_ROLES,
    KeyRole.DIRECTOR_ROOT: DIRECTOR_ROLES,
}
"""Whose root it is -> its roles."""


@dataclass(frozen=True, slots=True)
class RootRole:
    """The keys of one role in a root (public keys as text)."""

    name: str
    threshold: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RootView:
    """What a root says, for the eyes of whoever signs it. ``digest`` is what a holder compares with the others;
    ``holders`` the role that signs it: ``root`` for the image repository's, ``director-root`` for the director's."""

    version: int
    expires_us: int
    digest: Digest
    roles: tuple[RootRole, ...]
    holders: KeyRole

    def role(self, name: str) -> RootRole:
        """One role."""
        return next(role for role in self.roles if role.name == name)


def draft_root(
    document: KeyRingDocument, previous: bytes | None, now_us: int, roles: Mapping[str, KeyRole] = IMAGE_ROLES
) -> bytes:
    """The unsigned next root (the first one without ``previous``) with the ring's active keys.

    Raises KeyMissingError for a role without keys, KeyThresholdError for one with fewer keys than its threshold.
    """
    from tuf.api.metadata import Metadata, Root

    root = Metadata(Root(consistent_snapshot=True))
    root.signed.version = 1 if previous is None else _parse(previous).signed.version + 1
    root.signed.expires = moment(now_us) + ROOT_LIFETIME
    for name, role in roles.items():
        entries, threshold = document.active(role), document.threshold(role)
        if not entries:
            raise KeyMissingError(
                f"the key ring has no key for '{role}', which a root must name",
                why="the four roles of a repository need a key each",
                next="make one with `nwmctl keys rotate`, or name its public key",
            )
        if len(entries) < threshold:
            raise KeyThresholdError(
                f"'{role}' has {len(entries)} active keys and a threshold of {threshold}",
                why="nobody could ever sign for it",
                next=f"add keys with `nwmctl keys rotate {role}`",
            )
        for entry in entries:
            root.signed.add_key(tuf_key(entry.public), name)
        root.signed.roles[name].threshold = threshold
    return root.to_bytes()


def view_root(data: bytes) -> RootView:
    """What a root or a draft says. Raises RootDraftError."""
    root = _parse(data)
    with translated():
        roles = tuple(
            RootRole(name, role.threshold, tuple(key_text(root.signed.keys[keyid]) for keyid in role.keyids))
            for name, role in sorted(root.signed.roles.items())
        )
        expires_us = int(root.signed.expires.timestamp() * 1_000_000)
        holders = KeyRole.DIRECTOR_ROOT if is_director(root.signed) else KeyRole.ROOT
    return RootView(root.signed.version, expires_us, digest_bytes(root.signed_bytes), roles, holders)


def names_keys(view: RootView, document: KeyRingDocument) -> bool:
    """Whether a root names exactly the active keys and the thresholds of a key ring."""
    return all(
        set(view.role(name).keys) == {entry.public for entry in document.active(role)}
        and view.role(name).threshold == document.threshold(role)
        for name, role in ROOT_ROLES[view.holders].items()
    )


def sign_root(draft: bytes, signer: Signer, previous: bytes | None = None) -> RootSignature:
    """One holder's signature. Raises RootDraftError, UntrustedSignatureError for a key that is no root key of the
    draft nor, where given, of the ``previous`` root."""
    view = view_root(draft)
    holders = view.role("root").keys + (view_root(previous).role("root").keys if previous is not None else ())
    if signer.public not in holders:
        raise UntrustedSignatureError(
            "this key is no root key of the draft",
            why=f"{signer.public} is not among its {len(view.role('root').keys)} root keys",
            next="use your root key; one that this draft replaces needs the root before it (--previous)",
        )
    root = _parse(draft)
    text = reference_text(root.signed) if signer.public.startswith(f"{ED25519}:") else None
    reference = signer.sign(text.encode()).hex() if text is not None else ""
    return RootSignature(view.digest, signer.public, signer.sign(root.signed_bytes).hex(), reference)


def finish_root(draft: bytes, signatures: Iterable[RootSignature], previous: bytes | None = None) -> bytes:
    """The signed root. Raises RootDraftError, RootChainError, UntrustedSignatureError, and KeyThresholdError where
    signatures by the new, or the previous, root keys are still missing."""
    from securesystemslib.signer import Signature

    root = _parse(draft)
    view = view_root(draft)
    before = view_root(previous) if previous is not None else None
    expected = 1 if before is None else before.version + 1
    if view.version != expected:
        raise RootChainError(
            f"the draft is version {view.version} of the root, {expected} is the next one",
            why="each root follows the one before it, without a gap",
            next="draft it again on top of the newest root (--previous, or the key folder's own)",
        )
    if before is not None and before.holders is not view.holders:
        raise RootChainError(
            f"a root of '{view.holders}' does not follow one of '{before.holders}'",
            why="image repository and director have roots of their own",
            next="name the key folder whose root was drafted",
        )
    holders = set(view.role("root").keys) | set(before.role("root").keys if before else ())
    good: dict[str, bytes] = {}
    for one in signatures:
        good[one.key] = _checked(one, one.signature, view, holders, root.signed_bytes)
    _demand(view.role("root"), good, "new" if before else "")
    if before is not None:
        _demand(before.role("root"), good, "previous")
    root.signatures.clear()
    for public in sorted(good):
        keyid = tuf_key(public).keyid
        root.signatures[keyid] = Signature(keyid, good[public].hex())
    return root.to_bytes()


def finish_reference(draft: bytes, signatures: Iterable[RootSignature], previous: bytes | None = None) -> bytes:
    """The same root in the reference dialect; empty where that has none or too few have signed it.

    Raises RootDraftError, UntrustedSignatureError.
    """
    root, view = _parse(draft).signed, view_root(draft)
    demanded = [role_keys(root, "root")]
    if previous is not None:
        demanded.append(role_keys(_parse(previous).signed, "root"))
    text = reference_text(root)
    if text is None:
        return b""
    holders = {key for role in demanded for key in role.keys}
    good = {one.key: _checked(one, one.reference, view, holders, text.encode()) for one in signatures if one.reference}
    return reference_file(root, good, demanded)


def check_chain(roots: Iterable[bytes]) -> None:
    """Return if each root is signed by its own threshold and by that of the one before it.

    Raises RootChainError, MetadataSignatureError, MetadataFormatError.
    """
    before: Metadata[Root] | None = None
    for version, data in enumerate(roots, start=1):
        root = _parse(data)
        if root.signed.version != version:
            raise RootChainError(
                f"the root that should be version {version} is version {root.signed.version}",
                why="roots are kept from version 1 on, without a gap",
                next="restore the key folder from its backup",
            )
        with translated():
            root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
            if before is not None:
                before.signed.verify_delegate("root", root.signed_bytes, root.signatures)
        before = root


def _checked(one: RootSignature, text: str, view: RootView, holders: set[str], signed: bytes) -> bytes:
    if one.root != view.digest:
        raise RootDraftError(
            "a signature belongs to another draft",
            why=f"it signs {one.root.short}, this draft is {view.digest.short}",
            next="collect signatures of this draft; if the draft was changed, everybody signs it again",
        )
    try:
        signature = bytes.fromhex(text)
    except ValueError as problem:
        raise RootDraftError(
            "a signature cannot be read", why=str(problem), next="have its holder sign the draft again"
        ) from problem
    if one.key not in holders or not verify_signature(one.key, signature, signed):
        raise UntrustedSignatureError(
            f"a signature of the root is not one of {one.key[:24]}...",
            why="that key is no root key of the draft or of the root before it"
            if one.key not in holders
            else "the signature does not fit the draft's bytes",
            next="leave it out; ask its holder what was signed",
        )
    return signature


def _demand(role: RootRole, good: Mapping[str, bytes], which: str) -> None:
    have = sum(key in good for key in role.keys)
    if have < role.threshold:
        raise KeyThresholdError(
            f"the root has {have} of {role.threshold} signatures by its {f'{which} ' if which else ''}root keys",
            why="a root counts only with its threshold, and a following one with the previous root's too",
            next="have more holders run `nwmctl keys ceremony sign` on this same draft",
        )


def _parse(data: bytes) -> Metadata[Root]:
    from tuf.api.metadata import Metadata, Root

    from nwmctl.errors import NwmError

    try:
        if len(data) > MAX_ROOT:
            raise ValueError(f"it has {len(data)} bytes, at most {MAX_ROOT} are read")
        with translated():
            return Metadata[Root].from_bytes(data)
    except (NwmError, ValueError) as problem:
        raise RootDraftError(
            "this is no root metadata",
            why=getattr(problem, "why", str(problem)),
            next="use the file that `nwmctl keys ceremony draft` or `... finish` has written",
        ) from problem
