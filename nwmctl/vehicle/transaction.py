"""One update of a whole vehicle: all of its computers end in the old software or all in the new one.

Pure. Each computer has a boot loader's memory of its own (``boot``); the car has one record, kept by its first
computer, and the only thing that makes an update one is a single write to that record. ``next_step`` says which one
durable write comes next, given what is durable and which computers are up and proven since the power came; whoever
carries the steps out may stop after any of them, for ever or until the power returns, and asks again.

    steady ── begin ──> trial ── all proven ──> committing ── all committed ──> steady, new software
                          └───── one failed ──> backing ───── all back ──────> steady, old software

Laws, in every reachable state: ``begin`` is possible only while every computer holds the new software, installed and
proven, in its inactive slot; until the last write of a transaction every computer has the old software, good and
untouched; what was decided (committing, backing) is never undecided; a steady car runs one sequence on all computers.
While a driving computer restarts into the new software, every other driving computer runs software that is proven.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from nwmctl.domain.computers import Computer, in_restart_order
from nwmctl.errors import SlotRuleError, TrialNotFinishedError
from nwmctl.vehicle import boot
from nwmctl.vehicle.boot import BootState, SlotRecord, SlotStatus


class Phase(StrEnum):
    """Where the car's update stands."""

    STEADY = "steady"
    """Nothing is on trial; inactive slots may be written."""
    TRIAL = "trial"
    """Computers restart into the new software, one after the other, and prove themselves."""
    COMMITTING = "committing"
    """All have proven themselves: every computer keeps the new software."""
    BACKING = "backing"
    """One has failed: every computer goes back to the old software."""


@dataclass(frozen=True, slots=True)
class Blame:
    """Why an update was given up: which computer, the refusal's class, and words for people."""

    computer: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class CarRecord:
    """What the car knows. ``running``: the sequence that is committed on all computers; ``asked``: the one of the
    present transaction or the last; ``number`` counts transactions; ``blame``: why the last one was given up."""

    running: int
    phase: Phase = Phase.STEADY
    asked: int = 0
    number: int = 0
    blame: Blame | None = None

    def __post_init__(self) -> None:
        if self.phase is Phase.BACKING and self.blame is None:
            raise ValueError("a car that goes back knows which computer failed")
        if self.phase in (Phase.TRIAL, Phase.COMMITTING) and self.blame is not None:
            raise ValueError(f"a car that is {self.phase} blames nobody")


@dataclass(frozen=True, slots=True)
class CarState:
    """A car: its record, its computers, and each one's memory by name."""

    record: CarRecord
    computers: tuple[Computer, ...]
    memories: Mapping[str, BootState]

    def __post_init__(self) -> None:
        if {each.name for each in self.computers} != set(self.memories):
            raise ValueError("there is one memory per computer")
        if self.record.phase is Phase.STEADY:
            for name, memory in self.memories.items():
                runs = memory.record(memory.active).sequence
                if memory.on_trial or runs != self.record.running:
                    raise ValueError(f"the car runs {self.record.running}, its computer {name} runs {runs}")

    @property
    def order(self) -> tuple[str, ...]:
        """The computers' names, in the order of a restart."""
        return tuple(each.name for each in in_restart_order(self.computers))

    @property
    def highest(self) -> int:
        """The highest sequence that any computer committed, or that is decided to be."""
        decided = self.record.asked if self.record.phase is Phase.COMMITTING else 0
        return max(decided, *(memory.highest for memory in self.memories.values()))

    def inactive(self, name: str) -> SlotRecord:
        """The slot that a computer does not run."""
        memory = self.memories[name]
        return memory.record(memory.inactive)


@dataclass(frozen=True, slots=True)
class Switch:
    """Let a computer's next start run its inactive slot, on trial."""

    computer: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a computer whose slot is on trial."""

    computer: str


@dataclass(frozen=True, slots=True)
class Prove:
    """Check the health of a computer on trial; a failure is answered with ``give_up``."""

    computer: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Keep what a computer has on trial."""

    computer: str


