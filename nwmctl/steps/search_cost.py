"""What the cost model tells a search: forecasts before a recipe is built, estimates of what is in an artifact, gains.

Where the chip is this machine the model is fitted to what was measured here, in this search and in earlier ones of
other models; elsewhere it stands on the profile. Where the profile lacks the peak of a narrower format, fp32's stands
in: an upper bound of the time, and the notes say so. One search stands on one basis: where even that is unknown, all
recipes are compared by the bytes that they move. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nwmctl.compiler.cost import predict
from nwmctl.compiler.cost_fit import Measured, fit
from nwmctl.compiler.graph import GraphCount, count_lowered
from nwmctl.compiler.search_rank import Speed, Tried
from nwmctl.compiler.space import recipe_key
from nwmctl.domain.artifact import Precision, Quantisation, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.platform import HOST_UNIT, Chip
from nwmctl.domain.prediction import CostFit, Prediction
from nwmctl.steps.search_kept import Memory, Question, kept, look
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.files import versions
from nwmctl.toolchains.graph_options import FP16_SCOPE, INTEGERS, KEEP, QUANTISATION, REST
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder, lower
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.processor import cache_bytes

_COUNT_S = 300.0
_MEASURED = (Obtained.MEASURED, Obtained.BENCH)
_UNTOLD = 1e6
"""The factor of what is compared by bytes: no difference in bytes proves one in time, so nothing is pruned by it."""
_LEAST_GAIN = 1e-9


@dataclass(slots=True)
class Oracle:
    """The cost model for one model on one part of a chip. ``known``: latencies of other models, measured here."""

    count: GraphCount
    chip: Chip
    unit: str
    rate_hz: float
    name: str
    known: Sequence[Measured] = ()
    missing: tuple[str, ...] = ()
    stand_in: bool = False
    """Whether fp32's peak may stand in for one that the profile lacks."""
    _fits: dict[int, CostFit | None] = field(default_factory=dict)

    def choose_basis(self, recipes: Sequence[Recipe]) -> str:
        """Look which figures the recipes need that the profile lacks; words about it, '' where it lacks none. Where
        artifacts are measured, what is missing costs a forecast and nothing else."""
        if self.unit == HOST_UNIT:
            return ""
        # As built: before that, a toolchain's code is assumed to be no better than it was ever seen to be.
        wanted = [(recipe, found) for recipe in recipes for found in (None, recipe.precision)]
        lacking = _names(self._predict(recipe, (), found) for recipe, found in wanted)
        self.stand_in = bool(lacking)
        self.missing = _names(self._predict(recipe, (), found) for recipe, found in wanted)
        if self.missing:
            return f"the profile does not know the {', '.join(self.missing)}: compared by the bytes that a step moves"
        if lacking:
            return f"the profile does not know the {', '.join(lacking)}: fp32's stands in, an upper bound"
        return ""

    def forecast(self, recipe: Recipe, tried: Sequence[Tried]) -> Speed | None:
        """Before it is built."""
        return self._speed(self._predict(recipe, tried))

    def estimate(self, recipe: Recipe, found: Precision) -> Speed | None:
        """Of a built artifact that nothing here can time: by the precision that was found in it."""
        return self._speed(self._predict(_as_found(recipe, found), (), found))

    def gain(self, recipe: Recipe) -> Callable[[str], float]:
        """What quantising a group saves under an int8 recipe (ms, or MB), by the group's name."""
        whole = self._predict(recipe, ())
        options = {**recipe.options, "keep": ",".join(self.count.groups)}
        plain = self._predict(Recipe(recipe.toolchain, recipe.precision, options), ())
        sums: dict[str, float] = {}
        for layer, other in zip(plain.layers, whole.layers, strict=True):
            saved = (layer.ms - other.ms) if layer.ms is not None and other.ms is not None else None
            moved = (layer.weight_bytes + layer.activation_bytes - other.weight_bytes - other.activation_bytes) / 1e6
            sums[layer.name] = moved if saved is None or self.missing else saved
        # A group that the count does not know by this name is worth trying, and worth little.
        return lambda group: sums.get(group, _LEAST_GAIN)

    def _speed(self, found: Prediction) -> Speed | None:
        if self.missing:
            moved = (found.weight_bytes + found.activation_bytes) / 1e6
            return Speed(moved, _UNTOLD, Obtained.ESTIMATED, "MB moved") if moved > 0 else None
        if found.ms is None or found.ms <= 0:
            return None
        return Speed(found.ms, 1.0 + found.error.worst, Obtained.ESTIMATED)

    def _predict(self, recipe: Recipe, tried: Sequence[Tried], found: Precision | None = None) -> Prediction:
        fit_ = self._fit(tried)
        told = predict(self.count, self.chip, self.unit, recipe, fit_, self.rate_hz, found)
        if not told.missing or not self.stand_in:
            return told
        plain = replace(recipe, options={name: value for name, value in recipe.options.items() if name != REST})
        return predict(self.count, self.chip, self.unit, plain, fit_, self.rate_hz, Precision.FP32)

    def _fit(self, tried: Sequence[Tried]) -> CostFit | None:
        own = [each for each in tried if each.latency is not None and each.speed is not None]
        if len(own) not in self._fits:
            measured = [
                *self.known,
                *(Measured(self.name, self.count, self.unit, t.recipe, t.speed.ms) for t in own if t.speed),
            ]
            source = "measured by searches on this machine"
            cache = cache_bytes() if self.unit == HOST_UNIT else None
            made = fit(measured, self.chip.name, Obtained.MEASURED, source, cache) if measured else None
            self._fits[len(own)] = made
        return self._fits[len(own)]


