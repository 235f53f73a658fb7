"""Polylines at 1 m spacing: how roads are drawn, and how vehicles find their place on them.

Invariants: a track has exactly ``TRACK_POINTS`` points, one metre of arc apart, and goes on straight past its drawn
end. ``Tracks`` only looks up; it never changes. Lookups are elementwise, so a lane's result does not depend on what
else is in the batch.
"""

from __future__ import annotations

import numpy as np

from nwmctl.driving.constants import TRACK_POINTS, FloatArray, IntArray


def resample(points: FloatArray) -> FloatArray:
    """Put any polyline ``[K,2]`` (m) on the 1 m grid; past its end it goes on straight."""
    lengths = np.hypot(*np.diff(points, axis=0).T)
    arc = np.concatenate([[0.0], np.cumsum(lengths)])
    grid = np.arange(TRACK_POINTS, dtype=np.float64)
    track = np.stack([np.interp(grid, arc, points[:, 0]), np.interp(grid, arc, points[:, 1])], axis=-1)
    beyond = grid > arc[-1]
    if beyond.any():
        direction = points[-1] - points[-2]
        direction = direction / np.hypot(direction[0], direction[1])
        track[beyond] = points[-1] + direction * (grid[beyond] - arc[-1])[:, None]
    return track


def smooth(points: FloatArray, half_width: int = 4) -> FloatArray:
    """Round the corners of a polyline with a Hann window of ``2 * half_width + 1`` metres."""
    track = resample(points)
    window = np.hanning(2 * half_width + 1)
    window = window / window.sum()
    reach = np.arange(half_width, 0, -1)[:, None]
    head = track[0] - (track[1] - track[0]) * reach
    tail = track[-1] + (track[-1] - track[-2]) * reach[::-1]
    padded = np.concatenate([head, track, tail])
    return resample(np.stack([np.convolve(padded[:, k], window, "valid") for k in (0, 1)], axis=-1))


def normals(track: FloatArray) -> FloatArray:
    """Unit vectors to the left of a track, [K,2]. What ``shifted`` needs; compute it once for several shifts."""
    tangent = np.empty_like(track)
    tangent[1:-1] = (track[2:] - track[:-2]) / 2.0
    tangent[0], tangent[-1] = track[1] - track[0], track[-1] - track[-2]
    tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    return np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)


def shifted(track: FloatArray, left: FloatArray | float, to_left: FloatArray | None = None) -> FloatArray:
    """The track moved ``left`` metres to its left; the result is not on the 1 m grid any more."""
    normal = normals(track) if to_left is None else to_left
    return np.asarray(track + normal * np.broadcast_to(np.asarray(left, dtype=np.float64), track.shape[:1])[:, None])


def rotated(points: FloatArray, angle: float) -> FloatArray:
    """Points ``[K,2]`` turned counter-clockwise by ``angle`` rad about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([points[:, 0] * c - points[:, 1] * s, points[:, 0] * s + points[:, 1] * c], axis=-1)


def from_curvature(curvature: FloatArray) -> FloatArray:
    """The track that starts at the origin along +x and bends by ``curvature`` (1/m) at each metre."""
    heading = np.concatenate([[0.0], np.cumsum(curvature[:-1])])
    x = np.concatenate([[0.0], np.cumsum(np.cos(heading))[:-1]])
    y = np.concatenate([[0.0], np.cumsum(np.sin(heading))[:-1]])
    return np.stack([x, y], axis=-1)


def ramp(at: float, width: float) -> FloatArray:
    """A smooth 0-to-1 transition along a track, half-way at ``at`` m, ``width`` m per e-fold."""
    grid = np.arange(TRACK_POINTS, dtype=np.float64)
    return np.asarray(1.0 / (1.0 + np.exp(-(grid - at) / width)))


def wrap(angle: FloatArray) -> FloatArray:
    """Angles in rad brought into [-pi, pi)."""
    return np.asarray((angle + np.pi) % (2.0 * np.pi) - np.pi)


class Tracks:
    """All tracks of a batch, looked up by track number and arc length."""

    def __init__(self, tracks: FloatArray) -> None:
        """``tracks`` has shape [K, TRACK_POINTS, 2] in m."""
        if tracks.ndim != 3 or tracks.shape[1:] != (TRACK_POINTS, 2):
            raise ValueError(f"tracks must be [K,{TRACK_POINTS},2], not {tracks.shape}")
        self._x = np.ascontiguousarray(tracks[..., 0]).ravel()
        self._y = np.ascontiguousarray(tracks[..., 1]).ravel()

    def vertex(self, track: IntArray, index: IntArray) -> tuple[FloatArray, FloatArray]:
        """x and y of the polyline's vertex ``index`` (0 .. TRACK_POINTS-1)."""
        flat = track * TRACK_POINTS + index
        return self._x.take(flat), self._y.take(flat)

    def at(self, track: IntArray, arc: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """x, y and the tangent (dx, dy; about unit length) at ``arc`` m; arcs off the track are clipped."""
        part = np.maximum(arc, 0.0)
        np.minimum(part, TRACK_POINTS - 2.001, out=part)
        index = part.astype(np.int64)
        part -= index
        index += track * TRACK_POINTS
        x, y = self._x.take(index), self._y.take(index)
        index += 1
        dx, dy = self._x.take(index), self._y.take(index)
        dx -= x
        dy -= y
        x += dx * part
        y += dy * part
        return x, y, dx, dy
