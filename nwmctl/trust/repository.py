"""Writes the repository's signed metadata (TUF): which bundles exist, under which keys, until when.

Every change is a new version of targets, snapshot and timestamp, and of the platforms' lists that it touches.
Versioned files come first and harm nobody; the timestamp is handed out apart, because the moment it is replaced the
release exists for every platform at once. A state that comes from a mirror is verified against the key ring before
anything is signed on top of it; a newer root of the ring is taken over. Each file carries as many signatures as the
metadata in force demand of its role. Pure but for the key folder that the signers open; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nwmctl.domain.clock import Clock
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import SequenceTakenError
from nwmctl.trust import delegations
from nwmctl.trust.adoption import adopted_roots, first_roots, followed_roots
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
    next_version,
    translated,
    versioned,
)

if TYPE_CHECKING:
    from securesystemslib.signer import Signer as LibrarySigner
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

ROLES: tuple[KeyRole, ...] = (KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP)
LIFETIME: Mapping[KeyRole, timedelta] = {
    KeyRole.ROOT: timedelta(days=1825),
    KeyRole.TARGETS: timedelta(days=365),
    KeyRole.SNAPSHOT: timedelta(days=365),
    KeyRole.TIMESTAMP: timedelta(days=30),
}
"""How long each file holds. Whoever holds back the timestamp is noticed after its lifetime."""
_SKEW = timedelta(days=1)
"""How far the clocks of machines that sign may differ."""


@dataclass(frozen=True, slots=True)
class MetadataSet:
    """A repository's current metadata. ``roots`` are all root versions from 1 on; ``delegated`` the platforms' lists
    and their bins by role name."""

    roots: tuple[bytes, ...]
    targets: bytes
    snapshot: bytes
    timestamp: bytes
    delegated: Mapping[str, bytes] = field(default_factory=dict)


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
    """A verified state, parsed. ``bytes_of`` keeps the delegated lists as they were read."""

    roots: list[bytes]
    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    lists: dict[str, Metadata[Targets]]
    bytes_of: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class _Pen:
    """What signs, and when."""

    keyring: KeyRing
    clock: Clock
    passphrase: bytes | None

    def seal(self, metadata: Metadata[Any], role: KeyRole, keys: Collection[str], threshold: int, label: str) -> None:
        """Sign with ``threshold`` of ``keys`` (public keys as text), for the role's lifetime from now."""
        metadata.signed.expires = moment(self.clock.now_us()) + LIFETIME[role]
        for number, signer in enumerate(self.keyring.signers_of(keys, threshold, label, self.passphrase)):
            metadata.sign(_adapted(signer), append=number > 0)


def create_repository(keyring: KeyRing, clock: Clock, passphrase: bytes | None = None) -> Publication:
    """The first metadata of an empty repository, under the ring's finished roots (or, where it has none, a first root
    that the ring's own root keys sign). Raises KeyMissingError, KeyThresholdError and other key errors."""
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

    roots = first_roots(keyring, clock.now_us(), passphrase)
    with translated():
        root = Metadata[Root].from_bytes(roots[-1])
    state = _Open(list(roots), root, Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp()), {}, {})
    state.targets.signed.version = state.snapshot.signed.version = state.timestamp.signed.version = 0
    return _publish(state, _Pen(keyring, clock, passphrase), delegations.delegate(state.targets, state.lists, keyring))


def add_targets(
    previous: MetadataSet,
    bundles: Sequence[ListedBundle],
    keyring: KeyRing,
    clock: Clock,
    passphrase: bytes | None = None,
    *,
    bins_from: int = delegations.BINS_FROM,
    reported: Mapping[str, int] = MappingProxyType({}),
) -> Publication:
    """Metadata that list ``bundles`` too; without any it only renews what would expire and takes over new keys.

    ``reported``: role -> the highest version that a vehicle has seen; what is signed lies above it.

    Raises SequenceTakenError for a name, or a platform's sequence, that already stands for other content; and for
    ``previous`` MetadataFormatError, MetadataSignatureError.
    """
    from tuf.api.metadata import TargetFile

    state = _open(previous, keyring)
    known = _listed(state)
    changed = delegations.delegate(state.targets, state.lists, keyring)
    for bundle in bundles:
        _refuse_other_content(bundle, known)
        if known.get(bundle.name) == bundle:
            continue
        known[bundle.name] = bundle
        extra: dict[str, Any] = {"custom": custom_of(bundle.about)}
        hashes = {"sha256": bundle.digest.hex}
        home = delegations.home_of(bundle.name, bundle.about.platform, state.targets, state.lists)
        place = state.targets if home == "targets" else state.lists[home]
        place.signed.targets[bundle.name] = TargetFile(bundle.length, hashes, bundle.name, extra)
        changed.add(home)
    changed |= delegations.split(state.lists, bins_from)
    delegations.hand_on(state.targets, state.lists, changed)
    return _publish(state, _Pen(keyring, clock, passphrase), changed - {"targets"}, reported)


