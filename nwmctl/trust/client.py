"""What a vehicle believes about the repository: only what the keys of its pinned root signed, never anything older.

``refresh`` follows the TUF client workflow with python-tuf's checks: new roots one by one, then timestamp, snapshot
and targets, each against what was trusted before. It returns the new trusted state and never changes the old one, so
a refused update leaves the vehicle where it was; the caller keeps the state's bytes. Platforms' lists and their bins
are fetched where a name leads to them (``resolve``), and a list's word about another platform's bundle is not taken.
Fetching and the time are arguments.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nwmctl.errors import (
    BundleNotListedError,
    DelegationScopeError,
    MetadataFastForwardError,
    MetadataForeignKeyError,
    MetadataFrozenError,
    MetadataMixedError,
    MetadataTooLongError,
    NotCanonicalError,
)
from nwmctl.formats import canonical
from nwmctl.trust.delegations import ROLE_NAME, platform_of
from nwmctl.trust.metadata import (
    MAX_ROOT,
    MAX_ROOTS,
    MAX_SNAPSHOT,
    MAX_TARGETS,
    MAX_TIMESTAMP,
    TIMESTAMP_PATH,
    Fetch,
    ListedBundle,
    format_error,
    listed,
    moment,
    translated,
    versioned,
)

if TYPE_CHECKING:
    from datetime import datetime

    from tuf.api.metadata import TargetFile, Targets
    from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

_SCHEMA = "nwmctl.trusted-metadata/1"
_MAX_LISTS = 32
"""Lists that are looked into for one name."""
MAX_LEAP = 1 << 26
"""How far a version may rise from one refresh to the next: more than the minutes since 1970, so that numbering may
start from those. Whoever holds an online key for a day could otherwise use up all versions, and the honest owner could
never exceed them."""


@dataclass(frozen=True, slots=True)
class TrustedState:
    """Metadata that were verified. A new vehicle has the pinned ``root`` only. ``delegated`` are the lists that this
    vehicle has looked into, by role name."""

    root: bytes
    timestamp: bytes | None = None
    snapshot: bytes | None = None
    targets: bytes | None = None
    delegated: Mapping[str, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """One file for the vehicle's disk."""
        parts = {"root": self.root, "timestamp": self.timestamp, "snapshot": self.snapshot, "targets": self.targets}
        table: dict[str, canonical.Plain] = {
            name: base64.b64encode(data).decode() for name, data in parts.items() if data is not None
        }
        if self.delegated:
            table["delegated"] = {name: base64.b64encode(data).decode() for name, data in self.delegated.items()}
        return canonical.encode({**table, "schema": _SCHEMA})

    @classmethod
    def from_bytes(cls, data: bytes) -> TrustedState:
        """Read ``to_bytes``. Raises MetadataFormatError."""
        try:
            plain = canonical.decode(data, "trusted metadata")
            if not isinstance(plain, dict) or plain.pop("schema", None) != _SCHEMA:
                raise ValueError("it has another schema")
            lists = plain.pop("delegated", {})
            if not isinstance(lists, dict):
                raise ValueError("its lists are no table")
            parts: dict[str, Any] = {name: base64.b64decode(str(text), validate=True) for name, text in plain.items()}
            kept = {name: base64.b64decode(str(text), validate=True) for name, text in lists.items()}
            return replace(cls(**parts), delegated=kept)
        except (NotCanonicalError, ValueError, TypeError, binascii.Error) as problem:
            raise format_error(f"the kept state is damaged: {getattr(problem, 'why', problem)}") from problem


