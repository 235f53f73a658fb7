"""What a vehicle is told when it asks.

``standing`` only reads; it is the hot path of the gateway and costs two or three look-ups by VIN. Where the answer
needs a new action (a wave has opened, or an attempt has failed), ``standing`` says so and ``open_action`` does it in a
transaction, judging everything anew. A vehicle has one thing to do at a time: a withdrawn action first.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.campaign import CampaignState, WaveState
from nwmctl.domain.fleet import AssignmentState
from nwmctl.errors import UnknownVehicleError
from nwmctl.fleet.consequences import OFFERING, ActionState, InstallMode, may_see
from nwmctl.fleet.delivery import count_offer, offered_bundle, owed_bundle
from nwmctl.fleet.events import EventKind, record
from nwmctl.fleet.releases import EnabledBundle
from nwmctl.fleet.reports import set_state
from nwmctl.fleet.requirements import lacking
from nwmctl.fleet.tally import Place
from nwmctl.fleet.traffic import next_download, reserve
from nwmctl.formats.canonical import Plain
from nwmctl.storage.database import Reader, Transaction


@dataclass(frozen=True, slots=True)
class Known:
    """What the gateway needs of a vehicle before it answers: the hash of its token, and how often it shall ask."""

    vin: str
    token_sha256: str
    poll_s: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A new action must be opened, see ``open_action``."""

    assignment: int


@dataclass(frozen=True, slots=True)
class Act:
    """Work on an action."""

    action: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop an action."""

    action: int


Standing = Idle | Owed | Act | Stop


@dataclass(frozen=True, slots=True)
class Offer:
    """What an action asks for. ``bundle`` is None where the vehicle shall use its slot that holds ``sequence``.

    ``begun``: the vehicle has reported on it since it asked last (see ``reports.record_asked``).
    """

    action: int
    release: str
    kind: BundleKind
    generation: int
    sequence: int
    mode: InstallMode
    bundle: EnabledBundle | None
    begun: bool


def known_vehicle(reader: Reader, vin: str) -> Known | None:
    """The vehicle of that VIN, or None."""
    if "\0" in vin:
        # Anybody may ask for anything, and a text with a zero is an error to some databases.
        return None
    row = reader.one(
        "SELECT v.vin, v.token_sha256, f.poll_s FROM vehicle v JOIN fleet f ON f.name = v.fleet WHERE v.vin = :vin",
        vin=vin,
    )
    return Known(row[0], row[1], row[2]) if row else None


def standing(reader: Reader, vin: str) -> Standing:
    """What the vehicle has to do now."""
    rows = reader.all(
        "SELECT x.id, x.state, a.id, a.state, c.state FROM action x JOIN assignment a ON a.id = x.assignment_id "
        "JOIN campaign c ON c.id = x.campaign_id WHERE x.vin = :vin AND x.state <> 'closed' ORDER BY x.id",
        vin=vin,
    )
    for action, state, *_ in rows:
        if state == ActionState.CANCELLING:
            return Stop(action)
    for action, _, assignment, assignment_state, campaign_state in rows:
        if may_see(CampaignState(campaign_state), AssignmentState(assignment_state)):
            # Heard of again: that it is no longer silent has to be written down.
            return Owed(assignment) if assignment_state == AssignmentState.SILENT else Act(action)
    if rows:
        return Idle()
    row = reader.one(
        "SELECT a.id, c.state, w.state, a.state FROM assignment a JOIN campaign c ON c.id = a.campaign_id "
        "JOIN wave w ON w.campaign_id = a.campaign_id AND w.generation = a.generation AND w.number = a.wave "
        "WHERE a.vin = :vin AND a.is_open = 1 ORDER BY a.id DESC LIMIT 1",
        vin=vin,
    )
    if row and CampaignState(row[1]) in OFFERING and WaveState(row[2]) is not WaveState.PLANNED:
        # That it is deferred is written once; after that a poll costs reading only.
        waits = AssignmentState(row[3]) is AssignmentState.DEFERRED and _deferred(reader, row[0])
        return Idle() if waits else Owed(row[0])
    return Idle()


def open_action(tx: Transaction, vin: str, now_us: int) -> Standing:
    """Open what the vehicle is owed, if it still is."""
    found = standing(tx, vin)
    if not isinstance(found, Owed):
        return found
    row = tx.one(
        "SELECT id, campaign_id, generation, wave, platform, state, mode, attempts FROM assignment WHERE id = :id",
        id=found.assignment,
    )
    assert row is not None, "standing() has just read it"
    assignment, campaign, generation, wave, platform, state, mode, attempts = row
    place = Place(campaign, generation, wave, platform)
    open_now = tx.one("SELECT id FROM action WHERE assignment_id = :id AND state <> 'closed'", id=assignment)
    download = next_download(tx, assignment) if open_now is None else None
    lacks = lacking(tx, assignment) if open_now is None else ""
    if lacks:
        set_state(tx, assignment, place, AssignmentState(state), AssignmentState.DEFERRED, now_us)
        record(tx, EventKind.DEFERRED, now_us, {"reason": lacks, "wave": wave}, campaign=campaign, vin=vin)
        return Idle()
    if download is not None and download.refused:
        set_state(tx, assignment, place, AssignmentState(state), AssignmentState.DEFERRED, now_us)
        told: dict[str, Plain] = {"reason": download.refused, "bytes": download.bundle.size, "wave": wave}
        record(tx, EventKind.DEFERRED, now_us, {**told, "link": download.link.value}, campaign=campaign, vin=vin)
        return Idle()
    set_state(tx, assignment, place, AssignmentState(state), AssignmentState.OFFERED, now_us)
    if open_now is not None:
        return Act(open_now[0])
    if download is not None:
        reserve(tx, campaign, download)
    bundle = owed_bundle(tx, assignment)
    if bundle is not None:
        count_offer(tx, campaign, bundle)
    made = tx.one(
        "INSERT INTO action (assignment_id, campaign_id, generation, vin, attempt, mode, state, opened_us, "
        "base_sequence) VALUES (:assignment, :campaign, :generation, :vin, :attempt, :mode, :state, :now_us, :base) "
        "RETURNING id",
        assignment=assignment,
        campaign=campaign,
        generation=generation,
        vin=vin,
        attempt=attempts + 1,
        mode=mode,
        state=ActionState.OPEN.value,
        now_us=now_us,
        base=bundle.base_sequence if bundle else None,
    )
    assert made is not None, "INSERT ... RETURNING gives a row"
    tx.execute("UPDATE assignment SET attempts = :attempt WHERE id = :id", attempt=attempts + 1, id=assignment)
    record(
        tx,
        EventKind.OFFERED,
        now_us,
        {"action": made[0], "attempt": attempts + 1, "mode": mode, "wave": wave, **_told(bundle)},
        campaign=campaign,
        vin=vin,
    )
    return Act(made[0])


def _told(bundle: EnabledBundle | None) -> dict[str, Plain]:
    """What an offer's event says about a delta."""
    if bundle is None or bundle.base_sequence is None:
        return {}
    return {"delta_from": bundle.base_sequence, "bytes": bundle.size}


