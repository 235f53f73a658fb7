"""What in the profiles is assumed or unknown, said plainly.

A profile may hold assumptions, so that a virtual fleet can be deployed before all is known; whoever decides about a
real fleet must see them. Lists them; does not decide whether they matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nwmctl.domain.chassis import Chassis
from nwmctl.domain.figure import Confidence, Figure
from nwmctl.domain.platform import Envelope, EnvelopeLimit, PlatformProfile, VehicleModel

_OPEN = (Confidence.ASSUMED, Confidence.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Assumption:
    """One statement that nobody has confirmed. ``where`` names it for people, ``source`` says where it comes from."""

    where: str
    source: str
    confidence: Confidence


def assumptions(profile: PlatformProfile) -> tuple[Assumption, ...]:
    """All assumed and unknown statements of a profile."""
    return tuple(item for item in _statements(profile) if item.confidence in _OPEN)


def vehicle_assumptions(vehicle: VehicleModel, profile: PlatformProfile) -> tuple[Assumption, ...]:
    """Assumptions about one vehicle model: the model itself, its compute variant, its chassis."""
    found = [Assumption(f"{vehicle.code}", vehicle.source, vehicle.confidence)]
    variant = profile.variant(vehicle.variant)
    if variant is not None:
        found.append(Assumption(f"{vehicle.code}: variant {variant.name}", variant.source, variant.confidence))
    for name in Chassis.__slots__:
        figure: Figure = getattr(vehicle.chassis, name)
        found.append(Assumption(f"{vehicle.code}: chassis {name}", figure.source, figure.confidence))
    return tuple(item for item in found if item.confidence in _OPEN)


def _statements(profile: PlatformProfile) -> Iterator[Assumption]:
    for chip in profile.chips:
        figures = {"memory_bandwidth": chip.memory_bandwidth, "memory": chip.memory}
        figures |= {f"peak {name}": peak for name, peak in chip.peaks.items()}
        for name, figure in figures.items():
            yield Assumption(f"chip {chip.name}: {name}", figure.source, figure.confidence)
    for variant in profile.variants:
        yield Assumption(f"variant {variant.name}", variant.source, variant.confidence)
        for seat in variant.seats:
            where = f"variant {variant.name}: {seat.count} x {seat.chip} as {seat.role}"
            yield Assumption(where, seat.source, seat.confidence)
    budget = profile.budget
    for name, figure in (
        ("latency", budget.latency),
        ("memory", budget.memory),
        ("bandwidth_share", budget.bandwidth_share),
    ):
        yield Assumption(f"budget {name}", figure.source, figure.confidence)
    if profile.envelope is not None:
        for name in Envelope.__slots__:
            limit: EnvelopeLimit = getattr(profile.envelope, name)
            yield Assumption(f"envelope {name}", limit.limit.source, limit.limit.confidence)
    if profile.runtime_driver:
        where = f"runtime driver {profile.runtime_driver}"
        yield Assumption(where, profile.runtime_driver_source, profile.runtime_driver_confidence)
