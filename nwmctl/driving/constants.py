"""Shapes, rates and physical limits of the simulated world, each with its unit.

Invariant: these numbers are part of what an outcome hash means; changing one changes every outcome, so ``REVISION``
goes up with them. Nothing here is computed from anything else but by plain arithmetic.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

REVISION: Final = 1
"""Goes up whenever the same scenario and policy would give another outcome."""

CONTROL_DT: Final = 0.2
"""Seconds between two decisions of the policy (5 Hz)."""
SUBSTEPS: Final = 2
"""Physics steps per decision (10 Hz)."""
EPISODE_STEPS: Final = 60
"""Decisions per episode (12 s)."""
ACTUATOR_LAG: Final = 0.15
"""Time constant in s of the first-order lag between a command and the wheels and brakes."""

AGENTS: Final = 8
"""Slots for other vehicles; an unused slot has presence 0."""
HISTORY: Final = 4
"""Observed frames, oldest first, one decision apart."""
AGENT_CHANNELS: Final = 6
"""presence, x m, y m, vx m/s, vy m/s, sin(heading difference); ego frame of now."""
EGO_CHANNELS: Final = 6
"""speed m/s, last steer rad, last accel m/s2, lateral offset m, heading error rad, cruise speed m/s."""
HORIZON: Final = 10
"""Controls that a policy plans per decision (2 s); only the first is executed."""
ROUTE_DISTANCES: Final[FloatArray] = np.array(
    [0.0, 2.0, 4.0, 7.0, 10.0, 14.0, 18.0, 23.0, 28.0, 34.0, 40.0, 50.0, 60.0, 75.0, 90.0]
)
"""Arc lengths in m ahead of the ego at which the route is observed."""
ROUTE_POINTS: Final = 15
SIGHT: Final = 80.0
"""Vehicles farther than this many metres are not observed."""
HOLD_STEPS: Final = 2
"""Decisions for which lost perception is bridged with what was last perceived (0.4 s); then vehicles vanish."""
MAX_LATE: Final = 2
"""Largest delay in decisions between a command and its taking effect (0.4 s)."""

STEER_LIMIT: Final = 0.5
"""Largest road-wheel angle in rad, either side."""
ACCEL_MIN: Final = -6.0
ACCEL_MAX: Final = 3.0
"""Hardest braking and strongest acceleration in m/s2."""
WHEELBASE: Final = 2.8
"""Metres between the axles; the reference point lies in the middle."""
CIRCLE_OFFSETS: Final[FloatArray] = np.array([-1.6, 0.0, 1.6])
"""A vehicle's body is three circles along its axis, at these offsets in m."""
CIRCLE_RADIUS: Final = 1.0
OFF_ROAD: Final = 2.5
"""Lateral distance in m from the route beyond which the ego has left the road."""

TRACK_POINTS: Final = 420
"""Points of a track polyline, 1 m apart."""