def _deferred(reader: Reader, assignment: int) -> bool:
    download = next_download(reader, assignment)
    return bool(lacking(reader, assignment)) or (download is not None and bool(download.refused))


def offer(reader: Reader, vin: str, action: int) -> Offer:
    """What an action asks for. Raises UnknownVehicleError unless the vehicle may see it now."""
    row = reader.one(
        "SELECT x.id, x.mode, x.started, a.platform, a.to_sequence, a.state, c.name, c.kind, c.generation, "
        "c.release_sequence, c.state, x.base_sequence FROM action x JOIN assignment a ON a.id = x.assignment_id "
        "JOIN campaign c ON c.id = x.campaign_id WHERE x.id = :action AND x.vin = :vin AND x.state = 'open'",
        action=action,
        vin=vin,
    )
    if row is None or not may_see(CampaignState(row[10]), AssignmentState(row[5])):
        raise UnknownVehicleError(
            f"the vehicle {vin} has no open action {action}",
            why="the action was closed, withdrawn, or never offered",
            next="let the vehicle poll and follow the links that it gets",
        )
    kind, mode = BundleKind(row[7]), InstallMode(row[1])
    bundle = offered_bundle(reader, row[9], kind, row[3], row[11]) if mode is InstallMode.BUNDLE else None
    return Offer(row[0], row[6], kind, row[8], row[4], mode, bundle, bool(row[2]))


def note_seen(tx: Transaction, seen: dict[str, int]) -> None:
    """Store when vehicles were last heard of: VIN -> microseconds."""
    tx.many(
        "UPDATE vehicle SET seen_us = :now_us WHERE vin = :vin",
        [{"vin": vin, "now_us": now_us} for vin, now_us in seen.items()],
    )
