"""Traps: "how do I get back from an error state", each laid over a family's scenario.

A trap changes a drawn scenario (where the ego starts, who gets in its way, what hampers its perception or its
actuators) by figures from a stream of its own, so the same seed without a trap stays what it was. ``WAYS`` below is
the one table of what is drawn, in SI units; a careful driver has a way out of nearly all of it. ``RECOVERED`` says
what counts as having come back. Nothing is driven or judged here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.random import Generator

from nwmctl.driving import roads
from nwmctl.driving.constants import EPISODE_STEPS, TRACK_POINTS, FloatArray
from nwmctl.driving.geometry import ramp, resample, shifted
from nwmctl.driving.scenarios import Family, Scenario, ScenarioId, Trap, Vehicle
from nwmctl.errors import ScenarioNameError

_ALL: Final = tuple(Family)
_MEETS: Final = 1.0
"""Two ways meet where they come closer than this many metres."""


@dataclass(frozen=True, slots=True)
class Way:
    """How one trap is drawn: on which families, and each figure uniformly from its (low, high)."""

    families: tuple[Family, ...]
    ranges: Mapping[str, tuple[float, float]]


WAYS: Final[dict[Trap, Way]] = {
    Trap.OFF_CENTRE: Way(_ALL, {"lateral_m": (1.2, 1.8)}),
    Trap.HEADING_ERROR: Way(_ALL, {"drift_m_s": (1.2, 2.0), "largest_rad": (0.30, 0.30)}),
    Trap.TOO_FAST: Way(
        (Family.CURVY, Family.ROUNDABOUT),
        {"braking_needed_m_s2": (2.0, 3.5), "before_bend_m": (25.0, 45.0), "bend_lateral_m_s2": (3.5, 3.5)},
    ),
    Trap.CUT_IN: Way(
        (Family.HIGHWAY, Family.MERGE),
        {"gap_m": (7.0, 11.0), "speed_share": (0.65, 0.85), "after_s": (0.5, 2.0), "width_m": (4.0, 6.0)},
    ),
    Trap.STALLED: Way(
        (Family.CURVY, Family.MERGE, Family.HIGHWAY),
        {"braking_needed_m_s2": (2.5, 3.8), "spare_m": (25.0, 35.0), "fastest_m_s": (22.0, 22.0)},
    ),
    Trap.RIGHT_OF_WAY: Way(
        (Family.INTERSECTION, Family.ROUNDABOUT),
        {"speed_m_s": (7.0, 9.0), "early_s": (0.3, 1.3)},
    ),
    Trap.DROPPED: Way(_ALL, {"lost_steps": (4, 10), "seen_steps": (2, 5)}),
    Trap.LATE: Way(_ALL, {"late_steps": (1, 2), "late_steps_on_fast_roads": (1, 1)}),
}
"""Steps are decisions of 0.2 s, drawn as whole numbers with both ends included."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a drive must have come back to at its end: m, rad, and the share of the way at cruise speed."""

    lateral: float
    heading_error: float
    progress: float


_BACK_ON_ROUTE: Final = Limits(lateral=0.8, heading_error=0.25, progress=0.2)
_STILL_DRIVING: Final = Limits(lateral=1.5, heading_error=0.35, progress=0.2)
RECOVERED: Final[dict[Trap | None, Limits]] = {
    None: _STILL_DRIVING,
    Trap.OFF_CENTRE: _BACK_ON_ROUTE,
    Trap.HEADING_ERROR: _BACK_ON_ROUTE,
    Trap.TOO_FAST: _BACK_ON_ROUTE,
    Trap.CUT_IN: _STILL_DRIVING,
    Trap.STALLED: _STILL_DRIVING,
    Trap.RIGHT_OF_WAY: _STILL_DRIVING,
    Trap.DROPPED: _STILL_DRIVING,
    Trap.LATE: _STILL_DRIVING,
}
"""Beside these, a drive that crashed or left the road has never recovered."""


def paired(count: int, seed: int) -> tuple[ScenarioId, ...]:
    """``count`` identities, the traps taking turns and each trap's families within it; the same for the same seed."""
    traps = tuple(Trap)
    found = []
    for i in range(count):
        trap, turn = traps[i % len(traps)], i // len(traps)
        families = WAYS[trap].families
        found.append(ScenarioId(families[turn % len(families)], seed + turn, trap))
    return tuple(found)


