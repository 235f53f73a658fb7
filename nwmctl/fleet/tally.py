"""Counters of assignments by wave, platform and state.

Written in the transaction that changes the states, so status and gates never count rows. ``recount`` is the truth that
the counters must equal, and rebuilds them after a change in bulk.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.fleet import AssignmentState
from nwmctl.storage.database import Reader, Transaction

_ADD = """
INSERT INTO tally (campaign_id, generation, wave, platform, state, vehicles)
VALUES (:campaign, :generation, :wave, :platform, :state, :vehicles)
ON CONFLICT (campaign_id, generation, wave, platform, state) DO UPDATE SET
  vehicles = tally.vehicles + excluded.vehicles
"""
_COUNT = """
SELECT wave, platform, state, count(*) FROM assignment
WHERE campaign_id = :campaign AND generation = :generation GROUP BY wave, platform, state
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an assignment is counted."""

    campaign: int
    generation: int
    wave: int
    platform: str


Counts = dict[tuple[int, str, AssignmentState], int]
"""(wave, platform, state) -> vehicles; only what is not zero."""


def shift(tx: Transaction, place: Place, old: AssignmentState, new: AssignmentState) -> None:
    """Count one assignment in another state."""
    for state, vehicles in ((old, -1), (new, 1)):
        tx.execute(
            _ADD,
            campaign=place.campaign,
            generation=place.generation,
            wave=place.wave,
            platform=place.platform,
            state=state.value,
            vehicles=vehicles,
        )


def counted(reader: Reader, campaign: int, generation: int) -> Counts:
    """The counters of a campaign's generation."""
    rows = reader.all(
        "SELECT wave, platform, state, vehicles FROM tally "
        "WHERE campaign_id = :campaign AND generation = :generation AND vehicles <> 0",
        campaign=campaign,
        generation=generation,
    )
    return {(wave, platform, AssignmentState(state)): vehicles for wave, platform, state, vehicles in rows}


def actual(reader: Reader, campaign: int, generation: int) -> Counts:
    """The same, by counting the assignments themselves."""
    rows = reader.all(_COUNT, campaign=campaign, generation=generation)
    return {(wave, platform, AssignmentState(state)): vehicles for wave, platform, state, vehicles in rows}


def recount(tx: Transaction, campaign: int, generation: int) -> None:
    """Rebuild the counters from the assignments; for changes in bulk."""
    tx.execute(
        "DELETE FROM tally WHERE campaign_id = :campaign AND generation = :generation",
        campaign=campaign,
        generation=generation,
    )
    tx.execute(
        "INSERT INTO tally (campaign_id, generation, wave, platform, state, vehicles) "
        "SELECT campaign_id, generation, wave, platform, state, count(*) FROM assignment "
        "WHERE campaign_id = :campaign AND generation = :generation "
        "GROUP BY campaign_id, generation, wave, platform, state",
        campaign=campaign,
        generation=generation,
    )
