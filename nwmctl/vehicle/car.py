"""A car's computers on disk: one folder with two slots per computer, and the car's one record.

``car.json`` is the record of ``transaction``; a vehicle with one computer has its slots in its own folder, one with
several has ``computers/<name>/``. Every change is one atomic write to one of these memories, in the order that
``transaction`` gives. Keeps nothing in memory: after a power loss a new object on the same folder goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nwmctl.domain.computers import Computer
from nwmctl.domain.fleet import SlotFact, SlotFacts, SlotName
from nwmctl.domain.platform import Role
from nwmctl.errors import NoSlotToReturnToError, NwmError, SlotBrokenError, VehicleStateError
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.vehicle import disk, transaction
from nwmctl.vehicle.boot import BootState, SlotStatus
from nwmctl.vehicle.slots import BOOT_NAME, SlotFile, Slots
from nwmctl.vehicle.transaction import CarRecord, CarState, Phase, Step

CAR_NAME = "car.json"
COMPUTERS_NAME = "computers"
_SCHEMA = "nwmctl.car/1"


class Car:
    """The car in one vehicle's folder. Not safe for two writers: a vehicle has one client."""

    def __init__(self, folder: Path, computers: tuple[Computer, ...]) -> None:
        self._folder = folder
        self.computers = computers

    @classmethod
    def create(
        cls, folder: Path, computers: tuple[Computer, ...], sequence: int, files: Mapping[Role, Sequence[SlotFile]]
    ) -> Car:
        """The car as the factory leaves it: every computer has ``files`` of its role in slot a (may be none)."""
        car = cls(folder, computers)
        for each in computers:
            place = car._place(each.name)
            with disk.translated(place):
                place.mkdir(parents=True, exist_ok=True)
            if not (folder / CAR_NAME).exists() and len(computers) > 1:
                disk.remove_file(place / BOOT_NAME)  # a delivery that was cut short
            Slots.create(place, sequence, files.get(each.role, ()))
        car.keep(CarRecord(sequence))
        return car

    def slots(self, name: str) -> Slots:
        """The slots of one computer."""
        return Slots(self._place(name))

    def state(self) -> CarState:
        """Everything that is durable. Raises VehicleStateError."""
        memories = {each.name: self.slots(each.name).state() for each in self.computers}
        try:
            return CarState(self._record(memories), self.computers, memories)
        except ValueError as problem:
            raise self._damaged(str(problem)) from problem

    def keep(self, record: CarRecord) -> None:
        """Replace the car's record."""
        plain = to_plain(record)
        assert isinstance(plain, dict)
        disk.replace_file(self._folder / CAR_NAME, canonical.encode({"schema": _SCHEMA, **plain}))

    def do(self, step: Step) -> CarState:
        """Carry one step out: one write to one memory."""
        match step:
            case transaction.Decide(record):
                self.keep(record)
            case transaction.Switch(name):
                self.slots(name).activate()
            case transaction.Start(name):
                self.slots(name).start()
            case transaction.Commit(name):
                self.slots(name).commit()
            case transaction.FallBack(name):
                self.slots(name).fall_back()
            case transaction.Prove():
                pass
        return self.state()

    def install(self, sequence: int, files: Mapping[Role, Sequence[SlotFile]], before: Callable[[str], None]) -> None:
        """Write and read back the inactive slot of every computer; ``before`` is told whose turn it is.

        Raises SlotRuleError during a trial and what ``Slots.install`` raises; then no active slot has changed, and
        nothing can be activated before all computers hold the same.
        """
        transaction.refuse_unless_steady(self.state().record)
        for name in self.state().order:
            before(name)
            self.slots(name).install(sequence, files[self._role(name)])

    def active_file(self, name: str) -> Path | None:
        """Where a file of that name lies that some computer runs; its bytes are not looked at. None: nowhere."""
        for computer, memory in self.state().memories.items():
            place = self.slots(computer).folder_of(memory.active) / name
            if place.is_file():
                return place
        return None

    def holds(self, sequence: int, status: SlotStatus) -> bool:
        """Whether every computer's inactive slot holds ``sequence`` in that status."""
        car = self.state()
        found = [car.inactive(name) for name in car.order]
        return all((each.status, each.sequence) == (status, sequence) for each in found)

    def check_way_back(self, sequence: int) -> None:
        """Return if every computer's inactive slot was good once, is intact and holds ``sequence``.

        Raises NoSlotToReturnToError with the computer that has no way back."""
        car = self.state()
        for name in car.order:
            found, slot = car.inactive(name), car.memories[name].inactive
            try:
                if found.status is not SlotStatus.GOOD or found.sequence != sequence:
                    why = f"slot {slot} is {found.status} with sequence {found.sequence}"
                    raise _no_way_back(name, why, sequence)
                self.slots(name).prove(slot)
            except SlotBrokenError as problem:
                raise _no_way_back(name, f"{problem.what}: {problem.why}", sequence) from problem

    def facts(self) -> SlotFacts:
        """What the car as a whole has in its slots: a sequence that all computers have; intact where all are."""
        car = self.state()
        active = car.memories[self.computers[0].name].active
        each = [self.computer_facts(name, car.memories[name]) for name in car.order]
        return SlotFacts(active, _whole([one.a for one in each]), _whole([one.b for one in each]))

    def computer_facts(self, name: str, memory: BootState) -> SlotFacts:
        """What is in one computer's slots. Intact means fit to go back to: it was good once, and every byte is proven
        now."""
        a, b = (self._fact(name, memory, slot) for slot in SlotName)
        return SlotFacts(memory.active, a, b)

    def _fact(self, name: str, memory: BootState, slot: SlotName) -> SlotFact:
        found = memory.record(slot)
        if found.status in (SlotStatus.EMPTY, SlotStatus.UNBOOTABLE):
            return SlotFact(None, False)
        try:
            self.slots(name).prove(slot)
        except NwmError:
            return SlotFact(found.sequence, False)
        return SlotFact(found.sequence, found.status is SlotStatus.GOOD)

    def _record(self, memories: Mapping[str, BootState]) -> CarRecord:
        path = self._folder / CAR_NAME
        if not path.exists() and len(memories) == 1:
            # Delivered by an nwmctl that knew no car: its one computer knows all there is.
            (memory,) = memories.values()
            phase = Phase.TRIAL if memory.on_trial else Phase.STEADY
            return CarRecord(memory.record(memory.last_good).sequence, phase, memory.record(memory.active).sequence)
        try:
            plain = canonical.decode(disk.read_file(path), CAR_NAME)
            if not isinstance(plain, dict) or plain.pop("schema", None) != _SCHEMA:
                raise self._damaged(f"{CAR_NAME} is not {_SCHEMA}")
            return from_plain(CarRecord, plain, Source(CAR_NAME))
        except VehicleStateError:
            raise
        except NwmError as problem:
            raise self._damaged(problem.what) from problem

    def _damaged(self, why: str) -> VehicleStateError:
        return VehicleStateError(
            f"the state of the car '{self._folder.name}' cannot be believed",
            why=why,
            next="deliver the vehicle anew: its computers cannot be trusted to run the same software",
        )

    def _place(self, name: str) -> Path:
        return self._folder if len(self.computers) == 1 else self._folder / COMPUTERS_NAME / name

    def _role(self, name: str) -> Role:
        return next(each.role for each in self.computers if each.name == name)


def is_delivered(folder: Path) -> bool:
    """Whether a whole car lives in this folder."""
    return (folder / CAR_NAME).exists() or (folder / BOOT_NAME).exists()


def _whole(facts: Sequence[SlotFact]) -> SlotFact:
    sequences = {fact.sequence for fact in facts}
    if len(sequences) > 1:
        return SlotFact(None, False)
    return SlotFact(facts[0].sequence, all(fact.intact for fact in facts))


def _no_way_back(computer: str, why: str, sequence: int) -> NoSlotToReturnToError:
    return NoSlotToReturnToError(
        f"the vehicle cannot go back to sequence {sequence} by its inactive slots",
        why=f"{computer}: {why}",
        next="send the return bundle",
    )
