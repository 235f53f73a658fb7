"""The effects of a search on the real road: ``compiler.search.World`` over store, toolchains, checks and cost model.

Each finding about a candidate is kept as soon as it is there (see ``search_kept``); a compile is the compile step's own
result. Whatever a toolchain or an artifact does becomes a candidate that failed or was rejected; a full disk, a damaged
store and faults of the model's package end the search. One process of a compiler or an artifact at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nwmctl.compiler.search import Compared
from nwmctl.compiler.search_rank import Speed, Tried
from nwmctl.compiler.space import recipe_key, said
from nwmctl.domain.artifact import ArtifactManifest, Quantisation, Recipe
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check
from nwmctl.domain.platform import HOST_UNIT
from nwmctl.domain.policy import Rule
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CompileWork
from nwmctl.errors import GoldenDataError, MissingError, NwmError, RemoteError, ToolchainTimeoutError
from nwmctl.formats import documents
from nwmctl.steps.base import Step
from nwmctl.steps.compile import build_once
from nwmctl.steps.search_cost import Oracle
from nwmctl.steps.search_judge import SCENARIOS, Bench, Judged, examine, judge
from nwmctl.steps.search_kept import ENDINGS, Question, kept, look
from nwmctl.steps.search_mixed import Mixer
from nwmctl.steps.search_timing import Stopwatch
from nwmctl.steps.shelf import runtimes
from nwmctl.steps.ways import Artifact
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.graph_options import QUANTISATION
from nwmctl.toolchains.registry import Registry


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a toolchain gave no artifact."""

    words: str


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds that a candidate took when it really ran."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Examined:
    """Why a winner fails its last check; '' where it passes."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Judging:
    """What decides a judgement, besides the bytes that are judged."""

    rules: dict[Check, Rule]
    seed: int
    unit: str
    chip: str
    instruction_set: str
    scenarios: int = 0


@dataclass(frozen=True, slots=True)
class _Built:
    """An artifact in the store, and its host twin."""

    outcome: Outcome
    main: Artifact
    twin: Artifact | None

    @property
    def bytes(self) -> dict[str, Digest]:
        """What of it executes."""
        return {name: digest for name, digest in self.outcome.outputs.items() if name.endswith("payload")}


@dataclass(slots=True)
class Road:
    """``World`` of one build. ``parts``: the digests of the model's files that a compile needs."""

    store: ContentStore
    toolchains: Registry
    compile: Step[CompileWork]
    bench: Bench
    oracle: Oracle
    mixer: Mixer
    stopwatch: Stopwatch
    parts: Mapping[str, Digest]
    golden: Digest
    driver: str
    clock: Clock
    tell: Callable[[str], None]
    notes: list[str] = field(default_factory=list)
    _built: dict[str, _Built] = field(default_factory=dict)

    def forecast(self, recipe: Recipe, tried: Sequence[Tried]) -> Speed | None:
        """See ``World.forecast``."""
        return self.oracle.forecast(recipe, tried)

    def rehearse(self, recipe: Recipe) -> float | None:
        """See ``World.rehearse``. On this machine an int8 graph is built as fast as it is simulated."""
        if self.bench.build.unit == HOST_UNIT:
            return None
        self.tell(f"simulating {said(recipe)}")
        return self.mixer.rehearse(recipe, self.note)

    def evaluate(self, recipe: Recipe) -> Tried:
        """See ``World.evaluate``."""
        self.tell(said(recipe))
        begun = self.clock.monotonic()
        order = self._order(recipe)
        try:
            tried = self._tried_or_failed(recipe, order)
        except (*ENDINGS, GoldenDataError):
            raise
        except NwmError as problem:
            tried = Tried(recipe, f"{problem.what}: {problem.why}", failed=True)
        seconds = round(self.clock.monotonic() - begun, 3)
        spent = kept(
            self.store, Question("spent", order, {**self.parts, "golden": self.golden}), Spent, lambda: Spent(seconds)
        )
        return replace(tried, seconds=spent.seconds)

    def keep(self, base: Tried, room: float) -> Recipe | None:
        """See ``World.keep``."""
        self.tell(f"which groups of {said(base.recipe)} to keep")
        return self.mixer.keep(base, room, self.oracle, self.note)

    def compare(self, finalists: Sequence[Tried]) -> Mapping[str, Compared]:
        """See ``World.compare``."""
        if self.bench.build.unit != HOST_UNIT:
            return {}
        self.tell(f"measuring {len(finalists)} finalists side by side")
        built = {recipe_key(each.recipe): self._build(each.recipe) for each in finalists}
        try:
            found = self.stopwatch.together({name: (each.main, each.bytes["payload"]) for name, each in built.items()})
        except ENDINGS:
            raise
        except NwmError as problem:
            self.note(f"the finalists cannot be compared side by side: {problem.what}: {problem.why}")
            return {}
        return _on_their_scale(finalists, found)

    def examine(self, winner: Tried) -> str:
        """See ``World.examine``."""
        if winner.passed is None or Check.CLOSED_LOOP not in self.bench.rules:
            return ""
        self.tell(f"driving with {said(winner.recipe)}")
        built = self._build(winner.recipe)
        question = Question(
            "examined",
            self._judging(built, (Check.CLOSED_LOOP,), SCENARIOS),
            {**self._about(), **built.bytes},
            runtimes(),
        )
        return kept(
            self.store, question, Examined, lambda: Examined(examine(self.bench, built.main, built.twin))
        ).reason

    def note(self, text: str) -> None:
        """See ``World.note``."""
        self.notes.append(text)
        self.tell(text)

    # --- one candidate ---

    def _tried_or_failed(self, recipe: Recipe, order: CompileWork) -> Tried:
        """Raises what may pass another time, and what ends the search; every other failure is kept."""
        failed = Question("failed", order, self.parts, self.compile.fingerprint(order))
        failure = look(self.store, failed, Failure)
        if failure is None:
            try:
                return self._tried(recipe)
            except (*ENDINGS, GoldenDataError, MissingError, RemoteError, ToolchainTimeoutError):
                raise
            except NwmError as problem:
                failure = Failure(f"{problem.what}: {problem.why}")
                kept(self.store, failed, Failure, lambda: failure)
        return Tried(recipe, failure.words, failed=True)

    def _tried(self, recipe: Recipe) -> Tried:
        built = self._build(recipe)
        manifest = built.main.manifest
        question = Question(
            "judged", self._judging(built, (Check.PARITY,)), {**self._about(), **built.bytes}, runtimes()
        )
        judged = kept(
            self.store,
            question,
            Judged,
            lambda: judge(self.bench, built.main, built.twin),
            lambda found: found.passed is not None,
        )
        words, compared = judged.words, None
        weights_only = recipe.options.get(QUANTISATION) == Quantisation.WEIGHTS  # their arithmetic stays float
        if manifest.found_precision is not recipe.precision and not weights_only:
            words += f"; it asks for {recipe.precision} and {manifest.found_precision} was found in it"
        if self.bench.build.unit == HOST_UNIT and (judged.passed or judged.parity_share is not None):
            compared = self.stopwatch.alone(built.main, built.bytes["payload"])
        elif self.bench.build.unit != HOST_UNIT:
            compared = self.stopwatch.on_bench(built.main, built.bytes["payload"])
        speed = compared.speed if compared else self.oracle.estimate(recipe, manifest.found_precision)
        return Tried(
            recipe,
            words,
            judged.passed,
            speed=speed,
            latency=compared.latency if compared else None,
            parity_share=judged.parity_share,
            found_precision=manifest.found_precision,
            size=manifest.size,
            jit=manifest.jit_in_vehicle,
        )

    def _order(self, recipe: Recipe) -> CompileWork:
        return CompileWork(self.bench.build.unit, recipe, self.driver)

    def _build(self, recipe: Recipe) -> _Built:
        """The artifact, from the store or compiled now. Raises as ``Toolchain.compile``."""
        name = recipe_key(recipe)
        if name not in self._built:
            outcome = build_once(
                self.compile, self.store, self._order(recipe), self.parts, lambda text, share: self.tell(text)
            )
            main = self._artifact(outcome, "")
            twin = self._artifact(outcome, "twin_") if "twin_payload" in outcome.outputs else None
            self._built[name] = _Built(outcome, main, twin)
        return self._built[name]

    def _artifact(self, outcome: Outcome, prefix: str) -> Artifact:
        data = self.store.read(outcome.outputs[f"{prefix}manifest"])
        manifest = documents.decode(ArtifactManifest, data, "artifact manifest")
        driver = self.toolchains.get(manifest.recipe.toolchain)
        return Artifact(self.store.path(outcome.outputs[f"{prefix}payload"]), manifest, driver)

    def _judging(self, built: _Built, checks: tuple[Check, ...], scenarios: int = 0) -> _Judging:
        rules = {check: rule for check, rule in self.bench.rules.items() if check in checks}
        build = self.bench.build
        return _Judging(rules, self.bench.seed, build.unit, build.chip, built.main.manifest.instruction_set, scenarios)

    def _about(self) -> dict[str, Digest]:
        return {"card": self.parts["card"], "weights": self.parts["weights"], "golden": self.golden}


def _on_their_scale(finalists: Sequence[Tried], found: Mapping[str, Compared]) -> dict[str, Compared]:
    """The comparison orders the finalists among themselves: their mean stays where it was, so that those who were not
    in it neither gain nor lose by the load of that moment."""
    ratios = [
        each.speed.ms / found[recipe_key(each.recipe)].speed.ms
        for each in finalists
        if each.speed is not None and recipe_key(each.recipe) in found
    ]
    scale = math.prod(ratios) ** (1 / len(ratios)) if ratios else 1.0
    return {name: replace(each, speed=replace(each.speed, ms=each.speed.ms * scale)) for name, each in found.items()}
