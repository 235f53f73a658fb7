"""What people ask: how a campaign stands, and what happened to a vehicle.

Reads counters, events and reports; changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.campaign import CampaignState, WaveCounts, WaveState
from nwmctl.domain.fleet import AssignmentState
from nwmctl.errors import UnknownVehicleError
from nwmctl.fleet.controller import gate_says, wave_counts
from nwmctl.fleet.delivery import Ways, ways
from nwmctl.fleet.offers import known_vehicle
from nwmctl.fleet.records import CampaignRecord, WaveRecord, all_campaigns, campaign_by_name, waves_of
from nwmctl.fleet.tally import Counts, counted
from nwmctl.fleet.traffic import Account, account
from nwmctl.storage.database import Database, Reader

States = dict[AssignmentState, int]
"""Vehicles by state; only what is not zero."""


@dataclass(frozen=True, slots=True)
class WaveStatus:
    """A wave: its states, what its gate counts, and what its gate says (empty while it is not open)."""

    number: int
    name: str
    state: WaveState
    states: States
    counts: WaveCounts
    gate: str


@dataclass(frozen=True, slots=True)
class PlatformStatus:
    """The vehicles of one platform."""

    platform: str
    states: States


@dataclass(frozen=True, slots=True)
class CampaignStatus:
    """A campaign as it stands. ``kind`` says whether its generation brings the release or brings vehicles back."""

    name: str
    fleet: str
    release_sequence: int
    kind: BundleKind
    state: CampaignState
    generation: int
    reason: str
    updated_us: int
    states: States
    waves: tuple[WaveStatus, ...]
    platforms: tuple[PlatformStatus, ...]
    traffic: Account | None = None
    """Its byte budget and what has been reserved of it; None: it has none."""
    ways: Ways | None = None
    """How its bundles were offered; None: its release has no deltas."""

    @property
    def vehicles(self) -> int:
        """All vehicles of this generation."""
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One thing that happened to a vehicle. ``what`` is an event's kind, or ``report`` with ``details``."""

    at_us: int
    what: str
    data: dict[str, object]
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FleetCount:
    """How many vehicles of a model are at a sequence."""

    platform: str
    vehicle_model: str
    baseline: str
    sequence: int
    vehicles: int


def status(database: Database, name: str, now_us: int) -> CampaignStatus:
    """How a campaign stands. Raises UnknownCampaignError."""
    reader = database.reader
    return _status(reader, campaign_by_name(reader, name), now_us)


def all_status(database: Database, now_us: int) -> tuple[CampaignStatus, ...]:
    """Every campaign, the oldest first."""
    reader = database.reader
    return tuple(_status(reader, campaign, now_us) for campaign in all_campaigns(reader))


def story(database: Database, vin: str) -> tuple[StoryLine, ...]:
    """Everything that is known to have happened to a vehicle, in order. Raises UnknownVehicleError."""
    reader = database.reader
    if known_vehicle(reader, vin) is None:
        raise UnknownVehicleError(
            f"there is no vehicle {vin}", why="it is in no inventory", next="import the fleet's inventory"
        )
    lines = [
        StoryLine(at_us, kind, json.loads(data))
        for at_us, kind, data in reader.all(
            "SELECT at_us, kind, data FROM event WHERE vin = :vin ORDER BY number", vin=vin
        )
    ]
    for at_us, action, heard, stage, late, details in reader.all(
        "SELECT at_us, action_id, heard, stage, late, details FROM feedback WHERE vin = :vin ORDER BY id",
        vin=vin,
    ):
        data: dict[str, object] = {"action": action, "heard": heard, "stage": stage, "late": bool(late)}
        lines.append(StoryLine(at_us, "report", data, tuple(json.loads(details))))
    # A report comes before the event that it caused; both carry the same time.
    return tuple(sorted(lines, key=lambda line: (line.at_us, line.what != "report")))


def fleet_counts(database: Database, fleet: str) -> tuple[FleetCount, ...]:
    """What a fleet runs, by platform, vehicle model, baseline and sequence."""
    rows = database.reader.all(
        "SELECT platform, vehicle_model, baseline, sequence, count(*) FROM vehicle WHERE fleet = :fleet "
        "GROUP BY platform, vehicle_model, baseline, sequence ORDER BY platform, vehicle_model, baseline, sequence",
        fleet=fleet,
    )
    return tuple(FleetCount(*row) for row in rows)


def _status(reader: Reader, campaign: CampaignRecord, now_us: int) -> CampaignStatus:
    counts = counted(reader, campaign.id, campaign.generation)
    platforms = sorted({platform for _, platform, _ in counts})
    return CampaignStatus(
        name=campaign.name,
        fleet=campaign.fleet,
        release_sequence=campaign.release_sequence,
        kind=campaign.kind,
        state=campaign.state,
        generation=campaign.generation,
        reason=campaign.reason,
        updated_us=campaign.updated_us,
        states=_states(counts),
        waves=tuple(_wave(campaign, wave, counts, now_us) for wave in waves_of(reader, campaign)),
        platforms=tuple(PlatformStatus(name, _states(counts, platform=name)) for name in platforms),
        traffic=account(reader, campaign.id),
        ways=ways(reader, campaign.id),
    )


def _wave(campaign: CampaignRecord, wave: WaveRecord, counts: Counts, now_us: int) -> WaveStatus:
    judged = wave_counts(counts, wave)
    open_now = wave.state in (WaveState.OPEN, WaveState.SOAKING)
    gate = gate_says(campaign, wave, judged, now_us)[1] if open_now else ""
    return WaveStatus(wave.number, wave.name, wave.state, _states(counts, wave=wave.number), judged, gate)


def _states(counts: Counts, *, wave: int | None = None, platform: str | None = None) -> States:
    found: States = {}
    for (number, name, state), vehicles in counts.items():
        if wave in (None, number) and platform in (None, name):
            found[state] = found.get(state, 0) + vehicles
    return found


def fleet_names(database: Database) -> tuple[str, ...]:
    """Every fleet that was ever imported."""
    return tuple(row[0] for row in database.reader.all("SELECT name FROM fleet ORDER BY name"))
