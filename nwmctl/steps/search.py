"""search: model x build -> ranked recipes, and a report of everything that was tried.

A search measures and learns from earlier winners, so it is no pure function; it is made one by keeping each finding,
and its answer, under keys of what decides them. ``recipes`` holds no figure: the same choice has the same digest,
however the machine was loaded. ``report`` says why. One search at a time in a process: two would disturb each other's
measurements and hold twice the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nwmctl.compiler.search import Found, Limits, search
from nwmctl.compiler.search_rank import Tried
from nwmctl.compiler.space import Offer, Space, make_space, recipe_key, said
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check
from nwmctl.domain.model import ModelCard
from nwmctl.domain.platform import HOST_UNIT, Build, PlatformProfile
from nwmctl.domain.search import Ranked, SearchReport
from nwmctl.domain.step import Outcome, Scalar
from nwmctl.domain.work import CompileWork, SearchWork, StepName
from nwmctl.errors import NoCandidateError, NothingPassedError, NwmError
from nwmctl.formats import documents
from nwmctl.steps.base import Progress, Step
from nwmctl.steps.search_cost import Oracle, count_of, known_from
from nwmctl.steps.search_judge import Bench
from nwmctl.steps.search_kept import Earlier, Memory, Place, Timing, recall, remember
from nwmctl.steps.search_mixed import Mixer
from nwmctl.steps.search_report import report_of, why
from nwmctl.steps.search_timing import Stopwatch, machine
from nwmctl.steps.search_world import Road
from nwmctl.steps.shelf import kept_drives, runtimes, trained
from nwmctl.steps.ways import build_at
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.lowering import GraphFiles
from nwmctl.toolchains.process import Limits as ProcessLimits
from nwmctl.toolchains.protocol import Effort
from nwmctl.toolchains.registry import Registry

VERSION = 2
QUICK_RECIPES = 4
"""Recipes that a quick search tries for one build."""
MEMORY_BYTES = 3 << 30
"""What one process of a search may hold; two are never at work, and this one is small."""
_LOWERING_S = 600.0
_PARTS = ("card", "weights", "weights_data", "calibration")
_alone = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Search:
    store: ContentStore
    toolchains: Registry
    compile: Step[CompileWork]
    clock: Clock

    def __call__(self, work: SearchWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        with _alone:
            return self._search(work, inputs, progress)

    def _search(self, work: SearchWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        effort = Effort(work.effort)
        profile = documents.decode(PlatformProfile, self.store.read(inputs["profile"]), "profile")
        card = documents.decode(ModelCard, self.store.read(inputs["card"]), "model card")
        build = build_at(profile, work.variant, work.build)
        place = Place(build.chip, build.unit, work.driver, machine() if build.unit == HOST_UNIT else "")
        memory = recall(self.store, place)
        space = self._space(work, profile, build, memory, inputs)
        road = self._road(work, inputs, profile, card, build, memory, progress)
        for text in (*space.left_out, road.oracle.choose_basis(space.recipes)):
            if text:
                road.note(text)
        found = search(space, _limits(effort, work), road)
        if found.winner is None:
            raise _nothing(found, build, road.notes)
        report = report_of(found, inputs["card"], build, effort, tuple(road.notes))
        ranked = Ranked(build.chip, build.unit, tuple(each.recipe for each in found.order), why(found))
        self._remember(place, inputs["weights"], found)
        return Outcome(
            {
                "recipes": self.store.put_bytes(documents.encode(ranked)),
                "report": self.store.put_bytes(documents.encode(report)),
            },
            _summary(found, report),
        )

    def _space(
        self, work: SearchWork, profile: PlatformProfile, build: Build, memory: Memory, inputs: Mapping[str, Digest]
    ) -> Space:
        effort, unlike = Effort(work.effort), work.avoid
        instruction_sets = profile.chip(build.chip).instruction_sets
        offers = [self._offer(name, build.unit, instruction_sets, effort) for name in self.toolchains.names()]
        if "unlike" in inputs:
            other = documents.decode(Ranked, self.store.read(inputs["unlike"]), "ranked recipes")
            unlike = (*unlike, other.recipes[0].toolchain)
        # This model's own search is no teacher: asked again, it finds the same facts in the same order.
        won = [each.recipes[0] for each in memory.searches if each.recipes and each.weights != inputs["weights"]]
        space = make_space([offer for offer in offers if offer is not None], build.recipes, won, unlike)
        if not space.recipes:
            raise NoCandidateError(
                f"no toolchain here builds for {build.unit} of {build.chip}",
                why="; ".join(space.left_out) or "none of them offers a recipe, and the profile's own need others",
                next="see `nwmctl doctor` for what to install",
            )
        return space

    def _offer(self, name: str, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> Offer | None:
        """What one driver offers; drivers come from other packages too, so nothing that they raise ends a search."""
        try:
            driver = self.toolchains.get(name)
            recipes, probe = driver.variations(unit, instruction_sets, effort), driver.probe()
        except Exception as problem:
            return Offer(name, absent=f"its driver does not answer ({type(problem).__name__}: {problem})")
        mixed = any(
            each.mixed and each.unit == unit and each.precision is Precision.INT8 for each in probe.capabilities
        )
        if not probe.available:
            return Offer(name, absent=probe.detail) if recipes else None
        return Offer(name, recipes, mixed)

    def _road(
        self,
        work: SearchWork,
        inputs: Mapping[str, Digest],
        profile: PlatformProfile,
        card: ModelCard,
        build: Build,
        memory: Memory,
        progress: Progress,
    ) -> Road:
        store, weights = self.store, self.store.path(inputs["weights"])
        data = store.path(inputs["weights_data"]) if "weights_data" in inputs else None
        calibration = store.path(inputs["calibration"]) if "calibration" in inputs else None
        rules = {Check(name): rule for name, rule in work.rules.items()}
        bench = Bench(
            card, trained(store, inputs), store.path(inputs["golden"]), profile, build, rules, work.seed,
            kept_drives(store),
        )  # fmt: skip
        parts = {name: inputs[name] for name in _PARTS if name in inputs}
        limits = ProcessLimits(_LOWERING_S, MEMORY_BYTES)
        host = build.unit == HOST_UNIT
        oracle = Oracle(
            count_of(store, inputs, weights, data, MEMORY_BYTES),
            profile.chip(build.chip),
            build.unit,
            card.contract.rate_hz,
            inputs["weights"].short,
            known_from(store, memory, build.unit, inputs["weights"]) if host else (),
        )
        mixer = Mixer(
            store, bench, GraphFiles(weights, data, calibration), {**parts, "golden": inputs["golden"]}, limits
        )
        stopwatch = Stopwatch(store, bench, inputs["golden"])
        return Road(
            store, self.toolchains, self.compile, bench, oracle, mixer, stopwatch, parts, inputs["golden"],
            work.driver, self.clock, lambda text: progress(text, -1.0),
        )  # fmt: skip

    def _remember(self, place: Place, weights: Digest, found: Found) -> None:
        measured = tuple(
            Timing(each.recipe, each.speed.ms) for each in found.tried if each.latency is not None and each.speed
        )
        remember(self.store, place, Earlier(weights, tuple(each.recipe for each in found.order), measured))


def search_step(
    store: ContentStore, toolchains: Registry, compile: Step[CompileWork], clock: Clock
) -> Step[SearchWork]:
    """The step. ``compile`` is the compile step, whose results a search makes and finds.

    Its fingerprint names every toolchain, since each may win, and what executes artifacts here.
    """

    def fingerprint(work: SearchWork) -> str:
        return f"{'; '.join(_known(toolchains))}; {runtimes()}; {machine()}"

    work = _Search(store, toolchains, compile, clock)
    return Step(StepName.SEARCH, VERSION, True, SearchWork, work, fingerprint)


def _known(toolchains: Registry) -> list[str]:
    """The fingerprint of each toolchain; of one whose fingerprint needs more than a name, its probe."""
    found = []
    for name in toolchains.names():
        try:
            driver = toolchains.get(name)
            try:
                found.append(driver.fingerprint(Recipe(name, Precision.FP32)))
            except NwmError:
                probe = driver.probe()
                found.append(f"{probe.name} {probe.version} {probe.detail}")
        except Exception as problem:
            found.append(f"{name}: {type(problem).__name__}")
    return found


def _limits(effort: Effort, work: SearchWork) -> Limits:
    seconds = work.most_s if work.most_s > 0 else None
    match effort:
        case Effort.QUICK:
            return Limits(QUICK_RECIPES, seconds)
        case Effort.FULL:
            return Limits(None, seconds, mixed=True)


def _nothing(found: Found, build: Build, notes: Sequence[str]) -> NothingPassedError:
    """Names each candidate and why it is out."""
    lines = [f"{said(each.recipe)}: {_out(each, found)}" for each in found.tried]
    lines += [f"{said(each.recipe)}: {each.reason}" for each in found.skipped]
    return NothingPassedError(
        f"none of {len(found.tried)} recipes for {build.unit} of {build.chip} passed",
        why="; ".join(lines) or "; ".join(notes),
        next="see why with `nwmctl compile --explain`, search with more effort, or pin a recipe and repair it by hand",
    )


def _out(tried: Tried, found: Found) -> str:
    return found.rejected.get(recipe_key(tried.recipe), tried.words)


def _summary(found: Found, report: SearchReport) -> dict[str, Scalar]:
    assert found.winner is not None
    summary: dict[str, Scalar] = {
        "recipe": said(found.winner.recipe),
        "tried": len(found.tried),
        "passed": len(found.order),
        "pruned": len(found.skipped),
    }
    speed = found.winner.speed
    if speed is not None:
        summary["speed"] = f"{speed.ms:.3g} {speed.unit} ({speed.obtained})"
    if report.prediction_error is not None:
        summary["prediction_error"] = round(report.prediction_error, 3)
    return summary