def sprung(scenario: Scenario) -> Scenario:
    """The scenario with its identity's trap laid over it; without a trap, the scenario itself.

    Raises ScenarioNameError where the trap is not laid on the scenario's family.
    """
    trap = scenario.id.trap
    if trap is None:
        return scenario
    if scenario.id.family not in WAYS[trap].families:
        raise ScenarioNameError(
            f"there is no scenario '{scenario.id.label}'",
            why=f"the trap '{trap}' is laid on {', '.join(WAYS[trap].families)} only",
            next="choose another family or another trap",
        )
    numbers = (tuple(Trap).index(trap), tuple(Family).index(scenario.id.family), scenario.id.seed)
    return _LAY[trap](scenario, np.random.default_rng([0x74726170, *numbers]))


def _draw(trap: Trap, g: Generator, name: str) -> float:
    return float(g.uniform(*WAYS[trap].ranges[name]))


def _whole(trap: Trap, g: Generator, name: str) -> int:
    low, high = WAYS[trap].ranges[name]
    return int(g.integers(int(low), int(high) + 1))


def _side(g: Generator) -> float:
    return 1.0 if g.random() < 0.5 else -1.0


def _off_centre(scenario: Scenario, g: Generator) -> Scenario:
    return replace(scenario, lateral=_side(g) * _draw(Trap.OFF_CENTRE, g, "lateral_m"))


def _heading_error(scenario: Scenario, g: Generator) -> Scenario:
    """The faster the ego, the smaller the angle: it is the drift to the side that must be caught in time."""
    sine = _draw(Trap.HEADING_ERROR, g, "drift_m_s") / max(scenario.speed, 1.0)
    largest = _draw(Trap.HEADING_ERROR, g, "largest_rad")
    return replace(scenario, heading_error=_side(g) * min(float(np.arcsin(min(sine, 1.0))), largest))


def _too_fast(scenario: Scenario, g: Generator) -> Scenario:
    """Shortly before the sharpest bend, at a speed from which firm braking still reaches it in time."""
    bends = _curvature(scenario.route)
    where = 60 + int(bends[60:300].argmax())
    gentle = 0.8 * float(bends[where])
    while where > 60 and bends[where - 1] > gentle:
        where -= 1
    way = _draw(Trap.TOO_FAST, g, "before_bend_m")
    bend_speed = _draw(Trap.TOO_FAST, g, "bend_lateral_m_s2") / max(gentle, 1e-3)
    speed = float(np.sqrt(bend_speed + 2.0 * _draw(Trap.TOO_FAST, g, "braking_needed_m_s2") * way))
    moved = replace(scenario, start=float(where - way), speed=speed)
    return replace(moved, traffic=_nobody_ahead(moved, 120.0))


def _cut_in(scenario: Scenario, g: Generator) -> Scenario:
    """Somebody ahead in the next lane, slower than the ego, takes its lane without looking, ``gap_m`` before it."""
    trap = Trap.CUT_IN
    speed = scenario.speed * _draw(trap, g, "speed_share")
    after = _draw(trap, g, "after_s")
    place = scenario.start + _draw(trap, g, "gap_m") + (scenario.speed - speed) * after
    into = ramp(place + speed * after, _draw(trap, g, "width_m"))
    # On the merge the lane to the left is the one that the ego must enter; nobody comes from the right there.
    side = 1.0 if scenario.id.family is Family.MERGE else _side(g)
    track = resample(shifted(scenario.route, side * roads.LANE * (1.0 - into)))
    cutter = Vehicle(track, place, speed, speed, yields=False)
    return replace(scenario, traffic=(cutter, *_nobody_near(scenario, 45.0)))


def _stalled(scenario: Scenario, g: Generator) -> Scenario:
    """A vehicle stands in the way, so far ahead that firm braking is enough."""
    trap = Trap.STALLED
    fastest = _draw(trap, g, "fastest_m_s")
    speed = min(scenario.speed, fastest)
    way = speed * speed / (2.0 * _draw(trap, g, "braking_needed_m_s2")) + _draw(trap, g, "spare_m")
    slower = replace(scenario, speed=speed, cruise=min(scenario.cruise, fastest))
    stalled = Vehicle(scenario.route, scenario.start + way, 0.0, 0.0, yields=False)
    return replace(slower, traffic=(stalled, *_nobody_ahead(slower, way + 5.0)))


