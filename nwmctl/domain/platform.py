"""Hardware generations, their compute variants, and the vehicle models that carry them.

The platform's name does not decide the chip: a profile has compute variants, and a vehicle model names its own.
Every figure carries source and confidence; what nobody knows is written as unknown and never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.chassis import Chassis
from nwmctl.domain.figure import Confidence, Figure

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


HOST_UNIT = "host"
"""The unit of builds that run on the machine that runs nwmctl: there, and nowhere else, figures are measured here."""


class Role(StrEnum):
    """What a chip does in a vehicle."""

    MAIN = "main"
    BACKUP = "backup"
    FLEET_LEARNING = "fleet_learning"


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip that artifacts run on. Bandwidth in GB/s, memory in GB, peaks in TFLOPS or TOPS.

    ``peaks`` are written ``unit.precision`` (``gpu.fp16``): the parts of one chip differ more than its precisions.
    """

    name: str
    description: str
    memory_bandwidth: Figure
    memory: Figure
    peaks: dict[str, Figure] = field(default_factory=dict)
    instruction_sets: tuple[str, ...] = ()

    def peak(self, unit: str, precision: Precision) -> Figure | None:
        """The arithmetic peak of one part of the chip at one precision; None where the profile says nothing."""
        return self.peaks.get(f"{unit}.{precision}")


@dataclass(frozen=True, slots=True)
class Seat:
    """``count`` chips of one kind in one role."""

    role: Role
    chip: str
    count: int
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}, a seat has at least one chip")


@dataclass(frozen=True, slots=True)
class Build:
    """One artifact that a variant needs: for which roles, on which chip, by which recipes in order of preference.

    ``unit`` names the part of the chip that runs it (gpu, cpu, npu, host).
    """

    name: str
    chip: str
    unit: str
    roles: tuple[Role, ...]
    recipes: tuple[Recipe, ...]
    note: str = ""
    unlike: str = ""
    """Another build of the variant, from whose toolchain a search for this one keeps away: one fault of a compiler must
    not take the main and the backup."""

    def __post_init__(self) -> None:
        _refuse_odd_name("build", self.name)
        if not self.recipes:
            raise ValueError("a build needs at least one recipe")


@dataclass(frozen=True, slots=True)
class Variant:
    """A compute variant: seats filled with chips, and the builds they need. ``revision`` is SWUpdate's hardware
    revision."""

    name: str
    revision: str
    seats: tuple[Seat, ...]
    builds: tuple[Build, ...]
    source: str
    confidence: Confidence
    link: Figure | None = None
    """Bandwidth between two of the variant's chips in GB/s; None where the variant has no such link."""

    def __post_init__(self) -> None:
        _refuse_odd_name("variant", self.name)
        _refuse_odd_name("revision", self.revision)
        _refuse_twice("build", [build.name for build in self.builds])
        _refuse_twice("build for the role", [role for build in self.builds for role in build.roles])
        seated = {seat.role for seat in self.seats}
        names = {build.name for build in self.builds}
        for build in self.builds:
            if build.unlike and (build.unlike == build.name or build.unlike not in names):
                raise ValueError(f"the build '{build.name}' is to be unlike '{build.unlike}', which is no other build")
        for build in self.builds:
            for role in build.roles:
                if role not in seated:
                    raise ValueError(f"the build '{build.name}' is for the role '{role}', for which no chip has a seat")


@dataclass(frozen=True, slots=True)
class Budget:
    """What one control step may take: latency in ms, memory in MB, share of the chip's bandwidth (0..1)."""

    latency: Figure
    memory: Figure
    bandwidth_share: Figure


@dataclass(frozen=True, slots=True)
class EnvelopeLimit:
    """How far one quantity of the vehicle's motion may go. ``over_s`` is the time in s over which it is averaged
    before it is compared; 0 means that every single command is."""

    limit: Figure
    over_s: float = 0.0

    def __post_init__(self) -> None:
        if self.limit.value is not None and self.limit.value <= 0:
            raise ValueError(f"the limit is {self.limit.value:g} {self.limit.unit}, it must be positive")
        if not 0.0 <= self.over_s <= 10.0:
            raise ValueError(f"over_s is {self.over_s:g}, it lies from 0 to 10 s")


