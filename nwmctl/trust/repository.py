"""Writes the repository's signed metadata (TUF): which bundles exist, under which keys, until when.

Every change is a new version of targets, snapshot and timestamp. Versioned files come first and harm nobody; the
timestamp is handed out apart, because the moment it is replaced the release exists for every platform at once. A
state that comes from a mirror is verified against the key ring before anything is signed on top of it. Pure but for
the key files that the signers open; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nwmctl.domain.clock import Clock
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import MetadataSignatureError, SequenceTakenError
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import (
    MAX_ROOTS,
    TIMESTAMP_PATH,
    Fetch,
    ListedBundle,
    custom_of,
    format_error,
    listed,
    moment,
    translated,
    versioned,
)

if TYPE_CHECKING:
    from securesystemslib.signer import Signer as LibrarySigner
    from securesystemslib.signer import SSlibKey
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

ROLES: tuple[KeyRole, ...] = (KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP)
LIFETIME: Mapping[KeyRole, timedelta] = {
    KeyRole.ROOT: timedelta(days=1825),
    KeyRole.TARGETS: timedelta(days=365),
    KeyRole.SNAPSHOT: timedelta(days=365),
    KeyRole.TIMESTAMP: timedelta(days=30),
}
"""How long each file holds. Whoever holds back the timestamp is noticed after its lifetime."""


@dataclass(frozen=True, slots=True)
class MetadataSet:
    """A repository's current metadata. ``roots`` are all root versions from 1 on."""

    roots: tuple[bytes, ...]
    targets: bytes
    snapshot: bytes
    timestamp: bytes


@dataclass(frozen=True, slots=True)
class Publication:
    """New metadata: ``files`` (repository path -> bytes) in the order of writing, then ``timestamp`` last."""

    files: Mapping[str, bytes]
    timestamp: bytes
    state: MetadataSet

    @property
    def timestamp_path(self) -> str:
        """Where the timestamp goes."""
        return TIMESTAMP_PATH


@dataclass(slots=True)
class _Open:
    """A verified state, parsed."""

    roots: list[bytes]
    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]


def create_repository(keyring: KeyRing, clock: Clock, passphrase: bytes | None = None) -> Publication:
    """The first metadata of an empty repository. Raises KeyMissingError and other key errors."""
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

    root = Metadata(Root(consistent_snapshot=True))
    for role in ROLES:
        root.signed.add_key(_key(keyring, role), str(role))
    state = _Open([], root, Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp()))
    _seal(root, KeyRole.ROOT, keyring, clock, passphrase)
    state.roots.append(root.to_bytes())
    return _publish(state, keyring, clock, passphrase, first=True)


def add_targets(
    previous: MetadataSet,
    bundles: Sequence[ListedBundle],
    keyring: KeyRing,
    clock: Clock,
    passphrase: bytes | None = None,
) -> Publication:
    """Metadata that list ``bundles`` too; without any it only renews what would expire.

    Raises SequenceTakenError for a name, or a platform's sequence, that already stands for other content; and for
    ``previous`` MetadataFormatError, MetadataSignatureError.
    """
    from tuf.api.metadata import TargetFile

    state = _open(previous, keyring)
    known = _listed(state.targets)
    for bundle in bundles:
        _refuse_other_content(bundle, known)
        known[bundle.name] = bundle
        extra: dict[str, Any] = {"custom": custom_of(bundle.about)}
        hashes = {"sha256": bundle.digest.hex}
        state.targets.signed.targets[bundle.name] = TargetFile(bundle.length, hashes, bundle.name, extra)
    return _publish(state, keyring, clock, passphrase)


def rotate_keys(
    previous: MetadataSet, old: KeyRing, new: KeyRing, clock: Clock, passphrase: bytes | None = None
) -> Publication:
    """Metadata under the keys of ``new``. The next root is signed by both root keys, so vehicles follow it."""
    state = _open(previous, old)
    for role in ROLES:
        state.root.signed.revoke_key(_key(old, role).keyid, str(role))
        state.root.signed.add_key(_key(new, role), str(role))
    state.root.signed.version += 1
    _seal(state.root, KeyRole.ROOT, new, clock, passphrase)
    state.root.sign(_signer(old, KeyRole.ROOT, passphrase), append=True)
    state.roots.append(state.root.to_bytes())
    return _publish(state, new, clock, passphrase)


def listed_bundles(state: MetadataSet, keyring: KeyRing) -> tuple[ListedBundle, ...]:
    """What a verified state lists, by name. Raises MetadataFormatError, MetadataSignatureError."""
    return tuple(bundle for _, bundle in sorted(_listed(_open(state, keyring).targets).items()))


