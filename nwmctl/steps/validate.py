"""validate: artifact x model -> evidence, and what would settle what is open.

Joins the suite with what it needs (``ways``, ``shelf``, ``orders``) and with what other judges have said (``judge``).
Execution is shared by builds that share an artifact; drives of the models as trained are shared by everything.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.compiler.graph import graph_cost
from nwmctl.domain.artifact import ArtifactManifest, Precision
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest, step_key
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Figure, Obtained
from nwmctl.domain.judge import Case
from nwmctl.domain.model import ModelCard
from nwmctl.domain.platform import Catalogue, PlatformProfile, VehicleModel
from nwmctl.domain.policy import Rule
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import StepName, ValidateWork
from nwmctl.formats import canonical, documents
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.steps.base import Progress, Step, load_outcome, save_outcome
from nwmctl.steps.judge import other_results
from nwmctl.steps.orders import about_the_artifact, cut_short, settings_of, wanted
from nwmctl.steps.shelf import kept_drives, open_model, runtimes, trained
from nwmctl.steps.ways import Artifact, build_at, ways_of
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.lowering import GraphFiles
from nwmctl.toolchains.registry import Registry
from nwmctl.validation.drives import ModelDrives
from nwmctl.validation.subject import Released, Settings, StepCost, Subject, Unreachable
from nwmctl.validation.suite import Executed, execute, validate_artifact

VERSION = 3
_EXECUTE_VERSION = 2


_NOT_EXECUTED = ("profile", "catalogue", "released_card", "released_weights", "released_weights_data", "rebuilt")
"""Inputs that decide nothing of what execution gives; neither do those of judges, which have a colon."""
_EXECUTED = frozenset({Check.PARITY, Check.CLOSED_LOOP, Check.TRAP_SUITE})
_locks: defaultdict[Digest, threading.Lock] = defaultdict(threading.Lock)
_locks_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Execution:
    """What decides the results of executing an artifact, besides the input digests."""

    rules: dict[str, Rule]
    drives: dict[str, float]
    seed: int
    chip: str
    unit: str
    """Where the artifact belongs: results say what of that is out of reach, and on which unit it is at home."""
    platform: str
    """Named only where a rule is missing: the results then say for which platform."""
    braking: Figure | None = None


def _alone(key: Digest) -> threading.Lock:
    with _locks_lock:
        return _locks[key]


def _driven(settings: Settings) -> dict[str, float]:
    """Of the settings, what decides an execution."""
    looks = settings.looks
    return {
        "scenarios": settings.scenarios,
        "traps": settings.traps,
        "emulated": settings.emulated_scenarios,
        "emulated_budget_s": settings.emulated_budget_s if settings.emulated_scenarios else 0.0,
        "scenario_look": looks.scenarios,
        "trap_look": looks.traps,
        "emulated_look": looks.emulated,
    }


@dataclass(frozen=True, slots=True)
class _Validate:
    store: ContentStore
    toolchains: Registry
    drives: ModelDrives
    clock: Clock | None

    def __call__(self, work: ValidateWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        profile = documents.decode(PlatformProfile, self.store.read(inputs["profile"]), "profile")
        card = documents.decode(ModelCard, self.store.read(inputs["card"]), "model card")
        build = build_at(profile, work.variant, work.build)
        main = self._artifact(inputs, "")
        twin = self._artifact(inputs, "twin_") if "twin_payload" in inputs else None
        ways, unreachable = ways_of(build, main, twin)
        model = trained(self.store, inputs)
        subject = Subject(
            contract=card.contract,
            weights=model.files.model,
            weights_digest=model.digest,
            golden=self.store.path(inputs["golden"]),
            manifest=main.manifest,
            profile=profile,
            build=build,
            reference=lambda: open_model(model.files, card.contract),
            ways=ways,
            unreachable=unreachable,
            cost=_cost(model.files, main.manifest.found_precision),
            vehicles=self._vehicles(work, inputs),
            released=self._released(inputs),
            drives=self.drives,
        )
        settings = settings_of(work, self.clock)
        executed = self._executed(work, inputs, subject, settings, progress)
        results = validate_artifact(subject, settings, progress, executed)
        place = f"{work.variant}/{work.build}"
        case = Case(inputs["card"], inputs["manifest"], work.platform, place)
        others = other_results(self.store, work, case, inputs, work.rules.platforms[work.platform])
        found = tuple(sorted((*results, *others.results), key=lambda result: list(Check).index(result.check)))
        evidence = Evidence(case.model, case.artifact, case.platform, case.build, found, others.envelopes)
        about = (*results, *others.concerns)
        wishes = wanted(work, about)
        return Outcome(
            {"evidence": self.store.put_bytes(documents.encode(evidence))},
            _summary(found),
            _concern(about if wishes else about_the_artifact(about)),
            fleeting=cut_short(results) or _passing(unreachable),
            wanted=wishes,
        )

    def _executed(
        self,
        work: ValidateWork,
        inputs: Mapping[str, Digest],
        subject: Subject,
        settings: Settings,
        progress: Progress,
    ) -> Executed:
        """What executing the artifact gave. Several builds share an artifact and its rules; they share this too,
        under a key of their own that leaves profile, vehicle models and build out."""
        rules = work.rules.platforms[work.platform]
        build, told = subject.build, "" if rules.keys() >= _EXECUTED else work.platform
        drives = _driven(settings)
        order = _Execution({**rules}, drives, work.seed, build.chip, build.unit, told, work.rules.braking)
        own = {name: digest for name, digest in inputs.items() if name not in _NOT_EXECUTED and ":" not in name}
        key = step_key("validate/execute", _EXECUTE_VERSION, canonical.encode(to_plain(order)), own, _reached(subject))
        with _alone(key):
            kept = load_outcome(self.store, key)
            if kept is None:
                executed = execute(subject, settings, progress)
                plain = canonical.encode(to_plain(executed))
                if not cut_short(executed.results) and not _passing(subject.unreachable):
                    save_outcome(self.store, key, Outcome({"executed": self.store.put_bytes(plain)}))
                return executed
        data = canonical.decode(self.store.read(kept.outputs["executed"]), "check results")
        return from_plain(Executed, data, Source("check results"))

    def _vehicles(self, work: ValidateWork, inputs: Mapping[str, Digest]) -> tuple[VehicleModel, ...]:
        """The vehicle models that carry this variant."""
        if "catalogue" not in inputs:
            return ()  # the check of their chassis says so
        catalogue = documents.decode(Catalogue, self.store.read(inputs["catalogue"]), "catalogue")
        return tuple(each for each in catalogue.on(work.platform) if each.variant == work.variant)

    def _released(self, inputs: Mapping[str, Digest]) -> Released | None:
        """The model that vehicles drive with today, where the plan names one."""
        if "released_weights" not in inputs:
            return None
        card = documents.decode(ModelCard, self.store.read(inputs["released_card"]), "released model's card")
        model = trained(self.store, inputs, "released_")
        return Released(card.contract, model.digest, lambda: open_model(model.files, card.contract))

    def _artifact(self, inputs: Mapping[str, Digest], prefix: str) -> Artifact:
        manifest = documents.decode(
            ArtifactManifest, self.store.read(inputs[f"{prefix}manifest"]), f"{prefix}artifact manifest"
        )
        driver = self.toolchains.get(manifest.recipe.toolchain)
        return Artifact(self.store.path(inputs[f"{prefix}payload"]), manifest, driver)


def _passing(unreachable: tuple[Unreachable, ...]) -> bool:
    return any(place.passing for place in unreachable)


def _reached(subject: Subject) -> str:
    """What executes the artifact: the runtimes here, and a bench if one answers, whose time has a budget."""
    benches = [way for way in subject.ways if way.obtained is Obtained.BENCH]
    budgets = [f"{subject.profile.budget.latency.value} ms" for way in benches if way.measure]
    return ", ".join([runtimes(), *(way.label for way in benches), *budgets])


def _cost(weights: GraphFiles, precision: Precision) -> StepCost:
    return graph_cost(weights.model, precision, weights.data).step


def _summary(results: tuple[CheckResult, ...]) -> dict[str, str | int | float | bool]:
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    return {str(verdict): count for verdict, count in counts.items() if count}


def _concern(results: tuple[CheckResult, ...]) -> str:
    bad = [result for result in results if result.verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE)]
    return "; ".join(f"{result.check} {result.verdict} ({result.obtained}): {result.summary}" for result in bad[:3])


def validate_step(store: ContentStore, toolchains: Registry, clock: Clock | None = None) -> Step[ValidateWork]:
    """The step. Its fingerprint names the runtimes here and the benches: with QEMU installed later, the evidence is
    made anew.

    ``clock`` keeps the time budget of emulated drives; without one none are driven.
    """

    work = _Validate(store, toolchains, kept_drives(store), clock)

    def fingerprint(_: ValidateWork) -> str:
        return ", ".join(part for part in (runtimes(), toolchains.benches()) if part)

    return Step(StepName.VALIDATE, VERSION, True, ValidateWork, work, fingerprint)
