"""Vehicles and what they owe: assignments, their states, and what vehicles report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.errors import IllegalTransitionError


class AssignmentState(StrEnum):
    """Where one vehicle stands with one campaign."""

    PENDING = "pending"
    OFFERED = "offered"
    DEFERRED = "deferred"
    DOWNLOADING = "downloading"
    INSTALLED = "installed"
    TRIAL = "trial"
    COMMITTED = "committed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    SILENT = "silent"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


_S = AssignmentState
FINAL: frozenset[AssignmentState] = frozenset(
    {_S.COMMITTED, _S.FAILED, _S.ROLLED_BACK, _S.REFUSED, _S.SUPERSEDED, _S.CANCELLED}
)
"""States that a vehicle's report no longer changes; only a new campaign generation reopens."""

_LIVE = frozenset({_S.OFFERED, _S.DEFERRED, _S.DOWNLOADING, _S.INSTALLED, _S.TRIAL, _S.SILENT})
_ENDS = frozenset({_S.COMMITTED, _S.FAILED, _S.ROLLED_BACK, _S.REFUSED, _S.CANCELLED, _S.SUPERSEDED})

ASSIGNMENT_TRANSITIONS: Mapping[AssignmentState, frozenset[AssignmentState]] = {
    _S.PENDING: frozenset({_S.OFFERED, _S.DEFERRED, _S.CANCELLED, _S.SUPERSEDED}),
    **{state: (_LIVE | _ENDS) - {state} for state in _LIVE},
    **{state: frozenset() for state in _ENDS},
}
"""A live vehicle may report any other live state (it retries after a failed attempt) or an end."""


def advance(state: AssignmentState, to: AssignmentState) -> AssignmentState:
    """The next state. Raises IllegalTransitionError; staying where one is is always allowed."""
    if to is state:
        return state
    if to not in ASSIGNMENT_TRANSITIONS[state]:
        raise IllegalTransitionError(
            f"an assignment cannot go from {state} to {to}",
            why="a closed assignment is reopened only by a new campaign generation",
            next="look at `nwmctl fleet status --json` and the vehicle's own story",
        )
    return to


@dataclass(frozen=True, slots=True)
class Vehicle:
    """One vehicle of the inventory. ``sequence`` is the release sequence it last reported or was delivered with."""

    vin: str
    vehicle_model: str
    platform: str
    variant: str
    baseline: str
    sequence: int
    token: str
    """The vehicle's own secret for the gateway."""
    market: str = ""
    """Where it is registered: two capital letters; empty where the inventory does not say."""
    baseline_version: str = ""
    """As delivered; what counts is what the vehicle reports."""
    link: str = ""
    """What it hangs on until it says so itself; empty where the inventory does not say."""
    components: dict[str, str] = field(default_factory=dict, hash=False)
    """Name -> version of what else it was delivered with, such as the driver of its GPUs; what counts is what it
    reports."""


class SlotName(StrEnum):
    """The two slots of a vehicle."""

    A = "a"
    B = "b"


@dataclass(frozen=True, slots=True)
class SlotFact:
    """What a vehicle says about one slot. ``sequence`` is None where the slot is empty; ``intact`` means that every
    byte in it was proven against what was installed."""

    sequence: int | None
    intact: bool


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """What a vehicle says about its slots; it runs the ``active`` one."""

    active: SlotName
    a: SlotFact
    b: SlotFact

    @property
    def running(self) -> SlotFact:
        """The slot that the vehicle runs."""
        return self.a if self.active is SlotName.A else self.b
