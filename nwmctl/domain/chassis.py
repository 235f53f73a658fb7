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


def _known(figure: Figure) -> float:
    assert figure.value is not None  # Chassis.__post_init__ refuses unknown figures
    return figure.value
