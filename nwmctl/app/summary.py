"""What a deployment came to: artifacts, checks, what the evidence is not enough for, files.

Gathers from the content store and judges with the policy's own function; renders nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nwmctl.agent.plan import FACTORY
from nwmctl.app.engine import BUDGET_S, RunReport
from nwmctl.app.session import Session
from nwmctl.bundling.delta_roads import Way
from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.certificate import Certificate, LeafKind, dossier_name
from nwmctl.domain.delta import DeltaBundles
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.policy import Shortfall, judge
from nwmctl.domain.step import OutputRef, StepState
from nwmctl.domain.work import StepName
from nwmctl.fleet.status import CampaignStatus
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.storage.content import ContentStore
from nwmctl.trust.dossier import read_dossier
from nwmctl.trust.seal import told_by_seal


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """One build's artifact and what was found out about it."""

    platform: str
    build: str
    chip: str
    manifest: ArtifactManifest
    results: tuple[CheckResult, ...]

    def best(self, check: Check) -> CheckResult | None:
        """The result that matters most to a reader: a failure, else the strongest."""
        own = [result for result in self.results if result.check is check]
        bad = [result for result in own if result.verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE)]
        return max(bad or own, key=lambda result: result.obtained.strength, default=None)


@dataclass(frozen=True, slots=True)
class BundleRow:
    """A signed bundle in the store."""

    kind: BundleKind
    platform: str
    filename: str
    size: int
    path: Path
    serves: tuple[int, ...] = ()
    """The sequences from which it leads here by deltas; none for a full bundle."""

    @property
    def way(self) -> Way:
        """How it brings its payloads."""
        return Way.DELTA if self.serves else Way.FULL


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """The release's certificate. ``key`` sealed it; ``path`` is the dossier that holds it; ``staged`` says whether that
    lies beside the bundles on a mirror of this machine."""

    root: Digest
    leaves: int
    statements: int
    key: str
    development: bool
    unopened: int
    path: Path
    staged: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that the closing page says."""

    release: str
    sequence: int
    model: str
    fleet: str
    virtual: bool
    run: str
    state: str
    steps: int
    cached: int
    staged_s: float | None
    build_s: float
    critical: tuple[str, ...]
    artifacts: tuple[ArtifactRow, ...]
    shortfalls: tuple[Shortfall, ...]
    """Why the same evidence would be refused for a real fleet."""
    bundles: tuple[BundleRow, ...]
    certificate: CertificateRow | None
    campaign: CampaignStatus | None
    workspace: Path
    release_file: Path

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return {
            "release": self.release,
            "sequence": self.sequence,
            "model": self.model,
            "fleet": {"name": self.fleet, "virtual": self.virtual},
            "run": {
                "name": self.run,
                "state": self.state,
                "steps": self.steps,
                "found_in_store": self.cached,
                "build_s": round(self.build_s, 3),
                "staged_s": self.staged_s,
                "budget_s": BUDGET_S,
                "critical_path": list(self.critical),
            },
            "artifacts": [
                {
                    "platform": row.platform,
                    "build": row.build,
                    "manifest": to_plain(row.manifest),
                    "checks": [to_plain(result) for result in row.results],
                }
                for row in self.artifacts
            ],
            "not_enough_for_a_real_fleet": [to_plain(short) for short in self.shortfalls],
            "bundles": [
                {
                    "kind": str(row.kind),
                    "platform": row.platform,
                    "file": row.filename,
                    "size": row.size,
                    "path": str(row.path),
                    "way": str(row.way),
                    "from": list(row.serves),
                }
                for row in self.bundles
            ],
            "certificate": _plain_certificate(self.certificate) if self.certificate else None,
            "campaign": to_plain(self.campaign) if self.campaign else None,
            "workspace": str(self.workspace),
        }


def _plain_certificate(row: CertificateRow) -> dict[str, object]:
    return {
        "root": str(row.root),
        "leaves": row.leaves,
        "statements": row.statements,
        "key": row.key,
        "development": row.development,
        "unopened": row.unopened,
        "dossier": str(row.path),
    }


def summarise(session: Session, report: RunReport, campaign: CampaignStatus | None) -> Summary:
    """The summary of a run, complete or not."""
    project, store = session.project, session.workspace.store()
    evidence = _evidence(report, store)
    outcomes = report.result.outcomes
    pulled = outcomes.get(f"pull/{BundleKind.RELEASE}")
    return Summary(
        release=project.release.name,
        sequence=project.release.sequence,
        model=str(pulled.summary.get("model", "")) if pulled else "",
        fleet=project.release.fleet.name,
        virtual=project.release.fleet.virtual,
        run=report.run,
        state=report.result.state,
        steps=len(report.plan),
        cached=sum(state is StepState.CACHED for state in report.result.states.values()),
        staged_s=report.staged_s,
        build_s=report.build_s,
        critical=report.critical,
        artifacts=tuple(_artifacts(session, report, store)),
        shortfalls=judge(project.policy.real, evidence, jit_artifacts(evidence, store)),
        bundles=tuple(_bundles(session, report, store)),
        certificate=_certificate(session, report, store),
        campaign=campaign,
        workspace=session.workspace.root,
        release_file=session.path,
    )


def _evidence(report: RunReport, store: ContentStore) -> Sequence[Evidence]:
    prefix = f"{StepName.VALIDATE}/{BundleKind.RELEASE}/"
    return [row for step, row in evidence_of(report, store) if step.startswith(prefix)]


def evidence_of(report: RunReport, store: ContentStore) -> list[tuple[str, Evidence]]:
    """All evidence of a run by step, the return bundles' included."""
    return [
        (step.id, documents.decode(Evidence, store.read(outcome.outputs["evidence"]), step.id))
        for step in report.plan
        if step.step == StepName.VALIDATE and (outcome := report.result.outcomes.get(step.id))
    ]


