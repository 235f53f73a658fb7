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
_CORRIDOR: Final = 2.4
"""Not narrower than the corridor of 2.3 m, whose square decides."""
_CORRIDOR_SQUARED: Final = 2.3**2
_REACH_SQUARED: Final = 45.0**2
"""Whoever is farther than 45 m away as the crow flies is not within the corridor of a look of 39 m along the track."""
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
    live: BoolArray,
) -> FloatArray:
    """Accelerations [B,M] in m/s2 of the M vehicles of each lane; in lanes that are not ``live`` [B] they mean nothing.

    ``track``, ``arc`` (m), ``wish`` (m/s) and ``yields`` are [B,M]; ``bodies`` are x, y, heading and speed of the M
    vehicles and then the ego, each [B,M+1].
    """
    x, y, heading, speed = bodies
    count = arc.shape[1]
    distance = _leaders(tracks, track, arc, x, y, _who_sees_whom(x, y, yields, live))
    leader = distance.argmin(axis=2)
    gap = np.take_along_axis(distance, leader[..., None], axis=2)[..., 0] - _LENGTH_MARGIN
    mine, my_heading = speed[:, :count], heading[:, :count]
    towards = np.cos(np.take_along_axis(heading, leader, axis=1) - my_heading)
    closing = mine - np.take_along_axis(speed, leader, axis=1) * towards
    return idm(mine, wish, gap, closing, occupied=gap < 0.75 * _NOBODY)


def _who_sees_whom(x: FloatArray, y: FloatArray, yields: BoolArray, live: BoolArray) -> BoolArray:
    """[B,M,M+1] whether a vehicle must look for another body at all: near, not itself, not an ego it ignores."""
    count = yields.shape[1]
    away, across = x[:, :count, None] - x[:, None, :], y[:, :count, None] - y[:, None, :]
    away *= away
    across *= across
    away += across
    near: BoolArray = np.asarray(away < _REACH_SQUARED)
    own = np.arange(count)
    near[:, own, own] = False
    near[..., count] &= yields
    near &= live[:, None, None]
    return near


def _leaders(
    tracks: Tracks, track: IntArray, arc: FloatArray, x: FloatArray, y: FloatArray, near: BoolArray
) -> FloatArray:
    """[B,M,M+1] arc length in m at which a vehicle's look first meets another body; ``_NOBODY`` if it does not."""
    distance = np.full(near.shape, _NOBODY)
    looking = near.any(axis=2)
    ahead_x, ahead_y, _, _ = tracks.at(track[looking], arc[looking] + _LOOK[:, None])
    lane = np.nonzero(looking)[0]
    # Most neighbours are beside or behind: a box round the points ahead rules them out before anything is measured.
    candidate = near[looking]
    candidate &= _within(ahead_x, x[lane])
    candidate &= _within(ahead_y, y[lane])
    row, other = np.nonzero(candidate)
    away, across = ahead_x.take(row, axis=1), ahead_y.take(row, axis=1)
    away -= x[lane[row], other]
    across -= y[lane[row], other]
    away *= away
    across *= across
    away += across
    met = np.full(candidate.shape, _NOBODY)
    met[row, other] = np.where(away < _CORRIDOR_SQUARED, _LOOK[:, None], _NOBODY).min(axis=0)
    distance[looking] = met
    return distance


def _within(points: FloatArray, places: FloatArray) -> BoolArray:
    """[R,M+1] whether places [R,M+1] lie in the span of each column of points [L,R], a corridor wider at both ends."""
    low, high = points.min(axis=0) - _CORRIDOR, points.max(axis=0) + _CORRIDOR
    return np.asarray((places > low[:, None]) & (places < high[:, None]))


def idm(speed: FloatArray, wish: FloatArray, gap: FloatArray, closing: FloatArray, occupied: BoolArray) -> FloatArray:
    """The IDM acceleration in m/s2 for a gap in m that closes at ``closing`` m/s, if it is ``occupied`` ahead."""
    desired = _STANDSTILL_GAP + np.maximum(
        0.0, speed + speed * closing / (2.0 * np.sqrt(_STRONGEST * _COMFORT_BRAKING))
    )
    crowd = np.where(occupied, (desired / np.maximum(gap, 0.5)) ** 2, 0.0)
    free = (speed / np.maximum(wish, 0.5)) ** 4
    return np.asarray(np.clip(_STRONGEST * (1.0 - free - crowd), _HARDEST_BRAKING, _STRONGEST))
