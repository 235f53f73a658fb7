"""Starts and resumes runs: one plan, one journal, one lock.

The workspace lock is held for the length of a run. A resumed run uses the plan that its journal recorded, and only
with the same release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nwmctl
from nwmctl.agent.graph import critical_path
from nwmctl.agent.journal import Journal, fold, list_runs, read_journal
from nwmctl.agent.policy import Guard, Playbook
from nwmctl.agent.runner import Listener, Runner, RunResult, StepCode
from nwmctl.app.project import Project
from nwmctl.app.settings import Settings
from nwmctl.domain.clock import Clock, Sleep
from nwmctl.domain.digest import Digest
from nwmctl.domain.event import Event, RunResumed, RunStarted, StepFinished
from nwmctl.domain.step import Outcome, PlannedStep, StepState
from nwmctl.domain.work import StepName
from nwmctl.errors import NwmError, RunMismatchError
from nwmctl.steps.base import load_outcome, save_outcome
from nwmctl.storage.content import ContentStore
from nwmctl.storage.workspace import Workspace

BUDGET_S = 2 * 3600.0
"""From pull to staged."""

_HISTORY = 5


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run ended, with what a person asks next. ``staged_s`` is the time from the start of the run (of its first
    try, for a resumed one) to *staged*; None if it did not come to that."""

    run: str
    plan: tuple[PlannedStep, ...]
    result: RunResult
    staged_s: float | None
    build_s: float
    critical: tuple[str, ...]

    def raise_problem(self) -> None:
        """Raise the refusal that ended the run, if one did."""
        for problem in self.result.problems.values():
            raise problem


@dataclass(frozen=True, slots=True)
class _Results:
    """The content store as the runner's result store."""

    store: ContentStore

    def load(self, key: Digest) -> Outcome | None:
        return load_outcome(self.store, key)

    def save(self, key: Digest, outcome: Outcome) -> None:
        save_outcome(self.store, key, outcome)


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs plans in one workspace."""

    settings: Settings
    workspace: Workspace
    clock: Clock
    sleep: Sleep

    def start(
        self,
        project: Project,
        plan: Sequence[PlannedStep],
        steps: Mapping[str, StepCode],
        command: str,
        release_path: Path,
        listener: Listener,
    ) -> RunReport:
        """Start a new run. Raises only for what is wrong before its first step."""
        run = self._new_name()
        journal = Journal(self.workspace.runs / run)
        journal.append(
            RunStarted(
                self.clock.now_us(),
                run,
                command,
                project.digest,
                nwmctl.__version__,
                self.settings.user,
                str(release_path.resolve()),
                tuple(plan),
            )
        )
        return self._execute(run, journal, plan, steps, listener)

    def resume(self, run: str, project: Project, steps: Mapping[str, StepCode], listener: Listener) -> RunReport:
        """Go on with a run. Raises RunUnknownError, RunMismatchError."""
        history = fold(read_journal(self.workspace.runs, run))
        if history.started is None or history.started.release != project.digest:
            raise RunMismatchError(
                f"run '{run}' was started with another release",
                why="the release, its policy or a platform profile has changed since; a run has exactly one of each",
                next="start a new run with `nwmctl deploy`; finished steps are found in the store",
            )
        journal = Journal(self.workspace.runs / run)
        journal.append(RunResumed(self.clock.now_us(), self.settings.user, len(history.finished)))
        return self._execute(run, journal, history.started.plan, steps, listener)

    def _execute(
        self, run: str, journal: Journal, plan: Sequence[PlannedStep], steps: Mapping[str, StepCode], listener: Listener
    ) -> RunReport:
        try:
            listener.event(journal.events[0])
            runner = Runner(
                steps,
                _Results(self.workspace.store()),
                journal,
                Guard(Playbook()),
                self.clock,
                self.sleep,
                listener,
                self.settings.workers,
            )
            result = runner.run(plan, expected_durations(self.workspace, exclude=run))
            return report(run, tuple(plan), result, journal.events)
        finally:
            journal.close()

    def _new_name(self) -> str:
        from datetime import UTC, datetime

        stamp = datetime.fromtimestamp(self.clock.now_us() / 1e6, UTC).strftime("%Y%m%d-%H%M%S")
        number = 1
        while (self.workspace.runs / f"{stamp}-{number}").exists():
            number += 1
        return f"{stamp}-{number}"


def report(run: str, plan: tuple[PlannedStep, ...], result: RunResult, events: Sequence[Event]) -> RunReport:
    """What a run's events say about time."""
    began = next(event.at_us for event in events if isinstance(event, RunStarted))
    last = {event.step: event for event in events if isinstance(event, StepFinished)}
    staged = last.get(StepName.STAGE)
    built = [event.at_us for event in last.values() if event.step.split("/")[0] in _BUILD]
    return RunReport(
        run,
        plan,
        result,
        (staged.at_us - began) / 1e6 if staged else None,
        (max(built, default=began) - began) / 1e6,
        tuple(critical_path(plan, result.durations)),
    )


_BUILD = frozenset(
    {
        StepName.PULL,
        StepName.SEARCH,
        StepName.COMPILE,
        StepName.REBUILD,
        StepName.JUDGE,
        StepName.LOG_REPLAY,
        StepName.VALIDATE,
        StepName.BUNDLE,
        StepName.SIGN,
        StepName.DELTAS,
        StepName.SIGN_DELTAS,
        StepName.CERTIFY,
    }
)


def expected_durations(workspace: Workspace, exclude: str = "") -> dict[str, float]:
    """What steps really took in the latest runs that did them (cached ones do not count)."""
    expected: dict[str, float] = {}
    for run in [name for name in list_runs(workspace.runs) if name != exclude][-_HISTORY:]:
        try:
            events = read_journal(workspace.runs, run)
        except NwmError:
            # Only the order of steps is at stake; `runs show` is where a damaged journal is reported.
            events = []
        for event in events:
            if isinstance(event, StepFinished) and event.state is StepState.DONE:
                expected[event.step] = event.duration_s
    return expected