@dataclass(slots=True)
class VerifiedRepository:
    """What the repository lists now, verified. Keep ``state`` for the next time, after ``resolve``: it grows by the
    lists that were fetched. ``files`` are the entries of the top-level list."""

    state: TrustedState
    files: Mapping[str, TargetFile]
    _trusted: TrustedMetadataSet
    _fetch: Fetch

    def resolve(self, name: str) -> ListedBundle:
        """Length, hash and description of a bundle; follows the delegations that its name leads to.

        Raises BundleNotListedError, DelegationScopeError, MetadataFormatError, what ``refresh`` raises of a list that
        must be fetched, and what ``fetch`` raises. Entries are read one by one, so an entry of a later nwmctl does not
        stop an older vehicle from reading its own.
        """
        role, file = self._find(name)
        if file is None:
            raise BundleNotListedError(
                f"the repository lists no bundle '{name[:120]}'",
                why=f"its signed list has {len(self.files)} bundle(s), and no list that may name this one does",
                next="publish the release, or correct the name in the assignment",
            )
        found = listed(name, file.length, file.hashes, file.unrecognized_fields.get("custom"))
        if platform_of(role) not in (None, found.about.platform):
            raise DelegationScopeError(
                f"'{role}' lists a bundle of '{found.about.platform}'",
                why="its keys may speak for one platform, and no other",
                next="do not install it; have the repository's owner look into who holds that platform's keys",
            )
        return found

    def _find(self, name: str) -> tuple[str, TargetFile | None]:
        """Depth first in the order of the delegations, as TUF demands; the first list that has the name counts."""
        waiting = [("targets", "root")]
        visited: set[str] = set()
        while waiting and len(visited) < _MAX_LISTS:
            role, parent = waiting.pop()
            if role in visited:
                continue
            visited.add(role)
            signed = self._trusted.targets if role == "targets" else self._load(role, parent)
            entries = self.files if role == "targets" else signed.targets
            if name in entries:
                return role, entries[name]
            if signed.delegations is None:
                continue
            with translated():
                below = list(signed.delegations.get_roles_for_target(name))
            if any(terminating for _, terminating in below):
                cut = next(number for number, (_, terminating) in enumerate(below) if terminating)
                below, waiting = below[: cut + 1], []
            waiting += [(child, role) for child, _ in reversed(below)]
        return "targets", None

    def _load(self, role: str, parent: str) -> Targets:
        from tuf.api.exceptions import BadVersionNumberError, RepositoryError
        from tuf.api.metadata import Metadata

        # Whoever holds the keys of a list may call its children anything, a number too.
        if not isinstance(role, str) or not ROLE_NAME.match(role):
            raise format_error(f"'{str(role)[:80]}' is no name of a list")
        kept = self.state.delegated.get(role)
        if kept is not None:
            with suppress(RepositoryError):
                return self._trusted.update_delegated_targets(kept, role, parent)
        with translated():
            version = self._trusted.snapshot.meta[f"{role}.json"].version
        data = _need(self._fetch, versioned(role, version), MAX_TARGETS)
        with translated():
            try:
                signed = self._trusted.update_delegated_targets(data, role, parent)
            except BadVersionNumberError:
                raise _mixed(role, version, Metadata.from_bytes(data).signed.version) from None
        self.state = replace(self.state, delegated={**self.state.delegated, role: data})
        return signed


def refresh(
    state: TrustedState, fetch: Fetch, now_us: int, learned: Callable[[TrustedState], None] = lambda state: None
) -> VerifiedRepository:
    """Verify the repository's newest metadata on top of ``state``.

    ``learned`` is told as soon as a newer root is believed: a key that was revoked stays revoked for who keeps it,
    whatever becomes of the rest. Raises MetadataSignatureError (MetadataForeignKeyError for a timestamp under keys that
    the root does not name), MetadataRollbackError, MetadataMixedError, MetadataExpiredError (MetadataFrozenError for
    the timestamp), MetadataFastForwardError, MetadataTooLongError, MetadataHashError, MetadataFormatError, and what
    ``fetch`` raises.
    """
    from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
    from tuf.ngclient.config import EnvelopeType

    with translated():
        trusted = TrustedMetadataSet(state.root, EnvelopeType.METADATA)
        # The library reads the machine's clock when it starts; the vehicle's clock decides here.
        trusted.reference_time = moment(now_us)
    root = _follow_roots(trusted, state.root, fetch)
    if root != state.root:
        learned(replace(state, root=root))
    timestamp = _timestamp(trusted, state.timestamp, fetch)
    snapshot = _snapshot(trusted, state.snapshot, fetch)
    targets = _targets(trusted, state.targets, fetch)
    known = trusted.snapshot.meta
    kept = {name: data for name, data in state.delegated.items() if f"{name}.json" in known}
    found = TrustedState(root, timestamp, snapshot, targets, kept)
    return VerifiedRepository(found, trusted.targets.targets, trusted, fetch)


def _follow_roots(trusted: TrustedMetadataSet, root: bytes, fetch: Fetch) -> bytes:
    for _ in range(MAX_ROOTS):
        data = fetch(versioned("root", trusted.root.version + 1))
        if data is None:
            return root
        _limit(data, MAX_ROOT, "root")
        with translated():
            trusted.update_root(data)
        root = data
    return root