def _names(predictions: Iterable[Prediction]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for each in predictions for name in each.missing))


def count_of(
    store: ContentStore, inputs: Mapping[str, Digest], weights: Path, data: Path | None, memory_bytes: int
) -> GraphCount:
    """The model's count, kept by its graph. Raises GraphUnreadableError and its kinds."""

    def count() -> GraphCount:
        with store.scratch() as scratch:
            limits = Limits(_COUNT_S, memory_bytes)
            lowered = lower(GraphFiles(weights, data), scratch, LoweringOrder(Precision.FP32), limits)
            return count_lowered(lowered.path)

    return kept(store, _counted({name: inputs[name] for name in ("weights", "weights_data") if name in inputs}),
                GraphCount, count)  # fmt: skip


def known_from(store: ContentStore, memory: Memory, unit: str, but: Digest) -> tuple[Measured, ...]:
    """What earlier searches measured here for other models whose count is still kept."""
    found: list[Measured] = []
    for search in memory.searches:
        count = look(store, _counted({"weights": search.weights}), GraphCount)
        if search.weights == but or count is None:
            continue
        found += [Measured(search.weights.short, count, unit, timing.recipe, timing.ms) for timing in search.measured]
    return tuple(found)


def prediction_error(forecasts: Mapping[str, Speed], tried: Sequence[Tried]) -> float | None:
    """Median of |predicted / measured - 1|; None where nothing was measured and predicted."""
    ratios = sorted(
        abs(forecasts[recipe_key(each.recipe)].ms / each.speed.ms - 1.0)
        for each in tried
        if each.speed and each.speed.obtained in _MEASURED
        if recipe_key(each.recipe) in forecasts and forecasts[recipe_key(each.recipe)].unit == each.speed.unit
    )
    if not ratios:
        return None
    middle = len(ratios) // 2
    return ratios[middle] if len(ratios) % 2 else (ratios[middle - 1] + ratios[middle]) / 2


@dataclass(frozen=True, slots=True)
class _Count:
    """The question has no other part than its inputs."""


def _counted(inputs: Mapping[str, Digest]) -> Question:
    return Question("count", _Count(), inputs, versions("onnx", "onnxruntime", "onnx-ir"))


def _as_found(recipe: Recipe, found: Precision) -> Recipe:
    """The recipe that would have asked for what the artifact contains."""
    weights_only = recipe.options.get("quantisation") == Quantisation.WEIGHTS
    if found is recipe.precision or (recipe.precision is Precision.INT8 and weights_only):
        return recipe
    graph = (QUANTISATION, KEEP, REST, FP16_SCOPE, INTEGERS)
    return Recipe(recipe.toolchain, found, {k: v for k, v in recipe.options.items() if k not in graph})
