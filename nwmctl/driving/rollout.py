"""The trajectory that follows from controls: the kinematic bicycle that a model's graph carries, in numpy.

A plan's trajectory is derived, never learned, so anybody can compute it again and notice a graph in which the two do
not belong together. It has no actuator lag and no road: it says where a plan is meant to lead, not where it leads.
"""

from __future__ import annotations

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving.constants import FloatArray


def rollout(control: FloatArray, speed: FloatArray) -> FloatArray:
    """Poses [B,N,3] (x m, y m, heading rad; in the ego's frame of now) after each of N controls of 0.2 s.

    ``control`` [B,N,2]: steer rad, acceleration m/s2; ``speed`` [B] m/s. Per step: speed first (never negative), then
    heading at that speed, then position along heading plus slip.
    """
    current, speeds = np.asarray(speed, dtype=np.float64), []
    for step in range(control.shape[1]):
        current = np.maximum(current + control[:, step, 1] * k.CONTROL_DT, 0.0)
        speeds.append(current)
    way = np.stack(speeds, axis=1) * k.CONTROL_DT
    slip = np.arctan(0.5 * np.tan(control[..., 0]))
    heading = np.cumsum(way * np.sin(slip) / (k.WHEELBASE / 2.0), axis=1)
    x = np.cumsum(way * np.cos(heading + slip), axis=1)
    y = np.cumsum(way * np.sin(heading + slip), axis=1)
    return np.stack([x, y, heading], axis=-1)
