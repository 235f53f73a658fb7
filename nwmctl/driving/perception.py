"""What has been perceived of other vehicles, where perception drops out now and then.

A frame that is lost is bridged as a tracker does: each vehicle stays where it was last perceived (in the world frame,
for the ego's own motion is known), at the speed that it had then, for up to ``HOLD_STEPS`` decisions. After that
the tracks are given up: no vehicle is present until a frame arrives again; then the frames that were missed keep in
history what was believed at that time. The ego's own channels and the route never drop out: they come from odometry
and the map. In a lane without drop-outs what is perceived is the truth itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving.constants import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What is remembered of one decision time; agents' fields [B,AGENTS], the ego's [B]. SI units, world frame."""

    agent_x: FloatArray
    agent_y: FloatArray
    agent_heading: FloatArray
    agent_speed: FloatArray
    speed: FloatArray
    steer: FloatArray
    accel: FloatArray
    lateral: FloatArray
    heading_error: FloatArray


class Perception:
    """The perceived history of B lanes, oldest first. ``history[i]`` is the true snapshot where nothing is lost."""

    def __init__(self, dropped: Sequence[frozenset[int]], first: Snapshot) -> None:
        """``dropped`` names each lane's lost decisions; ``first`` is decision 0, whose loss leaves nothing to hold."""
        self.history = [first] * k.HISTORY
        self.blind: BoolArray = np.array([0 in lane for lane in dropped], dtype=np.bool_)
        """[B] lanes in which no vehicle is perceived now."""
        self._lost: BoolArray | None = None
        if any(dropped):
            self._lost = np.zeros((len(dropped), k.EPISODE_STEPS + 1), dtype=np.bool_)
            for lane, steps in enumerate(dropped):
                self._lost[lane, [step for step in steps if step <= k.EPISODE_STEPS]] = True
        self._missing = np.where(self.blind, k.HOLD_STEPS + 1, 0)

    def take(self, truth: Snapshot, step: int) -> None:
        """Remember decision ``step``, of which ``truth`` holds."""
        if self._lost is None:
            self.history = [*self.history[1:], truth]
            return
        lost = self._lost[:, step]
        self._missing = np.where(lost, self._missing + 1, 0)
        self.blind = self._missing > k.HOLD_STEPS
        old, row = self.history[-1], lost[:, None]
        believed = replace(
            truth,
            agent_x=np.where(row, old.agent_x, truth.agent_x),
            agent_y=np.where(row, old.agent_y, truth.agent_y),
            agent_heading=np.where(row, old.agent_heading, truth.agent_heading),
            agent_speed=np.where(row, old.agent_speed, truth.agent_speed),
        )
        self.history = [*self.history[1:], believed]
