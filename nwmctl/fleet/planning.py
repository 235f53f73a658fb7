"""Which vehicles owe what: assignments in bulk, each plan a handful of statements whatever the fleet's size.

Called in the transaction that changes the campaign's state. An assignment that another one replaces is superseded;
its action, if the vehicle has one, is withdrawn, so that a vehicle never works on two things.
"""

from __future__ import annotations

from collections.abc import Sequence

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.fleet import FINAL, AssignmentState
from nwmctl.domain.release import Gate, Release, WaveSpec
from nwmctl.fleet.consequences import ActionState, InstallMode
from nwmctl.fleet.records import CampaignRecord, insert_wave
from nwmctl.fleet.tally import recount
from nwmctl.fleet.waves import plan_quotas
from nwmctl.storage.database import Reader, Transaction

RETURN_WAVE = WaveSpec("return", Gate(min_committed=1.0, max_failed=1.0), share=1.0)
"""The one wave of a return; what ends it is ``gates.decide_return``."""

_NEEDS_IT = (
    "fleet = :fleet AND sequence < :sequence AND platform IN "
    "(SELECT platform FROM bundle WHERE release_sequence = :sequence)"
)
# Ids follow the VIN: rows that arrive in the order of the indexes are several times cheaper to insert. CROSS JOIN
# keeps SQLite from going through all vehicles once per wave.
_PLAN = f"""
INSERT INTO assignment
  (id, campaign_id, generation, wave, vin, platform, state, is_open, mode, from_sequence, to_sequence, updated_us)
SELECT :base + row_number() OVER (ORDER BY r.vin), :campaign, :generation, q.wave, r.vin,
  r.platform, 'pending', 1, 'bundle', r.sequence, :sequence, :now_us
FROM (
  SELECT vin, vin_hash, vehicle_model, platform, sequence,
    row_number() OVER (PARTITION BY vehicle_model ORDER BY vin_hash, vin) AS place
  FROM vehicle WHERE {_NEEDS_IT}
) r
CROSS JOIN wave_quota q WHERE q.campaign_id = :campaign AND q.vehicle_model = r.vehicle_model
  AND r.place > q.above_rank AND r.place <= q.upto_rank
"""
# Every vehicle that has the release, or had begun or may have: a vehicle that has not changed anything yet answers at
# once, since one of its slots holds what it came from.
_BACK = """
INSERT INTO assignment
  (id, campaign_id, generation, wave, vin, platform, state, is_open, mode, from_sequence, to_sequence, updated_us)
SELECT :base + row_number() OVER (ORDER BY o.id), o.campaign_id, :generation + 1, 1, o.vin, o.platform, 'pending', 1,
  o.mode, :release, CASE WHEN o.mode = 'slot' THEN o.from_sequence ELSE :back END, :now_us
FROM (
  SELECT a.id, a.campaign_id, a.vin, a.platform, a.from_sequence,
    CASE WHEN (v.slot_a_intact = 1 AND v.slot_a_sequence = a.from_sequence)
           OR (v.slot_b_intact = 1 AND v.slot_b_sequence = a.from_sequence)
      THEN 'slot' ELSE 'bundle' END AS mode
  FROM assignment a JOIN vehicle v ON v.vin = a.vin
  WHERE a.campaign_id = :campaign AND a.generation = :generation
    AND (a.state = 'committed' OR (a.is_open = 1 AND a.attempts > 0))
) o
"""


def eligible_counts(reader: Reader, fleet: str, release_sequence: int) -> dict[str, int]:
    """Vehicle model -> how many of the fleet's vehicles need the release."""
    rows = reader.all(
        f"SELECT vehicle_model, count(*) FROM vehicle WHERE {_NEEDS_IT} GROUP BY vehicle_model",
        fleet=fleet,
        sequence=release_sequence,
    )
    return {str(model): int(count) for model, count in rows}


def eligible_markets(reader: Reader, fleet: str, release_sequence: int) -> dict[str, int]:
    """Market -> how many of the vehicles that need the release are registered there; '' where nobody says."""
    rows = reader.all(
        f"SELECT market, count(*) FROM vehicle WHERE {_NEEDS_IT} GROUP BY market ORDER BY market",
        fleet=fleet,
        sequence=release_sequence,
    )
    return {str(market): int(count) for market, count in rows}


def plan_release(tx: Transaction, campaign: int, release: Release, specs: Sequence[WaveSpec], now_us: int) -> int:
    """Write waves and assignments of a new campaign; gives the number of assignments."""
    generation = 1
    for number, spec in enumerate(specs, start=1):
        insert_wave(tx, campaign, generation, number, spec)
    quotas = plan_quotas(specs, eligible_counts(tx, release.fleet.name, release.sequence))
    tx.many(
        "INSERT INTO wave_quota (campaign_id, wave, vehicle_model, above_rank, upto_rank) "
        "VALUES (:campaign, :wave, :model, :above, :upto)",
        [
            {
                "campaign": campaign,
                "wave": quota.wave,
                "model": quota.vehicle_model,
                "above": quota.above,
                "upto": quota.upto,
            }
            for quota in quotas
        ],
    )
    planned = tx.execute(
        _PLAN,
        base=_last_id(tx),
        campaign=campaign,
        generation=generation,
        fleet=release.fleet.name,
        sequence=release.sequence,
        now_us=now_us,
    )
    recount(tx, campaign, generation)
    return planned


