"""What CI takes out of a run: JUnit files, bundle folders, a dossier; and what it brings in of what was made elsewhere:
bundles, a dossier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nwmctl.app.engine import RunReport
from nwmctl.app.session import Session
from nwmctl.app.summary import evidence_of, jit_artifacts
from nwmctl.domain.certificate import dossier_name
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.policy import judge
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.domain.train import TrainSpec, papers_name
from nwmctl.domain.work import StepName
from nwmctl.errors import ChecksRefusedError, DeltasElsewhereError, DossierMissingError, OutputUnwritableError
from nwmctl.publishing.train import collect_train, write_bundle_folder
from nwmctl.steps.certify import BROUGHT
from nwmctl.steps.stage import bundle_results, open_signed
from nwmctl.storage.content import write_atomically
from nwmctl.trust.dossier import MAX_DOSSIER, expect_release, open_certificate, read_dossier
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


def export_dossier(session: Session, report: RunReport, out: Path) -> Path:
    """The run's dossier as a file in the folder ``out``, under its own name. Raises OutputUnwritableError."""
    release = session.project.release
    place = out / dossier_name(release.name, release.sequence)
    data = session.workspace.store().read(report.result.outcomes[StepName.CERTIFY].outputs["dossier"])
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(place, data)
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{place}' cannot be written", why=problem.strerror or str(problem), next="choose another folder"
        ) from problem
    return place


def certified_plan(session: Session, plan: Sequence[PlannedStep], path: Path) -> tuple[PlannedStep, ...]:
    """The plan with a dossier that was drawn up elsewhere: ``certify`` holds it against the bundles, and needs no
    release key for that. ``path`` is its file, or a folder with it.

    Raises DeltasElsewhereError, DossierMissingError, DossierFormatError, OtherReleaseError, and what
    ``open_certificate`` raises; then nothing has changed.
    """
    release, keys = session.project.release, session.parts.keys
    if release.deltas is not None:
        raise DeltasElsewhereError(
            f"release '{release.name}' has deltas; it is not published with a dossier that was drawn up elsewhere",
            why="deltas are planned by what the fleet has, built and signed where the release is published",
            next="publish it without --dossier, with the release key at hand, or take 'deltas:' out of the release",
        )
    data = _dossier_bytes(path, dossier_name(release.name, release.sequence))
    dossier = read_dossier(data, path.name)
    certificate = open_certificate(dossier, keys.ca_pem(), session.parts.clock.now_us())
    expect_release(certificate, release.name, release.sequence)
    brought = {BROUGHT: session.workspace.store().put_bytes(data)}
    why = "a dossier was brought: every bundle is judged again, and it must be the very one that they lead to"
    return tuple(
        replace(step, inputs={**step.inputs, **brought}, reason=why) if step.step == StepName.CERTIFY else step
        for step in plan
    )


def _dossier_bytes(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            # A repository puts the digest in front of a name.
            path = next(iter(sorted([*path.glob(name), *path.glob(f"{'?' * 64}.{name}")])), path / name)
        with path.open("rb") as file:
            return file.read(MAX_DOSSIER + 1)
    except OSError as problem:
        raise DossierMissingError(
            f"the dossier '{path}' cannot be read",
            why=problem.strerror or str(problem),
            next="name the file, or the folder, that `nwmctl certify RELEASE --from PARTS --out DIR` has written",
        ) from problem


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


_AFTER = frozenset(
    {StepName.DELTAS, StepName.SIGN_DELTAS, StepName.CERTIFY, StepName.STAGE, StepName.PUBLISH, StepName.ROLLOUT}
)


def _brought(step: PlannedStep, brought: dict[str, Digest]) -> PlannedStep:
    inputs: dict[str, Digest | OutputRef] = {name: brought.get(name, source) for name, source in step.inputs.items()}
    return PlannedStep(step.id, step.step, step.parameters, inputs, step.reason, step.after, step.platform)
