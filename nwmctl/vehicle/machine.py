"""The vehicle without its network: its computers, the action at hand, starting, installing, going back.

Everything here is on disk between two calls, so that a restart is a call of ``power_on`` and nothing else. The order
of the writes is what makes power loss harmless: first the action's stage, then the car's record; ``power_on`` tells
from both what really happened, and carries the car's transaction on to its end. Does not speak to anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.domain.fleet import SlotFacts
from nwmctl.domain.requires import Reported
from nwmctl.errors import BundleContentsError, HealthCheckFailedError, NwmError
from nwmctl.trust.cms import verify_cms
from nwmctl.vehicle import disk, pending, record
from nwmctl.vehicle.boot import SlotStatus
from nwmctl.vehicle.car import Car
from nwmctl.vehicle.carried import carried_in
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.health import VIRTUAL_PLATFORM, Infer, check_health
from nwmctl.vehicle.opening import Lacks, open_bundle
from nwmctl.vehicle.pending import Ending, Outcome, Pending, Stage, Way
from nwmctl.vehicle.slots import Slots
from nwmctl.vehicle.timefloor import TimeFloor
from nwmctl.vehicle.transaction import (
    Blame,
    CarRecord,
    Decide,
    Phase,
    Prove,
    Start,
    Switch,
    begin,
    give_up,
    next_step,
)


@dataclass(frozen=True, slots=True)
class Senses:
    """What a vehicle's machine is given from outside. ``infer`` is None where nothing can run inference, ``lacks``
    where nobody knows what could; ``runtimes`` gives name and version of those that this host has; ``payload_key``
    opens encrypted payloads."""

    clock: Clock
    infer: Infer | None = None
    lacks: Lacks | None = None
    runtimes: Callable[[], dict[str, str]] | None = None
    payload_key: bytes | None = field(default=None, repr=False)


class Machine:
    """One vehicle in its folder. Raises VehicleStateError if the folder holds no vehicle.

    ``at_hand`` names the computer that an installation is working on, for whoever tells of its failure."""

    def __init__(self, folder: Path, senses: Senses, trouble: Trouble) -> None:
        self.folder = folder
        self.record = record.load_record(folder)
        self.trust = record.load_trust(folder)
        self.car = Car(folder, self.record.computers)
        self.time = TimeFloor(folder)
        self.at_hand = ""
        self._senses = senses
        self._trouble = trouble

    @property
    def slots(self) -> Slots:
        """The slots of the first computer."""
        return self.car.slots(self.record.computers[0].name)

    def power_on(self) -> Pending | None:
        """Start the vehicle: carry an update that was begun on to its end, on all computers. Returns the action at
        hand, closed if its trial has ended."""
        said = self._settle()
        action = pending.load(self.folder)
        if action is None or action.stage is not Stage.TRIAL:
            return action
        ended = self.car.state().record
        if ended.number != action.trial:
            return pending.keep(self.folder, replace(action, stage=Stage.INSTALLED, trial=0))
        return self.close(action, _outcome(ended, said))

    def begin(self, action: int, way: Way, sequence: int) -> Pending:
        """Take an action on; one that was taken on before goes on where it stopped.

        Nothing is written yet: until something is installed, what has been downloaded is all that counts.
        """
        self.at_hand = ""
        known = pending.load(self.folder)
        if known is not None and known.action == action and known.outcome is None:
            return known
        return Pending(action, way, sequence)

    def refuse(self, action: int, outcome: Outcome) -> Pending:
        """Close an action that could not even be begun."""
        return pending.keep(self.folder, Pending(action, Way.BUNDLE, 0, Stage.CLOSED, outcome=outcome))

    def close(self, action: Pending, outcome: Outcome, *, told: bool = False) -> Pending:
        """Remember how an action ended."""
        return pending.keep(self.folder, replace(action, stage=Stage.CLOSED, outcome=outcome, told=told))

    def told(self, action: Pending, told: bool) -> Pending:
        """Remember whether the gateway knows how the action ended."""
        return pending.keep(self.folder, replace(action, told=told))

    def install(self, bundle: Path, action: Pending) -> Pending:
        """Verify the bundle and write it to the inactive slots of all computers; its sequence must be the action's, if
        that has one.

        Raises what ``open_bundle``, ``verify_cms`` and ``Car.install`` raise; the active slots stay as they are.
        """
        self.at_hand = ""
        highest = self.car.state().highest
        # Only the virtual platform's chip is this machine; of any other chip nothing can be said here.
        lacks = self._senses.lacks if self.record.platform == VIRTUAL_PLATFORM else None
        opened = open_bundle(
            bundle,
            self.record,
            highest,
            self._verify,
            lacks,
            self._senses.payload_key,
            self.reported(),
            self.car.active_file,
        )
        found = opened.manifest.sequence
        if action.sequence not in (0, found):
            raise BundleContentsError(
                f"the bundle has release sequence {found}, the gateway offered {action.sequence}",
                why="the wrong file lies behind the gateway's link",
                next="publish the release again",
            )

        def before(computer: str) -> None:
            self.at_hand = computer
            with disk.translated(bundle):
                self._trouble.writes(computer)

        self.car.install(found, opened.files, before)
        self.at_hand = ""
        action = pending.keep(self.folder, replace(action, stage=Stage.INSTALLED))
        disk.remove_file(bundle)
        return action

    def download_path(self, digest: Digest) -> Path:
        """Where the file with this digest arrives. Parts of other files are removed: nobody will ask for their rest."""
        folder = self.folder / record.DOWNLOAD_NAME
        with disk.translated(folder):
            folder.mkdir(exist_ok=True)
            for entry in folder.iterdir():
                if entry.name != f"{digest.hex}.part":
                    entry.unlink()
        return folder / f"{digest.hex}.part"

    def is_installed(self, sequence: int) -> bool:
        """Whether every computer's inactive slot holds ``sequence``, installed and not tried yet."""
        return self.car.holds(sequence, SlotStatus.INSTALLED)

    def check_way_back(self, sequence: int) -> None:
        """Return if the car can go back to ``sequence`` by its inactive slots. Raises NoSlotToReturnToError."""
        self.car.check_way_back(sequence)

    def runs(self, sequence: int) -> bool:
        """Whether the vehicle runs ``sequence`` already, committed on all computers."""
        record = self.car.state().record
        return record.phase is Phase.STEADY and record.running == sequence

    def activate(self, action: Pending) -> Pending:
        """Put what all inactive slots hold on trial, from the next start on. Raises SlotRuleError."""
        car = self.car.state()
        decided = begin(car, car.inactive(car.order[0]).sequence)
        # The action first: a trial that nobody remembers could be decided but never be reported.
        action = pending.keep(self.folder, replace(action, stage=Stage.TRIAL, trial=decided.number))
        self.car.keep(decided)
        return action

    def facts(self) -> SlotFacts:
        """What is in the slots of the car as a whole. Intact means fit to go back to: it was good once on every
        computer, and every byte is proven now."""
        return self.car.facts()

    def reported(self) -> Reported:
        """What the vehicle has, for bundles that ask for it."""
        here = self._senses.runtimes if self.record.platform == VIRTUAL_PLATFORM else None
        return Reported(
            # What the factory put in, and on the virtual platform what this machine really has.
            runtimes={**self.record.runtimes, **(here() if here else {})},
            baseline=self.record.baseline,
            baseline_version=self.record.baseline_version,
            chassis_interfaces=self.record.chassis_interfaces,
            components=self.record.components,
        )

    def carried(self) -> dict[str, str]:
        """The runtimes, name -> version, that came in the bundle which the first computer runs."""
        active = self.slots.folder_of(self.slots.state().active)
        return {each.name: each.version for each in carried_in(active, self.record.variant)}

    def _verify(self, description: bytes, signature: bytes) -> None:
        verify_cms(description, signature, self.trust.ca_pem, self.time.now_us(self._senses.clock))

    def _settle(self) -> str:
        """Carry the car's update on until it is steady. Gives what was proven, for people."""
        up: set[str] = set()
        proven: dict[str, tuple[str, ...]] = {}
        car = self.car.state()
        while (step := next_step(car, up, proven.keys())) is not None:
            match step:
                case Prove(name):
                    found = self._prove(name)
                    if isinstance(found, Blame):
                        car = self.car.do(Decide(give_up(car.record, found)))
                    else:
                        proven[name] = found
                case Switch(name):
                    car = self.car.do(step)
                    self._trouble.switched(name)
                case Start(name):
                    car = self.car.do(step)
                    up.add(name)
                case _:
                    car = self.car.do(step)
        return _said(proven)

    def _prove(self, name: str) -> tuple[str, ...] | Blame:
        """What a computer on trial proved, or why it did not."""
        slots = self.car.slots(name)
        state = slots.state()
        role = next(each.role for each in self.record.computers if each.name == name)
        try:
            health = check_health(slots, state.active, self.record, role, self._senses.infer)
            if self._trouble.unhealthy(name):
                raise _on_purpose()
        except NwmError as problem:
            text = f"{problem.what}: {problem.why}; slot {state.last_good} runs again"
            return Blame(name, type(problem).__name__, text)
        return health.proofs


def _outcome(ended: CarRecord, said: str) -> Outcome:
    if ended.blame is None:
        return Outcome(Ending.COMMITTED, "", said or "all computers were committed before the power went")
    blame = ended.blame
    return Outcome(Ending.ROLLED_BACK, blame.reason, f"{blame.computer}: {blame.text}", blame.computer)


def _said(proven: dict[str, tuple[str, ...]]) -> str:
    """The proofs, with computers that proved the same in one sentence."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, proofs in proven.items():
        alike.setdefault(proofs, []).append(name)
    return "; ".join(f"{', '.join(names)}: {'; '.join(proofs)}" for proofs, names in alike.items())


def _on_purpose() -> HealthCheckFailedError:
    return HealthCheckFailedError(
        "the health check failed on purpose", why="the fault plan says so", next="run without a fault plan"
    )
