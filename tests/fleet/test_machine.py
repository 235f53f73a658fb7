"""Whatever vehicles say, in whatever order, and whatever people do in between: the laws of campaigns hold."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.campaign import CampaignState
from nwmctl.domain.fleet import FINAL, AssignmentState
from nwmctl.errors import CampaignChangedError, IllegalTransitionError
from nwmctl.fleet.campaigns import abort, create_campaign, pause, resume, rollback, start
from nwmctl.fleet.consequences import Heard, Report
from nwmctl.fleet.controller import tick
from nwmctl.fleet.events import verify_chain
from nwmctl.fleet.offers import Act, open_action
from nwmctl.fleet.records import campaign_by_name
from nwmctl.fleet.reports import record_asked, record_report
from nwmctl.fleet.tally import actual, counted
from nwmctl.storage.database import Database
from nwmctl.storage.sqlite import open_sqlite
from tests.fleet import house
from tests.postgres import Cluster, postgres_stores

VINS = [vin for vin, _, _ in house.vins(2)]
NAME = "test-10"


class CampaignMachine(RuleBasedStateMachine):
    def __init__(self, open_database: Callable[[ExitStack, Path], Database]) -> None:
        super().__init__()
        self.open_database = open_database
        self.stack = ExitStack()
        self.now_us = house.T0
        self.closed: set[int] = set()
        self.final: dict[int, str] = {}

    @initialize()
    def open_campaign(self) -> None:
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.database = house.fleet_database(folder, per_model=2, database=self.open_database(self.stack, folder))
        create_campaign(self.database, house.release(), self.now_us)
        start(self.database, NAME, self.now_us)

    @rule(vin=st.sampled_from(VINS), back=st.integers(0, 2), heard=st.sampled_from(Heard), data=st.data())
    def report(self, vin: str, back: int, heard: Heard, data: st.DataObject) -> None:
        actions = self.database.reader.all("SELECT id FROM action WHERE vin = :vin ORDER BY id DESC", vin=vin)
        if len(actions) > back:
            stage = data.draw(st.none() | st.sampled_from(AssignmentState))
            before = self.states()
            with self.database.transaction() as tx:
                record_report(tx, vin, actions[back][0], Report(heard, stage, ("said",)), self.now_us)
            if actions[back][0] in self.closed:
                assert self.states() == before

    def states(self) -> list[tuple[object, ...]]:
        return self.database.reader.all("SELECT id, state, attempts, mode FROM assignment ORDER BY id")

    @rule(vin=st.sampled_from(VINS), works=st.booleans())
    def poll(self, vin: str, works: bool) -> None:
        with self.database.transaction() as tx:
            found = open_action(tx, vin, self.now_us)
            if isinstance(found, Act) and works:
                record_asked(tx, vin, found.action)
                record_report(tx, vin, found.action, Report(Heard.PROGRESS), self.now_us)

    @rule(vin=st.sampled_from(VINS))
    def commit(self, vin: str) -> None:
        with self.database.transaction() as tx:
            found = open_action(tx, vin, self.now_us)
            if isinstance(found, Act):
                record_report(tx, vin, found.action, Report(Heard.SUCCESS), self.now_us)

    @rule(vin=st.sampled_from(VINS), active=st.sampled_from([1, 10]), intact=st.booleans())
    def slots(self, vin: str, active: int, intact: bool) -> None:
        house.slots(self.database, vin, active, 11 - active, intact, self.now_us)

    @rule(seconds=st.sampled_from([0, 1, 100]))
    def tick(self, seconds: int) -> None:
        self.now_us += seconds * house.SECOND
        tick(self.database, self.now_us)

    @rule(order=st.sampled_from([pause, resume, resume, abort, rollback]))
    def person(self, order: object) -> None:
        try:
            order(self.database, NAME, "a person asked", self.now_us)  # type: ignore[operator]
        except (IllegalTransitionError, CampaignChangedError):
            return

    @invariant()
    def counters_equal_a_recount(self) -> None:
        generation = campaign_by_name(self.database.reader, NAME).generation
        for number in range(1, generation + 1):
            assert counted(self.database.reader, 1, number) == actual(self.database.reader, 1, number)

    @invariant()
    def what_is_closed_stays_closed(self) -> None:
        closed = {row[0] for row in self.database.reader.all("SELECT id FROM action WHERE state = 'closed'")}
        assert closed >= self.closed
        self.closed = closed
        states = dict(self.database.reader.all("SELECT id, state FROM assignment"))
        assert all(states[known] == state for known, state in self.final.items())
        self.final = {known: state for known, state in states.items() if AssignmentState(state) in FINAL}

    @invariant()
    def flags_and_attempts_fit_the_states(self) -> None:
        for state, is_open, attempts in self.database.reader.all("SELECT state, is_open, attempts FROM assignment"):
            assert bool(is_open) is (AssignmentState(state) not in FINAL)
            assert attempts <= house.release().max_attempts
        assert not self.database.reader.all(
            "SELECT 1 FROM action x JOIN assignment a ON a.id = x.assignment_id "
            "WHERE x.state = 'open' AND a.is_open = 0"
        )

    @invariant()
    def a_vehicle_owes_one_thing(self) -> None:
        assert not self.database.reader.all(
            "SELECT vin FROM assignment WHERE is_open = 1 GROUP BY vin HAVING count(*) > 1"
        )
        campaign = campaign_by_name(self.database.reader, NAME)
        assert (campaign.generation > 1) is (campaign.kind is BundleKind.RETURN)
        if campaign.state is CampaignState.ROLLED_BACK:
            assert not self.database.reader.all("SELECT 1 FROM assignment WHERE is_open = 1")

    def teardown(self) -> None:
        with self.stack:
            if hasattr(self, "database"):
                verify_chain(self.database.reader)


def in_sqlite(stack: ExitStack, folder: Path) -> Database:
    database = stack.enter_context(open_sqlite(folder / "fleet.db"))
    # The laws do not depend on durability, and disks are slow.
    database._connection().execute("PRAGMA synchronous = OFF")
    return database


def check(open_database: Callable[[ExitStack, Path], Database], examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: CampaignMachine(open_database),
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_the_laws_hold() -> None:
    check(in_sqlite, 25)


def test_the_laws_hold_in_postgresql(postgres: Cluster) -> None:
    check(lambda stack, folder: stack.enter_context(postgres_stores(postgres)).open(), 10)
