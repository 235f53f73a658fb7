"""The five road families: how a highway, a merge, a roundabout, an intersection and a curvy road are drawn.

``generate`` is a pure function of a scenario's identity: each family draws from a private stream seeded by it, and
vehicles that would start in each other's place are left out. Lane width 3.75 m on fast roads; the small roads have
their lanes 1.9 to 2.2 m right of the middle. Tuned so that a careful driver nearly always has a way out and a careless
one does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.random import Generator

from nwmctl.driving import traps
from nwmctl.driving.constants import AGENTS, TRACK_POINTS
from nwmctl.driving.geometry import from_curvature, normals, ramp, resample, shifted
from nwmctl.driving.roads import LANE, crossing, ring
from nwmctl.driving.scenarios import Family, Scenario, ScenarioId, Vehicle

_CLEAR_AT_START: Final = 8.0
"""No two vehicles start closer than this many metres."""


def _highway(identity: ScenarioId, g: Generator) -> Scenario:
    """Three lanes in a wide bend. Half the time the ego's route changes lane; some vehicles cut in or slow down."""
    bend = g.normal(0.0, 1.0) / 400.0 * ramp(g.uniform(0.0, 150.0), 15.0)
    middle = from_curvature(bend)
    left = normals(middle)
    lanes = tuple(resample(lane) for lane in (middle, shifted(middle, LANE, left), shifted(middle, -LANE, left)))
    cruise, start = float(g.uniform(20.0, 28.0)), 40.0
    route = middle
    if g.random() < 0.5:
        side = LANE if g.random() < 0.5 else -LANE
        route = resample(shifted(middle, side * ramp(float(g.uniform(70.0, 140.0)), 7.0), left))
    traffic: list[Vehicle] = []
    for lane, count in ((0, 3), (1, 3), (2, 2)):
        place = start + (g.uniform(22.0, 45.0) if lane == 0 else g.uniform(-35.0, 0.0))
        for _ in range(count):
            speed = cruise * float(g.uniform(0.65, 0.95))
            track = lanes[lane]
            if lane and place > start + 12.0 and g.random() < 0.4:
                into = ramp(place + float(g.uniform(25.0, 80.0)), 6.0)
                track = resample(shifted(middle, (LANE if lane == 1 else -LANE) * (1.0 - into), left))
            slows = float(g.uniform(2.0, 9.0)) if g.random() < 0.2 else np.inf
            if lane == 0 or abs(place - start) >= 9.0:
                traffic.append(Vehicle(track, float(max(place, 0.0)), speed, speed, slows))
            place += float(g.uniform(20.0, 45.0))
    return Scenario(identity, route, start, cruise * float(g.uniform(0.8, 1.0)), cruise, tuple(traffic))


def _merge(identity: ScenarioId, g: Generator) -> Scenario:
    """The ego comes down a ramp and must find its place in a lane where one vehicle in ten does not make room."""
    grid = np.arange(TRACK_POINTS, dtype=np.float64)
    main = np.stack([grid, np.zeros_like(grid)], axis=-1)
    meets = float(g.uniform(135.0, 165.0))
    slip = resample(np.stack([grid, -2 * LANE * (1.0 - ramp(meets, 11.0))], axis=-1))
    cruise, start = float(g.uniform(16.0, 22.0)), 30.0
    speed = cruise * float(g.uniform(0.7, 0.95))
    traffic: list[Vehicle] = []
    place = float(g.uniform(0.0, 20.0))
    for _ in range(6):
        now, wish = cruise * g.uniform(0.75, 1.0), cruise * g.uniform(0.75, 0.95)
        traffic.append(Vehicle(main, place, float(now), float(wish), yields=bool(g.random() < 0.9)))
        place += float(g.uniform(20.0, 42.0))
    if g.random() < 0.5:
        traffic.append(Vehicle(slip, start + float(g.uniform(18.0, 30.0)), speed * 0.85, cruise * 0.8))
    return Scenario(identity, slip, start, speed, cruise, tuple(traffic))


def _roundabout(identity: ScenarioId, g: Generator) -> Scenario:
    """The ego enters a ring, gives way by its own judgement, and leaves; a quarter of the traffic ignores it."""
    route = ring(int(g.integers(1, 4)))
    start, cruise = float(g.uniform(15.0, 35.0)), float(g.uniform(7.0, 9.5))
    traffic: list[Vehicle] = []
    for _ in range(int(g.integers(3, 7))):
        arm = int(g.integers(0, 4))
        track = ring(int(g.integers(1, 4)), arm)
        place = float(g.uniform(60.0 if arm == 0 else 20.0, 125.0))
        speeds = float(g.uniform(5.0, 8.0)), float(g.uniform(6.0, 8.5))
        traffic.append(Vehicle(track, place, *speeds, yields=bool(g.random() < 0.75)))
    if g.random() < 0.4:
        traffic.append(Vehicle(route, start + float(g.uniform(12.0, 20.0)), cruise * 0.7, cruise * 0.8))
    return Scenario(identity, route, start, cruise * float(g.uniform(0.8, 1.0)), cruise, tuple(traffic))


