"""What the boot loader remembers, and the only ways it may change.

Pure: a state goes in, a state comes out, ``slots`` makes it durable. Laws that hold in every reachable state:
the last good slot has been committed once; a trial is exactly the time in which another slot than the last good
one is active; a slot is marked unbootable before its first byte changes; the active slot and, during a trial, the
last good slot are never written; ``highest`` (the highest release sequence ever committed) never falls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from nwmctl.domain.digest import Digest
from nwmctl.domain.fleet import SlotName
from nwmctl.errors import SlotRuleError

TRIAL_BOOTS = 2
"""How often a slot on trial may start without being committed before the boot loader gives up on it."""


class SlotStatus(StrEnum):
    """What the boot loader knows about a slot."""

    EMPTY = "empty"
    UNBOOTABLE = "unbootable"
    """Being written, or it failed its trial."""
    INSTALLED = "installed"
    """Written and read back; never committed."""
    GOOD = "good"
    """Was committed once."""


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """One slot: what was put there. ``listing`` is the digest of the slot's file list; None where none was written."""

    status: SlotStatus = SlotStatus.EMPTY
    sequence: int = 0
    listing: Digest | None = None


@dataclass(frozen=True, slots=True)
class BootState:
    """The boot loader's memory. ``trials_left`` counts the starts that a slot on trial still has."""

    active: SlotName
    last_good: SlotName
    a: SlotRecord
    b: SlotRecord
    highest: int
    trials_left: int = 0

    def __post_init__(self) -> None:
        if self.record(self.last_good).status is not SlotStatus.GOOD:
            raise ValueError(f"the last good slot is {self.record(self.last_good).status}")
        if self.on_trial and self.record(self.active).status not in (SlotStatus.INSTALLED, SlotStatus.GOOD):
            raise ValueError(f"the slot on trial is {self.record(self.active).status}")
        if self.trials_left < 0 or (self.trials_left and not self.on_trial):
            raise ValueError(f"trials_left is {self.trials_left} while the active slot is the last good one")
        if self.highest < self.record(self.last_good).sequence:
            raise ValueError("the highest committed sequence lies below the one that is committed")

    def record(self, slot: SlotName) -> SlotRecord:
        """What is known about ``slot``."""
        return self.a if slot is SlotName.A else self.b

    @property
    def on_trial(self) -> bool:
        """Whether the active slot has yet to prove itself."""
        return self.active is not self.last_good

    @property
    def inactive(self) -> SlotName:
        """The slot that does not run."""
        return other(self.active)


def other(slot: SlotName) -> SlotName:
    """The slot that this one is not."""
    return SlotName.B if slot is SlotName.A else SlotName.A


def factory(sequence: int, listing: Digest | None) -> BootState:
    """A vehicle as it left the factory: slot a good at ``sequence``, slot b empty."""
    return BootState(SlotName.A, SlotName.A, SlotRecord(SlotStatus.GOOD, sequence, listing), SlotRecord(), sequence)


def mark_unbootable(state: BootState) -> BootState:
    """Before the inactive slot is written. Raises SlotRuleError during a trial."""
    _refuse_trial(state, "write the inactive slot")
    return _with(state, state.inactive, SlotRecord(SlotStatus.UNBOOTABLE))


def mark_installed(state: BootState, sequence: int, listing: Digest) -> BootState:
    """After the inactive slot was written and read back. Raises SlotRuleError."""
    _refuse_trial(state, "finish an installation")
    if state.record(state.inactive).status is not SlotStatus.UNBOOTABLE:
        raise _rule(
            f"slot {state.inactive} cannot become installed",
            f"it is {state.record(state.inactive).status} and was not marked unbootable before it was written",
        )
    return _with(state, state.inactive, SlotRecord(SlotStatus.INSTALLED, sequence, listing))


def activate(state: BootState, trials: int = TRIAL_BOOTS) -> BootState:
    """Let the next start run the inactive slot, on trial. Raises SlotRuleError."""
    _refuse_trial(state, "activate a slot")
    if state.record(state.inactive).status not in (SlotStatus.INSTALLED, SlotStatus.GOOD):
        raise _rule(
            f"slot {state.inactive} cannot be activated", f"it is {state.record(state.inactive).status}, not bootable"
        )
    return replace(state, active=state.inactive, trials_left=trials)


def start(state: BootState) -> BootState:
    """What the boot loader does at every start: count down a trial, or give up on it."""
    if not state.on_trial:
        return state
    if state.trials_left == 0:
        return fall_back(state)
    return replace(state, trials_left=state.trials_left - 1)


def commit(state: BootState) -> BootState:
    """The slot on trial proved itself. Raises SlotRuleError outside a trial."""
    if not state.on_trial:
        raise _rule("there is nothing to commit", "no slot is on trial")
    record = replace(state.record(state.active), status=SlotStatus.GOOD)
    kept = _with(replace(state, trials_left=0), state.active, record, last_good=state.active)
    return replace(kept, highest=max(kept.highest, record.sequence))


def fall_back(state: BootState) -> BootState:
    """The slot on trial failed: back to the last good one. Raises SlotRuleError outside a trial."""
    if not state.on_trial:
        raise _rule("there is nothing to fall back from", "no slot is on trial")
    failed = replace(state.record(state.active), status=SlotStatus.UNBOOTABLE)
    back = replace(state, active=state.last_good, trials_left=0)
    return _with(back, state.active, failed)


def _with(state: BootState, slot: SlotName, record: SlotRecord, last_good: SlotName | None = None) -> BootState:
    good = last_good or state.last_good
    highest = max(state.highest, record.sequence) if last_good else state.highest
    if slot is SlotName.A:
        return replace(state, a=record, last_good=good, highest=highest)
    return replace(state, b=record, last_good=good, highest=highest)


def _refuse_trial(state: BootState, what: str) -> None:
    if state.on_trial:
        raise _rule(f"cannot {what} now", f"slot {state.active} is on trial and slot {state.last_good} is its way back")


def _rule(what: str, why: str) -> SlotRuleError:
    return SlotRuleError(what, why=why, next="let the trial end (commit or fall back), then install again")
