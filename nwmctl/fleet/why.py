"""Why a vehicle is, or is not, offered what it is owed now. Reads only.

The same functions answer that decide what a poll is told, so that the reason is the reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import assert_never

from nwmctl.domain.campaign import CampaignState, WaveState
from nwmctl.domain.fleet import AssignmentState
from nwmctl.domain.requires import Reported
from nwmctl.errors import UnknownVehicleError
from nwmctl.fleet.consequences import OFFERING, may_see
from nwmctl.fleet.delivery import owed_bundle
from nwmctl.fleet.offers import Act, Idle, Owed, Stop, offer, standing
from nwmctl.fleet.releases import EnabledBundle
from nwmctl.fleet.requirements import lacking
from nwmctl.fleet.traffic import next_download
from nwmctl.formats.ddi import reported
from nwmctl.storage.database import Database, Reader


@dataclass(frozen=True, slots=True)
class Why:
    """What a vehicle has been told or will be, and why. ``campaign`` and ``state`` are empty where it owes nothing;
    ``reasons`` are sentences, the decisive one first."""

    vin: str
    offered: bool
    campaign: str
    state: AssignmentState | None
    reasons: tuple[str, ...]
    market: str
    reported: Reported


def why(database: Database, vin: str) -> Why:
    """The answer for one vehicle. Raises UnknownVehicleError."""
    reader = database.reader
    row = None if "\0" in vin else reader.one("SELECT market, attributes FROM vehicle WHERE vin = :vin", vin=vin)
    if row is None:
        raise UnknownVehicleError(
            f"there is no vehicle {vin}", why="it is in no inventory", next="import the fleet's inventory"
        )
    has = reported(json.loads(row[1]))
    owed = reader.one(
        "SELECT a.id, a.state, c.name, c.state, c.reason, w.name, w.state FROM assignment a "
        "JOIN campaign c ON c.id = a.campaign_id "
        "JOIN wave w ON w.campaign_id = a.campaign_id AND w.generation = a.generation AND w.number = a.wave "
        "WHERE a.vin = :vin AND a.is_open = 1 ORDER BY a.id DESC LIMIT 1",
        vin=vin,
    )
    if owed is None:
        return Why(vin, False, "", None, (_last(reader, vin),), row[0], has)
    assignment, state, campaign, campaign_state, said, wave, wave_state = owed
    now = AssignmentState(state)
    found = standing(reader, vin)
    reasons: list[str] = []
    match found:
        case Stop():
            reasons.append("it is asked to stop what it is working on first")
        case Act():
            reasons.append(f"it is offered this now{_way(reader, vin)}")
        case Owed():
            way = _bundle(owed_bundle(reader, assignment))
            reasons.append(_held(reader, assignment) or f"its next poll is offered it{way}")
        case Idle():
            reasons += _idle(reader, assignment, CampaignState(campaign_state), said, wave, WaveState(wave_state), now)
        case _:
            assert_never(found)
    held = bool(_held(reader, assignment)) and not isinstance(found, Act)
    return Why(vin, isinstance(found, Act | Owed) and not held, campaign, now, tuple(reasons), row[0], has)


def _idle(
    reader: Reader, assignment: int, campaign: CampaignState, said: str, wave: str, state: WaveState,
    now: AssignmentState,
) -> list[str]:  # fmt: skip
    if campaign not in OFFERING and not may_see(campaign, now):
        return [f"the campaign is {campaign}: {said}"]
    if state is WaveState.PLANNED:
        return [f"its wave '{wave}' is not open yet"]
    return [_held(reader, assignment) or "nothing is owed to it now"]


def _way(reader: Reader, vin: str) -> str:
    """What the open action of a vehicle brings it."""
    row = reader.one("SELECT id FROM action WHERE vin = :vin AND state = 'open' ORDER BY id LIMIT 1", vin=vin)
    return _bundle(offer(reader, vin, row[0]).bundle) if row else ""


def _bundle(bundle: EnabledBundle | None) -> str:
    if bundle is None:
        return ""
    if bundle.base_sequence is None:
        return f": the full bundle, {bundle.size} bytes"
    return f": a delta from sequence {bundle.base_sequence}, {bundle.size} bytes"


def _held(reader: Reader, assignment: int) -> str:
    """What defers it: what it lacks, or the campaign's budget of bytes."""
    lacks = lacking(reader, assignment)
    if lacks:
        return lacks
    download = next_download(reader, assignment)
    return download.refused if download is not None else ""


def _last(reader: Reader, vin: str) -> str:
    row = reader.one(
        "SELECT a.state, c.name FROM assignment a JOIN campaign c ON c.id = a.campaign_id WHERE a.vin = :vin "
        "ORDER BY a.id DESC LIMIT 1",
        vin=vin,
    )
    return f"its part of campaign '{row[1]}' has ended: {row[0]}" if row else "no campaign has assigned anything to it"
