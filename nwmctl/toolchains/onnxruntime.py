"""The driver of onnxruntime: artifacts for the processor of this machine, and the reference that others are compared
with.

The payload is the lowered graph itself, folded offline at the asked precision, with its symbolic batch kept; only
dynamic int8 is built for one row, because there one scale of the activations would serve a whole batch, and a row's
answer would depend on its neighbours. What the runtime does to the graph when it loads it depends on the machine and
is not part of the payload; for int8 it is looked at all the same, because integers in a graph prove nothing if the
runtime does not multiply them. Cross-compiles nothing.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest, Port, Precision, Quantisation, Recipe, RuntimeNeeds
from nwmctl.errors import (
    PlaceUnavailableError,
    QuantisationLostError,
    RecipeOptionError,
    ToolchainMissingError,
    UnsupportedRecipeError,
)
from nwmctl.toolchains import graph_options, sessions
from nwmctl.toolchains.files import version_of, versions
from nwmctl.toolchains.graph_files import check_single_message
from nwmctl.toolchains.inspection import Inspection, operators
from nwmctl.toolchains.lowering import Integers, Lowered, LoweringOrder, lower
from nwmctl.toolchains.manifests import Made, described
from nwmctl.toolchains.onnxruntime_child import INTEGER_KERNELS, REPORT
from nwmctl.toolchains.process import Command, own_path, python_module, run_tool
from nwmctl.toolchains.processor import has_dot_products, processor
from nwmctl.toolchains.protocol import Capability, Compiled, CompileRequest, Effort, Place, Probe, Session

FORMAT = "onnx"
PACKAGE = "onnxruntime"
_CODE = 2
"""Raised when this driver's own doing changes the payload's bytes."""
_INSTALL = "pip install onnxruntime"
_UNIT = "host"
_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
_EXECUTED = "executed."
"""In front of operators that were counted in the graph as the runtime executes it."""


class OnnxRuntime:
    """``Toolchain`` for onnxruntime."""

    name = "onnxruntime"

    def probe(self) -> Probe:
        """See ``Toolchain.probe``."""
        if importlib.util.find_spec(PACKAGE) is None:
            return Probe(self.name, False, version_of(PACKAGE), "the package is not installed", _INSTALL)
        capabilities = (
            Capability(_UNIT, Precision.FP32),
            Capability(_UNIT, Precision.FP16),
            Capability(_UNIT, Precision.INT8, tuple(Quantisation), mixed=True),
        )
        detail = "folds graphs offline and executes them on this CPU"
        return Probe(self.name, True, version_of(PACKAGE), detail, "", capabilities)

    def fingerprint(self, recipe: Recipe) -> str:
        """See ``Toolchain.fingerprint``."""
        return f"onnxruntime driver {_CODE}, {versions('onnx', PACKAGE, 'onnx-ir')}"

    def variations(self, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> tuple[Recipe, ...]:
        """See ``Toolchain.variations``. This processor is the chip, so its own word counts."""
        if unit != _UNIT or not self.probe().available:
            return ()
        exact = Integers.UNSIGNED if has_dot_products(processor()) else Integers.NARROW
        dynamic, static = (
            Recipe(self.name, Precision.INT8, {"quantisation": how.value, "integers": exact.value})
            for how in (Quantisation.DYNAMIC, Quantisation.STATIC)
        )
        quick = (dynamic, static, Recipe(self.name, Precision.FP32))
        if effort is Effort.QUICK:
            return quick
        merged = Recipe(self.name, Precision.INT8, {**dynamic.options, "merge": True})
        # Weights alone are decoded at every execution: small, and slow.
        weights = Recipe(self.name, Precision.INT8, {"quantisation": Quantisation.WEIGHTS.value})
        return (*quick, merged, weights)

    def compile(self, request: CompileRequest) -> Compiled:
        """See ``Toolchain.compile``."""
        if not self.probe().available:
            raise ToolchainMissingError("onnxruntime is not installed", why="no such package here", next=_INSTALL)
        order = _read(request.recipe, request.unit)
        single = "its payload is one ONNX file, which holds less than 2 GiB"
        check_single_message(self.name, request.files, order, single)
        lowered = lower(request.files, request.scratch, order, request.limits)
        if lowered.data is not None:
            raise _unsupported("weights of this size", single)
        inspection = operators(lowered.operators, lowered.products)
        if order.precision is Precision.INT8:
            inspection = _looked_at(request, lowered, order, inspection)
        version = version_of(PACKAGE)
        made = Made(
            lowered.path, FORMAT, _argv(order), f"{PACKAGE} {version}", FORMAT, RuntimeNeeds(PACKAGE, version),
            notes=_notes(order),
        )  # fmt: skip
        return Compiled(lowered.path, described(request, lowered, inspection, made))

    def places(self, manifest: ArtifactManifest) -> Mapping[Place, str]:
        """See ``Toolchain.places``."""
        here = "" if self.probe().available else f"onnxruntime is not installed: {_INSTALL}"
        return {Place.HOST: here, Place.EMULATED: "a graph is no machine code; there is nothing to emulate"}

    def open(self, payload: Path, manifest: ArtifactManifest, place: Place, timeout_s: float = 60.0) -> Session:
        """See ``Toolchain.open``."""
        reason = self.places(manifest)[place]
        if reason:
            raise PlaceUnavailableError(
                f"the artifact cannot execute here ({place})", why=reason, next="execute it on the host"
            )
        return sessions.open_worker("onnxruntime", payload, manifest.inputs, manifest.outputs, timeout_s)


def open_model(
    model: Path,
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
    timeout_s: float = 60.0,
    data: Path | None = None,
) -> Session:
    """Load a model as it was trained, any batch: the reference; ``data`` are the weights outside of its
    graph. The ports come from the model's contract.

    Raises MissingError and ToolchainError subclasses.
    """
    return sessions.open_worker("onnxruntime", model, inputs, outputs, timeout_s, data=data)


def _read(recipe: Recipe, unit: str) -> LoweringOrder:
    """What the graph is to become. Raises UnsupportedRecipeError, RecipeOptionError."""
    if unit != _UNIT:
        raise _unsupported(f"for the unit '{unit}'", "it executes graphs on the machine it runs on")
    if recipe.precision not in _PRECISIONS:
        raise _unsupported(recipe.precision, f"it builds {', '.join(_PRECISIONS)}")
    for name in graph_options.own_options(recipe):
        listed = ", ".join(graph_options.known(recipe.precision)) or "no options"
        raise RecipeOptionError(
            f"the recipe's option '{name}' is not possible with onnxruntime",
            why=f"it knows {listed} for {recipe.precision}",
            next="correct the recipe",
        )
    asked = graph_options.graph_order(recipe, None, quantisation=Quantisation.STATIC, integers=Integers.NARROW)
    if asked.quantisation is not None and asked.rest is not Precision.FP32:
        raise _unsupported(f"int8 with a rest in {asked.rest}", "beside integers its CPU kernels compute in fp32")
    if asked.quantisation is not Quantisation.DYNAMIC:
        return asked
    return graph_options.graph_order(recipe, 1, quantisation=Quantisation.STATIC, integers=Integers.NARROW)


def _unsupported(what: str, why: str) -> UnsupportedRecipeError:
    return UnsupportedRecipeError(
        f"the toolchain 'onnxruntime' does not build {what}", why=why, next="choose another recipe for this build"
    )


def _looked_at(request: CompileRequest, lowered: Lowered, order: LoweringOrder, graph: Inspection) -> Inspection:
    """The graph's counts, and beside them those of what the runtime executes. Raises QuantisationLostError."""
    argv = python_module("nwmctl.toolchains.onnxruntime_child")
    run_tool(Command("onnxruntime", argv, request.scratch, request.limits, own_path(), error_pattern=""))
    executed: dict[str, int] = json.loads((request.scratch / REPORT).read_text("utf-8"))
    got = sum(count for name, count in executed.items() if name in INTEGER_KERNELS)
    asked = sum(lowered.quantised.values())
    if order.quantisation is not Quantisation.WEIGHTS and got < asked:
        raise QuantisationLostError(
            "onnxruntime does not execute what was quantised",
            why=f"the graph has {asked} quantised products, the runtime multiplies integers in {got}",
            next="try another form of quantisation, or another toolchain",
        )
    kernels = {f"{_EXECUTED}{name}": count for name, count in executed.items() if name in INTEGER_KERNELS}
    return Inspection({**graph.found, **kernels}, graph.precision, graph.notes)


def _argv(order: LoweringOrder) -> tuple[str, ...]:
    said = ["nwmctl-lower", f"--precision={order.precision}", f"--scope={order.scope}"]
    if order.quantisation is not None:
        said += [f"--quantisation={order.quantisation}", f"--integers={order.integers}"]
        said += [f"--keep={','.join(order.keep)}"] if order.keep else []
    return (*said, *(["--merge"] if order.merge else []))


def _notes(order: LoweringOrder) -> tuple[str, ...]:
    if order.quantisation is not Quantisation.DYNAMIC:
        return ()
    return ("activations get their scale from all rows of a call: built for one row, and asked row by row",)
