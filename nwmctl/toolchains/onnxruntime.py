"""The driver of onnxruntime: artifacts for the virtual platform, and the reference that others are compared with.

The payload is the lowered graph itself, folded offline at the asked precision, with its symbolic batch kept. What the
runtime does to the graph when it loads it depends on the machine and is not part of the payload. Cross-compiles
nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest, Option, Port, Precision, Recipe, RuntimeNeeds
from nwmctl.errors import PlaceUnavailableError, RecipeOptionError, ToolchainMissingError, UnsupportedRecipeError
from nwmctl.toolchains import sessions
from nwmctl.toolchains.files import version_of, versions
from nwmctl.toolchains.inspection import operators
from nwmctl.toolchains.lowering import LoweringOrder, Scope, lower
from nwmctl.toolchains.manifests import Made, described
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Effort, Place, Probe, Session

FORMAT = "onnx"
PACKAGE = "onnxruntime"
_CODE = 1
"""Raised when this driver's own doing changes the payload's bytes."""
_INSTALL = "pip install onnxruntime"
_PRECISIONS = (Precision.FP32, Precision.FP16)


class OnnxRuntime:
    """``Toolchain`` for onnxruntime."""

    name = "onnxruntime"

    def probe(self) -> Probe:
        """See ``Toolchain.probe``."""
        if importlib.util.find_spec(PACKAGE) is None:
            return Probe(self.name, False, version_of(PACKAGE), "the package is not installed", _INSTALL)
        return Probe(self.name, True, version_of(PACKAGE), "folds graphs offline and executes them on this CPU")

    def fingerprint(self, recipe: Recipe) -> str:
        """See ``Toolchain.fingerprint``."""
        return f"onnxruntime driver {_CODE}, {versions('onnx', PACKAGE, 'onnx-ir')}"

    def variations(self, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> tuple[Recipe, ...]:
        """See ``Toolchain.variations``."""
        return (Recipe(self.name, Precision.FP32),) if unit == "host" else ()

    def compile(self, request: CompileRequest) -> Compiled:
        """See ``Toolchain.compile``."""
        if not self.probe().available:
            raise ToolchainMissingError("onnxruntime is not installed", why="no such package here", next=_INSTALL)
        precision, scope = _read(request.recipe, request.unit)
        lowered = lower(request.files, request.scratch, LoweringOrder(precision, scope, None), request.limits)
        inspection = operators(lowered.operators, lowered.products)
        version = version_of(PACKAGE)
        made = Made(
            lowered.path, FORMAT, ("nwmctl-lower", f"--precision={precision}", f"--scope={scope}"),
            f"{PACKAGE} {version}", FORMAT, RuntimeNeeds(PACKAGE, version),
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


def open_model(model: Path, inputs: tuple[Port, ...], outputs: tuple[Port, ...], timeout_s: float = 60.0) -> Session:
    """Load a model as it was trained, any batch: the reference. The ports come from the model's contract.

    Raises MissingError and ToolchainError subclasses.
    """
    return sessions.open_worker("onnxruntime", model, inputs, outputs, timeout_s)


def _read(recipe: Recipe, unit: str) -> tuple[Precision, Scope]:
    """Precision and fp16 scope. Raises UnsupportedRecipeError, RecipeOptionError."""
    if unit != "host":
        raise UnsupportedRecipeError(
            f"the toolchain 'onnxruntime' does not build for the unit '{unit}'",
            why="it executes graphs on the machine it runs on",
            next="choose another recipe for this build",
        )
    if recipe.precision not in _PRECISIONS:
        raise UnsupportedRecipeError(
            f"the toolchain 'onnxruntime' does not build {recipe.precision}",
            why=f"it builds {' and '.join(_PRECISIONS)}; int8 needs calibration, which this version does not do",
            next="choose another recipe for this build",
        )
    known: Mapping[str, Option] = {"fp16_scope": Scope.MATMUL} if recipe.precision is Precision.FP16 else {}
    for name in recipe.options:
        if name not in known:
            listed = ", ".join(known) or "no options"
            raise RecipeOptionError(
                f"the recipe's option '{name}' is not possible with onnxruntime",
                why=f"it knows {listed} for {recipe.precision}",
                next="correct the recipe",
            )
    value = recipe.options.get("fp16_scope", Scope.MATMUL)
    if value not in tuple(Scope):
        raise RecipeOptionError(
            "the recipe's option 'fp16_scope' is not possible with onnxruntime",
            why=f"it is {value!r}, it must be {' or '.join(Scope)}",
            next="correct the recipe",
        )
    return recipe.precision, Scope(value)
