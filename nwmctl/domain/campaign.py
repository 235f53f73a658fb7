"""Campaigns, waves and gates: states and transition tables. Pure; the database holds the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from nwmctl.errors import IllegalTransitionError


class CampaignState(StrEnum):
    """Where a campaign stands."""

    DRAFT = "draft"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


_C = CampaignState
CAMPAIGN_TRANSITIONS: Mapping[CampaignState, frozenset[CampaignState]] = {
    _C.DRAFT: frozenset({_C.READY, _C.ABORTED}),
    _C.READY: frozenset({_C.RUNNING, _C.ABORTED}),
    _C.RUNNING: frozenset({_C.PAUSED, _C.COMPLETED, _C.ABORTED, _C.ROLLING_BACK}),
    _C.PAUSED: frozenset({_C.RUNNING, _C.ABORTED, _C.ROLLING_BACK}),
    _C.COMPLETED: frozenset({_C.ROLLING_BACK}),
    _C.ABORTED: frozenset({_C.ROLLING_BACK}),
    _C.ROLLING_BACK: frozenset({_C.ROLLED_BACK, _C.PAUSED}),
    _C.ROLLED_BACK: frozenset(),
}


def advance_campaign(name: str, state: CampaignState, to: CampaignState) -> CampaignState:
    """The next state of campaign ``name``. Raises IllegalTransitionError with what is possible."""
    if to not in CAMPAIGN_TRANSITIONS[state]:
        possible = ", ".join(sorted(CAMPAIGN_TRANSITIONS[state])) or "nothing"
        raise IllegalTransitionError(
            f"campaign '{name}' is {state}; it cannot become {to}",
            why=f"from {state} a campaign can become: {possible}",
            next="see `nwmctl rollout status` for where it stands",
        )
    return to


class WaveState(StrEnum):
    """Where a wave stands. A wave opens only when the gate on the one before says proceed."""

    PLANNED = "planned"
    OPEN = "open"
    SOAKING = "soaking"
    DONE = "done"


class GateDecision(StrEnum):
    """What a gate says about the wave it watches; ``wait`` means that it is too early to say."""

    WAIT = "wait"
    PROCEED = "proceed"
    PAUSE = "pause"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class WaveCounts:
    """How many vehicles of a wave are in which kind of state; ``total`` is their sum."""

    total: int
    committed: int
    failed: int
    """failed, rolled back by itself, or refused"""
    open: int
    """everything that may still change"""