def read_state(fetch: Fetch) -> MetadataSet | None:
    """A repository's state as it lies somewhere, not verified; None where there is no timestamp.

    Raises MetadataFormatError where files are missing.
    """
    from tuf.api.metadata import Metadata, Snapshot, Timestamp

    timestamp = fetch(TIMESTAMP_PATH)
    if timestamp is None:
        return None
    with translated():
        version = Metadata[Timestamp].from_bytes(timestamp).signed.snapshot_meta.version
        snapshot = _need(fetch, versioned("snapshot", version))
        version = Metadata[Snapshot].from_bytes(snapshot).signed.meta["targets.json"].version
    targets = _need(fetch, versioned("targets", version))
    roots = [_need(fetch, versioned("root", 1))]
    while len(roots) < MAX_ROOTS and (found := fetch(versioned("root", len(roots) + 1))) is not None:
        roots.append(found)
    return MetadataSet(tuple(roots), targets, snapshot, timestamp)


def _need(fetch: Fetch, path: str) -> bytes:
    data = fetch(path)
    if data is None:
        raise format_error(f"'{path}' is missing")
    return data


def _open(previous: MetadataSet, keyring: KeyRing) -> _Open:
    """Parse and verify: signing on top of a forged state would make the forgery ours."""
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

    with translated():
        state = _Open(
            list(previous.roots),
            Metadata[Root].from_bytes(previous.roots[-1]),
            Metadata[Targets].from_bytes(previous.targets),
            Metadata[Snapshot].from_bytes(previous.snapshot),
            Metadata[Timestamp].from_bytes(previous.timestamp),
        )
        root = state.root.signed
        for role in ROLES:
            if root.roles[str(role)].keyids != [_key(keyring, role).keyid]:
                raise MetadataSignatureError(
                    f"the repository's '{role}' key is not the key ring's",
                    why="the root metadata name another key",
                    next="use the key folder that this repository was made with, or rotate its keys",
                )
        parts: tuple[Metadata[Any], ...] = (state.root, state.targets, state.snapshot, state.timestamp)
        for role, metadata in zip(ROLES, parts, strict=True):
            root.verify_delegate(str(role), metadata.signed_bytes, metadata.signatures)
        versions = (
            root.version == len(state.roots),
            state.snapshot.signed.meta["targets.json"].version == state.targets.signed.version,
            state.timestamp.signed.snapshot_meta.version == state.snapshot.signed.version,
        )
    if not all(versions):
        raise format_error("its files are not of one moment; their versions do not follow each other")
    return state


def _listed(targets: Metadata[Targets]) -> dict[str, ListedBundle]:
    return {
        name: listed(name, file.length, file.hashes, file.unrecognized_fields.get("custom"))
        for name, file in targets.signed.targets.items()
    }


def _refuse_other_content(bundle: ListedBundle, known: Mapping[str, ListedBundle]) -> None:
    about = bundle.about
    for other in known.values():
        same_place = (other.about.platform, other.about.sequence) == (about.platform, about.sequence)
        if (other.name == bundle.name or same_place) and other != bundle:
            raise SequenceTakenError(
                f"release sequence {about.sequence} of '{about.platform}' already stands for '{other.name}'",
                why=f"that bundle is {other.digest.short}, this one is {bundle.digest.short}",
                next="give the release a higher sequence",
            )


def _publish(
    state: _Open, keyring: KeyRing, clock: Clock, passphrase: bytes | None, *, first: bool = False
) -> Publication:
    if not first:
        for metadata in (state.targets, state.snapshot, state.timestamp):
            metadata.signed.version += 1
    state.snapshot.signed.meta["targets.json"].version = state.targets.signed.version
    state.timestamp.signed.snapshot_meta.version = state.snapshot.signed.version
    _seal(state.targets, KeyRole.TARGETS, keyring, clock, passphrase)
    _seal(state.snapshot, KeyRole.SNAPSHOT, keyring, clock, passphrase)
    _seal(state.timestamp, KeyRole.TIMESTAMP, keyring, clock, passphrase)
    targets, snapshot, timestamp = (m.to_bytes() for m in (state.targets, state.snapshot, state.timestamp))
    files = {versioned("root", number): data for number, data in enumerate(state.roots, start=1)}
    files[versioned("targets", state.targets.signed.version)] = targets
    files[versioned("snapshot", state.snapshot.signed.version)] = snapshot
    return Publication(files, timestamp, MetadataSet(tuple(state.roots), targets, snapshot, timestamp))


def _seal(metadata: Metadata[Any], role: KeyRole, keyring: KeyRing, clock: Clock, passphrase: bytes | None) -> None:
    metadata.signed.expires = moment(clock.now_us()) + LIFETIME[role]
    metadata.sign(_signer(keyring, role, passphrase))


def _key(keyring: KeyRing, role: KeyRole) -> SSlibKey:
    from nwmctl.trust.tuf_signer import tuf_key

    return tuf_key(keyring.public(role))


def _signer(keyring: KeyRing, role: KeyRole, passphrase: bytes | None) -> LibrarySigner:
    from nwmctl.trust.tuf_signer import tuf_signer

    return tuf_signer(keyring.signer(role, passphrase))