def rotate_keys(
    previous: MetadataSet, old: KeyRing, new: KeyRing, clock: Clock, passphrase: bytes | None = None
) -> Publication:
    """Metadata under the keys of another ring, ``new``. The next root is signed by the thresholds of both rings'
    root keys, so vehicles follow it. (Keys of one ring are rotated in its folder, see ``keyfolder.rotate_keys``.)"""
    from tuf.api.metadata import Metadata, Root

    state = _open(previous, old)
    root = followed_roots(state.roots[-1], old, new, clock.now_us(), passphrase)
    state.roots.append(root)
    with translated():
        state.root = Metadata[Root].from_bytes(root)
    changed = delegations.delegate(state.targets, state.lists, new)
    return _publish(state, _Pen(new, clock, passphrase), changed)


def listed_bundles(state: MetadataSet, keyring: KeyRing) -> tuple[ListedBundle, ...]:
    """What a verified state lists, by name. Raises MetadataFormatError, MetadataSignatureError."""
    return tuple(bundle for _, bundle in sorted(_listed(_open(state, keyring)).items()))


def is_behind(state: MetadataSet, keyring: KeyRing) -> bool:
    """Whether the ring has a newer root, or other keys for a platform's list, than a verified state.

    Raises MetadataFormatError, MetadataSignatureError.
    """
    opened = _open(state, keyring)
    return len(opened.roots) > len(state.roots) or bool(delegations.delegate(opened.targets, opened.lists, keyring))


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
        meta = dict(Metadata[Snapshot].from_bytes(snapshot).signed.meta)
        targets = _need(fetch, versioned("targets", meta.pop("targets.json").version))
    lists = {name.removesuffix(".json"): file.version for name, file in sorted(meta.items())}
    for name in lists:
        if not delegations.ROLE_NAME.match(name):
            raise format_error(f"'{name[:80]}' is no name of a list")
    delegated = {name: _need(fetch, versioned(name, number)) for name, number in lists.items()}
    roots = [_need(fetch, versioned("root", 1))]
    while len(roots) < MAX_ROOTS and (found := fetch(versioned("root", len(roots) + 1))) is not None:
        roots.append(found)
    return MetadataSet(tuple(roots), targets, snapshot, timestamp, delegated)


def _need(fetch: Fetch, path: str) -> bytes:
    data = fetch(path)
    if data is None:
        raise format_error(f"'{path}' is missing")
    return data


def _open(previous: MetadataSet, keyring: KeyRing) -> _Open:
    """Parse and verify: signing on top of a forged state would make the forgery ours."""
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

    roots = adopted_roots(previous.roots, keyring)
    with translated():
        before = Metadata[Root].from_bytes(previous.roots[-1])
        state = _Open(
            list(roots),
            Metadata[Root].from_bytes(roots[-1]),
            Metadata[Targets].from_bytes(previous.targets),
            Metadata[Snapshot].from_bytes(previous.snapshot),
            Metadata[Timestamp].from_bytes(previous.timestamp),
            {name: Metadata[Targets].from_bytes(data) for name, data in previous.delegated.items()},
            dict(previous.delegated),
        )
        parts: tuple[Metadata[Any], ...] = (before, state.targets, state.snapshot, state.timestamp)
        for role, metadata in zip(ROLES, parts, strict=True):
            before.signed.verify_delegate(str(role), metadata.signed_bytes, metadata.signatures)
        delegations.verify(state.targets, state.lists)
        meta = {name: file.version for name, file in state.snapshot.signed.meta.items()}
        lists = {"targets": state.targets, **state.lists}
        versions = (
            before.signed.version == len(previous.roots),
            meta == {f"{name}.json": metadata.signed.version for name, metadata in lists.items()},
            state.timestamp.signed.snapshot_meta.version == state.snapshot.signed.version,
        )
    if not all(versions):
        raise format_error("its files are not of one moment; their versions do not follow each other")
    return state


