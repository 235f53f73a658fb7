"""Which numbers each node of a graph is computed with under a recipe, and what is assumed of a machine unmeasured.

Pure. Reads the options of a recipe that mean the same for every toolchain; all others are the toolchain's own and make
a class of constants. The assumptions stand here alone, with the reason for each; a fit replaces them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.compiler.graph import Kind, NodeCount
from nwmctl.domain.artifact import Option, Precision, Recipe
from nwmctl.domain.platform import HOST_UNIT
from nwmctl.domain.prediction import Form, PredictionError, Rate

GRAPH_OPTIONS = frozenset({"quantisation", "keep", "rest", "fp16_scope"})
"""Options about the graph: the same words for every toolchain."""
INTERPRETERS = frozenset({"onnxruntime"})
"""Toolchains that run a graph's nodes as kernels of their own and fuse little more than a bias."""

ONE_AFTER_THE_OTHER = frozenset({"cpu", HOST_UNIT})
"""Units whose arithmetic and memory accesses hardly overlap."""
_CONVERTING = frozenset({"onnxruntime", "openvino"})
"""Runtimes that widen weights in halves, and int8 weights of float products, to what the host multiplies."""

ASSUMED = "assumed"
"""The word for constants that nobody has measured."""
ASSUMED_ERROR = PredictionError(0, 0, 1.0, 3.0)
"""Without measurements a prediction may be four times too long or too short: compilers reach from a tenth to nine
tenths of a peak."""
_EFFICIENCY: Mapping[str, float] = {"gpu": 0.35, "cpu": 0.5, HOST_UNIT: 0.5}
"""Share of the arithmetic peak that products reach, by unit; 0.4 elsewhere. At batch 1 products are small."""
_EFFICIENCY_ELSEWHERE = 0.4
BANDWIDTH_EFFICIENCY = 0.7
"""Share of the bandwidth that streaming reaches."""
_CACHE = 2.0
"""How much faster a cache is than memory, for one core."""
_LAUNCH_US: Mapping[str, tuple[float, float]] = {"gpu": (20.0, 5.0), "cpu": (5.0, 1.0), HOST_UNIT: (5.0, 1.0)}
"""Microseconds to start a control step, and a kernel."""
_SLOWER: Mapping[Rate, float] = {Rate.ELEMENTS: 0.1, Rate.ROWS: 0.05, Rate.ATTENTION: 0.5}
"""What is not a product of weights reaches less, relative to products in fp32."""


@dataclass(frozen=True, slots=True)
class Forms:
    """How a recipe computes: products in ``product`` except for the groups in ``keep``, everything else in ``rest``.

    ``wide``: fp16 for the activations too, not just for the operands of products.
    """

    product: Form
    rest: Form
    keep: frozenset[str]
    wide: bool = False

    def of(self, node: NodeCount) -> Form:
        """The numbers of one node."""
        if node.kind is Kind.PRODUCT:
            return self.rest if node.layer in self.keep else self.product
        if node.kind is Kind.ATTENTION and self.product in (Form.FP16, Form.BF16):
            return self.product
        return self.rest

    @property
    def activation_bytes(self) -> int:
        """Bytes of one element between nodes."""
        return 2 if self.wide else 4


def forms_of(recipe: Recipe) -> Forms:
    """What a recipe says about numbers; options that it leaves out have their defaults."""
    if recipe.precision is Precision.INT8:
        form = Form(f"int8.{recipe.options.get('quantisation', 'dynamic')}")
        names = str(recipe.options.get("keep", "")).split(",")
        keep = frozenset(name.strip() for name in names if name.strip())
        return Forms(form, Form(str(recipe.options.get("rest", Form.FP32))), keep)
    form = Form(recipe.precision.value)
    wide = recipe.options.get("fp16_scope") == "all" and form is Form.FP16
    return Forms(form, form if wide else Form.FP32, frozenset(), wide)


def own_options(recipe: Recipe) -> dict[str, Option]:
    """The options that are the toolchain's own."""
    return {name: value for name, value in sorted(recipe.options.items()) if name not in GRAPH_OPTIONS}


def machine_precision(toolchain: str, unit: str, form: Form, options: Mapping[str, Option]) -> Precision:
    """The arithmetic that the code of a toolchain really uses for a form, as far as it was ever looked at.

    int8 weights are multiplied as floats. IREE has no integer tensor-core code for the GPU; on Arm it tiles integer
    products unless told otherwise, and outside data tiling it widens them: there int8 is no faster than fp32.
    """
    if form is Form.WEIGHTS:
        return Precision.FP32
    if form in (Form.DYNAMIC, Form.STATIC):
        scalar = toolchain == "iree" and (unit == "gpu" or not options.get("data_tiling", True))
        return Precision.FP32 if scalar else Precision.INT8
    return Precision(form.value)


def held_bytes(toolchain: str, unit: str, form: Form) -> int:
    """Bytes that one weight takes while the artifact runs."""
    floats = form in (Form.FP16, Form.BF16, Form.WEIGHTS)
    return 4 if floats and unit == HOST_UNIT and toolchain in _CONVERTING else form.weight_bytes


def efficiency(unit: str) -> float:
    """The assumed share of the arithmetic peak."""
    return _EFFICIENCY.get(unit, _EFFICIENCY_ELSEWHERE)


def assumed_rates(unit: str, fp32_tera: float, gb_per_s: float) -> dict[str, float]:
    """Assumed constants of a unit with this peak in fp32 and this bandwidth."""
    call, kernel = _LAUNCH_US.get(unit, _LAUNCH_US["gpu"])
    product, stream = 1e3 * fp32_tera * efficiency(unit), gb_per_s * BANDWIDTH_EFFICIENCY
    slower = {str(rate): share * product for rate, share in _SLOWER.items()}
    moved = {str(rate): stream for rate in (Rate.ACTIVATIONS, Rate.WEIGHTS)}
    return {Rate.CALL: call, Rate.KERNEL: kernel, **moved, Rate.CACHED: _CACHE * stream, **slower}
