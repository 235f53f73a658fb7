"""What a vehicle tells its gateway, as DDI feedback.

The words that a machine reads come first in the details: the stage, then the class of the refusal; sentences for
people follow. Pure.
"""

from __future__ import annotations

from typing import assert_never

from nwmctl.domain.fleet import AssignmentState
from nwmctl.errors import (
    DeltaBaseError,
    DeltaBaseLackingError,
    DeltaLimitError,
    DownloadDigestError,
    DownloadLengthError,
    NoSlotToReturnToError,
    NwmError,
    RefusedError,
    SlotBrokenError,
    VerificationError,
)
from nwmctl.formats.ddi import STAGE_DETAIL, Execution, Feedback, Finished
from nwmctl.formats.untrusted import MAX_TEXT
from nwmctl.vehicle.pending import Ending, Outcome

REASON_DETAIL = "nwm.reason="
"""Starts the detail that names the class of a refusal."""
COMPUTER_DETAIL = "nwm.computer="
"""Starts the detail that names the computer that failed."""
_ACCIDENTS = (
    DownloadDigestError,
    DownloadLengthError,
    NoSlotToReturnToError,
    SlotBrokenError,
    # The full bundle may do where a delta does not.
    DeltaBaseLackingError,
    DeltaBaseError,
    DeltaLimitError,
)


def proceeding(action: int, stage: AssignmentState, *details: str) -> Feedback:
    """The vehicle is on its way and has reached ``stage``."""
    return Feedback(action, Execution.PROCEEDING, Finished.NONE, _details(stage, details))


def closing(action: int, outcome: Outcome) -> Feedback:
    """The action has ended."""
    reason = (f"{REASON_DETAIL}{outcome.reason}",) if outcome.reason else ()
    failed = (f"{COMPUTER_DETAIL}{outcome.computer}",) if outcome.computer else ()
    stage = _stage(outcome.ending)
    finished = Finished.SUCCESS if outcome.ending is Ending.COMMITTED else Finished.FAILURE
    return Feedback(action, Execution.CLOSED, finished, _details(stage, (*reason, *failed, outcome.text)))


def cancelled(action: int) -> Feedback:
    """The vehicle stopped the action as asked."""
    return Feedback(action, Execution.CLOSED, Finished.SUCCESS, _details(AssignmentState.CANCELLED, ()))


def not_cancelled(action: int, why: str) -> Feedback:
    """The vehicle cannot stop the action any more."""
    return Feedback(action, Execution.REJECTED, Finished.NONE, (why,))


def outcome_of(problem: NwmError, computer: str = "") -> Outcome:
    """How an action ends that ran into ``problem`` before its trial, on ``computer`` if it was one in particular.

    Refused is an answer about what was signed and stays the same when asked again; a failure is an accident that
    another attempt, or the return bundle instead of a slot, may avoid.
    """
    answer = isinstance(problem, VerificationError | RefusedError) and not isinstance(problem, _ACCIDENTS)
    ending = Ending.REFUSED if answer else Ending.FAILED
    where = f"{computer}: " if computer else ""
    return Outcome(ending, type(problem).__name__, f"{where}{problem.what}: {problem.why}", computer)


def _stage(ending: Ending) -> AssignmentState:
    match ending:
        case Ending.COMMITTED:
            return AssignmentState.COMMITTED
        case Ending.REFUSED:
            return AssignmentState.REFUSED
        case Ending.FAILED:
            return AssignmentState.FAILED
        case Ending.ROLLED_BACK:
            return AssignmentState.ROLLED_BACK
        case Ending.CANCELLED:
            return AssignmentState.CANCELLED
        case _:
            assert_never(ending)


def _details(stage: AssignmentState, details: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{STAGE_DETAIL}{stage}", *(detail[: MAX_TEXT // 4] for detail in details if detail))
