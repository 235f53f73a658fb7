"""One command's work on a release: open everything, plan, run, and close.

The workspace lock is held from here, so two commands never run steps in one workspace at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nwmctl.agent.journal import fold, read_journal
from nwmctl.agent.plan import restrict
from nwmctl.agent.runner import Listener, resolve
from nwmctl.app.clock import SystemClock, system_sleep
from nwmctl.app.compose import Parts, build_steps
from nwmctl.app.engine import Engine, RunReport
from nwmctl.app.fleets import fleet_database
from nwmctl.app.keys import deployment_keys, passphrase
from nwmctl.app.local import keep_virtual_fleet
from nwmctl.app.project import Project, load_project
from nwmctl.app.settings import Settings
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.step import Outcome, PlannedStep, StepState
from nwmctl.domain.work import StepName
from nwmctl.errors import DiskFullError, RunUnknownError
from nwmctl.steps.base import load_outcome
from nwmctl.storage.workspace import Workspace

_MIN_FREE = 500 << 20


@dataclass(frozen=True, slots=True)
class Session:
    """An open workspace with a release."""

    settings: Settings
    workspace: Workspace
    project: Project
    path: Path
    parts: Parts

    def plan(
        self, until: StepName = StepName.ROLLOUT, platforms: Iterable[str] = (), kinds: Sequence[BundleKind] = ()
    ) -> tuple[PlannedStep, ...]:
        """The plan up to the steps ``until``, for some platforms and bundle kinds (none named: all)."""
        plan = self.project.plan(self.workspace.store())
        return restrict(plan, until, platforms, kinds or tuple(BundleKind))

    def run(self, plan: Sequence[PlannedStep], command: str, listener: Listener) -> RunReport:
        """Run a plan as a new run."""
        return self._engine().start(self.project, plan, build_steps(self.parts), command, self.path, listener)

    def resume(self, run: str, listener: Listener) -> RunReport:
        """Go on with a run."""
        return self._engine().resume(run, self.project, build_steps(self.parts), listener)

    def campaign_opened(self, report: RunReport) -> str | None:
        """The name of the campaign that a run opened, or None; a virtual fleet is written down for its drivers."""
        opened = report.result.outcomes.get(StepName.ROLLOUT)
        if opened is None:
            return None
        if self.project.release.fleet.virtual:
            factory = {name.removeprefix("factory:"): d for name, d in opened.outputs.items() if name != "campaign"}
            keep_virtual_fleet(self.project, self.workspace, self.parts.keys, factory)
        return str(opened.summary["_campaign"])

    def forecast(self, plan: Sequence[PlannedStep]) -> dict[str, StepState]:
        """For each step whether the store has its result already, as far as that can be known beforehand."""
        steps = build_steps(self.parts)
        store = self.workspace.store()
        known: dict[str, Outcome] = {}
        states: dict[str, StepState] = {}
        for step in plan:
            states[step.id] = StepState.PENDING
            code = steps[step.step]
            if not code.pure or not all(need in known for need in step.needs):
                continue
            outcome = load_outcome(store, code.key(step.parameters, resolve(step, known)))
            if outcome is not None:
                known[step.id] = outcome
                states[step.id] = StepState.CACHED
        return states

    def _engine(self) -> Engine:
        return Engine(self.settings, self.workspace, self.parts.clock, self.parts.sleep)


@contextmanager
def open_session(
    settings: Settings,
    path: Path,
    purpose: str,
    *,
    approvals: Sequence[Path] = (),
    passphrase_env: str | None = None,
) -> Iterator[Session]:
    """Read and check everything that the release names, then lock the workspace.

    Raises before anything is changed if an input is wrong.
    """
    project = load_project(path, settings.platforms)
    workspace = settings.open()
    with workspace.locked(purpose):
        _refuse_full_disk(workspace)
        keys = deployment_keys(settings, virtual=project.release.fleet.virtual)
        secret = passphrase(passphrase_env)
        with fleet_database(workspace) as database:
            parts = Parts(
                project,
                workspace,
                database,
                keys,
                SystemClock(),
                system_sleep,
                secret.decode() if secret else None,
                tuple(approvals),
            )
            yield Session(settings, workspace, project, path, parts)


def release_of_run(settings: Settings, run: str) -> Path:
    """The release file that a run was started with. Raises RunUnknownError."""
    started = fold(read_journal(settings.open().runs, run)).started
    if started is None:
        raise RunUnknownError(
            f"run '{run}' was killed before it began", why="its journal is empty", next="start a new run"
        )
    return Path(started.release_path)


def _refuse_full_disk(workspace: Workspace) -> None:
    free = shutil.disk_usage(workspace.root).free
    if free < _MIN_FREE:
        raise DiskFullError(
            f"the disk of the workspace {workspace.root} has {free >> 20} MB left",
            why=f"a run needs at least {_MIN_FREE >> 20} MB",
            next="free some space, or use another --workspace",
        )
