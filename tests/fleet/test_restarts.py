"""When a vehicle counts as having begun anew: never for asking, always for beginning, whatever kind of client it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.domain.fleet import AssignmentState
from nwmctl.errors import UnknownVehicleError
from nwmctl.fleet.campaigns import create_campaign, start
from nwmctl.fleet.consequences import Heard, Report
from nwmctl.fleet.offers import Idle, Stop, offer, standing
from nwmctl.fleet.reports import record_asked, record_report
from nwmctl.fleet.restarts import Run, begins_anew
from nwmctl.storage.database import Database
from tests.fleet import house
from tests.fleet.house import SECOND, T0

DOWNLOADING, INSTALLED, TRIAL = AssignmentState.DOWNLOADING, AssignmentState.INSTALLED, AssignmentState.TRIAL
MAX = house.release().max_attempts
BEGIN = "Installing Update Chunk Artifacts."


def counting(done: int, of: int, text: str = "") -> Report:
    return Report(Heard.PROGRESS, None, (text,) if text else (), (done, of))


def naming(stage: AssignmentState) -> Report:
    return Report(Heard.PROGRESS, stage, (f"nwm.stage={stage}",))


def saying(*details: str) -> Report:
    return Report(Heard.PROGRESS, None, details)


def swupdate(reports: int) -> list[Report]:
    """One run as Debian's 2022.12 was heard: its first words, then log lines that count on as so much of nothing."""
    return [counting(0, 1, BEGIN), *(counting(number, 0, f"line {number}") for number in range(reports - 1))]


KINDS = {
    "swupdate": swupdate(6),
    "its own stages": [naming(DOWNLOADING), naming(INSTALLED), naming(TRIAL)],
    "per cent": [counting(percent, 100) for percent in (0, 10, 10, 35, 99)],
    "sentences": [saying("Started."), saying("Download complete. 3.1 MB/s"), saying("File checksum OK.")],
}


@dataclass
class Car:
    """One vehicle at work on one action."""

    database: Database
    vin: str
    action: int
    now_us: int = T0

    def ask(self) -> None:
        if offer(self.database.reader, self.vin, self.action).begun:
            with self.database.transaction() as tx:
                record_asked(tx, self.vin, self.action)

    def say(self, report: Report) -> None:
        with self.database.transaction() as tx:
            record_report(tx, self.vin, self.action, report, self.now_us)

    @property
    def restarts(self) -> int:
        row = self.database.reader.one("SELECT restarts FROM action WHERE id = :id", id=self.action)
        assert row is not None
        return int(row[0])

    @property
    def state(self) -> AssignmentState:
        return house.state_of(self.database, self.vin)


@pytest.fixture
def car(tmp_path: Path) -> Iterator[Car]:
    with house.fleet_database(tmp_path) as database:
        create_campaign(database, house.release(), T0)
        start(database, "test-10", T0)
        vin = house.wave_vins(database, 1)[0]
        yield Car(database, vin, house.act(database, vin))


def test_an_hour_of_downloading_with_a_poll_every_second_is_one_run(car: Car) -> None:
    told = iter(swupdate(301))
    for second in range(3600):
        car.now_us = T0 + second * SECOND
        assert not isinstance(standing(car.database.reader, car.vin), Idle)
        car.ask()
        if second % 12 == 0:
            car.say(next(told))
    assert (car.restarts, car.state) == (0, DOWNLOADING)
    car.say(Report(Heard.SUCCESS))
    assert car.state is AssignmentState.COMMITTED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("polls", [1, 7])
def test_asking_in_between_changes_nothing(car: Car, kind: str, polls: int) -> None:
    for report in KINDS[kind]:
        for _ in range(polls):
            car.ask()
        car.say(report)
    assert car.restarts == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reports", [1, 2, 3])
def test_a_loop_of_power_losses_ends_wherever_the_power_goes(car: Car, kind: str, reports: int) -> None:
    for run in range(MAX + 1):
        assert car.restarts == max(run - 1, 0), "each run is counted once"
        car.ask()
        for report in KINDS[kind][:reports]:
            car.say(report)
            car.ask()
    assert (car.restarts, car.state == AssignmentState.FAILED) == (MAX, False)
    car.say(KINDS[kind][0])
    assert car.state is AssignmentState.FAILED
    # It is at it again, so it is asked to stop; nothing is offered to it any more.
    assert standing(car.database.reader, car.vin) == Stop(car.action)
    with pytest.raises(UnknownVehicleError):
        offer(car.database.reader, car.vin, car.action)
    car.say(Report(Heard.CANCELLED))
    assert (standing(car.database.reader, car.vin), car.state) == (Idle(), AssignmentState.FAILED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_that_is_sent_twice_is_no_restart(car: Car, kind: str) -> None:
    car.ask()
    for report in KINDS[kind]:
        for _ in range(3):
            car.say(report)
    assert car.restarts == 0


def test_what_a_vehicle_says_while_it_waits_is_no_restart(car: Car) -> None:
    car.say(saying("asking the driver"))
    for _ in range(10):
        car.ask()
        car.say(Report(Heard.PROGRESS, AssignmentState.DEFERRED, ("asking the driver",)))
    assert car.restarts == 0


def test_a_success_after_many_questions_commits(car: Car) -> None:
    for report in swupdate(4):
        car.ask()
        car.say(report)
    car.ask()
    car.say(Report(Heard.SUCCESS))
    assert (car.restarts, car.state) == (0, AssignmentState.COMMITTED)


@given(st.lists(st.integers(0, 100)), st.integers(1, 100))
def test_a_count_that_never_falls_never_counts_as_a_restart(counts: list[int], of: int) -> None:
    highest: int | None = None
    at_zero = False
    for done in sorted(counts):
        if not (done == 0 and at_zero):  # nothing of something is said once by one run
            assert not begins_anew(counting(done, of), Run(count=highest, at_zero=at_zero))
        at_zero |= done == 0
        highest = done


@given(st.sampled_from([heard for heard in Heard if heard is not Heard.PROGRESS]), st.sampled_from(AssignmentState))
def test_only_a_report_on_the_way_can_be_a_beginning(heard: Heard, stage: AssignmentState) -> None:
    everything = Run(frozenset({TRIAL}), 5, at_zero=True, repeats=True)
    assert not begins_anew(Report(heard, stage, ("said",), (0, 1)), everything)