def _timestamp(trusted: TrustedMetadataSet, kept: bytes | None, fetch: Fetch) -> bytes:
    from tuf.api.exceptions import (
        EqualVersionNumberError,
        ExpiredMetadataError,
        RepositoryError,
        UnsignedMetadataError,
    )

    if kept is not None:
        # An expired or re-keyed old timestamp is no error; what loads still guards against older versions.
        with suppress(RepositoryError):
            trusted.update_timestamp(kept)
    before = trusted.timestamp if "timestamp" in trusted else None
    data = _need(fetch, TIMESTAMP_PATH, MAX_TIMESTAMP)
    with translated():
        try:
            trusted.update_timestamp(data)
        except EqualVersionNumberError:
            data = kept if kept is not None else data
        except UnsignedMetadataError as problem:
            _refuse_strangers(trusted, data, str(problem))
            raise
        except ExpiredMetadataError:
            if "timestamp" not in trusted:  # the root has expired, not the timestamp
                raise
        if trusted.timestamp.is_expired(trusted.reference_time):
            raise _frozen(trusted.timestamp.expires)
        after = trusted.timestamp
        _check_leap("timestamp", before.version if before else 0, after.version)
        _check_leap("snapshot", before.snapshot_meta.version if before else 0, after.snapshot_meta.version)
    return data


def _refuse_strangers(trusted: TrustedMetadataSet, data: bytes, said: str) -> None:
    """Tell a timestamp whose bytes were changed from one that others have signed, or that replaced keys have."""
    from tuf.api.metadata import Metadata

    signers = Metadata.from_bytes(data).signatures
    if signers and signers.keys().isdisjoint(trusted.root.roles["timestamp"].keyids):
        raise MetadataForeignKeyError(
            "the repository's timestamp is signed by keys that its root does not name",
            why=f"{said}; the keys were replaced, or never were this repository's",
            next="ask another mirror: this one replays what a replaced key has signed, or is another repository's",
        )


def _snapshot(trusted: TrustedMetadataSet, kept: bytes | None, fetch: Fetch) -> bytes:
    from tuf.api.exceptions import BadVersionNumberError, RepositoryError
    from tuf.api.metadata import Metadata

    if kept is not None:
        with suppress(RepositoryError):
            trusted.update_snapshot(kept, trusted=True)
            return kept
    data = _need(fetch, versioned("snapshot", trusted.timestamp.snapshot_meta.version), MAX_SNAPSHOT)
    before = {name: file.version for name, file in trusted.snapshot.meta.items()} if "snapshot" in trusted else {}
    with translated():
        try:
            trusted.update_snapshot(data)
        except BadVersionNumberError:
            promised = trusted.timestamp.snapshot_meta.version
            if (found := Metadata.from_bytes(data).signed.version) != promised:
                raise _mixed("snapshot", promised, found) from None
            raise
        for name, file in trusted.snapshot.meta.items():
            _check_leap(name, before.get(name, 0), file.version)
    return data


def _targets(trusted: TrustedMetadataSet, kept: bytes | None, fetch: Fetch) -> bytes:
    from tuf.api.exceptions import BadVersionNumberError, RepositoryError
    from tuf.api.metadata import Metadata

    if kept is not None:
        with suppress(RepositoryError):
            trusted.update_targets(kept)
            return kept
    with translated():
        version = trusted.snapshot.meta["targets.json"].version
    data = _need(fetch, versioned("targets", version), MAX_TARGETS)
    with translated():
        try:
            trusted.update_targets(data)
        except BadVersionNumberError:
            raise _mixed("targets", version, Metadata.from_bytes(data).signed.version) from None
    return data


def _need(fetch: Fetch, path: str, most: int) -> bytes:
    data = fetch(path)
    if data is None:
        raise format_error(f"'{path}' is missing")
    _limit(data, most, path)
    return data


def _limit(data: bytes, most: int, what: str) -> None:
    if len(data) > most:
        raise too_long(what, most)


def too_long(what: str, most: int) -> MetadataTooLongError:
    """A refusal of a file that goes on beyond ``most`` bytes."""
    return MetadataTooLongError(
        f"'{what}' goes on beyond {most} bytes",
        why="no honest repository has so much to say there; the server may send without end",
        next="ask another mirror",
    )


def _check_leap(what: str, before: int, after: int) -> None:
    if after - before > MAX_LEAP:
        raise MetadataFastForwardError(
            f"the version of '{what}' leaps from {before} to {after}",
            why=f"versions rise by one each time; a leap of more than {MAX_LEAP} uses up those that honest ones need",
            next="replace the key that signed it: `nwmctl keys rotate`",
        )


def _frozen(ended: datetime) -> MetadataFrozenError:
    return MetadataFrozenError(
        "the repository's timestamp has expired",
        why=f"it held until {ended:%Y-%m-%d %H:%M} UTC; somebody holds back the newer one, or nobody has signed one",
        next="ask another mirror; the repository's owner renews metadata by publishing or with `nwmctl keys refresh`",
    )


def _mixed(what: str, promised: int, found: int) -> MetadataMixedError:
    return MetadataMixedError(
        f"the repository's '{what}' is not of the same moment as the rest",
        why=f"version {promised} is promised, version {found} came: genuine files of different days are mixed",
        next="ask another mirror",
    )
