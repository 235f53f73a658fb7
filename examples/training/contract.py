"""The contract of the example models: every tensor with its channels, units and physical limits."""

from __future__ import annotations

from typing import Final

from nwmctl.domain.model import BATCH, Channel, ModelContract, TensorSpec
from nwmctl.driving import constants as k

_SPEED: Final = Channel("speed", "m/s", 0.0, 60.0)
_STATE: Final = (
    Channel("x", "m"),
    Channel("y", "m"),
    Channel("vx", "m/s"),
    Channel("vy", "m/s"),
    Channel("sin_heading", "1"),
)
_SEEN: Final = (Channel("presence", "1", 0.0, 1.0), *_STATE[:-1], Channel("sin_heading", "1", -1.0, 1.0))
_STEER: Final = Channel("steer", "rad", -k.STEER_LIMIT, k.STEER_LIMIT)
_ACCEL: Final = Channel("acceleration", "m/s2", k.ACCEL_MIN, k.ACCEL_MAX)


def contract() -> ModelContract:
    """What both example models promise; the frame is the ego's of now: x ahead, y to the left."""
    ego = TensorSpec(
        "ego", "float32", (BATCH, k.HISTORY, k.EGO_CHANNELS),
        (_SPEED, _STEER, _ACCEL, Channel("lateral_offset", "m"), Channel("heading_error", "rad"),
         Channel("cruise_speed", "m/s", 0.0, 60.0)),
        "The ego over the last four decisions, oldest first: motion, last command, place on the route, wished speed.",
    )  # fmt: skip
    agents = TensorSpec(
        "agents", "float32", (BATCH, k.AGENTS, k.HISTORY, k.AGENT_CHANNELS),
        _SEEN,
        "Up to eight vehicles within 80 m over the last four decisions, oldest first; all zero where there is none.",
    )  # fmt: skip
    route = TensorSpec(
        "route", "float32", (BATCH, k.ROUTE_POINTS, 2), (Channel("x", "m"), Channel("y", "m")),
        "The route 0, 2, 4, 7, 10, 14, 18, 23, 28, 34, 40, 50, 60, 75 and 90 m ahead along its arc.",
    )  # fmt: skip
    control = TensorSpec(
        "control", "float32", (BATCH, k.HORIZON, 2), (_STEER, _ACCEL),
        "Commands for the next ten decisions (2 s); the first is executed.",
    )  # fmt: skip
    trajectory = TensorSpec(
        "trajectory", "float32", (BATCH, k.HORIZON, 3),
        (Channel("x", "m"), Channel("y", "m"), Channel("heading", "rad")),
        "The bicycle rollout of control, derived in the graph; one pose after each command.",
    )  # fmt: skip
    next_agents = TensorSpec(
        "next_agents", "float32", (BATCH, k.AGENTS, 2, 5), _STATE,
        "Predicted vehicles 0.2 s and 1.0 s from now under the first five commands; zero where there is none.",
    )  # fmt: skip
    next_ego = TensorSpec(
        "next_ego", "float32", (BATCH, 2, 5),
        (Channel("x", "m"), Channel("y", "m"), Channel("heading", "rad"), Channel("speed", "m/s"),
         Channel("lateral_offset", "m")),
        "The predicted ego 0.2 s and 1.0 s from now under the first five commands.",
    )  # fmt: skip
    return ModelContract((ego, agents, route), (control, trajectory, next_agents, next_ego), rate_hz=1.0 / k.CONTROL_DT)
