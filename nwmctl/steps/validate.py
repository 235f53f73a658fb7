"""validate: artifact x model -> evidence. Opens every way in which the artifact can execute here, and says which not.

The twin runs on this host: its figures are ``proxy``. Under QEMU they are ``emulated``. Only the ``virtual`` platform
*is* this host: there, and nowhere else, they are ``measured``.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.compiler.graph import graph_cost
from nwmctl.domain.artifact import ArtifactManifest, Port, Precision
from nwmctl.domain.digest import Digest, step_key
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import ModelCard
from nwmctl.domain.platform import HOST_UNIT, Build, PlatformProfile
from nwmctl.domain.policy import Rule
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import StepName, ValidateWork
from nwmctl.errors import PlanError
from nwmctl.formats import canonical, documents
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.steps.base import Progress, Step, load_outcome, save_outcome
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.files import versions
from nwmctl.toolchains.protocol import Place, Session, Toolchain
from nwmctl.toolchains.registry import Registry, runtime_fingerprint
from nwmctl.toolchains.sessions import open_worker
from nwmctl.validation.subject import Pace, Settings, StepCost, Subject, Unreachable, Way
from nwmctl.validation.suite import execute_checks, validate_artifact

_REFERENCE_TIMEOUT_S = 60.0

VERSION = 1


@dataclass(frozen=True, slots=True)
class _Artifact:
    """A payload file with its manifest."""

    payload: Path
    manifest: ArtifactManifest
    toolchain: Toolchain

    def open(self, place: Place) -> Session:
        return self.toolchain.open(self.payload, self.manifest, place)

    def places(self) -> Mapping[Place, str]:
        return self.toolchain.places(self.manifest)


_EXECUTED = frozenset({Check.PARITY, Check.CLOSED_LOOP})
_locks: defaultdict[Digest, threading.Lock] = defaultdict(threading.Lock)
_locks_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Execution:
    """What decides the results of executing an artifact, besides the input digests."""

    rules: dict[str, Rule]
    scenarios: int
    seed: int
    chip: str
    unit: str
    """Where the artifact belongs: results say what of that is out of reach, and on which unit it is at home."""
    platform: str
    """Named only where a rule is missing: the results then say for which platform."""


def _alone(key: Digest) -> threading.Lock:
    with _locks_lock:
        return _locks[key]


def _runtimes() -> str:
    return f"{versions('numpy', 'onnx')}, {runtime_fingerprint()}"


@dataclass(frozen=True, slots=True)
class _Validate:
    store: ContentStore
    toolchains: Registry

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
            reference=lambda: _reference(weights, card),
            ways=ways,
            unreachable=unreachable,
            cost=_cost(weights, main.manifest.found_precision),
        )
        settings = Settings(rules=work.rules, seed=work.seed, scenarios=work.scenarios)
        executed = self._executed(work, inputs, subject, settings, progress)
        results = validate_artifact(subject, settings, progress, executed)
        place = f"{work.variant}/{work.build}"
        evidence = Evidence(inputs["card"], inputs["manifest"], work.platform, place, results)
        return Outcome(
            {"evidence": self.store.put_bytes(documents.encode(evidence))}, _summary(results), _concern(results)
        )

    def _executed(
        self,
        work: ValidateWork,
        inputs: Mapping[str, Digest],
        subject: Subject,
        settings: Settings,
        progress: Progress,
    ) -> tuple[CheckResult, ...]:
        """Results of the checks that execute the artifact. Several builds share an artifact and its rules; they share
        these results too, under a key of their own that leaves profile and build out."""
        rules = work.rules.platforms[work.platform]
        build, told = subject.build, "" if rules.keys() >= _EXECUTED else work.platform
        order = _Execution({**rules}, work.scenarios, work.seed, build.chip, build.unit, told)
        own = {name: digest for name, digest in inputs.items() if name != "profile"}
        key = step_key("validate/execute", VERSION, canonical.encode(to_plain(order)), own, _runtimes())
        with _alone(key):
            kept = load_outcome(self.store, key)
            if kept is None:
                results = execute_checks(subject, settings, progress)
                plain = canonical.encode(to_plain(results))
                save_outcome(self.store, key, Outcome({"results": self.store.put_bytes(plain)}))
                return results
        data = canonical.decode(self.store.read(kept.outputs["results"]), "check results")
        return from_plain(tuple[CheckResult, ...], data, Source("check results"))

    def _artifact(self, inputs: Mapping[str, Digest], prefix: str) -> _Artifact:
        manifest = documents.decode(
            ArtifactManifest, self.store.read(inputs[f"{prefix}manifest"]), f"{prefix}artifact manifest"
        )
        driver = self.toolchains.get(manifest.recipe.toolchain)
        return _Artifact(self.store.path(inputs[f"{prefix}payload"]), manifest, driver)


def _reference(weights: Path, card: ModelCard) -> Session:
    """The model as trained, executed by onnxruntime on this host; tensors are checked by the contract."""
    inputs, outputs = (
        tuple(Port(spec.name, spec.dtype, spec.shape) for spec in side)
        for side in (card.contract.inputs, card.contract.outputs)
    )
    return open_worker("onnxruntime", weights, inputs, outputs, _REFERENCE_TIMEOUT_S)


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


def validate_step(store: ContentStore, toolchains: Registry) -> Step[ValidateWork]:
    """The step. Its fingerprint names the runtimes here: with QEMU installed later, the evidence is made anew."""

    return Step(StepName.VALIDATE, VERSION, True, ValidateWork, _Validate(store, toolchains), lambda _: _runtimes())
