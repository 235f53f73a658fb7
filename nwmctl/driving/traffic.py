"""How other vehicles drive: along their own track, by the intelligent driver model (IDM).

A pure function of positions and speeds. A vehicle looks at points ahead on its own track; whoever stands within a
corridor round them is its leader. Vehicles that do not yield see each other but never the ego. It never steers off
its track and never overtakes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from nwmctl.driving.constants import BoolArray, FloatArray, IntArray
from nwmctl.driving.geometry import Tracks

_LOOK: Final[FloatArray] = np.arange(3.0, 43.0, 4.0)
"""Arc lengths in m ahead at which a vehicle looks for a leader."""
_CORRIDOR_SQUARED: Final = 2.3**2
_NOBODY: Final = 200.0
_LENGTH_MARGIN: Final = 3.0
_STANDSTILL_GAP: Final = 4.0
_STRONGEST: Final = 2.0
_COMFORT_BRAKING: Final = 3.0
_HARDEST_BRAKING: Final = -5.0


def accelerations(
    tracks: Tracks,
    track: IntArray,
    arc: FloatArray,
    wish: FloatArray,
    bodies: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    yields: BoolArray,
) -> FloatArray:
    """Accelerations [B,M] in m/s2 of the M vehicles of each lane.

    ``track``, ``arc`` (m), ``wish`` (m/s) and ``yields`` are [B,M]; ``bodies`` are x, y, heading and speed of the M
    vehicles and then the ego, each [B,M+1].
    """
    x, y, heading, speed = bodies
    count = arc.shape[1]
    ahead_x, ahead_y, _, _ = tracks.at(track[..., None], arc[..., None] + _LOOK)
    away = (ahead_x[..., None] - x[:, None, None]) ** 2 + (ahead_y[..., None] - y[:, None, None]) ** 2
    inside = away < _CORRIDOR_SQUARED
    own = np.arange(count)
    inside[:, own, :, own] = False
    inside[..., count] &= yields[:, :, None]
    distance = np.where(inside, _LOOK[:, None], _NOBODY).min(axis=2)
    leader = distance.argmin(axis=2)
    gap = np.take_along_axis(distance, leader[..., None], axis=2)[..., 0] - _LENGTH_MARGIN
    mine, my_heading = speed[:, :count], heading[:, :count]
    towards = np.cos(np.take_along_axis(heading, leader, axis=1) - my_heading)
    closing = mine - np.take_along_axis(speed, leader, axis=1) * towards
    return idm(mine, wish, gap, closing, occupied=gap < 0.75 * _NOBODY)


def idm(speed: FloatArray, wish: FloatArray, gap: FloatArray, closing: FloatArray, occupied: BoolArray) -> FloatArray:
    """The IDM acceleration in m/s2 for a gap in m that closes at ``closing`` m/s, if it is ``occupied`` ahead."""
    desired = _STANDSTILL_GAP + np.maximum(
        0.0, speed + speed * closing / (2.0 * np.sqrt(_STRONGEST * _COMFORT_BRAKING))
    )
    crowd = np.where(occupied, (desired / np.maximum(gap, 0.5)) ** 2, 0.0)
    free = (speed / np.maximum(wish, 0.5)) ** 4
    return np.asarray(np.clip(_STRONGEST * (1.0 - free - crowd), _HARDEST_BRAKING, _STRONGEST))
