"""One command's work on a release: open everything, plan, run, and close.

The workspace lock is held from here, so two commands never run steps in one workspace at a time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.agent.building import SearchOrder
from nwmctl.agent.graph import upstream
from nwmctl.agent.journal import fold, read_journal
from nwmctl.agent.plan import FACTORY, restrict
from nwmctl.agent.runner import Listener, resolve
from nwmctl.app.clock import SystemClock, system_sleep
from nwmctl.app.compose import Parts, build_steps, release_content
from nwmctl.app.delta_facts import release_census
from nwmctl.app.engine import Engine, RunReport
from nwmctl.app.fleets import fleet_database, inventory_path
from nwmctl.app.keys import deployment_keys
from nwmctl.app.local import keep_virtual_fleet
from nwmctl.app.passphrases import passphrase, prove, unlock
from nwmctl.app.project import Project, load_project
from nwmctl.app.settings import Settings
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.platform import HOST_UNIT
from nwmctl.domain.step import Outcome, PlannedStep, StepState
from nwmctl.domain.work import StepName
from nwmctl.errors import DeltasSealedError, DiskFullError, HostPlatformError, RunUnknownError
from nwmctl.fleet.inventory import read_inventory
from nwmctl.fleet.releases import check_sequence
from nwmctl.steps.base import load_outcome
from nwmctl.storage.workspace import Workspace
from nwmctl.trust.expiry import check_clock
from nwmctl.trust.payload_key import load_payload_key

_MIN_FREE = 500 << 20
_ANY_TOKEN = "checked-only"
"""Stands for the tokens of virtual vehicles while an inventory is only checked."""


@dataclass(frozen=True, slots=True)
class Session:
    """An open workspace with a release."""

    settings: Settings
    workspace: Workspace
    project: Project
    path: Path
    parts: Parts
    search: SearchOrder | None = None
    """How much to search for recipes; None takes the profiles' or the pinned ones."""

    def plan(
        self, until: StepName = StepName.ROLLOUT, platforms: Iterable[str] = (), kinds: Sequence[BundleKind] = ()
    ) -> tuple[PlannedStep, ...]:
        """The plan up to the steps ``until``, for some platforms and bundle kinds (none named: all)."""
        plan = self._whole_plan()
        return restrict(plan, until, platforms, kinds or tuple(BundleKind))

    def run(self, plan: Sequence[PlannedStep], command: str, listener: Listener) -> RunReport:
        """Run a plan as a new run. Raises before anything is changed for what a late step would refuse anyway."""
        self._refuse_early({step.step for step in plan})
        return self._engine().start(self.project, plan, build_steps(self.parts), command, self.path, listener)

    def resume(self, run: str, listener: Listener) -> RunReport:
        """Go on with a run."""
        return self._engine().resume(run, self.project, build_steps(self.parts), listener)

    def factory_plan(self) -> tuple[PlannedStep, ...]:
        """The steps that build what the factory installed in the vehicles of a virtual fleet; empty for others."""
        plan = self._whole_plan()
        mark = f"{StepName.SIGN}/{FACTORY}/"
        return upstream(plan, [step.id for step in plan if step.id.startswith(mark)])

    def keep_factory(self, report: RunReport | None) -> None:
        """Write a virtual fleet down for its drivers; ``report`` is of a run of the factory plan, if it has steps."""
        outcomes = report.result.outcomes if report else {}
        mark = f"{StepName.SIGN}/{FACTORY}/"
        factory = {name.removeprefix(mark): o.outputs["swu"] for name, o in outcomes.items() if name.startswith(mark)}
        keep_virtual_fleet(self.project, self.workspace, self.parts.keys, factory, self.settings.aes_key)

    def campaign_opened(self, report: RunReport) -> str | None:
        """The name of the campaign that a run opened, or None; a virtual fleet is written down for its drivers."""
        opened = report.result.outcomes.get(StepName.ROLLOUT)
        if opened is None:
            return None
        if self.project.release.fleet.virtual:
            factory = {name.removeprefix("factory:"): d for name, d in opened.outputs.items() if name != "campaign"}
            keep_virtual_fleet(self.project, self.workspace, self.parts.keys, factory, self.settings.aes_key)
        return str(opened.summary["_campaign"])

    def _whole_plan(self) -> tuple[PlannedStep, ...]:
        project, store, census = self.project, self.workspace.store(), None
        if project.release.deltas is not None:
            _refuse_sealed_deltas(self.parts.payload_key is not None)
            census = release_census(project, self.parts.database.reader, store)
        return project.plan(store, self.search, census)

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

    def _refuse_early(self, kinds: set[str]) -> None:
        project = self.project
        _refuse_host_platform(project)
        if StepName.STAGE in kinds:
            content = release_content(project.release, digest_bytes(project.policy_bytes))
            check_sequence(self.parts.database.reader, project.release, content)
        if StepName.ROLLOUT in kinds:
            token = (lambda vin: _ANY_TOKEN) if project.release.fleet.virtual else None
            for _ in read_inventory(inventory_path(project.base, project.release), project.catalogue, token):
                pass  # each line is checked as it is read

    def _engine(self) -> Engine:
        return Engine(self.settings, self.workspace, self.parts.clock, self.parts.sleep)


