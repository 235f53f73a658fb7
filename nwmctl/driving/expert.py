"""A rule-based driver with full sight of the world: the teacher of the example models and a yardstick for them.

Steering is pure pursuit on the route. Acceleration follows the IDM behind whoever is on the route, slows for bends,
and then takes the gentlest of a few candidate accelerations whose predicted way stays clear of everyone for four
seconds. It is good, not perfect: traffic that ignores the ego still hits it now and then.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving.constants import FloatArray
from nwmctl.driving.geometry import wrap
from nwmctl.driving.world import World

_LATERAL_COMFORT: Final = 2.5
_SLOW_DOWN: Final = 1.5
_LOOK: Final[FloatArray] = np.arange(3.0, 63.0, 3.0)
_CORRIDOR: Final = 2.3
_NOBODY: Final = 200.0
_HEADWAY: Final = 1.2
_STRONGEST: Final = 1.8
_TIMES: Final[FloatArray] = np.arange(0.4, 4.5, 0.4)
_CLEAR: Final = 3.8
"""Distance in m between centres that a predicted way must keep."""


def drive(world: World) -> FloatArray:
    """The expert's control [B,2]: steer in rad, acceleration in m/s2."""
    wish = _safe_acceleration(world, _follow(world))
    gentle = 0.5 * wish + 0.5 * np.maximum(world.command_accel, -4.0)
    return np.stack([_steer(world), np.where(wish > -4.0, gentle, wish)], axis=-1)


def _steer(world: World) -> FloatArray:
    look = np.clip(0.6 * world.speed + 3.0, 4.0, 20.0)
    x, y, _, _ = world.routes.at(world.lane, world.arc + look)
    dx, dy = x - world.x, y - world.y
    bearing = np.arctan2(dy, dx) - world.heading
    steer = np.arctan2(2.0 * k.WHEELBASE * np.sin(bearing), np.sqrt(dx * dx + dy * dy) + 1e-6)
    return np.asarray(np.clip(steer, -k.STEER_LIMIT, k.STEER_LIMIT))


def _bend_speed(world: World) -> FloatArray:
    """The highest speed from which every bend in sight is reached comfortably."""
    ahead = k.ROUTE_DISTANCES
    x, y, _, _ = world.routes.at(world.lane[:, None], world.arc[:, None] + ahead)
    heading = np.unwrap(np.arctan2(np.diff(y, axis=1), np.diff(x, axis=1)), axis=1)
    curvature = np.abs(np.diff(heading, axis=1)) / ((ahead[2:] - ahead[:-2]) / 2.0)
    squared = _LATERAL_COMFORT / (curvature + 1e-4) + 2.0 * _SLOW_DOWN * ahead[1:-1]
    return np.asarray(np.minimum(world.cruise, np.sqrt(squared.min(axis=1))))


def _follow(world: World) -> FloatArray:
    cx, cy, _, _ = world.routes.at(world.lane[:, None], world.arc[:, None] + _LOOK)
    away = np.sqrt((world.agent_x[..., None] - cx[:, None]) ** 2 + (world.agent_y[..., None] - cy[:, None]) ** 2)
    ahead = np.where((away < _CORRIDOR) & world.present[..., None], _LOOK, _NOBODY).min(axis=2)
    leader = ahead.argmin(axis=1)
    distance = ahead[world.lane, leader]
    led = distance < 0.75 * _NOBODY
    turned = world.agent_heading[world.lane, leader] - world.heading
    closing = np.where(led, world.speed - world.agent_speed[world.lane, leader] * np.cos(turned), 0.0)
    brake_scale = 2.0 * np.sqrt(_STRONGEST * _LATERAL_COMFORT)
    desired = 4.0 + np.maximum(0.0, world.speed * _HEADWAY + world.speed * closing / brake_scale)
    crowd = np.where(led, (desired / np.maximum(distance - 4.5, 0.5)) ** 2, 0.0)
    free = (world.speed / np.maximum(_bend_speed(world), 1.0)) ** 4
    return np.asarray(np.clip(_STRONGEST * (1.0 - free - crowd), k.ACCEL_MIN, k.ACCEL_MAX))


def _predicted(world: World) -> tuple[FloatArray, FloatArray]:
    """Where the agents will be at ``_TIMES`` if each keeps its speed and rate of turn; x and y, [B,AGENTS,times]."""
    before = world.history[-2].agent_heading
    rate = np.clip(wrap(world.agent_heading - before), -0.3, 0.3) / k.CONTROL_DT
    middle = world.agent_heading[..., None] + rate[..., None] * _TIMES / 2.0
    way = world.agent_speed[..., None] * _TIMES
    return world.agent_x[..., None] + way * np.cos(middle), world.agent_y[..., None] + way * np.sin(middle)


def _safe_acceleration(world: World, wish: FloatArray) -> FloatArray:
    agent_x, agent_y = _predicted(world)
    emergency = np.full(world.size, k.ACCEL_MIN)
    candidates = (
        wish, np.minimum(wish, -0.5), np.minimum(wish, -1.5), np.minimum(wish, -3.0),
        np.clip(wish + 1.5, 0.0, 2.5), np.minimum(wish, -4.5), emergency,
    )  # fmt: skip
    chosen, least_bad = emergency.copy(), np.full(world.size, -1.0)
    found = np.zeros(world.size, dtype=bool)
    for candidate in candidates:
        speeds = np.maximum(world.speed[:, None] + candidate[:, None] * _TIMES, 0.0)
        ex, ey, _, _ = world.routes.at(world.lane[:, None], world.arc[:, None] + np.cumsum(speeds, axis=1) * 0.4)
        away = np.sqrt((agent_x - ex[:, None]) ** 2 + (agent_y - ey[:, None]) ** 2)
        clear = np.where(world.present[..., None], away, 99.0).min(axis=(1, 2))
        safe = clear > _CLEAR
        better = ~found & (safe | (clear > least_bad + 0.2))
        chosen = np.where(better, candidate, chosen)
        least_bad = np.where(better, clear, least_bad)
        found |= safe
    return chosen
