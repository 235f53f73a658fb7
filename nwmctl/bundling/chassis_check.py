"""Whether a chassis adaptation keeps to its platform's control envelope, and what its limits are for that.

Pure. A limit is what the chassis can do, or less where the envelope allows less, or the policy for braking: a steering
angle may not give more
than the envelope's curvature at this wheelbase, acceleration and deceleration not more than its own. Limits that
depend on speed, and those on jerk, are for a guard in the vehicle; the envelope check of an artifact counts how often
it would step in. Every figure has its one unit and a range outside which no car lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nwmctl.domain.chassis import Chassis, ChassisAdaptation, ChassisLimits, known
from nwmctl.domain.figure import Figure
from nwmctl.domain.platform import Envelope, EnvelopeLimit

_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Range:
    """The unit of a figure, and from where to where it lies for any car."""

    unit: str
    least: float
    most: float


RANGES: Mapping[str, Range] = {
    "wheelbase": Range("m", 1.5, 6.0),
    "steering_ratio": Range("rad/rad", 5.0, 30.0),
    "max_road_wheel_angle": Range("rad", 0.1, 1.2),
    "max_acceleration": Range("m/s2", 0.5, 15.0),
    "max_deceleration": Range("m/s2", 2.0, 15.0),
    # A longer delay than the simulator ever gave a driver has been proven by no drive.
    "actuation_delay": Range("s", 0.001, 0.4),
}
"""Per figure of a chassis."""
_LIMIT_UNITS = {"road_wheel_angle": "rad", "acceleration": "m/s2", "deceleration": "m/s2"}


def limits_of(chassis: Chassis, envelope: Envelope | None, braking: Figure | None = None) -> ChassisLimits:
    """The widest limits that chassis, envelope and the policy's ``braking`` allow; without these the chassis's own."""
    found = ChassisLimits(
        _least(chassis.max_road_wheel_angle, _turn(chassis, envelope), "rad", "curvature", envelope),
        _least(chassis.max_acceleration, _most(envelope, "acceleration"), "m/s2", "acceleration", envelope),
        _least(chassis.max_deceleration, _most(envelope, "deceleration"), "m/s2", "deceleration", envelope),
    )
    if braking is None or known(found.deceleration) <= known(braking):
        return found
    return replace(found, deceleration=replace(braking, source=f"the policy's braking: {braking.source}"))


def violations(found: ChassisAdaptation, envelope: Envelope | None, braking: Figure | None = None) -> tuple[str, ...]:
    """What is wrong with an adaptation, each with its figure; empty if nothing is."""
    wrong = []
    for name, allowed in RANGES.items():
        figure: Figure = getattr(found.chassis, name)
        wrong += _unit(f"chassis.{name}", figure, allowed.unit)
        if not allowed.least <= known(figure) <= allowed.most:
            span = f"{allowed.least:g} to {allowed.most:g} {allowed.unit}"
            wrong.append(f"chassis.{name} is {known(figure):g} {figure.unit}, no car lies outside {span}")
    bounds = {
        "road_wheel_angle": (known(found.chassis.max_road_wheel_angle), _turn(found.chassis, envelope)),
        "acceleration": (known(found.chassis.max_acceleration), _most(envelope, "acceleration")),
        "deceleration": (known(found.chassis.max_deceleration), _most(envelope, "deceleration")),
    }
    for name, (chassis, platform) in bounds.items():
        limit: Figure = getattr(found.limits, name)
        wrong += _unit(f"limits.{name}", limit, _LIMIT_UNITS[name])
        for whose, most in (("the chassis reaches", chassis), ("the platform's envelope allows", platform)):
            if known(limit) > most + _SLACK:
                wrong.append(f"limits.{name} is {known(limit):g} {limit.unit}, {whose} {most:g}")
    if braking is not None and known(found.limits.deceleration) > known(braking) + _SLACK:
        limit = found.limits.deceleration
        wrong.append(f"limits.deceleration is {known(limit):g} {limit.unit}, the policy allows {known(braking):g}")
    return tuple(wrong)


def _unit(name: str, figure: Figure, unit: str) -> list[str]:
    return [] if figure.unit == unit else [f"{name} is in '{figure.unit}', it must be in {unit}"]


def _turn(chassis: Chassis, envelope: Envelope | None) -> float:
    """The road-wheel angle in rad at which this chassis has the envelope's curvature."""
    return math.atan(_most(envelope, "curvature") * known(chassis.wheelbase))


def _most(envelope: Envelope | None, name: str) -> float:
    """A limit of the envelope; endless where nobody knows one."""
    if envelope is None:
        return math.inf
    entry: EnvelopeLimit = getattr(envelope, name)
    return math.inf if entry.limit.value is None else entry.limit.value


def _least(chassis: Figure, most: float, unit: str, name: str, envelope: Envelope | None) -> Figure:
    if envelope is None or known(chassis) <= most:
        return chassis
    entry: EnvelopeLimit = getattr(envelope, name)
    source = f"the platform's {name} limit: {entry.limit.source}"
    return Figure(most, unit, source, entry.limit.confidence)
