"""A clock that jumps under the controller: no wave opens early, no lease holds for ever, nobody is called silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.domain.campaign import WaveState
from nwmctl.domain.fleet import AssignmentState
from nwmctl.domain.release import Gate, WaveSpec
from nwmctl.fleet.campaigns import create_campaign, start
from nwmctl.fleet.controller import CONTROLLER, WATCHED_GAP_S, leased_tick
from nwmctl.fleet.leases import MOST_SKEW_US, give_lease_back, hold_lease
from nwmctl.fleet.offers import note_seen
from nwmctl.fleet.status import status
from nwmctl.storage.database import Database
from tests.fleet import house
from tests.fleet.house import SECOND, T0, act, finish, state_of, wave_vins
from tests.postgres import Stores

NAME = "test-10"
TTL = 5 * SECOND
HOUR = 3600 * SECOND
DAY = 24 * HOUR
SOAK_S = 7200.0


@pytest.fixture
def database(tmp_path: Path, stores: Stores) -> Database:
    """A campaign whose first wave must be quiet for two hours."""
    made = house.fleet_database(tmp_path, database=stores.open())
    gate = Gate(min_committed=0.5, max_failed=0.5, soak_s=SOAK_S)
    waves = (WaveSpec("canary", gate, per_model=1), WaveSpec("rest", gate, share=1.0))
    create_campaign(made, house.release(waves=waves), T0)
    start(made, NAME, T0)
    return made


def ticked(database: Database, now_us: int, holder: str = "a") -> bool:
    with database.transaction() as tx:
        return leased_tick(tx, holder, now_us, TTL)


def watched(database: Database, since_us: int, until_us: int) -> None:
    """Ticks as a controller makes them, but for the many between."""
    step = WATCHED_GAP_S * SECOND
    for now_us in [*range(since_us, until_us, step), until_us]:
        assert ticked(database, now_us)


def first_wave(database: Database) -> WaveState:
    return status(database, NAME, T0).waves[0].state


def soak(database: Database) -> None:
    """The first wave commits; quiet begins."""
    for vin in wave_vins(database, 1):
        finish(database, vin)
    assert ticked(database, T0)
    assert first_wave(database) is WaveState.SOAKING


@pytest.mark.parametrize("jump", [DAY, 3650 * DAY, -DAY, -HOUR])
def test_a_jump_is_no_quiet(database: Database, jump: int) -> None:
    soak(database)
    half = T0 + HOUR
    watched(database, T0, half)
    after = half + jump
    assert ticked(database, after)
    assert first_wave(database) is WaveState.SOAKING, "an hour was quiet, whatever the clock says"
    watched(database, after, after + HOUR - SECOND)
    assert first_wave(database) is WaveState.SOAKING
    assert ticked(database, after + HOUR)
    assert first_wave(database) is WaveState.DONE, "and the other hour is all that was missing"


def test_there_and_back_again(database: Database) -> None:
    """Set forward by mistake, and put right."""
    soak(database)
    watched(database, T0, T0 + HOUR)
    assert ticked(database, T0 + 400 * DAY)
    assert ticked(database, T0 + HOUR + SECOND)
    watched(database, T0 + HOUR + SECOND, T0 + 2 * HOUR)
    assert first_wave(database) is WaveState.SOAKING, "the second of the excursion was not watched"
    assert ticked(database, T0 + 2 * HOUR + SECOND)
    assert first_wave(database) is WaveState.DONE


def test_time_without_a_controller_is_no_quiet(database: Database) -> None:
    soak(database)
    watched(database, T0, T0 + HOUR)
    with database.transaction() as tx:
        give_lease_back(tx, CONTROLLER, "a")
    assert ticked(database, T0 + 12 * HOUR, "b")
    assert first_wave(database) is WaveState.SOAKING
    # A restart within minutes is watched time: a failure of then is reported now.
    at = T0 + 12 * HOUR + WATCHED_GAP_S * SECOND
    assert ticked(database, at, "c")
    assert status(database, NAME, at).waves[0].state is WaveState.SOAKING


def test_nobody_is_silent_because_of_a_jump(database: Database) -> None:
    vin = wave_vins(database, 1)[0]
    act(database, vin)
    assert ticked(database, T0 + SECOND)
    for after in (T0 + DAY, T0 + 2 * SECOND):
        assert ticked(database, after)
        assert state_of(database, vin) is AssignmentState.OFFERED
        with database.transaction() as tx:
            note_seen(tx, {vin: after + SECOND})
        watched(database, after, after + 40 * SECOND)
        assert state_of(database, vin) is AssignmentState.OFFERED
    watched(database, T0 + 50 * SECOND, T0 + 50 * SECOND + 3 * HOUR)
    assert state_of(database, vin) is AssignmentState.SILENT, "but who does not come back is"


def test_a_lease_out_of_the_future_holds_nobody_up(database: Database) -> None:
    """A controller whose clock ran ahead has died; the others' clocks are right."""
    with database.transaction() as tx:
        assert hold_lease(tx, CONTROLLER, "a", T0 + 3650 * DAY, TTL)
        assert hold_lease(tx, CONTROLLER, "b", T0, TTL)
        assert not hold_lease(tx, CONTROLLER, "c", T0 + SECOND, TTL)
        # Clocks that differ by less than an hour never make two holders.
        assert hold_lease(tx, CONTROLLER, "b", T0 + MOST_SKEW_US, TTL)
        assert not hold_lease(tx, CONTROLLER, "c", T0, TTL)
        assert hold_lease(tx, CONTROLLER, "c", T0 - SECOND, TTL)


def test_the_clock_of_a_holder_goes_back(database: Database) -> None:
    with database.transaction() as tx:
        assert hold_lease(tx, CONTROLLER, "a", T0, TTL)
        assert hold_lease(tx, CONTROLLER, "a", T0 - DAY, TTL)
        assert not hold_lease(tx, CONTROLLER, "b", T0 - DAY + SECOND, TTL)
        assert hold_lease(tx, CONTROLLER, "b", T0, TTL)
