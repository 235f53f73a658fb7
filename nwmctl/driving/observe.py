"""What a policy sees of the world: three float32 tensors in SI units, all in the ego's frame of now.

The frame: origin at the ego, x along its heading, y to its left. Frames of history are turned into that one frame,
oldest first. A vehicle that is absent or farther than ``SIGHT`` now is zero in every frame. Where perception drops
out, vehicles are shown as ``perception`` believes them to be. Nothing is normalised here: a model normalises inside
its own graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving.constants import Float32Array, FloatArray
from nwmctl.driving.world import World

Observation = Mapping[str, Float32Array]
"""``ego`` [B,4,6], ``agents`` [B,8,4,6], ``route`` [B,15,2]; the channels are listed in ``constants``."""


def observe(world: World) -> dict[str, Float32Array]:
    """The observation of every lane. Pure: reads the world and changes nothing."""
    cos, sin = np.cos(world.heading), np.sin(world.heading)
    perceived = world.perception
    now = perceived.history[-1]
    away = np.sqrt((now.agent_x - world.x[:, None]) ** 2 + (now.agent_y - world.y[:, None]) ** 2)
    seen = (world.present & (away < k.SIGHT) & ~perceived.blind[:, None]).astype(np.float64)
    ego = np.empty((world.size, k.HISTORY, k.EGO_CHANNELS), np.float32)
    agents = np.empty((world.size, k.AGENTS, k.HISTORY, k.AGENT_CHANNELS), np.float32)
    for frame, past in enumerate(perceived.history):
        channels = (past.speed, past.steer, past.accel, past.lateral, past.heading_error, world.cruise)
        for channel, values in enumerate(channels):
            ego[:, frame, channel] = values
        x, y = _into_frame(past.agent_x - world.x[:, None], past.agent_y - world.y[:, None], cos, sin)
        turned = past.agent_heading - world.heading[:, None]
        vx, vy = past.agent_speed * np.cos(turned), past.agent_speed * np.sin(turned)
        for channel, values in enumerate((np.ones_like(x), x, y, vx, vy, np.sin(turned))):
            agents[:, :, frame, channel] = values * seen
    px, py, _, _ = world.routes.at(world.lane[:, None], world.arc[:, None] + k.ROUTE_DISTANCES)
    rx, ry = _into_frame(px - world.x[:, None], py - world.y[:, None], cos, sin)
    return {"ego": ego, "agents": agents, "route": np.stack([rx, ry], axis=-1).astype(np.float32)}


def _into_frame(dx: FloatArray, dy: FloatArray, cos: FloatArray, sin: FloatArray) -> tuple[FloatArray, FloatArray]:
    c, s = cos[:, None], sin[:, None]
    return dx * c + dy * s, dy * c - dx * s
