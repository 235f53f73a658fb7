"""validate: artifact x model -> evidence. Opens every way in which the artifact can execute here, and says which not.

The twin runs on this host: its figures are ``proxy``. Under QEMU they are ``emulated``. Only the ``virtual`` platform
*is* this host: there, and nowhere else, they are ``measured``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.compiler.graph import graph_cost
from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import ModelCard
from nwmctl.domain.platform import Build, PlatformProfile
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import StepName, ValidateWork
from nwmctl.errors import PlanError
from nwmctl.formats import documents
from nwmctl.steps.base import Progress, Step
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.protocol import Place, Session
from nwmctl.toolchains.registry import runtime_fingerprint, toolchain
from nwmctl.toolchains.sessions import open_reference
from nwmctl.validation.subject import Pace, Settings, StepCost, Subject, Unreachable, Way
from nwmctl.validation.suite import validate_artifact

HOST_UNIT = "host"
"""The unit of builds that run on this machine: those of the virtual platform."""


@dataclass(frozen=True, slots=True)
class _Artifact:
    """A payload file with its manifest."""

    payload: Path
    manifest: ArtifactManifest

    def open(self, place: Place) -> Session:
        return toolchain(self.manifest.recipe.toolchain).open(self.payload, self.manifest, place)

    def places(self) -> Mapping[Place, str]:
        return toolchain(self.manifest.recipe.toolchain).places(self.manifest)


@dataclass(frozen=True, slots=True)
class _Validate:
    store: ContentStore

    def __call__(self, work: ValidateWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        profile = documents.decode(PlatformProfile, self.store.read(inputs["profile"]), "profile")
        card = documents.decode(ModelCard, self.store.read(inputs["card"]), "model card")
        build = _build(profile, work)
        main = self._artifact(inputs, "")
        twin = self._artifact(inputs, "twin_") if "twin_payload" in inputs else None
        ways, unreachable = _ways(build, main, twin)
        weights = self.store.path(inputs["weights"])
        subject = Subject(
            contract=card.contract,
            weights=weights,
            weights_digest=inputs["weights"],
            golden=self.store.path(inputs["golden"]),
            manifest=main.manifest,
            profile=profile,
            build=build,
            reference=lambda: open_reference(weights),
            ways=ways,
            unreachable=unreachable,
            cost=_cost(weights, main.manifest.found_precision),
        )
        settings = Settings(rules=work.rules, seed=work.seed, scenarios=work.scenarios)
        results = validate_artifact(subject, settings, progress)
        place = f"{work.variant}/{work.build}"
        evidence = Evidence(inputs["card"], inputs["manifest"], work.platform, place, results)
        return Outcome(
            {"evidence": self.store.put_bytes(documents.encode(evidence))}, _summary(results), _concern(results)
        )

    def _artifact(self, inputs: Mapping[str, Digest], prefix: str) -> _Artifact:
        manifest = documents.decode(
            ArtifactManifest, self.store.read(inputs[f"{prefix}manifest"]), f"{prefix}artifact manifest"
        )
        return _Artifact(self.store.path(inputs[f"{prefix}payload"]), manifest)


def _ways(build: Build, main: _Artifact, twin: _Artifact | None) -> tuple[tuple[Way, ...], tuple[Unreachable, ...]]:
    ways: list[Way] = []
    unreachable: list[Unreachable] = []
    name = main.manifest.recipe.toolchain
    if build.unit == HOST_UNIT:
        ways.append(Way(Obtained.MEASURED, f"this host through {name}", Pace.BATCH, lambda: main.open(Place.HOST)))
        return tuple(ways), ()
    if twin is not None:
        reason = twin.places()[Place.HOST]
        label = f"host twin through {name}"
        if reason:
            unreachable.append(Unreachable(label, reason, "see `nwmctl doctor` for what to install"))
        else:
            ways.append(Way(Obtained.PROXY, label, Pace.ROWS, lambda: twin.open(Place.HOST)))
    reason = main.places()[Place.EMULATED]
    if reason:
        unreachable.append(Unreachable("emulation", reason, "see `nwmctl doctor` for what can be emulated here"))
    else:
        ways.append(Way(Obtained.EMULATED, "under QEMU", Pace.CRAWL, lambda: main.open(Place.EMULATED)))
    unreachable.append(
        Unreachable(
            f"a bench with {build.chip}",
            f"no {build.chip} is within reach of this machine",
            f"run the checks on a bench that carries {build.chip}",
        )
    )
    return tuple(ways), tuple(unreachable)


def _build(profile: PlatformProfile, work: ValidateWork) -> Build:
    variant = profile.variant(work.variant)
    for build in variant.builds if variant else ():
        if build.name == work.build:
            return build
    raise PlanError(
        f"profile {profile.name} has no build {work.variant}/{work.build}",
        why="the plan was made from another profile",
        next="start a new run",
    )


def _cost(weights: Path, precision: Precision) -> StepCost:
    cost = graph_cost(weights, precision)
    return StepCost(cost.weight_bytes, cost.activation_bytes, cost.flops)


def _summary(results: tuple[CheckResult, ...]) -> dict[str, str | int | float | bool]:
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    return {str(verdict): count for verdict, count in counts.items() if count}


def _concern(results: tuple[CheckResult, ...]) -> str:
    bad = [result for result in results if result.verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE)]
    return "; ".join(f"{result.check} {result.verdict} ({result.obtained}): {result.summary}" for result in bad[:3])


def validate_step(store: ContentStore) -> Step[ValidateWork]:
    """The step. Its fingerprint names the runtimes here: with QEMU installed later, the evidence is made anew."""
    return Step(StepName.VALIDATE, 1, True, ValidateWork, _Validate(store), lambda _: runtime_fingerprint())
