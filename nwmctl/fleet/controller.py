"""The controller: what advances campaigns, wherever it runs.

``tick`` looks at facts and at the time it is given, and takes at most the steps that they justify; running it twice
changes nothing more. A lease in the database keeps two controllers from ticking at once. No person's terminal takes
part.

Quiet counts only while somebody watched: time in which no controller ticked, because none ran or because the clock was
set forward or back, moves the begin of a wave's quiet along, and silence is looked for only afterwards.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.campaign import CampaignState, GateDecision, WaveCounts, WaveState
from nwmctl.domain.fleet import FINAL, AssignmentState
from nwmctl.fleet.campaigns import abort_in
from nwmctl.fleet.events import EventKind, record
from nwmctl.fleet.gates import decide, decide_return, enough_committed
from nwmctl.fleet.leases import hold_lease, last_held_us
from nwmctl.fleet.records import CampaignRecord, WaveRecord, all_campaigns, set_campaign, set_wave, waves_of
from nwmctl.fleet.reports import FAILURES
from nwmctl.fleet.tally import Counts, counted, recount
from nwmctl.storage.database import Database, Transaction

CONTROLLER = "controller"
SILENT_POLLS = 20
"""A vehicle that has begun is silent after this many missed polls, and not before ``SILENT_AT_LEAST_S``."""
SILENT_AT_LEAST_S = 60.0
WATCHED_GAP_S = 300
"""The longest time between two ticks that counts as watched: a restart of the controller, and no more."""
_SECOND = 1_000_000
_LIVE = "'offered', 'deferred', 'downloading', 'installed', 'trial'"
_MOVING = (CampaignState.RUNNING, CampaignState.ROLLING_BACK)


def leased_tick(tx: Transaction, holder: str, now_us: int, ttl_us: int) -> bool:
    """One tick, if this holder has the lease; says whether it had."""
    before = last_held_us(tx, CONTROLLER, ttl_us)
    if not hold_lease(tx, CONTROLLER, holder, now_us, ttl_us):
        return False
    if before is not None:
        _pass_over(tx, before, now_us)
    tick_in(tx, now_us)
    return True


def tick(database: Database, now_us: int) -> None:
    """One tick of every campaign, in one transaction."""
    with database.transaction() as tx:
        tick_in(tx, now_us)


def tick_in(tx: Transaction, now_us: int) -> None:
    """``tick`` in a running transaction."""
    for campaign in all_campaigns(tx):
        if campaign.state in (*_MOVING, CampaignState.COMPLETED):
            _sweep(tx, campaign, now_us)
        if campaign.state in _MOVING:
            _advance(tx, campaign, now_us)


def _pass_over(tx: Transaction, before_us: int, now_us: int) -> None:
    """Take time that nobody watched, or that only the clock says has gone by, out of every wave's quiet."""
    gap = now_us - before_us
    # A small step back only makes a wave wait that much longer.
    if abs(gap) <= WATCHED_GAP_S * _SECOND:
        return
    tx.execute(
        "UPDATE wave SET quiet_since_us = quiet_since_us + :gap WHERE state = :soaking",
        gap=gap,
        soaking=WaveState.SOAKING.value,
    )
    # Vehicles could not be heard either: they get a part of the usual time before anybody calls them silent.
    tx.execute("UPDATE campaign SET swept_us = :now_us", now_us=now_us)


def wave_counts(counts: Counts, wave: WaveRecord) -> WaveCounts:
    """The counts that a wave's gate judges; forgiven failures do not count."""
    mine: dict[AssignmentState, int] = {}
    for (number, _, state), vehicles in counts.items():
        if number == wave.number:
            mine[state] = mine.get(state, 0) + vehicles
    committed = mine.get(AssignmentState.COMMITTED, 0)
    failed = max(0, sum(mine.get(state, 0) for state in FAILURES) - wave.forgiven)
    live = sum(vehicles for state, vehicles in mine.items() if state not in FINAL)
    return WaveCounts(committed + failed + live, committed, failed, live)


