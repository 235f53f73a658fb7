"""What follows from what a vehicle says. Pure: state and report in, consequence out.

Invariants: a final state never changes; an action that is closed stays closed; a vehicle that has used its attempts up
is failed. A trial that the vehicle gave up, and a refusal, are answers and not accidents: they are not tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from nwmctl.domain.campaign import CampaignState
from nwmctl.domain.fleet import FINAL, AssignmentState, advance
from nwmctl.formats.ddi import STAGE_DETAIL


class Heard(StrEnum):
    """The kinds of reports. The value is stored."""

    PROGRESS = "progress"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    """the vehicle stopped the action as it was asked to"""
    CANCEL_REFUSED = "cancel_refused"
    """it is too late to stop; the vehicle goes on and will report the result"""
    CANCEL_PROGRESS = "cancel_progress"
    """it is about to stop"""


class ActionState(StrEnum):
    """Where an action stands. The value is stored."""

    OPEN = "open"
    CANCELLING = "cancelling"
    CLOSED = "closed"


class InstallMode(StrEnum):
    """How a vehicle gets to the wanted sequence. The value is stored."""

    BUNDLE = "bundle"
    SLOT = "slot"
    """one of its slots holds it, intact"""


@dataclass(frozen=True, slots=True)
class Report:
    """What a vehicle said about an action. ``stage`` is named by our own client only; every detail is kept."""

    heard: Heard
    stage: AssignmentState | None = None
    details: tuple[str, ...] = ()
    progress: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Consequence:
    """The states after a report. ``late``: it came after the end and changes nothing but what is stored of it."""

    assignment: AssignmentState
    action: ActionState
    late: bool = False


_S = AssignmentState
_STAGES = frozenset({_S.OFFERED, _S.DEFERRED, _S.DOWNLOADING, _S.INSTALLED, _S.TRIAL})
_ANSWERS = frozenset({_S.ROLLED_BACK, _S.REFUSED})
BEGUN = frozenset({_S.DOWNLOADING, _S.INSTALLED, _S.TRIAL})
"""A vehicle in one of these states has changed something already: it may finish whatever the campaign's state is."""
OFFERING = frozenset(
    {CampaignState.RUNNING, CampaignState.COMPLETED, CampaignState.ROLLING_BACK, CampaignState.ROLLED_BACK}
)
"""A campaign in one of these states offers what it owes; a completed one serves those that come late."""


def may_see(campaign: CampaignState, assignment: AssignmentState) -> bool:
    """Whether a vehicle is shown an action that it has."""
    return campaign in OFFERING or assignment in BEGUN


def after_report(
    assignment: AssignmentState, action: ActionState, report: Report, attempt: int, max_attempts: int
) -> Consequence:
    """The states after a report on attempt number ``attempt``."""
    if action is ActionState.CLOSED:
        return Consequence(assignment, action, late=True)
    if assignment in FINAL:
        # Superseded while the vehicle was at it: its answer closes the action and nothing else.
        return Consequence(assignment, _closed_by(report.heard, action), late=True)
    match report.heard:
        case Heard.PROGRESS:
            stage = report.stage if report.stage in _STAGES else _S.DOWNLOADING
            return Consequence(advance(assignment, stage or _S.DOWNLOADING), action)
        case Heard.SUCCESS:
            return Consequence(advance(assignment, _S.COMMITTED), ActionState.CLOSED)
        case Heard.FAILURE:
            return Consequence(_after_failure(assignment, report.stage, attempt, max_attempts), ActionState.CLOSED)
        case Heard.CANCELLED:
            if action is not ActionState.CANCELLING:
                # Nobody asked for it: the vehicle gave this attempt up.
                return Consequence(_after_failure(assignment, None, attempt, max_attempts), ActionState.CLOSED)
            return Consequence(advance(assignment, _S.CANCELLED), ActionState.CLOSED)
        case Heard.CANCEL_REFUSED:
            return Consequence(assignment, ActionState.OPEN)
        case Heard.CANCEL_PROGRESS:
            return Consequence(assignment, action)
        case _:
            assert_never(report.heard)


def blames_delta(details: tuple[str, ...], attempt: int) -> bool:
    """Whether a failed attempt that brought a delta is to be put down to the delta: its details speak of one or say
    nothing, or a client that does not name its reasons has failed again. A broken download or a full disk is no reason
    to send the full bundle next."""
    said = [detail for detail in details if not detail.startswith(STAGE_DETAIL)]
    vague = len(said) == len(details)
    return not said or any("delta" in detail.lower() for detail in said) or (vague and attempt > 1)


def after_restart(going_on: Consequence, restarts: int, max_attempts: int) -> Consequence:
    """The states when a vehicle has begun an action anew for the ``restarts``-th time; ``going_on`` is what follows
    from its report otherwise. One that begins too often is at it again, so it is asked to stop."""
    if restarts > max_attempts:
        return Consequence(advance(going_on.assignment, _S.FAILED), ActionState.CANCELLING)
    return going_on


def _after_failure(
    assignment: AssignmentState, stage: AssignmentState | None, attempt: int, max_attempts: int
) -> AssignmentState:
    if stage in _ANSWERS and stage is not None:
        return advance(assignment, stage)
    # Offered again: the next poll opens a new action.
    return advance(assignment, _S.OFFERED if attempt < max_attempts else _S.FAILED)


def _closed_by(heard: Heard, action: ActionState) -> ActionState:
    # A refusal to stop closes it too: it would be asked again for ever.
    return action if heard in (Heard.PROGRESS, Heard.CANCEL_PROGRESS) else ActionState.CLOSED