def _listed(state: _Open) -> dict[str, ListedBundle]:
    found: dict[str, ListedBundle] = {}
    for role, file in delegations.entries(state.targets, state.lists):
        bundle = listed(file.path, file.length, file.hashes, file.unrecognized_fields.get("custom"))
        if delegations.platform_of(role) not in (None, bundle.about.platform):
            raise format_error(f"'{role}' lists a bundle of '{bundle.about.platform}'")
        found[bundle.name] = bundle
    return found


def _refuse_other_content(bundle: ListedBundle, known: Mapping[str, ListedBundle]) -> None:
    about = bundle.about
    for other in known.values():
        # A bundle with deltas stands beside the full one of its sequence.
        same_place = all(
            getattr(other.about, what) == getattr(about, what) for what in ("platform", "sequence", "change")
        )
        if (other.name == bundle.name or same_place) and other != bundle:
            raise SequenceTakenError(
                f"release sequence {about.sequence} of '{about.platform}' already stands for '{other.name}'",
                why=f"that bundle is {other.digest.short}, this one is {bundle.digest.short}",
                next="give the release a higher sequence",
            )


def is_below(state: MetadataSet, reported: Mapping[str, int]) -> bool:
    """Whether a vehicle has seen a higher version of a part than ``state`` has: then it is out of a backup."""
    from tuf.api.metadata import Metadata

    parts = {"targets": state.targets, "snapshot": state.snapshot, "timestamp": state.timestamp, **state.delegated}
    with translated():
        return any(Metadata.from_bytes(data).signed.version < reported.get(name, 0) for name, data in parts.items())


def _publish(
    state: _Open, pen: _Pen, changed: set[str], reported: Mapping[str, int] = MappingProxyType({})
) -> Publication:
    from tuf.api.metadata import MetaFile

    root = state.root.signed
    for name, metadata in state.lists.items():
        seen = reported.get(name, 0)
        due = is_due(KeyRole.TARGETS, metadata.signed.expires, pen.clock.now_us())
        if name in changed or due or metadata.signed.version < seen:
            metadata.signed.version = next_version(metadata.signed.version, seen)
            keys, threshold = delegations.signing_keys(name, state.targets, state.lists)
            pen.seal(metadata, KeyRole.TARGETS, _texts(state.targets, keys), threshold, name)
            state.bytes_of[name] = metadata.to_bytes()
        state.snapshot.signed.meta[f"{name}.json"] = MetaFile(metadata.signed.version)
    top: tuple[Metadata[Any], ...] = (state.targets, state.snapshot, state.timestamp)
    for role, part in zip(ROLES[1:], top, strict=True):
        part.signed.version = next_version(part.signed.version, reported.get(str(role), 0))
        state.snapshot.signed.meta["targets.json"].version = state.targets.signed.version
        state.timestamp.signed.snapshot_meta.version = state.snapshot.signed.version
        named = root.roles[str(role)]
        pen.seal(part, role, _texts(state.root, named.keyids), named.threshold, str(role))
    targets, snapshot, timestamp = (m.to_bytes() for m in (state.targets, state.snapshot, state.timestamp))
    files = {versioned("root", number): data for number, data in enumerate(state.roots, start=1)}
    for name, metadata in state.lists.items():
        files[versioned(name, metadata.signed.version)] = state.bytes_of[name]
    files[versioned("targets", state.targets.signed.version)] = targets
    files[versioned("snapshot", state.snapshot.signed.version)] = snapshot
    delegated = {name: state.bytes_of[name] for name in sorted(state.lists)}
    return Publication(files, timestamp, MetadataSet(tuple(state.roots), targets, snapshot, timestamp, delegated))


def is_due(role: KeyRole, expires: datetime, now_us: int) -> bool:
    """Whether metadata must be signed anew: half of their life is gone, or they outlive what is ever granted, because
    they were signed when this machine's clock ran ahead. Whoever held those back would not be noticed for as long."""
    left = expires - moment(now_us)
    return not LIFETIME[role] / 2 <= left <= LIFETIME[role] + _SKEW


def _texts(delegator: Metadata[Any], keyids: Sequence[str]) -> list[str]:
    from nwmctl.trust.tuf_signer import key_text

    keys = delegator.signed.keys if hasattr(delegator.signed, "keys") else delegator.signed.delegations.keys
    return [key_text(keys[keyid]) for keyid in keyids]


def _adapted(signer: Any) -> LibrarySigner:
    from nwmctl.trust.tuf_signer import tuf_signer

    return tuf_signer(signer)
