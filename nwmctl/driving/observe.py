"""What a policy sees of the world: three float32 tensors in SI units, all in the ego's frame of now.

The frame: origin at the ego, x along its heading, y to its left. Frames of history are turned into that one frame,
oldest first. A vehicle that is absent or farther than ``SIGHT`` now is zero in every frame. Where perception drops
out, vehicles are shown as ``perception`` believes them to be. Nothing is normalised here: a model normalises inside
its own graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving.constants import Float32Array, FloatArray
from nwmctl.driving.perception import Snapshot
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
    frames = perceived.history
    ego = np.empty((world.size, k.HISTORY, k.EGO_CHANNELS), np.float32)
    for channel, name in enumerate(("speed", "steer", "accel", "lateral", "heading_error")):
        ego[:, :, channel] = np.stack([getattr(past, name) for past in frames], axis=-1)
    ego[:, :, -1] = world.cruise[:, None]
    px, py, _, _ = world.routes.at(world.lane[:, None], world.arc[:, None] + k.ROUTE_DISTANCES)
    rx, ry = _into_frame(px - world.x[:, None], py - world.y[:, None], cos, sin)
    route = np.stack([rx, ry], axis=-1).astype(np.float32)
    return {"ego": ego, "agents": _agents(world, frames, seen, cos, sin), "route": route}


def _agents(
    world: World, frames: Sequence[Snapshot], seen: FloatArray, cos: FloatArray, sin: FloatArray
) -> Float32Array:
    """All frames at once, [HISTORY,B,AGENTS] per channel, and only then in the order that a policy expects."""
    dx = np.stack([past.agent_x for past in frames]) - world.x[:, None]
    dy = np.stack([past.agent_y for past in frames]) - world.y[:, None]
    x, y = _into_frame(dx, dy, cos, sin)
    turned = np.stack([past.agent_heading for past in frames]) - world.heading[:, None]
    speed = np.stack([past.agent_speed for past in frames])
    sine = np.sin(turned)
    agents = np.empty((k.AGENT_CHANNELS, *turned.shape), np.float32)
    agents[0] = seen
    for channel, values in enumerate((x, y, speed * np.cos(turned), speed * sine, sine), start=1):
        np.multiply(values, seen, out=agents[channel], casting="same_kind")
    return np.ascontiguousarray(agents.transpose(2, 3, 1, 0))


def _into_frame(dx: FloatArray, dy: FloatArray, cos: FloatArray, sin: FloatArray) -> tuple[FloatArray, FloatArray]:
    c, s = cos[:, None], sin[:, None]
    return dx * c + dy * s, dy * c - dx * s
