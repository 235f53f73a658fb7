"""Whether a vehicle has begun an action anew, from what it says and from what it has said.

Asking for an action again is no evidence by itself: swupdate asks once per poll while it downloads, to see whether the
action still stands. A restart takes two things: the vehicle has asked again since its last report, and then it says
what only a beginning says. What that is depends on the client: one that names stages goes back to a stage that it had
reached; one that counts falls below its count, or stands at zero of something a second time; one that does neither
repeats a sentence. Looked for among the reports since the last beginning only, since a second run says everything
again. A client that dies before its first report cannot be told from one that is still at it, and is not counted.
Only reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.fleet import AssignmentState
from nwmctl.fleet.consequences import Heard, Report
from nwmctl.formats import canonical
from nwmctl.storage.database import Reader

_STAGES = (AssignmentState.DOWNLOADING, AssignmentState.INSTALLED, AssignmentState.TRIAL)
_WAITING = frozenset({AssignmentState.OFFERED, AssignmentState.DEFERRED})


@dataclass(frozen=True, slots=True)
class Run:
    """What a vehicle has said on its way since it began an action last. ``stages`` are those that it named, ``count``
    the highest number it counted to (None: it does not count), ``at_zero``: it stood at nothing of something;
    ``repeats``: it has said the sentences of the report at hand, without a number, before."""

    stages: frozenset[AssignmentState] = frozenset()
    count: int | None = None
    at_zero: bool = False
    repeats: bool = False


def begins_anew(report: Report, run: Run) -> bool:
    """Whether ``report``, made after the vehicle had asked again, is the beginning of another run."""
    if report.heard is not Heard.PROGRESS or report.stage in _WAITING:
        return False
    reached = max((_rank(stage) for stage in run.stages), default=0)
    stage = _rank(report.stage)
    if stage and reached and stage != reached:
        return stage < reached
    if report.progress is not None:
        done, of = report.progress
        return (run.count is not None and done < run.count) or (_nothing(done, of) and run.at_zero)
    return stage == reached if stage else run.repeats


def run_before(reader: Reader, vin: str, action: int, run_from: int, report: Report) -> Run:
    """The run that ``report`` would end or go on with; ``run_from`` is the number of its first report."""
    which = "FROM feedback WHERE vin = :vin AND id >= :run_from AND action_id = :action AND heard = 'progress'"
    rows = reader.all(
        f"SELECT stage, max(progress_done), sum(CASE WHEN progress_done = 0 AND progress_of > 0 THEN 1 ELSE 0 END) "
        f"{which} GROUP BY stage",
        vin=vin,
        run_from=run_from,
        action=action,
    )
    repeats = None
    if report.progress is None and report.stage is None:
        repeats = reader.one(
            f"SELECT 1 {which} AND progress_of IS NULL AND stage = '' AND details = :details LIMIT 1",
            vin=vin,
            run_from=run_from,
            action=action,
            details=canonical.encode(list(report.details)).decode(),
        )
    counts = [row[1] for row in rows if row[1] is not None]
    return Run(
        frozenset(AssignmentState(row[0]) for row in rows if row[0]),
        max(counts) if counts else None,
        any(row[2] for row in rows),
        repeats is not None,
    )


def _rank(stage: AssignmentState | None) -> int:
    return _STAGES.index(stage) + 1 if stage in _STAGES else 0


def _nothing(done: int, of: int) -> bool:
    """Nothing of something; swupdate's log lines count on as nothing of nothing."""
    return done == 0 and of > 0
