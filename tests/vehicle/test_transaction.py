"""The car's transaction: whoever is killed, whenever, in whatever order, all computers end in one software."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nwmctl.domain.computers import DRIVING, Computer, computers_of, in_restart_order
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.figure import Confidence
from nwmctl.domain.platform import Role, Seat, Variant
from nwmctl.errors import SlotRuleError
from nwmctl.vehicle import boot, transaction
from nwmctl.vehicle.boot import SlotStatus
from nwmctl.vehicle.transaction import (
    Blame,
    CarRecord,
    CarState,
    Commit,
    Decide,
    FallBack,
    Phase,
    Prove,
    Start,
    Switch,
    apply,
    begin,
    give_up,
    next_step,
    with_memory,
)

LISTING = digest_bytes(b"listing")
CARS = {
    "quad": ("main-1", "main-2", "backup-1", "fleet_learning-1"),
    "dual": ("main-1", "backup-1"),
    "single": ("main-1",),
}


def car_of(names: tuple[str, ...], sequence: int = 3) -> CarState:
    computers = tuple(Computer(name, Role(name.rpartition("-")[0])) for name in names)
    return CarState(CarRecord(sequence), computers, {name: boot.factory(sequence, LISTING) for name in names})


def filled(car: CarState, name: str, sequence: int) -> CarState:
    memory = boot.mark_installed(boot.mark_unbootable(car.memories[name]), sequence, LISTING)
    return with_memory(car, name, memory)


def held(names: tuple[str, ...], sequence: int = 4) -> CarState:
    car = car_of(names)
    for name in names:
        car = filled(car, name, sequence)
    return replace(car, record=begin(car, sequence))


def run(car: CarState, *, sick: frozenset[str] = frozenset()) -> tuple[CarState, list[transaction.Step]]:
    """To the end, without an interruption; ``sick`` computers never prove themselves."""
    up: set[str] = set()
    proven: set[str] = set()
    steps = []
    while (step := next_step(car, up, proven)) is not None:
        steps.append(step)
        match step:
            case Prove(name) if name in sick:
                car = replace(car, record=give_up(car.record, Blame(name, "Sick", "it is ill")))
            case Prove(name):
                proven.add(name)
            case _:
                car = apply(car, step)
                up |= {step.computer} if isinstance(step, Start) else set()
    return car, steps


def running(car: CarState) -> set[int]:
    return {memory.record(memory.active).sequence for memory in car.memories.values()}


class AnyKill(RuleBasedStateMachine):
    """Orders come, computers are killed and fall ill, the power goes: between any two durable writes."""

    @initialize(names=st.sampled_from(sorted(CARS.values())))
    def deliver(self, names: tuple[str, ...]) -> None:
        self.car = car_of(names)
        self.newest = 3
        self.up: set[str] = set()
        self.proven: set[str] = set()
        self.sick: set[str] = set()

    def _names(self) -> tuple[str, ...]:
        return self.car.order

    @precondition(lambda self: self.car.record.phase is Phase.STEADY)
    @rule(new=st.booleans())
    def aim(self, new: bool) -> None:
        self.newest += new

    @precondition(lambda self: self.car.record.phase is Phase.STEADY)
    @rule(data=st.data())
    def one_computer_is_filled(self, data: st.DataObject) -> None:
        self.car = filled(self.car, data.draw(st.sampled_from(self._names())), self.newest)

    @precondition(lambda self: self.car.record.phase is Phase.STEADY)
    @rule()
    def all_computers_are_filled(self) -> None:
        for name in self._names():
            self.car = filled(self.car, name, self.newest)

    @precondition(lambda self: self.car.record.phase is Phase.STEADY)
    @rule(data=st.data())
    def power_goes_while_a_slot_is_written(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._names()))
        self.car = with_memory(self.car, name, boot.mark_unbootable(self.car.memories[name]))

    @rule(sequence=st.integers(2, 8))
    def activate(self, sequence: int) -> None:
        before = self.car
        try:
            self.car = replace(self.car, record=begin(self.car, sequence))
        except SlotRuleError:
            assert self.car is before
            return
        for name in self._names():
            assert before.inactive(name).status in (SlotStatus.INSTALLED, SlotStatus.GOOD)
            assert before.inactive(name).sequence == sequence

    @rule(times=st.integers(1, 12))
    def go_on(self, times: int) -> None:
        for _ in range(times):
            step = next_step(self.car, self.up, self.proven)
            if step is None:
                return
            self._take(step)

    @rule(data=st.data())
    def a_computer_is_killed(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._names()))
        self.up.discard(name)
        self.proven.discard(name)

    @rule()
    def the_power_goes(self) -> None:
        self.up.clear()
        self.proven.clear()

    @rule(data=st.data())
    def a_computer_falls_ill_or_recovers(self, data: st.DataObject) -> None:
        self.sick ^= {data.draw(st.sampled_from(self._names()))}

    @rule()
    def everything_comes_to_rest(self) -> None:
        old = self.car.record
        for _ in range(200):
            step = next_step(self.car, self.up, self.proven)
            if step is None:
                break
            self._take(step)
        assert self.car.record.phase is Phase.STEADY, "a transaction ends"
        assert running(self.car) == {self.car.record.running}
        assert self.car.record.running in (old.running, old.asked)
        if old.phase is Phase.COMMITTING:
            assert self.car.record.running == old.asked, "what was decided stays decided"
        if old.phase is Phase.BACKING:
            assert self.car.record.running == old.running

    def _take(self, step: transaction.Step) -> None:
        if isinstance(step, Switch):
            self._others_stand_by(step.computer)
        if isinstance(step, Prove):
            if step.computer in self.sick:
                self.car = replace(self.car, record=give_up(self.car.record, Blame(step.computer, "Sick", "ill")))
            else:
                self.proven.add(step.computer)
            return
        highest = self.car.highest
        self.car = apply(self.car, step)
        assert self.car.highest >= highest
        if isinstance(step, Start):
            self.up.add(step.computer)

    def _others_stand_by(self, name: str) -> None:
        driving = {each.name for each in self.car.computers if each.role in DRIVING}
        for other in driving - {name}:
            assert not self.car.memories[other].on_trial or other in self.proven

    @invariant()
    def every_computer_has_the_old_software_good(self) -> None:
        if not hasattr(self, "car"):
            return
        old = self.car.record.running
        for memory in self.car.memories.values():
            good = [slot for slot in (memory.a, memory.b) if (slot.status, slot.sequence) == (SlotStatus.GOOD, old)]
            assert good, "no way back"

    @invariant()
    def nobody_runs_what_was_not_decided(self) -> None:
        if hasattr(self, "car"):
            assert running(self.car) <= {self.car.record.running, self.car.record.asked}


class TestAnyKill(AnyKill.TestCase):  # type: ignore[misc]
    """A sample; the long run follows."""

    settings = settings(max_examples=12, stateful_step_count=30, deadline=None)


@pytest.mark.long
class TestAnyKillLong(AnyKill.TestCase):  # type: ignore[misc]
    """The same with many more histories."""

    settings = settings(max_examples=600, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("names", CARS.values(), ids=CARS.keys())
def test_the_good_road(names: tuple[str, ...]) -> None:
    car, steps = run(held(names))
    assert running(car) == {4}
    assert car.record == CarRecord(4, Phase.STEADY, 4, 1)
    assert len(steps) == 4 * len(names) + 2


def test_who_does_not_drive_goes_first_and_the_backup_before_the_mains() -> None:
    _, steps = run(held(CARS["quad"]))
    switched = [step.computer for step in steps if isinstance(step, Switch)]
    assert switched == ["fleet_learning-1", "backup-1", "main-1", "main-2"]


@pytest.mark.parametrize("sick", CARS["quad"])
def test_one_sick_computer_takes_the_whole_car_back(sick: str) -> None:
    car, steps = run(held(CARS["quad"]), sick=frozenset({sick}))
    assert running(car) == {3}
    assert car.record.blame is not None
    assert car.record.blame.computer == sick
    assert not any(isinstance(step, Commit) for step in steps)
    touched = [step.computer for step in steps if isinstance(step, Switch)]
    assert [step.computer for step in steps if isinstance(step, FallBack)] == touched


@pytest.mark.parametrize("stop", range(18))
@pytest.mark.parametrize("ill", [False, True])
def test_a_power_loss_after_every_single_write(stop: int, ill: bool) -> None:
    """Exhaustive for the quad: the power goes after ``stop`` steps and comes back."""
    sick = frozenset({"main-2"} if ill else ())
    car, up, proven = held(CARS["quad"]), set[str](), set[str]()
    for _ in range(stop):
        step = next_step(car, up, proven)
        if step is None:
            break
        if isinstance(step, Prove) and step.computer in sick:
            car = replace(car, record=give_up(car.record, Blame(step.computer, "Sick", "ill")))
        elif isinstance(step, Prove):
            proven.add(step.computer)
        else:
            car = apply(car, step)
            up |= {step.computer} if isinstance(step, Start) else set()
    car, _ = run(car, sick=sick)
    assert running(car) == ({3} if ill else {4})


def test_a_computer_that_never_comes_up_is_given_up_by_its_own_boot_loader() -> None:
    car = held(CARS["dual"])
    for _ in range(8):  # the power goes each time before anything could be proven
        up: set[str] = set()
        while not isinstance(step := next_step(car, up, set()), Prove) and step is not None:
            car = apply(car, step)
            up |= {step.computer} if isinstance(step, Start) else set()
    assert car.record.phase is Phase.STEADY
    assert running(car) == {3}
    assert car.record.blame is not None
    assert (car.record.blame.computer, car.record.blame.reason) == ("backup-1", "TrialNotFinishedError")


def test_nothing_is_activated_before_every_computer_holds_it() -> None:
    car = car_of(CARS["quad"])
    for name in CARS["quad"][:-1]:
        car = filled(car, name, 4)
    with pytest.raises(SlotRuleError) as refused:
        begin(car, 4)
    assert "fleet_learning-1: empty 0" in refused.value.why


def test_a_second_order_waits_for_the_end_of_the_first() -> None:
    with pytest.raises(SlotRuleError, match="now"):
        begin(held(CARS["dual"]), 4)


def test_a_steady_car_that_runs_a_mixture_cannot_be_said() -> None:
    car = car_of(CARS["dual"])
    with pytest.raises(ValueError, match="its computer backup-1 runs 9"):
        with_memory(car, "backup-1", boot.factory(9, LISTING))
    with pytest.raises(ValueError, match="one memory per computer"):
        CarState(CarRecord(3), car.computers, {})


def test_what_was_decided_is_never_undecided() -> None:
    car = held(CARS["dual"])
    car = replace(car, record=give_up(car.record, Blame("main-1", "Sick", "ill")))
    assert next_step(car, {"main-1", "backup-1"}, {"main-1", "backup-1"}) == Decide(
        replace(car.record, phase=Phase.STEADY)
    )


def test_computers_are_named_by_role_and_number() -> None:
    def seat(role: Role, count: int) -> Seat:
        return Seat(role, "chip", count, "made up", Confidence.ASSUMED)

    seats = (seat(Role.MAIN, 2), seat(Role.BACKUP, 1), seat(Role.FLEET_LEARNING, 1))
    found = computers_of(Variant("quad", "r1", seats, (), "made up", Confidence.ASSUMED))
    assert tuple(each.name for each in found) == CARS["quad"]
    assert in_restart_order(found)[-1].name == "main-2"
    with pytest.raises(ValueError, match="is not called"):
        Computer("main-1", Role.BACKUP)