def gate_says(campaign: CampaignRecord, wave: WaveRecord, counts: WaveCounts, now_us: int) -> tuple[GateDecision, str]:
    """What the gate on an open wave says now, and why."""
    if campaign.kind is BundleKind.RETURN:
        return decide_return(counts)
    since = wave.quiet_since_us
    return decide(wave.gate, counts, (now_us - since) / _SECOND if since is not None else 0.0)


def _advance(tx: Transaction, campaign: CampaignRecord, now_us: int) -> None:
    counts = counted(tx, campaign.id, campaign.generation)
    waves = waves_of(tx, campaign)
    for wave in waves:
        if wave.state is WaveState.DONE:
            continue
        if wave.state is WaveState.PLANNED:
            set_wave(tx, campaign, wave, WaveState.OPEN, "the gate before it said proceed", now_us)
            wave = replace(wave, state=WaveState.OPEN)
        if not _judge(tx, campaign, wave, wave_counts(counts, wave), now_us):
            return
    back = campaign.state is CampaignState.ROLLING_BACK
    done = CampaignState.ROLLED_BACK if back else CampaignState.COMPLETED
    set_campaign(tx, campaign, done, f"the last gate of {len(waves)} said proceed", now_us)


def _judge(tx: Transaction, campaign: CampaignRecord, wave: WaveRecord, counts: WaveCounts, now_us: int) -> bool:
    """Apply the gate to an open wave; true if the next wave may follow."""
    wave = _soak(tx, campaign, wave, counts, now_us)
    decision, reason = gate_says(campaign, wave, counts, now_us)
    said = f"wave '{wave.name}': {reason}"
    match decision:
        case GateDecision.WAIT:
            return False
        case GateDecision.PROCEED:
            set_wave(tx, campaign, wave, WaveState.DONE, reason, now_us)
            return True
        case GateDecision.PAUSE:
            set_campaign(tx, campaign, CampaignState.PAUSED, said, now_us)
            return False
        case GateDecision.ABORT:
            abort_in(tx, campaign, said, now_us)
            return False
        case _:
            assert_never(decision)


def _soak(tx: Transaction, campaign: CampaignRecord, wave: WaveRecord, counts: WaveCounts, now_us: int) -> WaveRecord:
    """Begin or end the wave's time of quiet; gives the wave as it then is."""
    enough = enough_committed(wave.gate, counts)
    if enough and wave.state is WaveState.OPEN:
        set_wave(tx, campaign, wave, WaveState.SOAKING, "enough vehicles have committed", now_us)
        return replace(wave, state=WaveState.SOAKING, quiet_since_us=now_us)
    if not enough and wave.state is WaveState.SOAKING:
        set_wave(tx, campaign, wave, WaveState.OPEN, "the share of committed vehicles fell again", now_us)
        return replace(wave, state=WaveState.OPEN, quiet_since_us=None)
    return wave


def _sweep(tx: Transaction, campaign: CampaignRecord, now_us: int) -> None:
    """Mark vehicles that have not been heard of. Not at every tick, since it looks at many rows."""
    silent_us = int(max(SILENT_AT_LEAST_S, SILENT_POLLS * campaign.poll_s) * _SECOND)
    if now_us - campaign.swept_us < silent_us // 4:
        return
    tx.execute("UPDATE campaign SET swept_us = :now_us WHERE id = :id", now_us=now_us, id=campaign.id)
    changed = tx.execute(
        "UPDATE assignment SET state = :silent, updated_us = :now_us WHERE campaign_id = :campaign "
        f"AND generation = :generation AND state IN ({_LIVE}) AND updated_us < :before "
        "AND vin IN (SELECT vin FROM vehicle WHERE seen_us < :before)",
        silent=AssignmentState.SILENT.value,
        now_us=now_us,
        campaign=campaign.id,
        generation=campaign.generation,
        before=now_us - silent_us,
    )
    if changed:
        recount(tx, campaign.id, campaign.generation)
        record(tx, EventKind.SILENT, now_us, {"vehicles": changed}, campaign=campaign.id)
