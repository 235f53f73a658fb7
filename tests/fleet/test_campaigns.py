"""Campaigns: creation, offers, gates, pause, abort, rollback, attempts, silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.campaign import CampaignState, WaveState
from nwmctl.domain.fleet import AssignmentState
from nwmctl.domain.release import FleetReference, Gate, WaveSpec
from nwmctl.errors import (
    BundleSetIncompleteError,
    IllegalTransitionError,
    NewerCampaignError,
    NoVehicleError,
    SequenceTakenError,
    UnknownCampaignError,
    UnknownVehicleError,
    VirtualOnlyError,
)
from nwmctl.fleet.campaigns import abort, create_campaign, pause, resume, rollback, start
from nwmctl.fleet.consequences import ActionState, Heard, InstallMode
from nwmctl.fleet.controller import leased_tick, tick
from nwmctl.fleet.inventory import import_inventory
from nwmctl.fleet.leases import give_lease_back, hold_lease
from nwmctl.fleet.offers import Act, Idle, Owed, Stop, offer, standing
from nwmctl.fleet.releases import claim_sequence, enable_release
from nwmctl.fleet.status import fleet_counts, status, story
from nwmctl.storage.database import Database
from tests.fleet import house
from tests.fleet.house import SECOND, T0, act, finish, say, state_of, wave_vins
from tests.postgres import Stores

NAME = "test-10"


@pytest.fixture
def database(tmp_path: Path, stores: Stores) -> Database:
    database = house.fleet_database(tmp_path, database=stores.open())
    create_campaign(database, house.release(), T0)
    start(database, NAME, T0)
    return database


def finish_wave(database: Database, wave: int, generation: int = 1) -> None:
    for vin in wave_vins(database, wave, generation):
        finish(database, vin)


def test_a_campaign_goes_through_its_waves(database: Database) -> None:
    canary, rest = wave_vins(database, 1), wave_vins(database, 2)
    assert (len(canary), len(rest)) == (3, 6)
    assert isinstance(standing(database.reader, canary[0]), Owed)
    assert isinstance(standing(database.reader, rest[0]), Idle)
    finish_wave(database, 1)
    tick(database, T0)
    assert isinstance(standing(database.reader, rest[0]), Owed)
    assert status(database, NAME, T0).state is CampaignState.RUNNING
    for vin in rest[:3]:
        finish(database, vin)
    tick(database, T0)
    now = status(database, NAME, T0)
    assert now.state is CampaignState.COMPLETED
    assert [wave.state for wave in now.waves] == [WaveState.DONE, WaveState.DONE]
    # Late ones are still served, and nothing is offered twice.
    finish(database, rest[5])
    assert isinstance(standing(database.reader, rest[0]), Idle)
    assert {row.sequence: row.vehicles for row in fleet_counts(database, "test") if row.platform == "nt3.0"} == {
        1: sum(state_of(database, vin) is not AssignmentState.COMMITTED for vin in rest if "et9" in vin),
        10: 3 - sum(state_of(database, vin) is not AssignmentState.COMMITTED for vin in rest if "et9" in vin),
    }


def test_creating_and_starting_twice_is_harmless(database: Database) -> None:
    again = create_campaign(database, house.release(), T0)
    assert not again.new
    assert again.vehicles == 9
    start(database, NAME, T0)
    with pytest.raises(UnknownCampaignError, match="test-11"):
        start(database, "test-11", T0)


def test_no_campaign_without_every_bundle(tmp_path: Path, stores: Stores) -> None:
    database = house.fleet_database(tmp_path, database=stores.open())
    other = house.release(20)
    with pytest.raises(BundleSetIncompleteError, match="not enabled"):
        create_campaign(database, other, T0)
    with pytest.raises(BundleSetIncompleteError, match="not complete"):
        enable_release(database, other, house.CONTENT, house.bundles(other)[1:], T0)
    with pytest.raises(BundleSetIncompleteError, match="sequence 10"):
        enable_release(database, other, house.CONTENT, house.bundles(house.release(10)), T0)
    assert database.reader.all("SELECT * FROM ledger WHERE sequence >= 20") == []


def test_one_sequence_never_stands_for_two_contents(tmp_path: Path, stores: Stores) -> None:
    database = house.fleet_database(tmp_path, database=stores.open())
    made = house.release()
    enable_release(database, made, house.CONTENT, house.bundles(made), T0)
    with pytest.raises(SequenceTakenError, match="10"):
        enable_release(database, made, house.digest("other"), house.bundles(made), T0)
    with pytest.raises(SequenceTakenError, match="10"):
        enable_release(database, made, house.CONTENT, house.bundles(made, b"other"), T0)
    # The number after a release is the number of its way back.
    with pytest.raises(SequenceTakenError, match="11"):
        claim_sequence(database, house.release(11), house.CONTENT)
    claim_sequence(database, house.release(12), house.digest("next"))


def test_weak_evidence_never_reaches_a_real_fleet(tmp_path: Path, stores: Stores) -> None:
    database = house.fleet_database(tmp_path, database=stores.open())
    inventory = house.write_inventory(tmp_path / "real.csv", [("REAL1", "et7", "Banyan")])
    real = house.release(fleet=FleetReference("real", "real.csv"))
    import_inventory(
        database, inventory, house.catalogue(), fleet="real", virtual=False, now_us=T0, token_for=house.token
    )
    with pytest.raises(VirtualOnlyError, match="real fleet"):
        create_campaign(database, real, T0)


def test_a_fleet_that_needs_nothing(tmp_path: Path, stores: Stores) -> None:
    old = house.release(1)
    database = house.fleet_database(tmp_path, made=old, database=stores.open())
    with pytest.raises(NoVehicleError, match="needs"):
        create_campaign(database, old, T0)
    with pytest.raises(NoVehicleError, match="empty"):
        create_campaign(database, house.release(1, fleet=FleetReference("none", "f.csv")), T0)


def test_a_failure_is_tried_again_until_the_attempts_are_used_up(database: Database) -> None:
    vin = wave_vins(database, 1)[0]
    first = act(database, vin)
    assert say(database, vin, first, Heard.FAILURE).assignment is AssignmentState.OFFERED
    assert isinstance(standing(database.reader, vin), Owed)
    second = act(database, vin)
    assert second != first
    assert say(database, vin, second, Heard.FAILURE).assignment is AssignmentState.FAILED
    assert isinstance(standing(database.reader, vin), Idle)
    tick(database, T0)
    now = status(database, NAME, T0)
    assert now.state is CampaignState.PAUSED
    assert "failed" in now.reason


@pytest.mark.parametrize("stage", [AssignmentState.ROLLED_BACK, AssignmentState.REFUSED])
def test_an_answer_is_not_tried_again(database: Database, stage: AssignmentState) -> None:
    vin = wave_vins(database, 1)[0]
    assert say(database, vin, act(database, vin), Heard.FAILURE, stage).assignment is stage
    assert isinstance(standing(database.reader, vin), Idle)


def test_a_closed_action_stays_closed_and_every_detail_is_kept(database: Database) -> None:
    vin = wave_vins(database, 1)[0]
    action = act(database, vin)
    say(database, vin, action, Heard.PROGRESS, details=("the real cause",))
    say(database, vin, action, Heard.SUCCESS, details=("done",))
    assert say(database, vin, action, Heard.FAILURE, details=("late",)).late
    assert say(database, vin, action, Heard.PROGRESS).late
    assert state_of(database, vin) is AssignmentState.COMMITTED
    details = [line.details for line in story(database, vin) if line.what == "report"]
    assert details == [("the real cause",), ("done",), ("late",), ()]
    with pytest.raises(UnknownVehicleError):
        say(database, wave_vins(database, 1)[1], action, Heard.SUCCESS)


def test_pause_lets_those_finish_who_have_begun(database: Database) -> None:
    begun, offered, untouched = wave_vins(database, 1)
    first = act(database, begun)
    say(database, begun, first, Heard.PROGRESS)
    act(database, offered)
    pause(database, NAME, "a person asked", T0)
    assert standing(database.reader, begun) == Act(first)
    assert isinstance(standing(database.reader, offered), Idle)
    assert isinstance(standing(database.reader, untouched), Idle)
    say(database, begun, first, Heard.SUCCESS)
    assert state_of(database, begun) is AssignmentState.COMMITTED
    resume(database, NAME, "go on", T0)
    assert isinstance(standing(database.reader, offered), Act)
    with pytest.raises(IllegalTransitionError):
        resume(database, NAME, "again", T0)


def test_resume_forgives_the_failures_so_far(database: Database) -> None:
    bad, *good = wave_vins(database, 1)
    finish(database, bad, Heard.FAILURE)
    finish(database, bad, Heard.FAILURE)
    tick(database, T0)
    assert status(database, NAME, T0).state is CampaignState.PAUSED
    resume(database, NAME, "understood", T0)
    tick(database, T0)
    assert status(database, NAME, T0).state is CampaignState.RUNNING
    for vin in good:
        finish(database, vin)
    tick(database, T0)
    assert status(database, NAME, T0).waves[0].state is WaveState.DONE


def test_abort_cancels_what_nobody_saw_and_asks_the_others(database: Database) -> None:
    begun, late, untouched = wave_vins(database, 1)
    first, second = act(database, begun), act(database, late)
    say(database, begun, first, Heard.PROGRESS)
    abort(database, NAME, "a person asked", T0)
    assert state_of(database, untouched) is AssignmentState.CANCELLED
    assert standing(database.reader, begun) == Stop(first)
    say(database, begun, first, Heard.CANCELLED)
    assert state_of(database, begun) is AssignmentState.CANCELLED
    # The other one had finished before it heard of it.
    say(database, late, second, Heard.SUCCESS)
    assert state_of(database, late) is AssignmentState.COMMITTED
    assert isinstance(standing(database.reader, begun), Idle)


def test_a_vehicle_may_refuse_to_stop(database: Database) -> None:
    vin = wave_vins(database, 1)[0]
    action = act(database, vin)
    say(database, vin, action, Heard.PROGRESS, AssignmentState.INSTALLED)
    abort(database, NAME, "a person asked", T0)
    assert say(database, vin, action, Heard.CANCEL_REFUSED).action is ActionState.OPEN
    assert standing(database.reader, vin) == Act(action)
    say(database, vin, action, Heard.SUCCESS)
    assert state_of(database, vin) is AssignmentState.COMMITTED


def test_rollback_by_slot_where_it_is_intact_and_by_bundle_otherwise(database: Database) -> None:
    by_slot, stock, broken = wave_vins(database, 1)
    finish_wave(database, 1)
    tick(database, T0)
    begun, offered, *untouched = wave_vins(database, 2)
    say(database, begun, act(database, begun), Heard.PROGRESS)
    first = act(database, offered)
    house.slots(database, by_slot, active=10, inactive=1)
    house.slots(database, broken, active=10, inactive=1, intact=False)
    back = rollback(database, NAME, "it brakes too late", T0)
    assert (back.generation, back.by_slot, back.by_bundle) == (2, 1, 4)
    assert [state_of(database, vin) for vin in untouched] == [AssignmentState.SUPERSEDED] * 4
    # The withdrawn action comes first, then the way back.
    assert standing(database.reader, offered) == Stop(first)
    assert say(database, offered, first, Heard.CANCELLED).late
    way = offer(database.reader, offered, act(database, offered))
    assert (way.mode, way.sequence, way.kind) == (InstallMode.BUNDLE, 11, BundleKind.RETURN)
    assert way.bundle is not None
    assert way.bundle.sequence == 11
    way = offer(database.reader, by_slot, act(database, by_slot))
    assert (way.mode, way.sequence, way.bundle) == (InstallMode.SLOT, 1, None)
    assert offer(database.reader, stock, act(database, stock)).mode is InstallMode.BUNDLE
    assert state_of(database, by_slot) is AssignmentState.COMMITTED
    for vin in wave_vins(database, 1, generation=2):
        tick(database, T0)
        assert status(database, NAME, T0).state is CampaignState.ROLLING_BACK
        if isinstance(found := standing(database.reader, vin), Stop):
            say(database, vin, found.action, Heard.CANCELLED)
        finish(database, vin)
    tick(database, T0)
    now = status(database, NAME, T0)
    assert (now.state, now.kind) == (CampaignState.ROLLED_BACK, BundleKind.RETURN)
    sequences = dict(database.reader.all("SELECT vin, sequence FROM vehicle"))
    assert (sequences[by_slot], sequences[stock], sequences[untouched[0]]) == (1, 11, 1)
    with pytest.raises(IllegalTransitionError, match="rolled back"):
        rollback(database, NAME, "again", T0)


def test_a_slot_that_does_not_do_is_followed_by_the_bundle(database: Database) -> None:
    vin = wave_vins(database, 1)[0]
    finish_wave(database, 1)
    house.slots(database, vin, active=10, inactive=1)
    rollback(database, NAME, "reason", T0)
    assert say(database, vin, act(database, vin), Heard.FAILURE).assignment is AssignmentState.OFFERED
    way = offer(database.reader, vin, act(database, vin))
    assert (way.mode, way.sequence) == (InstallMode.BUNDLE, 11)


def test_a_rollback_can_be_paused_and_goes_on_as_one(database: Database) -> None:
    finish_wave(database, 1)
    rollback(database, NAME, "reason", T0)
    vin = wave_vins(database, 1)[0]
    pause(database, NAME, "wait", T0)
    assert isinstance(standing(database.reader, vin), Idle)
    resume(database, NAME, "go on", T0)
    assert status(database, NAME, T0).state is CampaignState.ROLLING_BACK
    finish_wave(database, 1, generation=2)
    tick(database, T0)
    assert status(database, NAME, T0).state is CampaignState.ROLLED_BACK


def test_a_newer_campaign_supersedes_and_forbids_the_older_ones_rollback(database: Database) -> None:
    done, offered, _ = wave_vins(database, 1)
    finish(database, done)
    first = act(database, offered)
    newer = house.release(20)
    enable_release(database, newer, house.digest("newer"), house.bundles(newer), T0)
    assert create_campaign(database, newer, T0).vehicles == 9
    start(database, "test-20", T0)
    assert state_of(database, done) is AssignmentState.COMMITTED
    assert standing(database.reader, offered) == Stop(first)
    states = status(database, NAME, T0).states
    assert states == {AssignmentState.COMMITTED: 1, AssignmentState.SUPERSEDED: 8}
    with pytest.raises(NewerCampaignError, match="test-20"):
        rollback(database, NAME, "too late", T0)


def test_soaking_waits_for_quiet(tmp_path: Path, stores: Stores) -> None:
    gate = Gate(min_committed=0.5, max_failed=0.5, soak_s=10)
    made = house.release(waves=(WaveSpec("one", gate, share=1.0),), max_attempts=1)
    database = house.fleet_database(tmp_path, made=made, database=stores.open())
    create_campaign(database, made, T0)
    start(database, NAME, T0)
    vins = wave_vins(database, 1)
    for vin in vins[:5]:
        finish(database, vin)
    tick(database, T0)
    assert status(database, NAME, T0).waves[0].state is WaveState.SOAKING
    finish(database, vins[5], Heard.FAILURE, T0 + 6 * SECOND)
    tick(database, T0 + 12 * SECOND)
    waiting = status(database, NAME, T0 + 12 * SECOND)
    assert waiting.state is CampaignState.RUNNING
    assert "quiet for 6.0 s of 10 s" in waiting.waves[0].gate
    tick(database, T0 + 16 * SECOND)
    assert status(database, NAME, T0).state is CampaignState.COMPLETED


def test_silence_is_marked_and_ends_with_a_poll(database: Database) -> None:
    vin = wave_vins(database, 1)[0]
    act(database, vin)
    tick(database, T0 + 59 * SECOND)
    assert state_of(database, vin) is AssignmentState.OFFERED
    tick(database, T0 + 120 * SECOND)
    assert state_of(database, vin) is AssignmentState.SILENT
    assert status(database, NAME, T0).waves[0].counts.open == 3
    act(database, vin, T0 + 121 * SECOND)
    assert state_of(database, vin) is AssignmentState.OFFERED


def test_only_one_controller_ticks(database: Database) -> None:
    def try_tick(holder: str, now_us: int) -> bool:
        with database.transaction() as tx:
            return leased_tick(tx, holder, now_us, 5 * SECOND)

    assert try_tick("a", T0)
    assert not try_tick("b", T0 + 4 * SECOND)
    assert try_tick("a", T0 + 4 * SECOND)
    assert not try_tick("b", T0 + 6 * SECOND)
    assert try_tick("b", T0 + 9 * SECOND)
    with database.transaction() as tx:
        give_lease_back(tx, "controller", "b")
        assert hold_lease(tx, "controller", "a", T0, SECOND)
