"""The vehicle without its network: slots, the action at hand, starting, installing, going back.

Everything here is on disk between two calls, so that a restart is a call of ``power_on`` and nothing else. The order
of the writes is what makes power loss harmless: first the action's stage, then the boot state; ``power_on`` tells from
both what really happened. Does not speak to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.domain.fleet import SlotFact, SlotFacts, SlotName
from nwmctl.errors import (
    BundleContentsError,
    HealthCheckFailedError,
    NoSlotToReturnToError,
    NwmError,
    SlotBrokenError,
    TrialNotFinishedError,
)
from nwmctl.trust.cms import verify_cms
from nwmctl.vehicle import disk, pending, record
from nwmctl.vehicle.boot import BootState, SlotStatus
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.health import VIRTUAL_PLATFORM, Infer, check_health
from nwmctl.vehicle.opening import Lacks, open_bundle
from nwmctl.vehicle.pending import Ending, Outcome, Pending, Stage, Way
from nwmctl.vehicle.slots import Slots


@dataclass(frozen=True, slots=True)
class Senses:
    """What a vehicle's machine is given from outside. ``infer`` is None where nothing can run inference, ``lacks``
    where nobody knows what could."""

    clock: Clock
    infer: Infer | None = None
    lacks: Lacks | None = None


class Machine:
    """One vehicle in its folder. Raises VehicleStateError if the folder holds no vehicle."""

    def __init__(self, folder: Path, senses: Senses, trouble: Trouble) -> None:
        self.folder = folder
        self.record = record.load_record(folder)
        self.trust = record.load_trust(folder)
        self.slots = Slots(folder)
        self._senses = senses
        self._trouble = trouble

    def power_on(self) -> Pending | None:
        """Start the vehicle: the boot loader's turn, then the health check of a slot on trial. Returns the action at
        hand, closed if its trial has ended."""
        state = self.slots.start()
        action = pending.load(self.folder)
        on_trial = action is not None and action.stage is Stage.TRIAL
        if state.on_trial:
            outcome: Outcome | None = self._try(state)
        else:
            outcome = _afterwards(state, action) if action is not None and on_trial else None
        if action is None or not on_trial:
            return action
        if outcome is None:
            return pending.keep(self.folder, replace(action, stage=Stage.INSTALLED, slot=None))
        return self.close(action, outcome)

    def begin(self, action: int, way: Way, sequence: int) -> Pending:
        """Take an action on; one that was taken on before goes on where it stopped.

        Nothing is written yet: until something is installed, what has been downloaded is all that counts.
        """
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
        """Verify the bundle and write it to the inactive slot; its sequence must be the action's, if that has one.

        Raises what ``open_bundle``, ``verify_cms`` and ``Slots.install`` raise; the active slot stays as it is.
        """
        state = self.slots.state()
        # Only the virtual platform's chip is this machine; of any other chip nothing can be said here.
        lacks = self._senses.lacks if self.record.platform == VIRTUAL_PLATFORM else None
        opened = open_bundle(bundle, self.record, state.highest, self._verify, lacks)
        found = opened.manifest.sequence
        if action.sequence not in (0, found):
            raise BundleContentsError(
                f"the bundle has release sequence {found}, the gateway offered {action.sequence}",
                why="the wrong file lies behind the gateway's link",
                next="publish the release again",
            )
        with disk.translated(bundle):
            self._trouble.writes()
        self.slots.install(found, opened.files)
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
        """Whether the inactive slot holds ``sequence``, installed and not tried yet."""
        state = self.slots.state()
        found = state.record(state.inactive)
        return found.status is SlotStatus.INSTALLED and found.sequence == sequence

    def check_way_back(self, sequence: int) -> None:
        """Return if the inactive slot was good once, is intact and holds ``sequence``. Raises NoSlotToReturnToError."""
        state = self.slots.state()
        found = state.record(state.inactive)
        try:
            if found.status is not SlotStatus.GOOD or found.sequence != sequence:
                raise _no_slot(f"slot {state.inactive} is {found.status} with sequence {found.sequence}", sequence)
            self.slots.prove(state.inactive)
        except SlotBrokenError as problem:
            raise _no_slot(f"{problem.what}: {problem.why}", sequence) from problem

    def runs(self, sequence: int) -> bool:
        """Whether the vehicle runs ``sequence`` already, committed."""
        state = self.slots.state()
        return not state.on_trial and state.record(state.active).sequence == sequence

    def activate(self, action: Pending) -> Pending:
        """Put the inactive slot on trial, from the next start on."""
        # The action first: a trial that nobody remembers could be decided but never be reported.
        action = pending.keep(self.folder, replace(action, stage=Stage.TRIAL, slot=self.slots.state().inactive))
        self.slots.activate()
        return action

    def facts(self) -> SlotFacts:
        """What is in the slots. Intact means fit to go back to: it was good once, and every byte is proven now."""
        state = self.slots.state()
        return SlotFacts(state.active, self._fact(state, SlotName.A), self._fact(state, SlotName.B))

    def _fact(self, state: BootState, slot: SlotName) -> SlotFact:
        found = state.record(slot)
        if found.status in (SlotStatus.EMPTY, SlotStatus.UNBOOTABLE):
            return SlotFact(None, False)
        try:
            self.slots.prove(slot)
        except NwmError:
            return SlotFact(found.sequence, False)
        return SlotFact(found.sequence, found.status is SlotStatus.GOOD)

    def _verify(self, description: bytes, signature: bytes) -> None:
        verify_cms(description, signature, self.trust.ca_pem, self._senses.clock.now_us())

    def _try(self, state: BootState) -> Outcome:
        try:
            health = check_health(self.slots, state.active, self.record, self._senses.infer)
            if self._trouble.unhealthy():
                raise _on_purpose()
        except NwmError as problem:
            back = self.slots.fall_back()
            text = f"{problem.what}: {problem.why}; slot {back.active} runs again"
            return Outcome(Ending.ROLLED_BACK, type(problem).__name__, text)
        self.slots.commit()
        return Outcome(Ending.COMMITTED, "", "; ".join(health.proofs))


def _afterwards(state: BootState, action: Pending) -> Outcome | None:
    """What became of a trial that is over; None if it never began."""
    assert action.slot is not None  # every action on trial names its slot
    if state.active is action.slot:
        return Outcome(Ending.COMMITTED, "", f"slot {action.slot} was committed before the power went")
    if state.record(action.slot).status is SlotStatus.UNBOOTABLE:
        text = f"slot {action.slot} did not finish its trial; slot {state.active} runs again"
        return Outcome(Ending.ROLLED_BACK, TrialNotFinishedError.__name__, text)
    return None


def _on_purpose() -> HealthCheckFailedError:
    return HealthCheckFailedError(
        "the health check failed on purpose", why="the fault plan says so", next="run without a fault plan"
    )


def _no_slot(why: str, sequence: int) -> NoSlotToReturnToError:
    return NoSlotToReturnToError(
        f"the vehicle cannot go back to sequence {sequence} by its inactive slot",
        why=why,
        next="send the return bundle",
    )
