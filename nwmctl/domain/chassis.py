"""The chassis law: the network's universal commands become one vehicle model's commands.

The network outputs road-wheel steering angle (rad, left positive) and acceleration (m/s2). A chassis has its own
steering ratio, limits and delay. The law is pure arithmetic so that the same code judges a release and renders the
adaptation file that travels to the vehicle.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.figure import Figure


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
class Command:
    """A command to one chassis: steering-wheel angle in rad, acceleration in m/s2; ``limited`` if it was clamped."""

    steering_wheel: float
    acceleration: float
    limited: bool


def adapt(chassis: Chassis, steer: float, acceleration: float) -> Command:
    """One universal command (road-wheel steer in rad, acceleration in m/s2) for this chassis."""
    reach = _known(chassis.max_road_wheel_angle)
    wheel = min(max(steer, -reach), reach)
    pedal = min(max(acceleration, -_known(chassis.max_deceleration)), _known(chassis.max_acceleration))
    return Command(wheel * _known(chassis.steering_ratio), pedal, wheel != steer or pedal != acceleration)


@dataclass(frozen=True, slots=True)
class ChassisProbe:
    """One worked example of ``adapt``: a universal command and the command that this chassis gets for it."""

    steer: float
    """rad at the road wheels"""
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
    damaged, or arithmetic that differs, cannot be loaded."""

    vehicle_model: str
    platform: str
    chassis: Chassis
    probes: tuple[ChassisProbe, ...]

    def __post_init__(self) -> None:
        if not self.probes:
            raise ValueError("an adaptation needs at least one probe")
        for probe in self.probes:
            expected = Command(probe.steering_wheel, probe.pedal, probe.limited)
            if adapt(self.chassis, probe.steer, probe.acceleration) != expected:
                raise ValueError(f"the probe at steer {probe.steer:g}, acceleration {probe.acceleration:g} is wrong")


def probe(chassis: Chassis) -> tuple[ChassisProbe, ...]:
    """Examples inside, at half of, and beyond this chassis's limits."""
    reach, pull, brake = (
        _known(figure) for figure in (chassis.max_road_wheel_angle, chassis.max_acceleration, chassis.max_deceleration)
    )
    points = [(0.0, 0.0)]
    points += [(reach * share, pull * share) for share in (0.5, 2.0)]
    points += [(-reach * share, -brake * share) for share in (0.5, 2.0)]
    found = []
    for steer, acceleration in points:
        command = adapt(chassis, steer, acceleration)
        wheel, pedal, limited = command.steering_wheel, command.acceleration, command.limited
        found.append(ChassisProbe(steer, acceleration, wheel, pedal, limited))
    return tuple(found)


def _known(figure: Figure) -> float:
    assert figure.value is not None  # Chassis.__post_init__ refuses unknown figures
    return figure.value
