"""What happened to the fleet, in order, as a chain of hashes.

``record`` is called in the transaction that changes the state, so that neither exists without the other. Every event's
hash covers its content and the hash before it: an altered, dropped or inserted row breaks every later hash. The chain
shows tampering inside the database; somebody who may rewrite the whole table can only be caught by a head that was
noted elsewhere, which ``head`` gives.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from nwmctl.errors import AuditBrokenError
from nwmctl.formats import canonical
from nwmctl.formats.canonical import Plain
from nwmctl.storage.database import Reader, Transaction

GENESIS = "0" * 64
_PAGE = 10_000


class EventKind(StrEnum):
    """The kinds of events. The value is stored."""

    FLEET_IMPORTED = "fleet_imported"
    RELEASE_ENABLED = "release_enabled"
    CAMPAIGN_CREATED = "campaign_created"
    CAMPAIGN_STATE = "campaign_state"
    WAVE_STATE = "wave_state"
    SUPERSEDED = "superseded"
    SILENT = "silent"
    OFFERED = "offered"
    DEFERRED = "deferred"
    ASSIGNMENT_STATE = "assignment_state"
    ATTEMPT_CLOSED = "attempt_closed"
    SLOTS_REPORTED = "slots_reported"
    ECUS_REGISTERED = "ecus_registered"
    ECUS_FORGOTTEN = "ecus_forgotten"
    DELTA_FAILED = "delta_failed"
    REPORT_VERIFIED = "report_verified"


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: how many events, and the hash of the last."""

    number: int
    hash: str


def head(reader: Reader) -> Head:
    """Where the chain ends now."""
    row = reader.one("SELECT number, hash FROM event ORDER BY number DESC LIMIT 1")
    return Head(int(row[0]), str(row[1])) if row else Head(0, GENESIS)


def record(
    tx: Transaction,
    kind: EventKind,
    at_us: int,
    data: dict[str, Plain],
    *,
    campaign: int | None = None,
    vin: str | None = None,
) -> None:
    """Append an event in the running transaction."""
    last = head(tx)
    text = canonical.encode(data).decode()
    number = last.number + 1
    tx.execute(
        "INSERT INTO event (number, at_us, kind, campaign_id, vin, data, hash) "
        "VALUES (:number, :at_us, :kind, :campaign, :vin, :data, :hash)",
        number=number,
        at_us=at_us,
        kind=kind.value,
        campaign=campaign,
        vin=vin,
        data=text,
        hash=_hash(last.hash, number, at_us, kind.value, campaign, vin, text),
    )


def verify_chain(reader: Reader) -> Head:
    """Recompute every hash. Raises AuditBrokenError at the first event that does not fit."""
    last = Head(0, GENESIS)
    while rows := reader.all(
        "SELECT number, at_us, kind, campaign_id, vin, data, hash FROM event WHERE number > :after "
        "ORDER BY number LIMIT :page",
        after=last.number,
        page=_PAGE,
    ):
        for number, at_us, kind, campaign, vin, text, found in rows:
            if number != last.number + 1 or found != _hash(last.hash, number, at_us, kind, campaign, vin, text):
                raise AuditBrokenError(
                    f"the audit chain breaks at event {last.number + 1}",
                    why="an event was altered, removed or inserted after it had been written",
                    next="compare with a backup; events before this one are as they were written",
                )
            last = Head(number, found)
    return last


def _hash(before: str, number: int, at_us: int, kind: str, campaign: int | None, vin: str | None, text: str) -> str:
    content = canonical.encode([before, number, at_us, kind, campaign, vin, text])
    return hashlib.sha256(content).hexdigest()
