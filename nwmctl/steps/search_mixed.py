"""Mixed precision for a search: how sensitive each group of layers is, and which to keep float.

The parity error of any set of groups is asked of one loaded graph with switches (``toolchains.toggles``) by the check
of parity itself; what the groups save comes from the cost model. That predicts; whatever recipe comes out is compiled
and judged like any other. Sensitivities are kept, and so is each choice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.compiler.search_rank import Tried
from nwmctl.compiler.sensitivity import Effect, assign, measure_groups
from nwmctl.domain.artifact import Precision, Quantisation, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check
from nwmctl.domain.figure import Obtained
from nwmctl.domain.platform import HOST_UNIT
from nwmctl.domain.policy import Rule
from nwmctl.errors import NwmError
from nwmctl.steps.search_cost import Oracle
from nwmctl.steps.search_judge import Bench, parity, worst_share
from nwmctl.steps.search_kept import ENDINGS, Question, kept
from nwmctl.steps.shelf import runtimes
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.graph_options import KEEP, graph_order, keep_option
from nwmctl.toolchains.lowering import GraphFiles, Integers, LoweringOrder, lower
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.protocol import Tensors
from nwmctl.toolchains.toggles import Toggles, ToggleSession, build_toggles
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.inputs import read_golden
from nwmctl.validation.subject import Pace, Way

_MOST_PARAMETERS = 250_000_000
"""The graph with switches holds every weight twice in memory."""
_LARGE_ROWS, _LARGE_QUESTIONS = 6, 24
"""What is asked where each execution takes a tenth of a second."""
_QUESTIONS = 48
_TIMEOUT_S = 300.0
_DIGITS = 4
_ENDLESS = 1e9


@dataclass(frozen=True, slots=True)
class Choice:
    """Which groups a recipe keeps float; None where no assignment stays within the room."""

    keep: tuple[str, ...] | None
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The error of each group quantised alone, as a share of the margins, the most sensitive first."""

    groups: tuple[str, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What decides sensitivities."""

    quantisation: Quantisation
    integers: Integers
    rule: Rule
    seed: int
    merge: bool


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What decides a choice besides: the room, and what the groups save."""

    asked: _Asked
    room: float
    gains: dict[str, float]


@dataclass(frozen=True, slots=True)
class Mixer:
    """Chooses groups for one model and build. ``files`` as the lowering reads them, ``inputs`` their digests."""

    store: ContentStore
    bench: Bench
    files: GraphFiles
    inputs: Mapping[str, Digest]
    limits: Limits

    def keep(self, base: Tried, room: float, oracle: Oracle, note: Callable[[str], None]) -> Recipe | None:
        """The fastest assignment of an int8 recipe with a parity error within ``room``; None where there is none."""

        def ask(lab: _Lab, asked: _Asked) -> Choice:
            return self._choose(lab, asked, base.recipe, room, oracle, note)

        choice = self._in_the_lab(base.recipe, ask, note)
        if choice is None or not choice.keep:
            return None
        recipe = base.recipe
        return Recipe(recipe.toolchain, Precision.INT8, {**recipe.options, KEEP: keep_option(choice.keep)})

    def rehearse(self, recipe: Recipe, note: Callable[[str], None]) -> float | None:
        """The parity error of an int8 recipe with every group quantised, simulated; None where that cannot be."""

        def ask(lab: _Lab, asked: _Asked) -> Choice:
            question = Question("rehearsed", asked, self._own(), runtimes())
            return kept(self.store, question, Choice, lambda: Choice((), lab.error(lab.groups)), lambda _: True)

        found = self._in_the_lab(recipe, ask, note)
        return None if found is None else found.error

    def _in_the_lab(
        self, recipe: Recipe, ask: Callable[[_Lab, _Asked], Choice], note: Callable[[str], None]
    ) -> Choice | None:
        """Ask with the graph at hand; what goes wrong costs the mixture and not the search."""
        if Check.PARITY not in self.bench.rules or self.bench.card.parameters > _MOST_PARAMETERS:
            note("no mixed precision: the model is too large for it, or the policy has no rule about parity")
            return None
        integers = Integers.NARROW if self.bench.build.unit == HOST_UNIT else Integers.SIGNED
        try:
            order = graph_order(recipe, None, integers=integers)
            assert order.quantisation is not None
            rule, merge = self.bench.rules[Check.PARITY], order.merge
            with _Lab(self, order) as lab:
                return ask(lab, _Asked(order.quantisation, order.integers, rule, self.bench.seed, merge))
        except ENDINGS:
            raise
        except NwmError as problem:
            note(f"no mixed precision: {problem.what}: {problem.why}")
            return None

    def _own(self) -> dict[str, Digest]:
        return {name: digest for name, digest in self.inputs.items() if name != "profile"}

    def _choose(
        self, lab: _Lab, asked: _Asked, recipe: Recipe, room: float, oracle: Oracle, note: Callable[[str], None]
    ) -> Choice:
        own = self._own()
        found = kept(self.store, Question("sensitivity", asked, own, runtimes()), Sensitivity, lab.sensitivity)
        gain = oracle.gain(recipe)
        gains = {group: float(f"{gain(group):.{_DIGITS}g}") for group in found.groups}
        effects = tuple(Effect(g, e, gains[g]) for g, e in zip(found.groups, found.errors, strict=True))
        worst = sorted(effects, key=lambda each: -each.error)[:3]
        note("most sensitive: " + ", ".join(f"{each.group} {each.error:.0%} of the margins" for each in worst))

        def choose() -> Choice:
            made = assign(effects, room, lab.error, _LARGE_QUESTIONS if self.bench.large else _QUESTIONS)
            return Choice(None) if made is None else Choice(made.keep, made.error)

        question = Question("mixed", _Chosen(asked, float(f"{room:.{_DIGITS}g}"), gains), own, runtimes())
        return kept(self.store, question, Choice, choose, lambda _: True)


class _Lab:
    """The graph with switches, made when the first question needs it."""

    def __init__(self, mixer: Mixer, order: LoweringOrder) -> None:
        self._mixer, self._order = mixer, order
        self._folder = tempfile.TemporaryDirectory(prefix="nwmctl-mixed-")
        self._made: tuple[Toggles, ToggleSession] | None = None
        self._rows = _LARGE_ROWS if mixer.bench.large else mixer.bench.rows
        golden = read_golden(mixer.bench.golden, mixer.bench.card.contract)
        self._golden = golden.head(min(self._rows, golden.rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._made is not None:
            self._made[1].close()
        self._folder.cleanup()

    @property
    def groups(self) -> frozenset[str]:
        """Everything that can be quantised."""
        return frozenset(self._loaded()[0].groups)

    def sensitivity(self) -> Sensitivity:
        """Each group alone."""
        toggles, _ = self._loaded()
        effects = measure_groups(toggles.groups, lambda _: 1.0, self.error)
        return Sensitivity(tuple(e.group for e in effects), tuple(float(f"{e.error:.{_DIGITS}g}") for e in effects))

    def error(self, quantised: frozenset[str]) -> float:
        """The worst parity figure as a share of its margin, with these groups quantised."""
        _, session = self._loaded()
        session.quantise(quantised)
        bench = self._mixer.bench
        pace = Pace.CRAWL if bench.large else Pace.ROWS
        with Candidate(bench.card.contract, Way(Obtained.PROXY, "switched", pace, lambda: _Lent(session))) as candidate:
            result = parity(bench, candidate, self._golden, bench.recording())
        share = worst_share(result)
        return _ENDLESS if share is None else share

    def _loaded(self) -> tuple[Toggles, ToggleSession]:
        if self._made is None:
            toggles = self._build()
            self._made = toggles, toggles.open(_TIMEOUT_S)
        return self._made

    def _build(self) -> Toggles:
        mixer, order = self._mixer, self._order
        assert order.quantisation is not None
        with _folders(Path(self._folder.name)) as (plain_in, static_in, made_in):
            float_ = replace(order, precision=Precision.FP32, batch=None, quantisation=None, keep=())
            plain = lower(mixer.files, plain_in, float_, mixer.limits)
            static = None
            if order.quantisation is Quantisation.STATIC:
                whole = replace(order, batch=None, keep=(), rest=Precision.FP32)
                static = lower(mixer.files, static_in, whole, mixer.limits).path
            how = (order.quantisation, order.integers)
            return build_toggles(plain.path, (plain.inputs, plain.outputs), static, how, made_in, mixer.limits)


class _Lent:
    """A session that whoever borrows it cannot close."""

    def __init__(self, session: ToggleSession) -> None:
        self._session = session

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        return self._session.run(inputs)

    @property
    def seconds(self) -> tuple[float, ...]:
        return ()

    def close(self) -> None:
        """Nothing: the lender closes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _folders(root: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Three empty folders: two for lowered graphs, one for what is made of them."""
    made = tuple(root / name for name in ("plain", "static", "made"))
    for folder in made:
        folder.mkdir()
    yield made[0], made[1], made[2]