def _refuse_sealed_deltas(sealed: bool) -> None:
    if sealed:
        raise DeltasSealedError(
            "the release asks for deltas, and its payloads shall be encrypted",
            why="deltas are not encrypted: whoever has an old artifact could read the new one out of its delta",
            next="take 'deltas:' out of the release, or leave --aes-key out",
        )


def _refuse_host_platform(project: Project) -> None:
    """What runs on this machine is measured here: on a real fleet that word would be a lie."""
    for name, profile in project.profiles.items():
        builds = [build for variant in profile.variants for build in variant.builds if build.unit == HOST_UNIT]
        if builds and not project.release.fleet.virtual:
            raise HostPlatformError(
                f"the platform '{name}' cannot be in a real fleet",
                why=f"its build '{builds[0].name}' is for the machine that runs nwmctl, not for a vehicle",
                next="remove it from the release's 'platforms:', or mark the fleet 'virtual: true'",
            )


@contextmanager
def open_session(
    settings: Settings,
    path: Path,
    purpose: str,
    *,
    approvals: Sequence[Path] = (),
    passphrase_env: str | None = None,
    dry_run: bool = False,
    ask: bool = False,
    search: SearchOrder | None = None,
) -> Iterator[Session]:
    """Read and check everything that the release names, then lock the workspace.

    Raises before anything is changed if an input is wrong. For a dry run, a workspace or development keys that are not
    there yet are made in a temporary folder, so that nothing of it stays. With ``ask`` the passphrase of encrypted
    keys is asked for where no variable holds it and a person sits at a terminal.
    """
    project = load_project(path, settings.platforms)
    with ExitStack() as stack:
        if dry_run:
            settings = stack.enter_context(_rehearsal(settings))
        workspace = settings.open()
        stack.enter_context(workspace.locked(purpose))
        workspace.store().sweep()
        _refuse_full_disk(workspace)
        keys = deployment_keys(settings, virtual=project.release.fleet.virtual)
        if ask:
            check_clock(keys, SystemClock().now_us())
        secret = unlock(keys, passphrase_env) if ask else passphrase(passphrase_env)
        if ask:
            prove(keys, secret)
        database = stack.enter_context(fleet_database(workspace))
        parts = Parts(
            project,
            workspace,
            database,
            keys,
            SystemClock(),
            system_sleep,
            secret.decode() if secret else None,
            tuple(approvals),
            settings.compile_timeout_s,
            load_payload_key(settings.aes_key, settings.workspace) if settings.aes_key else None,
        )
        yield Session(settings, workspace, project, path, parts, search)


@contextmanager
def _rehearsal(settings: Settings) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="nwmctl-dry-run-") as folder:
        if not settings.workspace.exists():
            settings = replace(settings, workspace=Path(folder) / "workspace")
        if not settings.development_keys.exists():
            settings = replace(settings, development_keys=Path(folder) / "keys")
        yield settings


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
