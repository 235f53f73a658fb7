"""Pieces of road that families and traps share: the ring of a roundabout, the arms of an intersection.

Pure functions of a few whole numbers, so each piece is laid out once per process; the arrays are read-only. The small
roads have their lanes 1.9 to 2.2 m right of the middle. Knows nothing of traffic.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from nwmctl.driving.constants import FloatArray
from nwmctl.driving.geometry import rotated, smooth

LANE: Final = 3.75
"""Width in m of a lane of the fast roads."""
_QUARTER: Final = np.pi / 2


@cache
def ring(exits: int, arm: int = 0) -> FloatArray:
    """From the south into a ring of 18 m radius, counter-clockwise, out after ``exits`` quarters.

    All of it turned counter-clockwise by ``arm`` quarters. [TRACK_POINTS,2] m.
    """
    if arm:
        return _kept(rotated(ring(exits), arm * _QUARTER))
    out = -_QUARTER + exits * _QUARTER
    around = np.linspace(-_QUARTER + 0.30, out - 0.30, 60)
    circle = 18.0 * np.stack([np.cos(around), np.sin(around)], axis=-1)
    entry = np.array([[2.2, -80.0], [2.2, -40.0], [2.6, -30.0], [4.0, -22.0]])
    leave = np.array([[-4.0, -22.0], [-2.6, -30.0], [-2.2, -40.0], [-2.2, -140.0]])
    return _kept(smooth(np.concatenate([entry, circle, rotated(leave, out + _QUARTER)])))


@cache
def crossing(turn: int, arm: int = 0) -> FloatArray:
    """From the south across an intersection: ``turn`` 0 straight on, 1 left, -1 right.

    All of it turned counter-clockwise by ``arm`` quarters. [TRACK_POINTS,2] m.
    """
    if arm:
        return _kept(rotated(crossing(turn), arm * _QUARTER))
    south = np.array([[1.9, -80.0]])
    if turn == 0:
        return _kept(smooth(np.concatenate([south, [[1.9, 200.0]]])))
    radius = 8.0 if turn == 1 else 5.0
    angle = np.linspace(0.0, _QUARTER, 24)
    centre = 1.9 - turn * radius
    arc_x = centre + turn * radius * np.cos(angle)
    arc_y = turn * 1.9 - radius + radius * np.sin(angle)
    west_or_east = [[-turn * 200.0, turn * 1.9]]
    return _kept(smooth(np.concatenate([south, np.stack([arc_x, arc_y], axis=-1), west_or_east])))


def _kept(track: FloatArray) -> FloatArray:
    track.setflags(write=False)
    return track