@dataclass(frozen=True, slots=True)
class FallBack:
    """Let a computer go back to its last good slot."""

    computer: str


@dataclass(frozen=True, slots=True)
class Decide:
    """Replace the car's record."""

    record: CarRecord


Step = Switch | Start | Prove | Commit | FallBack | Decide


def next_step(car: CarState, up: Set[str], proven: Set[str]) -> Step | None:
    """The next step; None for a steady car. ``up`` are the computers on trial that have started since the power came,
    ``proven`` those whose health was checked since."""
    match car.record.phase:
        case Phase.STEADY:
            return None
        case Phase.TRIAL:
            return _try(car, up, proven)
        case Phase.COMMITTING:
            for name in car.order:
                if car.memories[name].on_trial:
                    return Commit(name)
            return Decide(CarRecord(car.record.asked, Phase.STEADY, car.record.asked, car.record.number))
        case Phase.BACKING:
            for name in car.order:
                if car.memories[name].on_trial:
                    return FallBack(name)
            return Decide(replace(car.record, phase=Phase.STEADY))
        case _:
            assert_never(car.record.phase)


def _try(car: CarState, up: Set[str], proven: Set[str]) -> Step:
    for name in car.order:
        if not car.memories[name].on_trial:
            if _holds(car.inactive(name), car.record.asked):
                return Switch(name)
            return Decide(give_up(car.record, _unfinished(car, name)))
        if name not in up:
            return Start(name)
        if name not in proven:
            return Prove(name)
    return Decide(replace(car.record, phase=Phase.COMMITTING))


def apply(car: CarState, step: Step) -> CarState:
    """The car after a step. A proof changes nothing that is durable."""
    match step:
        case Decide(record):
            return replace(car, record=record)
        case Prove():
            return car
        case Switch(name):
            return with_memory(car, name, boot.activate(car.memories[name]))
        case Start(name):
            return with_memory(car, name, boot.start(car.memories[name]))
        case Commit(name):
            return with_memory(car, name, boot.commit(car.memories[name]))
        case FallBack(name):
            return with_memory(car, name, boot.fall_back(car.memories[name]))
        case _:
            assert_never(step)


def with_memory(car: CarState, name: str, memory: BootState) -> CarState:
    """The car with another memory of one computer."""
    return replace(car, memories={**car.memories, name: memory})


def begin(car: CarState, sequence: int) -> CarRecord:
    """The record that puts ``sequence`` on trial. Raises SlotRuleError unless every computer holds it."""
    refuse_unless_steady(car.record)
    missing = [name for name in car.order if not _holds(car.inactive(name), sequence)]
    if missing:
        found = ", ".join(f"{name}: {car.inactive(name).status} {car.inactive(name).sequence}" for name in missing)
        raise SlotRuleError(
            f"sequence {sequence} cannot be activated",
            why=f"not every computer holds it ({found})",
            next="install the bundle on all computers first",
        )
    return CarRecord(car.record.running, Phase.TRIAL, sequence, car.record.number + 1)


def give_up(record: CarRecord, blame: Blame) -> CarRecord:
    """The record after a computer on trial has failed."""
    return replace(record, phase=Phase.BACKING, blame=blame)


def refuse_unless_steady(record: CarRecord) -> None:
    """Raises SlotRuleError while an update is being tried, kept or taken back."""
    if record.phase is not Phase.STEADY:
        raise SlotRuleError(
            "no slot of the car can be written or activated now",
            why=f"the car is {record.phase} with sequence {record.asked}",
            next="let the trial end (commit or fall back), then install again",
        )


def _holds(found: SlotRecord, sequence: int) -> bool:
    return found.status in (SlotStatus.INSTALLED, SlotStatus.GOOD) and found.sequence == sequence


def _unfinished(car: CarState, name: str) -> Blame:
    memory = car.memories[name]
    text = f"slot {memory.inactive} did not finish its trial; slot {memory.active} runs again"
    return Blame(name, TrialNotFinishedError.__name__, text)
