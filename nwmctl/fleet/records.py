"""Campaigns and waves as they stand in the database: read them, and change their state by compare-and-set.

Each change writes its event in the same transaction. Decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.campaign import CampaignState, WaveState, advance_campaign
from nwmctl.domain.release import Gate, WaveSpec
from nwmctl.errors import CampaignChangedError, UnknownCampaignError
from nwmctl.fleet.events import EventKind, record
from nwmctl.storage.database import Reader, Row, Transaction

_CAMPAIGN = (
    "id, name, fleet, release_sequence, kind, state, generation, max_attempts, poll_s, reason, updated_us, swept_us"
)
_WAVE = "number, name, state, min_committed, max_failed, abort_failed, soak_s, opened_us, quiet_since_us, forgiven"


@dataclass(frozen=True, slots=True)
class CampaignRecord:
    """A campaign now. ``kind``: whether its generation brings the release or brings vehicles back."""

    id: int
    name: str
    fleet: str
    release_sequence: int
    kind: BundleKind
    state: CampaignState
    generation: int
    max_attempts: int
    poll_s: float
    reason: str
    updated_us: int
    swept_us: int


@dataclass(frozen=True, slots=True)
class WaveRecord:
    """A wave of the campaign's present generation. ``quiet_since_us`` is set once enough have committed;
    ``forgiven`` failures were accepted by the person who resumed the campaign."""

    number: int
    name: str
    state: WaveState
    gate: Gate
    opened_us: int | None
    quiet_since_us: int | None
    forgiven: int


def campaign_by_name(reader: Reader, name: str) -> CampaignRecord:
    """The campaign ``name``. Raises UnknownCampaignError."""
    row = reader.one(f"SELECT {_CAMPAIGN} FROM campaign WHERE name = :name", name=name)
    if row is None:
        names = ", ".join(known[0] for known in reader.all("SELECT name FROM campaign ORDER BY id DESC LIMIT 20"))
        raise UnknownCampaignError(
            f"there is no campaign '{name}'",
            why=f"the database knows: {names or 'none'}",
            next="take a name from `nwmctl rollout status`",
        )
    return _campaign(row)


def campaign_of_release(reader: Reader, fleet: str, release_sequence: int) -> CampaignRecord | None:
    """The campaign that brings a release to a fleet, or None."""
    row = reader.one(
        f"SELECT {_CAMPAIGN} FROM campaign WHERE fleet = :fleet AND release_sequence = :sequence",
        fleet=fleet,
        sequence=release_sequence,
    )
    return _campaign(row) if row else None


def all_campaigns(reader: Reader) -> tuple[CampaignRecord, ...]:
    """Every campaign, the oldest first."""
    return tuple(_campaign(row) for row in reader.all(f"SELECT {_CAMPAIGN} FROM campaign ORDER BY id"))


def waves_of(reader: Reader, campaign: CampaignRecord) -> tuple[WaveRecord, ...]:
    """The waves of the present generation, in order."""
    rows = reader.all(
        f"SELECT {_WAVE} FROM wave WHERE campaign_id = :campaign AND generation = :generation ORDER BY number",
        campaign=campaign.id,
        generation=campaign.generation,
    )
    return tuple(_wave(row) for row in rows)


def set_campaign(tx: Transaction, campaign: CampaignRecord, to: CampaignState, reason: str, now_us: int) -> None:
    """Move a campaign on. Raises IllegalTransitionError, and CampaignChangedError if it is not as it was read."""
    advance_campaign(campaign.name, campaign.state, to)
    changed = tx.execute(
        "UPDATE campaign SET state = :to, reason = :reason, updated_us = :now_us "
        "WHERE id = :id AND state = :state AND generation = :generation",
        to=to.value,
        reason=reason,
        now_us=now_us,
        id=campaign.id,
        state=campaign.state.value,
        generation=campaign.generation,
    )
    if changed != 1:
        raise CampaignChangedError(
            f"campaign '{campaign.name}' is no longer {campaign.state}",
            why="somebody else or the controller changed it",
            next="look at `nwmctl rollout status` and decide again",
        )
    record(
        tx,
        EventKind.CAMPAIGN_STATE,
        now_us,
        {"from": campaign.state.value, "to": to.value, "generation": campaign.generation, "reason": reason},
        campaign=campaign.id,
    )


def insert_wave(tx: Transaction, campaign: int, generation: int, number: int, spec: WaveSpec) -> None:
    """Add a planned wave."""
    gate = spec.gate
    tx.execute(
        "INSERT INTO wave (campaign_id, generation, number, name, state, min_committed, max_failed, abort_failed, "
        "soak_s) VALUES (:campaign, :generation, :number, :name, :state, :min, :max, :abort, :soak)",
        campaign=campaign,
        generation=generation,
        number=number,
        name=spec.name,
        state=WaveState.PLANNED.value,
        min=gate.min_committed,
        max=gate.max_failed,
        abort=gate.abort_failed,
        soak=gate.soak_s,
    )


def set_wave(
    tx: Transaction, campaign: CampaignRecord, wave: WaveRecord, to: WaveState, reason: str, now_us: int
) -> None:
    """Move a wave on. Raises CampaignChangedError if it is not as it was read."""
    changed = tx.execute(
        "UPDATE wave SET state = :to, "
        "opened_us = CASE WHEN :to = 'open' THEN :now_us ELSE opened_us END, "
        "quiet_since_us = CASE WHEN :to = 'soaking' THEN :now_us WHEN :to = 'open' THEN NULL ELSE quiet_since_us END "
        "WHERE campaign_id = :campaign AND generation = :generation AND number = :number AND state = :state",
        to=to.value,
        now_us=now_us,
        campaign=campaign.id,
        generation=campaign.generation,
        number=wave.number,
        state=wave.state.value,
    )
    if changed != 1:
        raise CampaignChangedError(
            f"wave '{wave.name}' of '{campaign.name}' is no longer {wave.state}",
            why="somebody else or the controller changed it",
            next="look at `nwmctl rollout status` and decide again",
        )
    record(
        tx,
        EventKind.WAVE_STATE,
        now_us,
        {"wave": wave.name, "from": wave.state.value, "to": to.value, "reason": reason},
        campaign=campaign.id,
    )


def _campaign(row: Row) -> CampaignRecord:
    identity, name, fleet, sequence, kind, state, *rest = row
    generation, max_attempts, poll_s, reason, updated_us, swept_us = rest
    return CampaignRecord(
        identity,
        name,
        fleet,
        sequence,
        BundleKind(kind),
        CampaignState(state),
        generation,
        max_attempts,
        poll_s,
        reason,
        updated_us,
        swept_us,
    )


def _wave(row: Row) -> WaveRecord:
    number, name, state, low, high, abort, soak, opened_us, quiet_since_us, forgiven = row
    gate = Gate(min_committed=low, max_failed=high, abort_failed=abort, soak_s=soak)
    return WaveRecord(number, name, WaveState(state), gate, opened_us, quiet_since_us, forgiven)
