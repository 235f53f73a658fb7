"""Streets of a replay: the tracks of a scenario as lines on paper.

The simulator knows the ways that vehicles take, not kerbs and lane markings; so a street is drawn where somebody has a
way, as wide as a lane, and what nobody uses is not there. The picture's frame has x to the right and y down, in metres,
turned so that the ego starts out upwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving.constants import FloatArray
from nwmctl.driving.roads import LANE
from nwmctl.driving.scenarios import Scenario

_TOLERANCE: Final = 0.03
"""How far in m a drawn line may be from the track."""
_BEYOND: Final = 12.0


@dataclass(frozen=True, slots=True)
class Street:
    """A line with its width in m."""

    path: str
    width: float


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """From the world to the paper: ``heading`` rad points up, ``origin`` [2] m is 0,0."""

    heading: float
    origin: FloatArray

    def points(self, world: FloatArray) -> FloatArray:
        """Places [...,2] in m on the paper."""
        turn = np.pi / 2.0 - self.heading
        c, s = np.cos(turn), np.sin(turn)
        x, y = world[..., 0] - self.origin[0], world[..., 1] - self.origin[1]
        return np.stack([x * c - y * s, -(x * s + y * c)], axis=-1)

    def angles(self, headings: FloatArray) -> FloatArray:
        """Headings [T] rad over time as clockwise angles on the paper, without jumps."""
        return -np.unwrap(np.asarray(headings) + np.pi / 2.0 - self.heading)

    def line(self, track: FloatArray, seen: FloatArray, reach: float) -> str:
        """The part of a track [K,2] that comes near what is ``seen`` [T,2] (paper), as path data."""
        places = self.points(track)
        near = np.zeros(len(places), dtype=bool)
        for place in seen[::3]:
            near |= np.hypot(*(places - place).T) < reach * 0.75 + _BEYOND
        return "".join(_polyline(places[run]) for run in _runs(near))


def streets(scenario: Scenario, frame: Frame, seen: FloatArray, reach: float) -> tuple[Street, ...]:
    """Every way of the scenario, each once; the ego's route is as wide as what counts as road."""
    found = {frame.line(scenario.route, seen, reach): 2.0 * k.OFF_ROAD}
    for vehicle in scenario.traffic:
        begin = max(int(vehicle.start) - 30, 0)
        found.setdefault(frame.line(vehicle.track[begin:], seen, reach), LANE)
    return tuple(Street(path, width) for path, width in found.items() if path)


def _runs(near: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], near.astype(int), [0]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1]


def _polyline(places: FloatArray) -> str:
    kept = [0]
    for index in range(2, len(places)):
        begin = places[kept[-1]]
        along = places[index] - begin
        between = places[kept[-1] + 1 : index] - begin
        off = np.abs(between[:, 0] * along[1] - between[:, 1] * along[0]) / max(float(np.hypot(*along)), 1e-9)
        if off.max(initial=0.0) > _TOLERANCE:
            kept.append(index - 1)
    kept.append(len(places) - 1)
    return "M" + "L".join(f"{places[i, 0]:.2f},{places[i, 1]:.2f}" for i in kept)
