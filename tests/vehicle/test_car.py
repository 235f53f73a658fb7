"""Several computers on disk: one update, whatever dies in between, and what the gateway is told about it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.fleet import AssignmentState, SlotFact, SlotFacts, SlotName
from nwmctl.errors import NoSlotToReturnToError, SlotRuleError, VehicleStateError
from nwmctl.formats import ddi
from nwmctl.trust.keys import KeyRing
from nwmctl.vehicle import disk
from nwmctl.vehicle.boot import SlotStatus
from nwmctl.vehicle.car import CAR_NAME, COMPUTERS_NAME, Car
from nwmctl.vehicle.faults import PowerLoss, Trouble, plan_from_text
from nwmctl.vehicle.machine import Machine, Senses
from nwmctl.vehicle.pending import Ending, Pending, Stage, Way
from nwmctl.vehicle.record import load_record
from nwmctl.vehicle.reporting import COMPUTER_DETAIL, REASON_DETAIL
from nwmctl.vehicle.transaction import Phase
from tests.vehicle.bundles import QUAD, RECORD
from tests.vehicle.conftest import TestClock
from tests.vehicle.world import World

S = AssignmentState
FOUR = replace(RECORD, computers=QUAD)
NAMES = tuple(each.name for each in QUAD)


@pytest.fixture
def world(tmp_path: Path, clock: TestClock, keyring: KeyRing) -> World:
    return World(tmp_path / RECORD.vin, clock, keyring, record=FOUR)


def car(world: World) -> Car:
    return Car(world.folder, QUAD)


def runs(world: World) -> set[int]:
    state = car(world).state()
    return {memory.record(memory.active).sequence for memory in state.memories.values()}


def details(world: World) -> tuple[str, ...]:
    return world.gateway.closings[-1].details


def test_every_computer_gets_what_its_role_names(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    assert runs(world) == {4}
    held = {name: {path.name for path in (world.folder / COMPUTERS_NAME / name / "slot-b").iterdir()} for name in NAMES}
    both = {"bundle.json", "slot.json", "chassis-et5.json"}
    assert held["main-1"] == held["main-2"] == held["fleet_learning-1"] == both | {"quad.vmfb", "quad.json"}
    assert held["backup-1"] == both | {"cpu.vmfb", "cpu.json"}
    assert world.gateway.facts() == SlotFacts(SlotName.B, SlotFact(3, True), SlotFact(4, True))
    assert world.gateway.attributes[0][ddi.COMPUTERS] == "main-1 main-2 backup-1 fleet_learning-1"
    said = details(world)[-1]
    assert "backup-1: slot b: 4 files" in said
    assert "fleet_learning-1, main-1, main-2: slot b: 4 files" in said


@pytest.mark.parametrize("sick", NAMES)
def test_a_sick_computer_takes_the_car_back_and_is_named(world: World, sick: str) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive(f"health={sick}")
    assert runs(world) == {3}
    assert world.gateway.closings[-1].stage is S.ROLLED_BACK
    assert f"{COMPUTER_DETAIL}{sick}" in details(world)
    assert f"{REASON_DETAIL}HealthCheckFailedError" in details(world)
    assert details(world)[-1].startswith(f"{sick}: ")
    # Some computers hold the new software, others gave it up: the car as a whole has one slot to run.
    assert world.gateway.facts() == SlotFacts(SlotName.A, SlotFact(3, True), SlotFact(None, False))


def test_a_disk_that_is_full_on_one_computer(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive("no_space=main-2")
    assert runs(world) == {3}
    assert f"{COMPUTER_DETAIL}main-2" in details(world)
    assert world.gateway.closings[-1].stage is S.FAILED
    with pytest.raises(SlotRuleError):
        Machine(world.folder, Senses(world.clock), Trouble()).activate(Pending(9, Way.BUNDLE, 4, Stage.INSTALLED))
    world.gateway.offer_bundle(8, 4, world.swu(4).read_bytes())
    world.drive()
    assert runs(world) == {4}


@pytest.mark.parametrize("name", NAMES)
def test_the_power_goes_while_one_computer_restarts(world: World, name: str) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive(f"power={name}")
    assert world.lives == 2
    assert runs(world) == {4}
    assert world.gateway.closings[-1].stage is S.COMMITTED


def test_back_by_the_slots_of_all_computers(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    world.gateway.offer(8, ddi.PART_SLOT, 3)
    world.drive("health=main-2")
    assert runs(world) == {4}, "a return that fails leaves the car where it was"
    world.gateway.offer_bundle(9, 5, world.swu(5).read_bytes())
    world.drive()
    world.gateway.offer(10, ddi.PART_SLOT, 4)
    world.drive()
    assert runs(world) == {4}
    assert world.gateway.closings[-1].stage is S.COMMITTED


def test_one_damaged_slot_and_there_is_no_way_back(world: World) -> None:
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    (world.folder / COMPUTERS_NAME / "backup-1" / "slot-a" / "cpu.vmfb").write_bytes(b"rotten")
    with pytest.raises(NoSlotToReturnToError) as refused:
        car(world).check_way_back(3)
    assert refused.value.why.startswith("backup-1: ")
    assert car(world).facts().a == SlotFact(3, False)


def test_a_car_whose_computers_run_a_mixture_is_not_believed(world: World) -> None:
    other = world.folder / COMPUTERS_NAME / "main-2"
    shutil.rmtree(other)
    shutil.copytree(world.folder / COMPUTERS_NAME / "main-1", other)
    text = (
        (other / "boot.json").read_text().replace('"sequence":3', '"sequence":2').replace('"highest":3', '"highest":2')
    )
    (other / "boot.json").write_text(text)
    with pytest.raises(VehicleStateError) as refused:
        car(world).state()
    assert "its computer main-2 runs 2" in refused.value.why


@pytest.mark.parametrize("data", [b"", b"{}", b'{"phase":"backing","running":3,"schema":"nwmctl.car/1"}'])
def test_a_damaged_record(world: World, data: bytes) -> None:
    (world.folder / CAR_NAME).write_bytes(data)
    with pytest.raises(VehicleStateError):
        car(world).state()


def test_a_vehicle_of_an_earlier_nwmctl_goes_on(tmp_path: Path, clock: TestClock, keyring: KeyRing) -> None:
    old = World(tmp_path / RECORD.vin, clock, keyring)
    (old.folder / CAR_NAME).unlink()
    old.gateway.offer_bundle(7, 4, old.swu(4).read_bytes())
    old.drive()
    assert old.gateway.closings[-1].stage is S.COMMITTED
    assert old.state.highest == 4


# --- the power goes at any durable write --------------------------------------------------------------------------


@contextmanager
def power_until(writes: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Power for so many durable writes; the one after them does not happen."""
    done = 0
    real_replace, real_create = disk.replace_file, disk.create_file

    def count() -> None:
        nonlocal done
        if done == writes:
            raise PowerLoss
        done += 1

    def replace_file(path: Path, data: bytes) -> None:
        count()
        real_replace(path, data)

    def create_file(path: Path, chunks: Iterator[bytes]) -> None:
        count()
        real_create(path, chunks)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "replace_file", replace_file)
        patch.setattr(disk, "create_file", create_file)
        yield lambda: done