def _intersection(identity: ScenarioId, g: Generator) -> Scenario:
    """Four arms without lights; a fifth of the crossing traffic does not care about the ego."""
    route = crossing(int(g.integers(-1, 2)))
    start, cruise = float(g.uniform(20.0, 45.0)), float(g.uniform(8.0, 12.0))
    traffic: list[Vehicle] = []
    for _ in range(int(g.integers(3, 8))):
        arm = int(g.integers(1, 4))
        track = crossing(int(g.integers(-1, 2)), arm)
        place, now, wish = float(g.uniform(5.0, 80.0)), float(g.uniform(6.0, 10.0)), float(g.uniform(7.0, 11.0))
        traffic.append(Vehicle(track, place, now, wish, yields=bool(g.random() < 0.8)))
    if g.random() < 0.4:
        traffic.append(Vehicle(route, start + float(g.uniform(12.0, 22.0)), cruise * 0.7, cruise * 0.75))
    return Scenario(identity, route, start, cruise * float(g.uniform(0.8, 1.0)), cruise, tuple(traffic))


def _curvy(identity: ScenarioId, g: Generator) -> Scenario:
    """A winding country road with slow vehicles ahead and oncoming traffic in the other lane."""
    bends = np.zeros(TRACK_POINTS)
    metre = 20
    while metre < TRACK_POINTS:
        length = int(g.integers(15, 45))
        bends[metre : metre + length] = float(g.integers(-1, 2)) / float(g.uniform(18.0, 60.0))
        metre += length
    window = np.hanning(11)
    route = from_curvature(np.convolve(bends, window / window.sum(), "same"))
    start, cruise = 10.0, float(g.uniform(9.0, 14.0))
    traffic: list[Vehicle] = []
    place = start + float(g.uniform(18.0, 40.0))
    for _ in range(int(g.integers(1, 4))):
        wish = cruise * float(g.uniform(0.4, 0.8))
        slows = float(g.uniform(3.0, 9.0)) if g.random() < 0.3 else np.inf
        traffic.append(Vehicle(route, place, cruise * 0.6, wish, slows))
        place += float(g.uniform(15.0, 35.0))
    oncoming = resample(shifted(route, LANE)[::-1])
    for _ in range(3):
        speeds = float(g.uniform(8.0, 11.0)), float(g.uniform(8.0, 12.0))
        traffic.append(Vehicle(oncoming, float(g.uniform(200.0, 380.0)), *speeds))
    return Scenario(identity, route, start, cruise * float(g.uniform(0.8, 1.0)), cruise, tuple(traffic))


DRAW: Final[dict[Family, Callable[[ScenarioId, Generator], Scenario]]] = {
    Family.HIGHWAY: _highway,
    Family.MERGE: _merge,
    Family.ROUNDABOUT: _roundabout,
    Family.INTERSECTION: _intersection,
    Family.CURVY: _curvy,
}


def generate(identity: ScenarioId) -> Scenario:
    """Draw the scenario. Vehicles that would start in each other's place are left out; at most ``AGENTS`` stay."""
    number = tuple(Family).index(identity.family)
    stream = np.random.default_rng([0x6E776D, number, identity.seed])
    drawn = traps.sprung(DRAW[identity.family](identity, stream))
    return replace(drawn, traffic=_spaced(drawn))


def generate_all(identities: Iterable[ScenarioId]) -> tuple[Scenario, ...]:
    """``generate`` for each identity, in order."""
    return tuple(generate(identity) for identity in identities)


def _spaced(scenario: Scenario) -> tuple[Vehicle, ...]:
    """The traffic without vehicles that would start too near the ego or somebody before them."""
    begins = [v.track[min(max(int(v.start), 0), TRACK_POINTS - 2)] for v in scenario.traffic]
    places = np.stack([scenario.route[int(scenario.start)], *begins])
    apart = places[:, None] - places[None]
    clear = np.hypot(apart[..., 0], apart[..., 1]) > _CLEAR_AT_START
    kept = [0]
    for vehicle in range(1, len(places)):
        if clear[vehicle, kept].all():
            kept.append(vehicle)
    return tuple(scenario.traffic[i - 1] for i in kept[1:])[:AGENTS]
