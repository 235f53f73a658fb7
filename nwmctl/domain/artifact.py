"""Recipes (how to build) and artifacts (what was built).

A recipe is a pure input: toolchain, precision, options. An artifact is a payload plus a manifest that says what was
*found in* the payload; a precision that was only asked for proves nothing (fp32 code may carry an fp16 label).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.digest import Digest

Option = str | int | float | bool


class Precision(StrEnum):
    """The number format that a recipe asks for."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class Quantisation(StrEnum):
    """Where the scales of an int8 recipe come from, and what is multiplied."""

    DYNAMIC = "dynamic"
    """Scales of activations are computed at every execution."""
    STATIC = "static"
    """Scales of activations come from the package's calibration data."""
    WEIGHTS = "weights"
    """Weights alone are int8; the arithmetic stays floating-point."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to compile a model for one build. ``options`` are the toolchain's own words."""

    toolchain: str
    precision: Precision
    options: dict[str, Option] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuntimeNeeds:
    """What the vehicle must have or pass for the payload to run."""

    runtime: str
    version: str
    flags: tuple[str, ...] = ()
    driver: str = ""
    """The driver that finishes the compilation in the vehicle, by its version; for a GPU's machine code the range of
    drivers that load it, and the chip; empty where no driver takes part."""


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor that goes into or comes out of an artifact, in the order in which its runtime takes it."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class ArtifactManifest:
    """What an artifact is. Holds no path, no host, no time.

    ``found`` counts what was read out of the payload (instructions by mnemonic, operators by name);
    ``jit_in_vehicle`` marks code that a driver in the car compiles further: other code than what was checked.
    ``environment`` is what the tool got, with words in the place of folders; ``sources`` are the digests of all files
    that it was made from; ``operators_before`` and ``operators_after`` count the graph's operators as given and as the
    compiler got them.
    """

    model: Digest
    recipe: Recipe
    payload: Digest
    size: int
    format: str
    argv: tuple[str, ...]
    toolchain_version: str
    instruction_set: str
    found: dict[str, int]
    found_precision: Precision
    needs: RuntimeNeeds
    jit_in_vehicle: bool = False
    notes: tuple[str, ...] = ()
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    sources: dict[str, Digest] = field(default_factory=dict)
    operators_before: dict[str, int] = field(default_factory=dict)
    operators_after: dict[str, int] = field(default_factory=dict)
