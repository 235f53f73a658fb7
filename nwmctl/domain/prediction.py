"""What a control step is predicted to take, and the fitted constants that the prediction stands on.

A prediction is ``estimated``, always: it ranks candidates and finds what binds, it proves nothing. It carries its own
error, learned on models that the fit had not seen; without measurements the error is an assumption and is named so.
A figure that the profile does not know is listed in ``missing`` and never replaced: then there is no time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.artifact import Option, Recipe
from nwmctl.domain.figure import Obtained
from nwmctl.domain.roofline import Bound


class Form(StrEnum):
    """The numbers in which a product is computed."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    DYNAMIC = "int8.dynamic"
    STATIC = "int8.static"
    WEIGHTS = "int8.weights"
    """Weights are stored as int8 and multiplied as floats."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight."""
        return {Form.FP32: 4, Form.FP16: 2, Form.BF16: 2}.get(self, 1)


class Rate(StrEnum):
    """A toolchain's constants beside those of its forms: what it achieves, not what the chip could."""

    CALL = "call_us"
    """Starting one control step."""
    KERNEL = "kernel_us"
    """Starting one kernel."""
    ELEMENTS = "elements_g_per_s"
    """Operations on single elements."""
    ROWS = "rows_g_per_s"
    """Operations of softmax, normalisation, reductions."""
    ATTENTION = "attention_g_per_s"
    """Operations of products of two activations."""
    ACTIVATIONS = "activations_gb_per_s"
    WEIGHTS = "weights_gb_per_s"
    """Weights that are read from memory in every control step."""
    CACHED = "cached_weights_gb_per_s"
    """Weights that stay in the largest cache from one control step to the next."""


@dataclass(frozen=True, slots=True)
class PredictionError:
    """How far predictions were from measurements: as factors minus one (0.5: half too long, or a third too short).

    ``points`` measurements of ``models`` models, each predicted by a fit that had not seen its model; 0 points: an
    assumption.
    """

    points: int
    models: int
    median: float
    worst: float

    def __post_init__(self) -> None:
        if not 0 <= self.median <= self.worst:
            raise ValueError("a prediction's median error lies from 0 up to the worst one")

    @property
    def assumed(self) -> bool:
        """Whether nothing was measured."""
        return self.points == 0


@dataclass(frozen=True, slots=True)
class Constants:
    """What one toolchain with one set of its own options achieves. ``rates`` by ``Rate``; ``products`` (10^9 operations
    per s) and ``conversions`` (10^9 elements per s into and out of the form) by ``Form``, only those that were seen.

    ``options``: None stands for all options together.
    """

    toolchain: str
    unit: str
    options: dict[str, Option] | None
    rates: dict[str, float]
    products: dict[str, float]
    conversions: dict[str, float]
    error: PredictionError


@dataclass(frozen=True, slots=True)
class CostFit:
    """Constants that were learned on one chip. ``models`` names what they were learned from; ``cache_bytes`` is the
    largest cache of a host, None where nobody looked: weights that fit into it were not streamed from memory."""

    chip: str
    constants: tuple[Constants, ...]
    models: tuple[str, ...]
    obtained: Obtained
    source: str
    cache_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer: predicted ms (None where a figure is missing), what binds it, and what it moves and computes."""

    name: str
    ms: float | None
    bound: Bound | None
    flops: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one control step of a model takes on a chip when it is built by a recipe.

    ``activation_bytes`` leaves out what stays inside fused kernels. ``frame_share`` is the share of the control period
    (0..1 and above). ``fitted``: the constants were measured on this chip; otherwise they are assumed efficiencies of
    the profile's peaks, and ``source`` says so. ``ms`` is None exactly where ``missing`` names figures.
    """

    recipe: Recipe
    ms: float | None
    bound: Bound | None
    layers: tuple[LayerTime, ...]
    flops: int
    weight_bytes: int
    activation_bytes: int
    fitted: bool
    source: str
    error: PredictionError
    missing: tuple[str, ...] = ()
    frame_share: float | None = None
    obtained: Obtained = field(default=Obtained.ESTIMATED)

    def __post_init__(self) -> None:
        if (self.ms is None) != bool(self.missing):
            raise ValueError("a prediction has no time exactly where it names missing figures")

    @property
    def moved_bytes(self) -> int:
        """Bytes between memory and the arithmetic units in one control step."""
        return self.weight_bytes + self.activation_bytes
