"""One inference on this machine, for vehicles of the ``virtual`` platform.

The artifact manifest says which toolchain made a payload; that one's driver executes it, in a process of its own, on
one neutral input, and asked is only whether every output is finite: that the loaded network runs at all. It says
nothing about how well it drives; that was validated before anything was signed. Whether this machine has the payload's
runtime is asked before anything is installed; a runtime that came in the bundle executes it in place of this machine's
own (``carried``). Vehicles of other platforms have no such chip here and never come to this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.errors import HealthCheckFailedError, UnknownToolchainError
from nwmctl.vehicle.carried import carried_for, open_carried
from nwmctl.vehicle.health import Infer
from nwmctl.vehicle.opening import Lacks

if TYPE_CHECKING:
    from nwmctl.toolchains.protocol import Tensors, Toolchain

_NEUTRAL = 0.5
"""Zeros would hide a payload that only multiplies; this lies inside every normalisation."""


Find = Callable[[str], "Toolchain"]
"""The driver of a name; raises UnknownToolchainError."""


def lacking(find: Find) -> Lacks:
    """What this machine lacks to execute a payload, out of the drivers that ``find`` knows."""

    def lacks(manifest: ArtifactManifest) -> str:
        from nwmctl.toolchains.protocol import Place

        try:
            return find(manifest.recipe.toolchain).places(manifest)[Place.HOST]
        except UnknownToolchainError as problem:
            return f"{problem.what}; {problem.why}"

    return lacks


def inference(find: Find, timeout_s: float = 60.0) -> Infer:
    """A health check's inference through the driver of each payload's toolchain, which must execute it on this host."""

    def infer(payload: Path, manifest: ArtifactManifest) -> str:
        from nwmctl.toolchains.protocol import Place

        runtime = carried_for(payload, manifest)
        if runtime is not None:
            with open_carried(payload, manifest, runtime, timeout_s) as session:
                outputs = session.run(neutral_inputs(manifest))
            return f"{_judge(outputs)}, by the carried {runtime.name} {runtime.version}"
        lacks = lacking(find)(manifest)
        if lacks:
            needs = manifest.needs
            raise _sick(f"'{payload.name}' needs {needs.runtime} {needs.version}, which this vehicle has not: {lacks}")
        with find(manifest.recipe.toolchain).open(payload, manifest, Place.HOST, timeout_s) as session:
            outputs = session.run(neutral_inputs(manifest))
        return _judge(outputs)

    return infer


def neutral_inputs(manifest: ArtifactManifest) -> Tensors:
    """One row of input for every tensor that an artifact takes. Raises HealthCheckFailedError."""
    import numpy as np

    if not manifest.inputs:
        raise _sick("the artifact manifest names no input")
    try:
        return {
            port.name: np.full([size if isinstance(size, int) else 1 for size in port.shape], _NEUTRAL, port.dtype)
            for port in manifest.inputs
        }
    except (TypeError, ValueError) as problem:
        raise _sick(f"the artifact manifest names an input that cannot be made: {problem}") from problem


def _judge(outputs: Tensors) -> str:
    import numpy as np

    if not outputs:
        raise _sick("the inference gave no output")
    for name, values in outputs.items():
        if not bool(np.all(np.isfinite(values))):
            raise _sick(f"the inference's output '{name}' is not finite")
    return f"one call, {len(outputs)} finite outputs"


def _sick(why: str) -> HealthCheckFailedError:
    return HealthCheckFailedError(
        "the payload does not run", why=why, next="the vehicle falls back to its last good slot"
    )