def update(folder: Path, bundle: Path, clock: TestClock, faults: str = "") -> Pending | None:
    """The order of one bundle, from wherever an earlier try stopped."""
    trouble = Trouble.of(plan_from_text(faults), RECORD.vin, RECORD.vehicle_model)
    machine = Machine(folder, Senses(clock), trouble)
    known = machine.power_on()
    if known is not None and known.outcome is not None:
        return known
    action = machine.begin(7, Way.BUNDLE, 4)
    if not (action.stage is Stage.INSTALLED and machine.is_installed(4)):
        part = folder / "arrived.swu"
        shutil.copyfile(bundle, part)
        action = machine.install(part, action)
    machine.activate(action)
    return machine.power_on()


def _moments(folder: Path, bundle: Path, clock: TestClock, faults: str, monkeypatch: pytest.MonkeyPatch) -> int:
    trial = folder.parent / "count"
    shutil.copytree(folder, trial)
    with power_until(10_000, monkeypatch) as done:
        update(trial, bundle, clock, faults)
    shutil.rmtree(trial)
    return done()


def _dies_everywhere(world: World, monkeypatch: pytest.MonkeyPatch, ill: bool, sample: int | None) -> None:
    bundle = world.swu(4, size=20)
    faults = "health=main-1::100%:99" if ill else ""
    moments = _moments(world.folder, bundle, world.clock, faults, monkeypatch)
    assert moments > 40
    chosen = range(moments) if sample is None else sorted(random.Random(4).sample(range(moments), sample))
    for moment in chosen:
        folder = world.folder.parent / f"at-{moment}"
        shutil.copytree(world.folder, folder)
        with pytest.raises(PowerLoss), power_until(moment, monkeypatch):
            update(folder, bundle, world.clock, faults)
        machine = Machine(folder, Senses(world.clock), Trouble.of(plan_from_text(faults), RECORD.vin, "et5"))
        machine.power_on()
        state = machine.car.state()
        assert state.record.phase is Phase.STEADY
        for name in NAMES:
            memory = state.memories[name]
            assert machine.car.slots(name).prove(memory.active), "what runs is whole"
            assert memory.record(memory.active).status is SlotStatus.GOOD
            assert memory.record(memory.active).sequence == state.record.running
        ended = update(folder, bundle, world.clock, faults)
        assert ended is not None
        assert ended.outcome is not None
        assert ended.outcome.ending is (Ending.ROLLED_BACK if ill else Ending.COMMITTED)
        assert machine.car.state().record.running == (3 if ill else 4)
        shutil.rmtree(folder)


@pytest.mark.parametrize("ill", [False, True])
def test_the_power_goes_at_sampled_writes(world: World, monkeypatch: pytest.MonkeyPatch, ill: bool) -> None:
    _dies_everywhere(world, monkeypatch, ill, 4)


@pytest.mark.long
@pytest.mark.parametrize("ill", [False, True])
def test_the_power_goes_at_every_write(world: World, monkeypatch: pytest.MonkeyPatch, ill: bool) -> None:
    _dies_everywhere(world, monkeypatch, ill, None)


def test_the_record_of_a_car_is_kept(world: World) -> None:
    assert load_record(world.folder) == FOUR