def _right_of_way(scenario: Scenario, g: Generator) -> Scenario:
    """Somebody crosses or joins the ego's way when the ego would be there, and does not look."""
    trap = Trap.RIGHT_OF_WAY
    if scenario.id.family is Family.INTERSECTION:
        ways = [roads.crossing(0, arm) for arm in (1, 3)]
    else:
        ways = [roads.ring(exits, arm) for arm in (1, 2, 3) for exits in (2, 3)]
    speed, early = _draw(trap, g, "speed_m_s"), _draw(trap, g, "early_s")
    meetings = [(_meeting(scenario, ways[i]), ways[i]) for i in g.permutation(len(ways))]
    (mine, other, _), track = next((m for m in meetings if m[0][2] < _MEETS), meetings[0])
    when = (mine - scenario.start) / max(0.5 * (scenario.speed + scenario.cruise), 1.0)
    place = float(np.clip(other - speed * (when - early), 0.0, other))
    violator = Vehicle(track, place, speed, speed, yields=False)
    return replace(scenario, traffic=(violator, *_nobody_ahead(scenario, 40.0)))


def _dropped(scenario: Scenario, g: Generator) -> Scenario:
    """Perception comes and goes: it is lost for a second or two, back for half a second, and so on."""
    lost: set[int] = set()
    step = _whole(Trap.DROPPED, g, "seen_steps")
    while step < EPISODE_STEPS:
        length = _whole(Trap.DROPPED, g, "lost_steps")
        lost.update(range(step, min(step + length, EPISODE_STEPS)))
        step += length + _whole(Trap.DROPPED, g, "seen_steps")
    return replace(scenario, dropped=frozenset(lost))


def _late(scenario: Scenario, g: Generator) -> Scenario:
    fast = scenario.id.family in (Family.HIGHWAY, Family.MERGE)
    return replace(scenario, late=_whole(Trap.LATE, g, "late_steps_on_fast_roads" if fast else "late_steps"))


_LAY: Final[dict[Trap, Callable[[Scenario, Generator], Scenario]]] = {
    Trap.OFF_CENTRE: _off_centre,
    Trap.HEADING_ERROR: _heading_error,
    Trap.TOO_FAST: _too_fast,
    Trap.CUT_IN: _cut_in,
    Trap.STALLED: _stalled,
    Trap.RIGHT_OF_WAY: _right_of_way,
    Trap.DROPPED: _dropped,
    Trap.LATE: _late,
}


def _curvature(track: FloatArray) -> FloatArray:
    """Absolute curvature in 1/m at every metre of a track, averaged over five metres."""
    step = np.diff(track, axis=0)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    bend = np.abs(np.gradient(heading))
    return np.convolve(np.append(bend, 0.0), np.full(5, 0.2), "same")


def _nobody_ahead(scenario: Scenario, way: float) -> tuple[Vehicle, ...]:
    """The traffic without those who start on the ego's route within ``way`` m: they would hide the trap."""
    begin = int(scenario.start)
    ahead = scenario.route[begin : begin + int(way)]

    def elsewhere(vehicle: Vehicle) -> bool:
        return float(np.hypot(*(ahead - _place(vehicle)).T).min()) > 2.0

    return tuple(vehicle for vehicle in scenario.traffic if elsewhere(vehicle))


def _nobody_near(scenario: Scenario, way: float) -> tuple[Vehicle, ...]:
    """The traffic without those who start within ``way`` m of the ego: they would leave it no way out."""
    own = scenario.route[int(scenario.start)]
    return tuple(v for v in scenario.traffic if float(np.hypot(*(_place(v) - own))) > way)


def _place(vehicle: Vehicle) -> FloatArray:
    return np.asarray(vehicle.track[int(np.clip(vehicle.start, 0, TRACK_POINTS - 2))])


def _meeting(scenario: Scenario, track: FloatArray) -> tuple[float, float, float]:
    """Arc lengths in m, on the ego's route and on ``track``, where the two first meet; how near they come there."""
    begin = int(scenario.start) + 15
    mine = scenario.route[begin : begin + 120]
    apart = np.hypot(mine[:, None, 0] - track[None, :200, 0], mine[:, None, 1] - track[None, :200, 1])
    nearest = apart.min(axis=1)
    rows = np.nonzero(nearest < _MEETS)[0]
    first = int(rows[0]) if len(rows) else int(nearest.argmin())
    return float(begin + first), float(apart[first].argmin()), float(nearest[first])
