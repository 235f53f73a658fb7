"""The chassis law: the network's universal commands become one vehicle model's commands.

The universal control interface is a road-wheel steering angle (rad, left positive) of a car with
``REFERENCE_WHEELBASE`` between its axles, and an acceleration (m/s2). A chassis has its own wheelbase, steering ratio,
limits and delay: its wheels turn by the angle that gives the same curvature. The law is pure arithmetic so that the
same code judges a release and renders the adaptation file that travels to the vehicle. It says nothing about time:
the delay is carried for whoever needs it, and limits of change (jerk) belong to a guard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nwmctl.domain.figure import Figure

CHASSIS_INTERFACE = 1
"""Version of the universal control interface; a vehicle says which ones its chassis controller speaks."""
REFERENCE_WHEELBASE = 2.8
"""Metres between the axles of the car whose steering angle the network commands: the simulator's."""
_QUARTER = 1.5
"""rad; a road wheel that is turned further has no curvature to speak of (the tangent has its pole at 1.57)."""
_SAME = 1e-9
"""Two libraries of arithmetic may differ in the last digits of a tangent."""


@dataclass(frozen=True, slots=True)
class Chassis:
    """What is known about a vehicle model's chassis. All figures must be known: an adaptation cannot be guessed."""

    wheelbase: Figure
    """m"""
    steering_ratio: Figure
    """steering-wheel angle per road-wheel angle"""
    max_road_wheel_angle: Figure
    """rad"""
    max_acceleration: Figure
    """m/s2"""
    max_deceleration: Figure
    """m/s2, positive"""
    actuation_delay: Figure
    """s"""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            figure: Figure = getattr(self, name)
            if figure.value is None:
                raise ValueError(f"chassis figure '{name}' is unknown; an adaptation cannot be rendered without it")
            if figure.value <= 0:
                raise ValueError(f"chassis figure '{name}' is {figure.value:g} {figure.unit}, it must be positive")


@dataclass(frozen=True, slots=True)
class ChassisLimits:
    """How far commands to a chassis go: what it can do, or less where its platform's envelope allows less."""

    road_wheel_angle: Figure
    """rad, of this chassis's own wheels"""
    acceleration: Figure
    """m/s2"""
    deceleration: Figure
    """m/s2, positive"""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            figure: Figure = getattr(self, name)
            if figure.value is None or figure.value <= 0:
                raise ValueError(f"limit '{name}' is {figure.value} {figure.unit}, it must be known and positive")


def own_limits(chassis: Chassis) -> ChassisLimits:
    """The limits of a chassis that nobody else limits."""
    return ChassisLimits(chassis.max_road_wheel_angle, chassis.max_acceleration, chassis.max_deceleration)


@dataclass(frozen=True, slots=True)
class Command:
    """A command to one chassis: steering-wheel angle in rad, acceleration in m/s2; ``limited`` if it was clamped."""

    steering_wheel: float
    acceleration: float
    limited: bool


def adapt(chassis: Chassis, steer: float, acceleration: float, limits: ChassisLimits | None = None) -> Command:
    """One universal command (road-wheel steer in rad, acceleration in m/s2) for this chassis, within ``limits`` or
    what the chassis can do."""
    within = limits or own_limits(chassis)
    reach = known(within.road_wheel_angle)
    own = scaled(steer, known(chassis.wheelbase) / REFERENCE_WHEELBASE)
    wheel = min(max(own, -reach), reach)
    pedal = min(max(acceleration, -known(within.deceleration)), known(within.acceleration))
    return Command(wheel * known(chassis.steering_ratio), pedal, wheel != own or pedal != acceleration)


def scaled(steer: float, by: float) -> float:
    """The angle at which a wheelbase ``by`` times as long has the curvature that ``steer`` (rad) stands for."""
    if abs(steer) >= _QUARTER:
        return math.copysign(math.pi / 2, steer)
    return math.atan(math.tan(steer) * by)


@dataclass(frozen=True, slots=True)
class ChassisProbe:
    """One worked example of ``adapt``: a universal command and the command that this chassis gets for it."""

    steer: float
    """rad at the road wheels of the reference car"""
    acceleration: float
    """m/s2"""
    steering_wheel: float
    """rad at the steering wheel"""
    pedal: float
    """m/s2 after the limits"""
    limited: bool


@dataclass(frozen=True, slots=True)
class ChassisAdaptation:
    """The file that travels to the vehicle. A vehicle that reads it works its examples again: figures that were
    damaged, or arithmetic that differs, cannot be loaded. ``interface`` is the version of the universal control
    interface, ``reference_wheelbase`` its car's in m."""

    vehicle_model: str
    platform: str
    interface: int
    reference_wheelbase: float
    chassis: Chassis
    limits: ChassisLimits
    probes: tuple[ChassisProbe, ...]

    def __post_init__(self) -> None:
        if (self.interface, self.reference_wheelbase) != (CHASSIS_INTERFACE, REFERENCE_WHEELBASE):
            raise ValueError(
                f"it is for control interface {self.interface} with a reference wheelbase of "
                f"{self.reference_wheelbase:g} m, this nwmctl speaks {CHASSIS_INTERFACE} with {REFERENCE_WHEELBASE:g} m"
            )
        if not self.probes:
            raise ValueError("an adaptation needs at least one probe")
        for probe in self.probes:
            if not _works_out(self, probe):
                raise ValueError(f"the probe at steer {probe.steer:g}, acceleration {probe.acceleration:g} is wrong")

    def command(self, steer: float, acceleration: float) -> Command:
        """One universal command for this chassis, within the adaptation's limits."""
        return adapt(self.chassis, steer, acceleration, self.limits)


def probe(chassis: Chassis, limits: ChassisLimits | None = None) -> tuple[ChassisProbe, ...]:
    """Examples inside, at half of, and beyond the limits."""
    within = limits or own_limits(chassis)
    reach, pull, brake = (known(each) for each in (within.road_wheel_angle, within.acceleration, within.deceleration))
    turn = scaled(reach, REFERENCE_WHEELBASE / known(chassis.wheelbase))
    points = [(0.0, 0.0)]
    points += [(turn * share, pull * share) for share in (0.5, 2.0)]
    points += [(-turn * share, -brake * share) for share in (0.5, 2.0)]
    found = []
    for steer, acceleration in points:
        command = adapt(chassis, steer, acceleration, within)
        wheel, pedal, limited = command.steering_wheel, command.acceleration, command.limited
        found.append(ChassisProbe(steer, acceleration, wheel, pedal, limited))
    return tuple(found)


def adaptation(vehicle_model: str, platform: str, chassis: Chassis, limits: ChassisLimits) -> ChassisAdaptation:
    """The adaptation of a chassis, with its worked examples."""
    probes = probe(chassis, limits)
    return ChassisAdaptation(vehicle_model, platform, CHASSIS_INTERFACE, REFERENCE_WHEELBASE, chassis, limits, probes)


def _works_out(whole: ChassisAdaptation, example: ChassisProbe) -> bool:
    found = adapt(whole.chassis, example.steer, example.acceleration, whole.limits)
    near = abs(found.steering_wheel - example.steering_wheel) <= _SAME * max(1.0, abs(found.steering_wheel))
    return near and found.acceleration == example.pedal and found.limited == example.limited


def known(figure: Figure) -> float:
    """The value of a figure that a chassis or its limits hold; both refuse unknown ones."""
    assert figure.value is not None
    return figure.value
