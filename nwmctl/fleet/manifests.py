"""What vehicles say about their computers: registration, verified version reports, events, notes.

A registration is accepted once, from a vehicle that has proven its token; another one for the same vehicle must be the
same, until a person lets it register again. Of reports only verified ones are stored, whole and as they came, so that
they can be verified again; a replayed or older one changes nothing. The metadata versions that vehicles have seen are
kept: whoever signs after a restored backup must be above them (see ``highest_reported``). The caller brings the
transaction and acknowledges after the commit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nwmctl.errors import EcusNotRegisteredError, EcusTakenError
from nwmctl.fleet.director import newest_root, version_floor
from nwmctl.fleet.events import EventKind, record
from nwmctl.formats import canonical
from nwmctl.formats.codec import to_plain
from nwmctl.formats.uptane import HARDWARE_ID, Ecu, ecu_identifiers
from nwmctl.formats.uptane_reports import Registration, VehicleEvent, VehicleReport
from nwmctl.storage.database import Reader, Transaction
from nwmctl.trust.vehicle_report import (
    DIRECTOR_LEAP,
    IMAGE_LEAP,
    attacks_of,
    check_plausible,
    installed_of,
    verify_report,
)

MAX_EVENTS = 1_000
"""Events kept per vehicle, the newest: a vehicle that goes mad must not fill the disk."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The computers of a vehicle as they were registered. ``counters``: highest accepted report of each serial."""

    primary: str
    ecus: Mapping[str, Ecu]
    counters: Mapping[str, int]


def registered(reader: Reader, vin: str) -> Registered:
    """Raises EcusNotRegisteredError."""
    row = reader.one("SELECT primary_serial, ecus, publics, counters FROM vehicle_ecus WHERE vin = :vin", vin=vin)
    if row is None:
        raise EcusNotRegisteredError(
            f"the vehicle {vin} has not registered its computers",
            why="reports are verified with the keys that its computers registered",
            next="let the vehicle send its registration first (POST director/ecus)",
        )
    publics = json.loads(row[2])
    ecus = {serial: Ecu(serial, about[HARDWARE_ID], publics[serial]) for serial, about in json.loads(row[1]).items()}
    return Registered(row[0], ecus, json.loads(row[3]))


def register(tx: Transaction, vin: str, wanted: Registration, now_us: int) -> bool:
    """Store a vehicle's computers; False where they are registered already, as the same. Raises EcusTakenError."""
    ecus = ecu_identifiers(wanted.ecus)
    publics = canonical.encode({ecu.serial: ecu.public for ecu in wanted.ecus}).decode()
    new = (wanted.primary, wanted.dialect.value, ecus, publics)
    row = tx.one("SELECT primary_serial, dialect, ecus, publics FROM vehicle_ecus WHERE vin = :vin", vin=vin)
    if row is not None:
        if tuple(row) == new:
            return False
        raise EcusTakenError(
            f"the computers of {vin} were registered before",
            why="this registration names other serials, hardware or keys; whoever has the vehicle's token could forge",
            next="where a computer was replaced, let a person forget the old registration: `nwmctl director forget`",
        )
    tx.execute(
        "INSERT INTO vehicle_ecus (vin, dialect, primary_serial, ecus, ecus_sha256, publics, registered_us) "
        "VALUES (:vin, :dialect, :primary, :ecus, :ecus_sha256, :publics, :now_us)",
        vin=vin,
        dialect=wanted.dialect.value,
        primary=wanted.primary,
        ecus=ecus,
        ecus_sha256=hashlib.sha256(ecus.encode()).hexdigest(),
        publics=publics,
        now_us=now_us,
    )
    record(tx, EventKind.ECUS_REGISTERED, now_us, {"primary": wanted.primary, "ecus": len(wanted.ecus)}, vin=vin)
    return True


def forget(tx: Transaction, vin: str, reason: str, now_us: int) -> None:
    """Let a vehicle register its computers again. Raises EcusNotRegisteredError.

    Its director file goes too; versions start from the minute, so the next one is above it all the same.
    """
    registered(tx, vin)
    for table in ("director_file", "vehicle_report", "vehicle_ecus"):
        tx.execute(f"DELETE FROM {table} WHERE vin = :vin", vin=vin)
    record(tx, EventKind.ECUS_FORGOTTEN, now_us, {"reason": reason[:500]}, vin=vin)


