"""The director for people: its root, signing for a fleet, how things stand, and vehicles that changed a computer.

Everything is in the workspace's database; keys stay in their folder. Signing looks at every registered vehicle and
signs what is due: the first time all of them, afterwards those whose direction has changed or whose file grows old.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nwmctl.app.fleets import fleet_database
from nwmctl.app.project import read_file
from nwmctl.domain.clock import Clock
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import DirectorNotReadyError, MetadataSignatureError
from nwmctl.fleet import director, manifests
from nwmctl.formats.uptane import DirectorRoot
from nwmctl.formats.uptane_reports import Installed, decode_report
from nwmctl.storage.database import Database, Reader
from nwmctl.storage.workspace import Workspace
from nwmctl.trust.director import DirectorKeys, DirectorPool
from nwmctl.trust.expiry import Expiry, check_clock, root_expiry
from nwmctl.trust.keys import KeyRing, load_keyring
from nwmctl.trust.vehicle_report import installed_of


@dataclass(frozen=True, slots=True)
class DirectorStatus:
    """How things stand. ``signed`` vehicles have a file, ``expired`` of these hold no more; ``reported`` have sent a
    verified report; ``highest``: the image repository's versions that vehicles have seen, by role."""

    root_version: int
    reference_dialect: bool
    registered: int
    signed: int
    expired: int
    reported: int
    highest: dict[str, int]


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signing did: how many files, and how many vehicles are registered."""

    files: int
    registered: int


def ensure_root(
    workspace: Workspace, ring: KeyRing, clock: Clock, passphrase: bytes | None = None, finished: Path | None = None
) -> tuple[DirectorRoot, bool]:
    """The director's root for the ring's keys, and whether it was made or taken over now. ``finished``: a root that
    holders signed together, where the ring does not keep it.

    Roots that the ring keeps (``nwmctl keys ceremony finish``) are taken over first; one that ends soon is followed by
    another where the ring holds enough root keys. Raises KeyMissingError, KeyThresholdError and what
    ``trust.director_root.next_root`` raises; then nothing changed.
    """
    from nwmctl.app.ceremony import renew
    from nwmctl.trust.director_root import is_current, kept_roots, next_root

    given = read_file(finished, "root") if finished is not None else None
    if given is None:
        renew(ring, passphrase, clock.now_us())
    with fleet_database(workspace) as database, database.transaction() as tx:
        newest = before = director.newest_root(tx)
        for root in kept_roots(ring, newest) if given is None else ():
            director.keep_root(tx, root)
            newest = root
        if newest is not None and (is_current(newest, ring) if given is None else given == newest.tuf):
            return newest, newest is not before
        made = next_root(ring, newest, clock.now_us(), passphrase, given)
        director.keep_root(tx, made)
        return made, True


def renewed_root(workspace: Workspace, ring: KeyRing, clock: Clock, passphrase: bytes | None = None) -> bool:
    """Take over the ring's newest root where this workspace has a director; gives whether there was a newer one.

    Raises as ``ensure_root``.
    """
    with fleet_database(workspace) as database:
        known = director.newest_root(database.reader) is not None
    return known and ring.has(KeyRole.DIRECTOR_ROOT) and ensure_root(workspace, ring, clock, passphrase)[1]


def root_watched(workspace: Workspace) -> Expiry | None:
    """When the director's root ends that this workspace serves; None where there is no director."""
    if not workspace.database.exists():
        return None
    with fleet_database(workspace) as database:
        newest = director.newest_root(database.reader)
    return root_expiry("served: director's root", newest.tuf) if newest else None


def first_root(workspace: Workspace) -> DirectorRoot | None:
    """Version 1 of the director's root, which vehicles are pinned with; None where there is no director."""
    with fleet_database(workspace) as database:
        return director.root_at(database.reader, 1)


def sign_fleet(
    workspace: Workspace,
    keys: DirectorKeys,
    clock: Clock,
    workers: int,
    told: Callable[[int, int], None] = lambda *_: None,
) -> Signed:
    """Sign what is due, with ``workers`` processes; ``told`` hears (looked at, signed). Raises key errors,
    MetadataSignatureError where the keys are not those that the director's root names, SigningProcessError."""
    with fleet_database(workspace) as database:
        ring = load_keyring(keys.folder)
        check_clock(ring, clock.now_us())
        check_root(database.reader, ring)
        fingerprint = keys.open().fingerprint
        with DirectorPool(keys, workers) as pool:
            files = director.sign_due(database, pool, fingerprint, clock.now_us(), told)
        return Signed(files, _count(database, "vehicle_ecus"))


def check_root(reader: Reader, ring: KeyRing) -> None:
    """Return if the director's root names the ring's keys. Raises DirectorNotReadyError, MetadataSignatureError."""
    from nwmctl.trust.director_root import is_current

    newest = director.newest_root(reader)
    if newest is None:
        raise DirectorNotReadyError(
            "the director has no root metadata yet",
            why="vehicles learn from them which keys the director has",
            next="make them once: `nwmctl director root --keys FOLDER`",
        )
    if not is_current(newest, ring):
        raise MetadataSignatureError(
            "the director's root names other keys than this key folder",
            why=f"vehicles would refuse what these keys sign (root version {newest.version})",
            next="name the right key folder, or renew the root: `nwmctl director root --keys FOLDER`",
        )


def director_status(workspace: Workspace, clock: Clock) -> DirectorStatus:
    """How things stand."""
    with fleet_database(workspace) as database:
        root = director.newest_root(database.reader)
        expired = database.reader.one(
            "SELECT count(*) FROM director_file WHERE expires_us <= :now_us", now_us=clock.now_us()
        )
        return DirectorStatus(
            root_version=root.version if root else 0,
            reference_dialect=bool(root and root.reference),
            registered=_count(database, "vehicle_ecus"),
            signed=_count(database, "director_file"),
            expired=int(expired[0]) if expired else 0,
            reported=_count(database, "vehicle_report"),
            highest=manifests.highest_reported(database.reader),
        )


def installed_on(workspace: Workspace, vin: str) -> dict[str, Installed]:
    """What the computers of a vehicle run, by its last verified report. Raises EcusNotRegisteredError."""
    with fleet_database(workspace) as database:
        manifests.registered(database.reader, vin)
        body = manifests.last_report(database.reader, vin)
    return installed_of(decode_report(body)) if body is not None else {}


def forget_computers(workspace: Workspace, vin: str, reason: str, clock: Clock) -> None:
    """Let a vehicle register its computers again. Raises EcusNotRegisteredError."""
    with fleet_database(workspace) as database, database.transaction() as tx:
        manifests.forget(tx, vin, reason, clock.now_us())


def _count(database: Database, table: str) -> int:
    row = database.reader.one(f"SELECT count(*) FROM {table}")
    return int(row[0]) if row else 0
