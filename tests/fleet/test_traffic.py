"""A campaign's byte budget: reserved with the offer, never exceeded, and nobody is deferred without a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.domain.fleet import AssignmentState
from nwmctl.domain.release import Gate, WaveSpec
from nwmctl.domain.traffic import ByteBudget, LinkClass, Spent
from nwmctl.fleet.campaigns import create_campaign, rollback, start
from nwmctl.fleet.consequences import Heard
from nwmctl.fleet.offers import Act, Idle, Owed, open_action, standing
from nwmctl.fleet.reports import record_attributes
from nwmctl.fleet.status import status, story
from nwmctl.fleet.tally import actual, counted
from nwmctl.fleet.traffic import CensusRow, account, census
from nwmctl.storage.database import Database
from tests.fleet import house
from tests.fleet.house import T0, finish, say, state_of, wave_vins
from tests.postgres import Stores

NAME = "test-10"
SIZE = len(b"bundle")
ONE_WAVE = (WaveSpec("all", Gate(min_committed=1.0, max_failed=1.0), share=1.0),)


def opened(stores: Stores, folder: Path, budget: ByteBudget | None) -> Database:
    database = house.fleet_database(folder, database=stores.open())
    create_campaign(database, house.release(bytes=budget, waves=ONE_WAVE), T0)
    start(database, NAME, T0)
    return database


def hang_on(database: Database, vin: str, link: str) -> None:
    with database.transaction() as tx:
        record_attributes(tx, vin, {"link": link}, None, T0)


def ask(database: Database, vin: str) -> Act | Idle:
    with database.transaction() as tx:
        found = open_action(tx, vin, T0)
    assert isinstance(found, Act | Idle)
    return found


def spent(database: Database) -> Spent:
    row = database.reader.one("SELECT id FROM campaign WHERE name = :name", name=NAME)
    assert row is not None
    held = account(database.reader, row[0])
    assert held is not None
    return held.spent


def test_the_census_counts_versions_and_links(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, None)
    hang_on(database, "VINet700000", "wifi")
    hang_on(database, "VINet700001", "LTE")
    assert census(database.reader, "test") == (
        CensusRow("nt2.0", "base", 1, LinkClass.CELLULAR, 5),
        CensusRow("nt2.0", "base", 1, LinkClass.WIFI, 1),
        CensusRow("nt3.0", "base", 1, LinkClass.CELLULAR, 3),
    )


def test_a_full_bundle_waits_for_another_link(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, ByteBudget())
    vin = wave_vins(database, 1)[0]
    assert isinstance(standing(database.reader, vin), Owed)
    assert ask(database, vin) == Idle()
    assert state_of(database, vin) is AssignmentState.DEFERRED
    assert standing(database.reader, vin) == Idle(), "a deferred vehicle's polls write nothing"
    (line,) = [line for line in story(database, vin) if line.what == "deferred"]
    assert "not sent over a cellular link" in str(line.data["reason"])
    assert spent(database) == Spent()
    hang_on(database, vin, "wifi")
    assert isinstance(standing(database.reader, vin), Owed)
    finish(database, vin)
    assert state_of(database, vin) is AssignmentState.COMMITTED
    assert spent(database) == Spent(0, SIZE)


@pytest.mark.parametrize("kind", ["cellular", "total"])
def test_a_budget_is_never_exceeded(stores: Stores, tmp_path: Path, kind: str) -> None:
    limits = {f"{kind}_budget": 4 * SIZE + 1}
    database = opened(stores, tmp_path, ByteBudget(**limits, full_on_cellular=True))
    vins = wave_vins(database, 1)
    answers = [ask(database, vin) for vin in vins]
    assert [isinstance(each, Act) for each in answers] == [True] * 4 + [False] * 5
    assert spent(database) == Spent(4 * SIZE, 4 * SIZE)
    states = [state_of(database, vin) for vin in vins]
    assert states.count(AssignmentState.DEFERRED) == 5
    assert f"the {kind} budget of {4 * SIZE + 1} bytes" in str(story(database, vins[-1])[-1].data["reason"])
    campaign = 1
    assert counted(database.reader, campaign, 1) == actual(database.reader, campaign, 1)


def test_a_second_attempt_is_paid_for_too(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, ByteBudget(total_budget=SIZE, full_on_cellular=True))
    vin = wave_vins(database, 1)[0]
    first = ask(database, vin)
    assert isinstance(first, Act)
    say(database, vin, first.action, Heard.FAILURE)
    assert ask(database, vin) == Idle()
    assert state_of(database, vin) is AssignmentState.DEFERRED


def test_the_way_back_is_not_held_back(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, ByteBudget(total_budget=SIZE, full_on_cellular=True))
    served, waiting = wave_vins(database, 1)[:2]
    finish(database, served)
    assert ask(database, waiting) == Idle()
    assert rollback(database, NAME, "test", T0).by_bundle == 1
    finish(database, served)
    assert state_of(database, served, 2) is AssignmentState.COMMITTED
    assert state_of(database, waiting) is AssignmentState.SUPERSEDED


def test_the_status_tells_what_was_spent(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, ByteBudget(total_budget=100))
    hang_on(database, wave_vins(database, 1)[0], "ethernet")
    ask(database, wave_vins(database, 1)[0])
    now = status(database, NAME, T0)
    assert now.traffic is not None
    assert (now.traffic.budget.total_budget, now.traffic.spent.total) == (100, SIZE)


def test_without_a_budget_nothing_is_counted(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, None)
    assert all(isinstance(ask(database, vin), Act) for vin in wave_vins(database, 1))
    assert database.reader.all("SELECT * FROM campaign_bytes") == []
    assert status(database, NAME, T0).traffic is None
