"""The driver of OpenVINO: artifacts for the processor of this machine.

The payload is OpenVINO's own form of the lowered graph at batch 1, description and weights in one file. The runtime
would choose the precision of the arithmetic by the processor, silently; so the precision hint is always set, when the
payload is looked at and wherever it executes, and stands in the manifest. What is found is what the runtime says about
the model that it compiled out of the payload: layers by the type that they are executed in. Cross-compiles nothing.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest, Precision, Quantisation, Recipe, RuntimeNeeds
from nwmctl.errors import (
    PlaceUnavailableError,
    QuantisationLostError,
    RecipeOptionError,
    ToolchainMissingError,
    UnsupportedRecipeError,
)
from nwmctl.toolchains import graph_options, sessions
from nwmctl.toolchains.files import version_of, versions
from nwmctl.toolchains.inspection import Inspection, operators
from nwmctl.toolchains.lowering import Integers, Lowered, LoweringOrder, lower
from nwmctl.toolchains.manifests import Made, described
from nwmctl.toolchains.openvino_child import PAYLOAD, PRODUCTS, REPORT
from nwmctl.toolchains.process import Command, own_path, python_module, run_tool
from nwmctl.toolchains.processor import computes, has_dot_products, named, processor
from nwmctl.toolchains.protocol import Capability, Compiled, CompileRequest, Effort, Place, Probe, Session
from nwmctl.toolchains.runtimes import HINT_FLAG

FORMAT = "openvino-ir"
PACKAGE = "openvino"
_CODE = 1
"""Raised when this driver's own doing changes the payload's bytes."""
_INSTALL = "pip install 'nwmctl[openvino]'"
_UNIT = "host"
_HINTS: Mapping[Precision, str] = {Precision.FP32: "f32", Precision.FP16: "f16", Precision.BF16: "bf16"}
_TYPES: Mapping[str, str] = {
    "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "uint8",
}  # fmt: skip
_QUANTISATIONS = (Quantisation.STATIC, Quantisation.WEIGHTS)


class OpenVino:
    """``Toolchain`` for OpenVINO."""

    name = "openvino"

    def probe(self) -> Probe:
        """See ``Toolchain.probe``."""
        version = version_of(PACKAGE)
        if importlib.util.find_spec(PACKAGE) is None:
            return Probe(self.name, False, version, "the package is not installed", _INSTALL)
        detail = f"builds for and executes on this processor ({named(processor())})"
        return Probe(self.name, True, version, detail, "", self._capabilities())

    def _capabilities(self) -> tuple[Capability, ...]:
        floats = tuple(Capability(_UNIT, precision) for precision in _HINTS if computes(precision, processor()))
        return (*floats, Capability(_UNIT, Precision.INT8, _QUANTISATIONS, mixed=True))

    def fingerprint(self, recipe: Recipe) -> str:
        """See ``Toolchain.fingerprint``. The processor decides what is found, though not the payload's bytes."""
        return f"openvino driver {_CODE}, {versions(PACKAGE, 'onnx', 'onnxruntime', 'onnx-ir')}, {named(processor())}"

    def variations(self, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> tuple[Recipe, ...]:
        """See ``Toolchain.variations``. This processor is the chip, so its own word counts."""
        if unit != _UNIT or not self.probe().available:
            return ()
        has = processor()
        static = {"quantisation": Quantisation.STATIC.value}
        exact = Integers.UNSIGNED if has_dot_products(has) else Integers.NARROW
        int8 = Recipe(self.name, Precision.INT8, {**static, "integers": exact.value})
        floats = [Recipe(self.name, p) for p in (Precision.BF16, Precision.FP16) if computes(p, has)]
        fp32 = Recipe(self.name, Precision.FP32)
        # Without dot products OpenVINO's integers are slower than its fp32: measured, and left to a full search.
        quick = (int8, *floats, fp32) if has_dot_products(has) else (*floats, fp32)
        weights = Recipe(self.name, Precision.INT8, {"quantisation": Quantisation.WEIGHTS.value})
        rest = (weights,) if int8 in quick else (int8, weights)
        return quick if effort is Effort.QUICK else (*quick, *rest)

    def compile(self, request: CompileRequest) -> Compiled:
        """See ``Toolchain.compile``."""
        if not self.probe().available:
            raise ToolchainMissingError("OpenVINO is not installed", why=f"no package {PACKAGE} here", next=_INSTALL)
        order, hint = _read(request.recipe, request.unit)
        lowered = lower(request.files, request.scratch, order, request.limits)
        argv = python_module("nwmctl.toolchains.openvino_child", hint)
        run_tool(Command("OpenVINO", argv, request.scratch, request.limits, own_path(), error_pattern=""))
        found: dict[str, int] = json.loads((request.scratch / REPORT).read_text("utf-8"))["found"]
        inspection = _inspected(found)
        _assert_quantised(order, lowered, found)
        version = version_of(PACKAGE)
        made = Made(
            request.scratch / PAYLOAD, FORMAT, ("openvino-convert", f"{HINT_FLAG}{hint}"), f"{PACKAGE} {version}",
            FORMAT, RuntimeNeeds(PACKAGE, version, (f"{HINT_FLAG}{hint}",)), notes=_notes(order),
        )  # fmt: skip
        return Compiled(made.payload, described(request, lowered, inspection, made))

    def places(self, manifest: ArtifactManifest) -> Mapping[Place, str]:
        """See ``Toolchain.places``."""
        here = "" if self.probe().available else f"OpenVINO is not installed: {_INSTALL}"
        hint = next((f.removeprefix(HINT_FLAG) for f in manifest.needs.flags if f.startswith(HINT_FLAG)), "")
        for precision, word in _HINTS.items():
            if not here and word == hint and not computes(precision, processor()):
                here = f"this processor has no arithmetic in {precision}"
        return {Place.HOST: here, Place.EMULATED: "a graph is no machine code; there is nothing to emulate"}

    def open(self, payload: Path, manifest: ArtifactManifest, place: Place, timeout_s: float = 60.0) -> Session:
        """See ``Toolchain.open``."""
        reason = self.places(manifest)[place]
        if reason:
            raise PlaceUnavailableError(
                f"the artifact cannot execute here ({place})", why=reason, next="execute it on the host"
            )
        return sessions.open_worker(
            "openvino", payload, manifest.inputs, manifest.outputs, timeout_s, manifest.needs.flags
        )


def _read(recipe: Recipe, unit: str) -> tuple[LoweringOrder, str]:
    """What the graph is to become, and the hint. Raises UnsupportedRecipeError, RecipeOptionError."""
    if unit != _UNIT:
        raise _unsupported(f"for the unit '{unit}'", "it executes graphs on the machine it runs on")
    order = graph_options.graph_order(recipe, 1, quantisation=Quantisation.STATIC, integers=Integers.NARROW)
    for name in graph_options.own_options(recipe):
        listed = ", ".join(graph_options.known(recipe.precision)) or "no options"
        raise RecipeOptionError(
            f"the recipe's option '{name}' is not possible with openvino",
            why=f"it knows {listed} for {recipe.precision}",
            next="correct the recipe",
        )
    if order.quantisation is Quantisation.DYNAMIC:
        raise _unsupported("dynamic int8", "it quantises activations with scales that it knows beforehand, or not")
    arithmetic = order.rest if recipe.precision is Precision.INT8 else recipe.precision
    if not computes(arithmetic, processor()):
        why = f"this processor has none ({named(processor())}), and the runtime would compute in fp32 instead"
        raise _unsupported(f"arithmetic in {arithmetic}", why)
    return order, _HINTS[arithmetic]


def _unsupported(what: str, why: str) -> UnsupportedRecipeError:
    return UnsupportedRecipeError(
        f"the toolchain 'openvino' does not build {what} here", why=why, next="choose another recipe for this build"
    )


def _inspected(found: Mapping[str, int]) -> Inspection:
    """What the compiled model multiplies in."""
    products: dict[str, int] = {}
    for name, count in found.items():
        kind, _, precision = name.partition(".")
        if kind in PRODUCTS:
            dtype = _TYPES.get(precision, precision)
            products[dtype] = products.get(dtype, 0) + count
    return operators(found, products)


def _assert_quantised(order: LoweringOrder, lowered: Lowered, found: Mapping[str, int]) -> None:
    """Raises QuantisationLostError where the compiled model has fewer integers than the lowered graph."""
    asked = sum(lowered.quantised.values())
    kinds = ("Const",) if order.quantisation is Quantisation.WEIGHTS else tuple(PRODUCTS)
    got = sum(found.get(f"{kind}.{integer}", 0) for kind in kinds for integer in ("i8", "u8"))
    if got < asked:
        raise QuantisationLostError(
            "OpenVINO did not keep what was quantised",
            why=f"the graph has {asked} quantised products, the compiled model {got}",
            next="try another form of quantisation, or another toolchain",
        )


def _notes(order: LoweringOrder) -> tuple[str, ...]:
    said = [f"found in the model as OpenVINO compiles it on a processor with {named(processor())}"]
    if order.precision is Precision.INT8 and not has_dot_products(processor()):
        said.append("this processor has no dot products of bytes (VNNI): integers are at most twice as fast as fp32")
    return tuple(said)