@dataclass(frozen=True, slots=True)
class Envelope:
    """Limits for the commands of a network, after the chassis has had its say. All are of absolute values."""

    curvature: EnvelopeLimit
    """1/m"""
    lateral_acceleration: EnvelopeLimit
    """m/s2"""
    lateral_jerk: EnvelopeLimit
    """m/s3"""
    acceleration: EnvelopeLimit
    """m/s2"""
    deceleration: EnvelopeLimit
    """m/s2, positive"""
    longitudinal_jerk: EnvelopeLimit
    """m/s3"""


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the two slots lie in the vehicle's file system."""

    a: str
    b: str


@dataclass(frozen=True, slots=True)
class PlatformProfile:
    """One hardware generation as data. ``board`` is SWUpdate's hardware name."""

    name: str
    title: str
    board: str
    description: str
    chips: tuple[Chip, ...]
    variants: tuple[Variant, ...]
    budget: Budget
    slots: Slots
    runtime_driver: str = ""
    """GPU driver version that the fleet's baseline carries, bound into artifacts that it compiles further."""
    runtime_driver_source: str = ""
    runtime_driver_confidence: Confidence = Confidence.UNKNOWN
    envelope: Envelope | None = None
    """None: nobody has said what this generation's vehicles may be commanded to do."""

    def __post_init__(self) -> None:
        chips = {chip.name for chip in self.chips}
        _refuse_odd_name("platform", self.name)
        _refuse_odd_name("board", self.board)
        _refuse_twice("chip", [chip.name for chip in self.chips])
        _refuse_twice("variant", [variant.name for variant in self.variants])
        _refuse_twice("revision", [variant.revision for variant in self.variants])
        for variant in self.variants:
            for name in [seat.chip for seat in variant.seats] + [build.chip for build in variant.builds]:
                if name not in chips:
                    raise ValueError(f"variant '{variant.name}' names the chip '{name}', which the profile lacks")
        for figure, what in [
            *((chip.memory_bandwidth, f"memory_bandwidth of {chip.name}") for chip in self.chips),
            *((chip.memory, f"memory of {chip.name}") for chip in self.chips),
            *((peak, f"peak {name} of {chip.name}") for chip in self.chips for name, peak in chip.peaks.items()),
            *((each.link, f"link of {each.name}") for each in self.variants if each.link is not None),
            (self.budget.latency, "latency budget"),
            (self.budget.memory, "memory budget"),
            (self.budget.bandwidth_share, "bandwidth share"),
        ]:
            if figure.value is not None and figure.value <= 0:
                raise ValueError(f"{what} is {figure.value:g} {figure.unit}, it must be positive")
        share = self.budget.bandwidth_share.value
        if share is not None and share > 1:
            raise ValueError(f"bandwidth share is {share:g}, a share lies above 0 and up to 1")
        if bool(self.runtime_driver) != (self.runtime_driver_confidence is not Confidence.UNKNOWN):
            raise ValueError("a runtime_driver needs a runtime_driver_confidence, an unknown one is left out")

    def variant(self, name: str) -> Variant | None:
        """The variant of that name."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def build(self, variant: str, name: str) -> Build | None:
        """The build of that name in that variant."""
        found = self.variant(variant)
        return next((build for build in (found.builds if found else ()) if build.name == name), None)

    def chip(self, name: str) -> Chip:
        """The chip of that name (every named chip exists, see __post_init__)."""
        return next(chip for chip in self.chips if chip.name == name)


@dataclass(frozen=True, slots=True)
class VehicleModel:
    """A vehicle model: its platform, compute variant, baseline and chassis."""

    code: str
    name: str
    brand: str
    platform: str
    variant: str
    baseline: str
    chassis: Chassis
    source: str
    confidence: Confidence

    def __post_init__(self) -> None:
        _refuse_odd_name("vehicle model", self.code)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All vehicle models of the maker."""

    vehicles: tuple[VehicleModel, ...]

    def __post_init__(self) -> None:
        _refuse_twice("vehicle model", [vehicle.code for vehicle in self.vehicles])

    def on(self, platform: str) -> tuple[VehicleModel, ...]:
        """The vehicle models of one platform."""
        return tuple(vehicle for vehicle in self.vehicles if vehicle.platform == platform)


def _refuse_odd_name(what: str, name: str) -> None:
    # These names become file names, URL parts and SWUpdate's "board:revision".
    if not _NAME.match(name):
        raise ValueError(f"the {what} '{name[:80]}' is not a name: lowercase letters, digits, '.', '_' and '-' only")


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the {what} '{name}' is listed twice")