def plan_return(tx: Transaction, campaign: CampaignRecord, back_sequence: int, now_us: int) -> int:
    """Write the next generation, which brings vehicles back; gives the number of assignments."""
    insert_wave(tx, campaign.id, campaign.generation + 1, 1, RETURN_WAVE)
    planned = tx.execute(
        _BACK,
        base=_last_id(tx),
        campaign=campaign.id,
        generation=campaign.generation,
        release=campaign.release_sequence,
        back=back_sequence,
        now_us=now_us,
    )
    recount(tx, campaign.id, campaign.generation + 1)
    return planned


def supersede_generation(tx: Transaction, campaign: CampaignRecord, now_us: int) -> int:
    """Supersede what is open of the present generation; gives how many."""
    _withdraw(tx, campaign.id, campaign.generation)
    changed = tx.execute(
        "UPDATE assignment SET state = 'superseded', is_open = 0, updated_us = :now_us "
        "WHERE campaign_id = :campaign AND generation = :generation AND is_open = 1",
        now_us=now_us,
        campaign=campaign.id,
        generation=campaign.generation,
    )
    recount(tx, campaign.id, campaign.generation)
    return changed


def supersede_others(tx: Transaction, campaign: CampaignRecord, now_us: int) -> int:
    """Supersede what this campaign's vehicles still owe to other campaigns; gives how many."""
    others = tx.all(
        "SELECT DISTINCT campaign_id, generation FROM tally WHERE campaign_id <> :campaign AND vehicles > 0 "
        f"AND state NOT IN ({', '.join(repr(state.value) for state in sorted(FINAL))})",
        campaign=campaign.id,
    )
    changed = 0
    for other, generation in others:
        same = "vin IN (SELECT vin FROM assignment WHERE campaign_id = :campaign AND generation = :own AND is_open = 1)"
        tx.execute(
            "UPDATE action SET state = 'cancelling' WHERE campaign_id = :other AND generation = :generation "
            f"AND state = 'open' AND {same}",
            other=other,
            generation=generation,
            campaign=campaign.id,
            own=campaign.generation,
        )
        changed += tx.execute(
            "UPDATE assignment SET state = 'superseded', is_open = 0, updated_us = :now_us "
            f"WHERE campaign_id = :other AND generation = :generation AND is_open = 1 AND {same}",
            now_us=now_us,
            other=other,
            generation=generation,
            campaign=campaign.id,
            own=campaign.generation,
        )
        recount(tx, other, generation)
    return changed


def cancel_generation(tx: Transaction, campaign: CampaignRecord, now_us: int) -> None:
    """Cancel what no vehicle has seen yet, and ask the others to stop; they answer for themselves."""
    _withdraw(tx, campaign.id, campaign.generation)
    tx.execute(
        "UPDATE assignment SET state = :cancelled, is_open = 0, updated_us = :now_us "
        "WHERE campaign_id = :campaign AND generation = :generation AND is_open = 1 AND NOT EXISTS "
        "(SELECT 1 FROM action x WHERE x.assignment_id = assignment.id AND x.state <> 'closed')",
        cancelled=AssignmentState.CANCELLED.value,
        now_us=now_us,
        campaign=campaign.id,
        generation=campaign.generation,
    )
    recount(tx, campaign.id, campaign.generation)


def return_sequence(reader: Reader, campaign: CampaignRecord) -> int | None:
    """The sequence of the return bundles; None unless every platform of the campaign has one."""
    row = reader.one(
        "SELECT min(b.sequence), count(DISTINCT b.platform), (SELECT count(DISTINCT platform) FROM tally "
        "WHERE campaign_id = :campaign) FROM bundle b WHERE b.release_sequence = :release AND b.kind = :kind "
        "AND b.platform IN (SELECT platform FROM tally WHERE campaign_id = :campaign)",
        campaign=campaign.id,
        release=campaign.release_sequence,
        kind=BundleKind.RETURN.value,
    )
    return int(row[0]) if row and row[1] and row[1] == row[2] else None


def modes(reader: Reader, campaign: int, generation: int) -> dict[InstallMode, int]:
    """How many assignments of a generation go which way."""
    rows = reader.all(
        "SELECT mode, count(*) FROM assignment WHERE campaign_id = :campaign AND generation = :generation "
        "GROUP BY mode",
        campaign=campaign,
        generation=generation,
    )
    return {InstallMode(mode): count for mode, count in rows}


def _withdraw(tx: Transaction, campaign: int, generation: int) -> None:
    tx.execute(
        "UPDATE action SET state = :cancelling WHERE campaign_id = :campaign AND generation = :generation "
        "AND state = 'open'",
        cancelling=ActionState.CANCELLING.value,
        campaign=campaign,
        generation=generation,
    )


def _last_id(tx: Transaction) -> int:
    row = tx.one("SELECT coalesce(max(id), 0) FROM assignment")
    return int(row[0]) if row else 0