def jit_artifacts(evidence: Iterable[Evidence], store: ContentStore) -> frozenset[Digest]:
    """The artifacts, among those that evidence is about, that a driver in the vehicle compiles further."""
    named = {row.artifact for row in evidence}
    read = {digest: documents.decode(ArtifactManifest, store.read(digest), "artifact manifest") for digest in named}
    return frozenset(digest for digest, manifest in read.items() if manifest.jit_in_vehicle)


def _artifacts(session: Session, report: RunReport, store: ContentStore) -> list[ArtifactRow]:
    by_id = {step.id: step for step in report.plan}
    rows = []
    for name, evidence in evidence_of(report, store):
        source = by_id[name].inputs["manifest"]
        if not name.startswith(f"{StepName.VALIDATE}/{BundleKind.RELEASE}/") or not isinstance(source, OutputRef):
            continue
        digest = report.result.outcomes[source.step].outputs["manifest"]
        manifest = documents.decode(ArtifactManifest, store.read(digest), "artifact manifest")
        rows.append(
            ArtifactRow(evidence.platform, evidence.build, _chip(session, evidence), manifest, evidence.results)
        )
    return rows


def _chip(session: Session, evidence: Evidence) -> str:
    variant, _, name = evidence.build.partition("/")
    build = session.project.profiles[evidence.platform].build(variant, name)
    return build.chip if build else ""


def _staged(session: Session, digest: Digest, filename: str) -> Path | None:
    """The file on a mirror of this machine, where it has its own name."""
    for mirror in session.project.release.mirrors:
        if mirror.uri.startswith("file:"):
            path = session.workspace.root / mirror.uri.removeprefix("file:") / "targets" / f"{digest.hex}.{filename}"
            if path.is_file():
                return path
    return None


def _bundles(session: Session, report: RunReport, store: ContentStore) -> list[BundleRow]:
    rows, outcomes = [], report.result.outcomes
    for step in report.plan:
        outcome = outcomes.get(step.id)
        if step.step != StepName.SIGN or outcome is None or step.id.startswith(f"{StepName.SIGN}/{FACTORY}/"):
            continue
        kind = BundleKind(step.id.split("/")[1])
        filename, size = outcome.summary["_file"], outcome.summary["size"]
        path = _staged(session, outcome.outputs["swu"], str(filename)) or store.path(outcome.outputs["swu"])
        rows.append(BundleRow(kind, step.platform, str(filename), int(size), path))
    signed = outcomes.get(StepName.SIGN_DELTAS)
    if signed is not None:
        listed = documents.decode(DeltaBundles, store.read(signed.outputs["bundles"]), "delta bundles")
        for one in listed.bundles:
            path = _staged(session, one.swu, one.filename) or store.path(one.swu)
            serves = one.serves.sequences
            rows.append(BundleRow(BundleKind.RELEASE, one.serves.platform, one.filename, one.size, path, serves))
    return rows


def _certificate(session: Session, report: RunReport, store: ContentStore) -> CertificateRow | None:
    outcome = report.result.outcomes.get(StepName.CERTIFY)
    if outcome is None:
        return None
    digest, release = outcome.outputs["dossier"], session.project.release
    dossier = read_dossier(store.read(digest), "dossier")
    # This run has drawn it up or rechecked it, so its word is enough here; `nwmctl verify` believes nobody.
    payload, key = told_by_seal(dossier.certificate.encode())
    certificate = documents.decode(Certificate, payload, "certificate")
    path = _staged(session, digest, dossier_name(release.name, release.sequence))
    return CertificateRow(
        root=certificate.root,
        leaves=certificate.leaves,
        statements=sum(one.leaf.kind in (LeafKind.PROVENANCE, LeafKind.CHECKS) for one in dossier.leaves),
        key=key,
        development=certificate.development,
        unopened=len(certificate.unopened),
        path=path or store.path(digest),
        staged=path is not None,
    )
