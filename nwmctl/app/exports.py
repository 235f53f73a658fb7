"""What CI takes out of a run: JUnit files, bundle folders; and what it brings in: bundles built elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nwmctl.app.engine import RunReport
from nwmctl.app.session import Session
from nwmctl.app.summary import evidence_of, jit_artifacts
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.policy import judge
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.domain.train import TrainSpec, papers_name
from nwmctl.domain.work import StepName
from nwmctl.errors import ChecksRefusedError, OutputUnwritableError
from nwmctl.publishing.train import collect_train, write_bundle_folder
from nwmctl.steps.stage import bundle_results, open_signed
from nwmctl.storage.content import write_atomically
from nwmctl.validation.junit import junit


def export_junit(session: Session, report: RunReport, path: Path) -> None:
    """Write every check of a run as JUnit XML. Raises OutputUnwritableError."""
    data = junit([evidence for _, evidence in evidence_of(report, session.workspace.store())])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{path}' cannot be written", why=problem.strerror or str(problem), next="choose another path"
        ) from problem


def judge_checks(session: Session, report: RunReport) -> None:
    """Raise ChecksRefusedError if the policy would refuse to sign what was checked."""
    store, project = session.workspace.store(), session.project
    evidence = [row for _, row in evidence_of(report, store)]
    jit = () if project.release.fleet.virtual else jit_artifacts(evidence, store)
    short = judge(project.rules, evidence, jit)
    if short:
        reasons = "; ".join(f"{s.platform} {s.build} {s.check}: {s.reason}" for s in short[:5])
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        raise ChecksRefusedError(
            f"the policy would refuse {len(short)} of the checks",
            why=f"{reasons}{more}",
            next=short[0].settle,
        )


def export_bundles(session: Session, report: RunReport, out: Path) -> list[Path]:
    """One folder per platform below ``out`` with its signed bundles and their result file; gives the folders."""
    store = session.workspace.store()
    now = session.parts.clock.now_us()
    outcomes = [report.result.outcomes[step.id] for step in report.plan if step.step == StepName.SIGN]
    signed = [open_signed(store.path(outcome.outputs["swu"]), session.parts.keys, now) for outcome in outcomes]
    papers = {
        bundle.contents.digest: outcome.outputs["papers"] for bundle, outcome in zip(signed, outcomes, strict=True)
    }
    folders = []
    for result in bundle_results(signed, session.project.release):
        folder = out / result.platform
        told = replace(result, bundles=tuple(replace(one, papers=papers[one.digest]) for one in result.bundles))
        own = {one.filename: store.path(one.digest) for one in told.bundles}
        own |= {papers_name(one.filename): store.path(papers[one.digest]) for one in told.bundles}
        write_bundle_folder(folder, told, own)
        folders.append(folder)
    return folders


def collected_plan(session: Session, plan: Sequence[PlannedStep], parts: Sequence[Path]) -> tuple[PlannedStep, ...]:
    """The plan from ``stage`` on, with bundles that were built elsewhere in the place of the steps before.

    Raises TrainIncompleteError, TrainMismatchError and what reading the parts raises; then nothing has changed.
    """
    store = session.workspace.store()
    policy = digest_bytes(session.project.policy_bytes)
    train = collect_train(TrainSpec.of(session.project.release, policy), parts)
    brought: dict[str, Digest] = {}
    for platform, result in train.parts.items():
        for bundle in result.bundles:
            brought[f"swu:{bundle.kind}/{platform}"] = store.put_file(train.paths[bundle.filename])
            papers = train.paths[papers_name(bundle.filename)]
            brought[f"papers:{bundle.kind}/{platform}"] = store.put_file(papers)
    return tuple(_brought(step, brought) for step in plan if step.step in _AFTER)


_AFTER = frozenset({StepName.CERTIFY, StepName.STAGE, StepName.PUBLISH, StepName.ROLLOUT})


def _brought(step: PlannedStep, brought: dict[str, Digest]) -> PlannedStep:
    inputs: dict[str, Digest | OutputRef] = {name: brought.get(name, source) for name, source in step.inputs.items()}
    return PlannedStep(step.id, step.step, step.parameters, inputs, step.reason, step.after, step.platform)
