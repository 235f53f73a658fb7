"""Joins steps with what they need: store, keys, database, clocks. The only place that builds steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nwmctl.agent.runner import StepCode
from nwmctl.app.fleets import inventory_path, virtual_tokens
from nwmctl.app.project import Project, read_file
from nwmctl.app.settings import COMPILE_TIMEOUT_S
from nwmctl.bundling.pack import PackingOrder
from nwmctl.domain.clock import Clock, Sleep
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.release import Release
from nwmctl.domain.work import StepName
from nwmctl.formats import canonical
from nwmctl.formats.codec import to_plain
from nwmctl.formats.scripts import APPLY_TEMPLATE_NAME, JOIN_TEMPLATE_NAME
from nwmctl.steps.bundle import bundle_step
from nwmctl.steps.certify import certify_step
from nwmctl.steps.compile import compile_step
from nwmctl.steps.delta_plan import deltas_step
from nwmctl.steps.delta_sign import sign_deltas_step
from nwmctl.steps.judge import judge_step
from nwmctl.steps.log_replay import log_replay_step
from nwmctl.steps.publish import publish_step
from nwmctl.steps.pull import pull_step
from nwmctl.steps.rebuild import rebuild_step
from nwmctl.steps.rollout import rollout_step
from nwmctl.steps.search import search_step
from nwmctl.steps.sign import sign_step
from nwmctl.steps.stage import StageSetting, stage_step
from nwmctl.steps.validate import validate_step
from nwmctl.storage.database import Database
from nwmctl.storage.resources import templates_folder
from nwmctl.storage.workspace import Workspace
from nwmctl.toolchains.registry import Registry, registry
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.payload_key import PayloadKey


@dataclass(frozen=True, slots=True)
class Parts:
    """What the steps are built from."""

    project: Project
    workspace: Workspace
    database: Database
    keys: KeyRing
    clock: Clock
    sleep: Sleep
    passphrase: str | None = None
    approvals: tuple[Path, ...] = ()
    compile_timeout_s: float = COMPILE_TIMEOUT_S
    payload_key: PayloadKey | None = None


def build_steps(parts: Parts) -> dict[str, StepCode]:
    """Every step by name."""
    project, workspace = parts.project, parts.workspace
    store = workspace.store()
    content = release_content(project.release, digest_bytes(project.policy_bytes))
    setting = StageSetting(
        project.release,
        content,
        workspace.repository,
        workspace.root,
        parts.keys,
        parts.database,
        parts.clock,
        parts.passphrase.encode() if parts.passphrase else None,
    )
    toolchains = toolchain_registry()
    tokens = virtual_tokens(workspace) if project.release.fleet.virtual else None
    inventory = inventory_path(project.base, project.release)
    compiling = compile_step(store, toolchains, parts.compile_timeout_s)
    return {
        StepName.PULL: pull_step(store, workspace.root / "incoming", project.base, parts.sleep),
        StepName.SEARCH: search_step(store, toolchains, compiling, parts.clock),
        StepName.COMPILE: compiling,
        StepName.REBUILD: rebuild_step(store, toolchains, parts.compile_timeout_s, parts.clock, parts.sleep),
        StepName.JUDGE: judge_step(store, project.base),
        StepName.LOG_REPLAY: log_replay_step(store, toolchains, project.base),
        StepName.VALIDATE: validate_step(store, toolchains, parts.clock),
        StepName.BUNDLE: bundle_step(store, PackingOrder(key=parts.payload_key), _template(JOIN_TEMPLATE_NAME)),
        StepName.SIGN: sign_step(store, parts.keys, parts.passphrase, parts.approvals, parts.clock),
        StepName.DELTAS: deltas_step(store),
        StepName.SIGN_DELTAS: sign_deltas_step(
            store, parts.keys, parts.passphrase, parts.clock, _template(APPLY_TEMPLATE_NAME)
        ),
        StepName.CERTIFY: certify_step(store, parts.keys, parts.passphrase, parts.clock, parts.payload_key),
        StepName.STAGE: stage_step(store, setting),
        StepName.PUBLISH: publish_step(store, setting),
        StepName.ROLLOUT: rollout_step(
            store, parts.database, project.release, inventory, project.catalogue, tokens, parts.clock
        ),
    }


def _template(name: str) -> str:
    return read_file(templates_folder() / name, "script's template").decode()


def toolchain_registry() -> Registry:
    """The toolchains of this installation, with the declarations of external ones (``NWMCTL_TOOLCHAINS``)."""
    return registry()


def release_content(release: Release, policy: Digest) -> Digest:
    """What a release sequence stands for: models, platforms, policy. Not its waves, mirrors or fleet."""
    return digest_bytes(
        canonical.encode(
            {
                "name": release.name,
                "model": str(release.model.digest),
                "previous": str(release.previous.digest),
                "platforms": list(release.platforms),
                "policy": str(policy),
                "tighten": to_plain(release.tighten),
            }
        )
    )