def record_manifest(tx: Transaction, vin: str, report: VehicleReport, body: bytes, now_us: int) -> None:
    """Verify and store a report.

    Raises EcusNotRegisteredError, ReportUntrustedError, ReportReplayedError, ReportImplausibleError.
    """
    known = registered(tx, vin)
    counters = verify_report(report, known.ecus, known.primary, known.counters)
    check_plausible(report.director, _own_director(tx, vin, now_us), "director", DIRECTOR_LEAP)
    check_plausible(report.image, highest_reported(tx), "image repository", IMAGE_LEAP)
    tx.execute(
        "UPDATE vehicle_ecus SET counters = :counters, reported_version = "
        "CASE WHEN reported_version < :version THEN :version ELSE reported_version END WHERE vin = :vin",
        counters=canonical.encode(dict(counters)).decode(),
        version=report.director.get("targets", 0),
        vin=vin,
    )
    _raise_highest(tx, report.image)
    _keep(tx, vin, report, body, now_us)


def highest_reported(reader: Reader) -> dict[str, int]:
    """The highest version of each image repository role that any vehicle has reported: role -> version."""
    return {str(role): int(version) for role, version in reader.all("SELECT role, version FROM reported_metadata")}


def last_report(reader: Reader, vin: str) -> bytes | None:
    """The newest verified report of a vehicle as it came, or None."""
    row = reader.one("SELECT body FROM vehicle_report WHERE vin = :vin", vin=vin)
    return str(row[0]).encode() if row else None


def record_events(tx: Transaction, vin: str, events: Iterable[VehicleEvent], now_us: int) -> None:
    """Store a vehicle's events; those that it sends again are stored once."""
    for event in events:
        tx.execute(
            "INSERT INTO vehicle_event (vin, event_id, at_us, kind, body) VALUES (:vin, :id, :now_us, :kind, :body) "
            "ON CONFLICT (vin, event_id) DO NOTHING",
            vin=vin,
            id=event.id,
            now_us=now_us,
            kind=event.kind,
            body=event.text,
        )
    tx.execute(
        "DELETE FROM vehicle_event WHERE vin = :vin AND id NOT IN "
        "(SELECT id FROM vehicle_event WHERE vin = :vin ORDER BY id DESC LIMIT :most)",
        vin=vin,
        most=MAX_EVENTS,
    )


def record_note(tx: Transaction, vin: str, topic: str, body: str, now_us: int) -> None:
    """Store what a vehicle tells about ``topic``, in place of what it told before."""
    tx.execute(
        "INSERT INTO vehicle_note (vin, topic, at_us, body) VALUES (:vin, :topic, :now_us, :body) "
        "ON CONFLICT (vin, topic) DO UPDATE SET at_us = excluded.at_us, body = excluded.body",
        vin=vin,
        topic=topic,
        now_us=now_us,
        body=body,
    )


def _own_director(reader: Reader, vin: str, now_us: int) -> dict[str, int]:
    row = reader.one("SELECT version FROM director_file WHERE vin = :vin", vin=vin)
    root = newest_root(reader)
    return {"targets": max(row[0] if row else 0, version_floor(now_us)), "root": root.version if root else 0}


def _raise_highest(tx: Transaction, image: Mapping[str, int]) -> None:
    known = highest_reported(tx)
    for role, version in image.items():
        if version > known.get(role, 0):
            tx.execute(
                "INSERT INTO reported_metadata (role, version) VALUES (:role, :version) "
                "ON CONFLICT (role) DO UPDATE SET version = excluded.version",
                role=role,
                version=version,
            )


def _keep(tx: Transaction, vin: str, report: VehicleReport, body: bytes, now_us: int) -> None:
    installed = canonical.encode(to_plain(installed_of(report))).decode()
    versions = canonical.encode({"director": dict(report.director), "image": dict(report.image)}).decode()
    before = tx.one("SELECT installed FROM vehicle_report WHERE vin = :vin", vin=vin)
    tx.execute(
        "INSERT INTO vehicle_report (vin, at_us, installed, versions, body) "
        "VALUES (:vin, :now_us, :installed, :versions, :body) ON CONFLICT (vin) DO UPDATE SET "
        "at_us = excluded.at_us, installed = excluded.installed, versions = excluded.versions, body = excluded.body",
        vin=vin,
        now_us=now_us,
        installed=installed,
        versions=versions,
        body=body.decode(),
    )
    attacks = attacks_of(report)
    if attacks or before is None or before[0] != installed:
        said: dict[str, canonical.Plain] = {serial: words[:500] for serial, words in attacks.items()}
        data: dict[str, canonical.Plain] = {
            "installed": {serial: image.sha256 for serial, image in installed_of(report).items()},
            "report": hashlib.sha256(body).hexdigest(),
        }
        record(tx, EventKind.REPORT_VERIFIED, now_us, {**data, "attacks": said} if said else data, vin=vin)
