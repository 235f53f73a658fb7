"""Scenarios that a person wrote: the bytes of a YAML file to a scenario that can be driven, or a clear refusal.

Each refusal names file, line and key. A drawn scenario keeps its plain identity; a written one is named by the digest
of its canonical document, so two files that say the same are the same scenario. Corners are rounded as everywhere in
the simulator (a Hann window of 9 m), and the ways go on straight past their last point. What is refused here is what
could not be driven by anybody; whether a scenario is fair is its author's business. Reads no file.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.scenario import DrawnScenario, ScenarioDocument, WrittenScenario
from nwmctl.driving import constants as k
from nwmctl.driving import traps
from nwmctl.driving.constants import FloatArray
from nwmctl.driving.families import generate
from nwmctl.driving.geometry import smooth
from nwmctl.driving.scenarios import Scenario, ScenarioId, Vehicle
from nwmctl.driving.world import World, clearance
from nwmctl.errors import NwmError, ScenarioGeometryError, ScenarioLimitError, ScenarioStartError
from nwmctl.formats import documents
from nwmctl.formats.codec import Path, Source

FASTEST: Final = 60.0
"""m/s; nobody may start or cruise faster."""
TIGHTEST: Final = float(k.WHEELBASE / 2.0 / np.sin(np.arctan(0.5 * np.tan(k.STEER_LIMIT))))
"""Radius in m of the tightest circle that a vehicle can drive (about 5.3 m)."""
_LONGEST: Final = float(k.TRACK_POINTS - 1)
_CLOSEST_POINTS: Final = 0.1
_BEND_WINDOW: Final = 5
"""Metres over which a bend is measured: a single rough point is no bend."""
_STEEPEST: Final = float(np.pi / 2)


def load(data: bytes, where: str) -> Scenario:
    """Read a ``nwmctl.scenario/1`` document; ``where`` is what refusals call the file.

    Raises SchemaError, SchemaVersionError, ScenarioGeometryError, ScenarioStartError, ScenarioLimitError.
    """
    document, source = documents.decode_yaml_with_places(ScenarioDocument, data, where)
    if document.drawn is not None:
        return _drawn(document.drawn, source)
    assert document.written is not None  # the document's own invariant
    digest = digest_bytes(documents.encode(document))
    return _Reader(document.written, source).scenario(ScenarioId(document.written.family, 0, None, digest.hex))


def _drawn(drawn: DrawnScenario, source: Source) -> Scenario:
    if drawn.trap is not None and drawn.family not in traps.WAYS[drawn.trap].families:
        families = ", ".join(traps.WAYS[drawn.trap].families)
        raise source.refuse(
            ("drawn", "trap"),
            f"the trap '{drawn.trap}' is not laid on the family '{drawn.family}'",
            f"it is laid on {families}",
            "choose another family or another trap",
        )
    return generate(ScenarioId(drawn.family, drawn.seed, drawn.trap))


class _Reader:
    """Checks one written scenario, key by key, in the order in which a person would."""

    def __init__(self, written: WrittenScenario, source: Source) -> None:
        self._written, self._source = written, source

    def scenario(self, identity: ScenarioId) -> Scenario:
        written, ego = self._written, self._written.ego
        route = self._way(written.route, ("route",))
        self._speed(ego.speed_m_s, ("ego", "speed_m_s"))
        self._speed(ego.cruise_m_s, ("ego", "cruise_m_s"), least=1.0)
        self._start(ego.start_m, ("ego", "start_m"))
        if abs(ego.lateral_m) >= k.OFF_ROAD:
            raise self._refuse(
                ScenarioStartError, ("ego", "lateral_m"), f"{ego.lateral_m} m is off the road",
                f"the road reaches {k.OFF_ROAD} m to either side of the route", "start nearer to the route",
            )  # fmt: skip
        if abs(ego.heading_error_rad) > _STEEPEST:
            raise self._refuse(
                ScenarioStartError, ("ego", "heading_error_rad"), f"{ego.heading_error_rad} rad faces backwards",
                "at most a quarter turn (1.57 rad) to either side is a start", "turn the ego towards its route",
            )  # fmt: skip
        self._end(ego.start_m + ego.cruise_m_s * k.EPISODE_STEPS * k.CONTROL_DT)
        self._hampered()
        scenario = Scenario(
            identity, route, ego.start_m, ego.speed_m_s, ego.cruise_m_s, self._traffic(route), ego.lateral_m,
            ego.heading_error_rad, frozenset(written.dropped_steps), written.late_steps,
        )  # fmt: skip
        self._apart(scenario)
        return scenario

    def _refuse(self, kind: type[NwmError], path: Path, what: str, why: str, next: str) -> NwmError:
        return kind(f"{self._source.at(('written', *path))}: {what}", why=why, next=next)

    def _way(self, written: tuple[tuple[float, ...], ...], path: Path) -> FloatArray:
        """The 1 m grid of a way; refuses points that are no points, stand on each other, or bend too sharply."""
        kind = ScenarioGeometryError
        for index, point in enumerate(written):
            if len(point) != 2:
                why = f"a point is [x, y] in m; this one has {len(point)} numbers"
                raise self._refuse(kind, (*path, index), "not a point", why, "write two numbers")
            if max(map(abs, point)) > 10_000.0:
                why = "coordinates are metres from an origin nearby, at most 10,000"
                raise self._refuse(kind, (*path, index), f"{list(point)} is too far away", why, "move the origin")
        if len(written) < 2:
            why = f"a way needs at least two points; there are {len(written)}"
            raise self._refuse(kind, path, "too few points", why, "add points")
        points = np.array(written, dtype=np.float64)
        steps = np.hypot(*np.diff(points, axis=0).T)
        if steps.min() < _CLOSEST_POINTS:
            index = int(steps.argmin()) + 1
            why = f"it stands {steps.min():.2f} m from the point before; a way has no direction there"
            raise self._refuse(kind, (*path, index), "two points on each other", why, "remove one of them")
        if steps.sum() > _LONGEST:
            why = f"the simulator knows ways of at most {_LONGEST:.0f} m; this one has {steps.sum():.0f} m"
            raise self._refuse(kind, path, "too long", why, "leave out what no vehicle reaches in 12 s")
        track = smooth(points)
        radius, where = _tightest(track)
        if radius < TIGHTEST:
            arc = np.concatenate([[0.0], np.cumsum(steps)])
            index = int(np.abs(arc - where).argmin())
            why = (
                f"about {where:.0f} m along it bends with a radius of {radius:.1f} m; a vehicle needs {TIGHTEST:.1f} m"
            )
            raise self._refuse(kind, (*path, index), "a kink that cannot be driven", why, "round it with more points")
        return track

    def _speed(self, speed: float, path: Path, least: float = 0.0) -> None:
        if not least <= speed <= FASTEST:
            why = f"speeds here are between {least:.0f} and {FASTEST:.0f} m/s"
            hint = "write m/s, not km/h" if speed > FASTEST else "correct the speed"
            raise self._refuse(ScenarioLimitError, path, f"{speed} m/s is no speed to drive at", why, hint)

    def _start(self, start: float, path: Path) -> None:
        if not 0.0 <= start <= _LONGEST - 1.0:
            why = f"a start is between 0 and {_LONGEST - 1.0:.0f} m along the way"
            raise self._refuse(ScenarioStartError, path, f"{start} m is off the way", why, "correct the start")

    def _end(self, reach: float) -> None:
        if reach > _LONGEST:
            why = f"in 12 s at cruise speed the ego gets to {reach:.0f} m; ways end at {_LONGEST:.0f} m"
            raise self._refuse(
                ScenarioLimitError, ("ego",), "the ego would drive off the end", why, "start earlier or cruise slower"
            )

    def _hampered(self) -> None:
        for index, step in enumerate(self._written.dropped_steps):
            if not 0 <= step < k.EPISODE_STEPS:
                why = f"an episode has the decisions 0 to {k.EPISODE_STEPS - 1}"
                path = ("dropped_steps", index)
                raise self._refuse(ScenarioLimitError, path, f"there is no decision {step}", why, "correct the number")
        if not 0 <= self._written.late_steps <= k.MAX_LATE:
            why = f"a command is between 0 and {k.MAX_LATE} decisions late"
            what = f"{self._written.late_steps} decisions"
            raise self._refuse(ScenarioLimitError, ("late_steps",), what, why, "correct the number")

    def _traffic(self, route: FloatArray) -> tuple[Vehicle, ...]:
        vehicles = self._written.vehicles
        if len(vehicles) > k.AGENTS:
            why = f"the model's observation has places for {k.AGENTS}; there are {len(vehicles)}"
            raise self._refuse(ScenarioLimitError, ("vehicles",), "too many vehicles", why, "leave some out")
        found = []
        for index, vehicle in enumerate(vehicles):
            path: Path = ("vehicles", index)
            self._speed(vehicle.speed_m_s, (*path, "speed_m_s"))
            self._speed(vehicle.cruise_m_s, (*path, "cruise_m_s"))
            self._start(vehicle.start_m, (*path, "start_m"))
            if vehicle.slows_at_s is not None and vehicle.slows_at_s < 0.0:
                why = "a time counts from the start of the episode"
                at = (*path, "slows_at_s")
                raise self._refuse(ScenarioLimitError, at, f"{vehicle.slows_at_s} s", why, "write 0 or more")
            track = self._way(vehicle.track, (*path, "track")) if vehicle.track else route
            slows = np.inf if vehicle.slows_at_s is None else vehicle.slows_at_s
            found.append(Vehicle(track, vehicle.start_m, vehicle.speed_m_s, vehicle.cruise_m_s, slows, vehicle.yields))
        return tuple(found)

    def _apart(self, scenario: Scenario) -> None:
        """Refuses bodies that overlap at the start. The ego is body 0, then the vehicles in their order."""
        world = World([scenario])
        count = len(scenario.traffic)
        x = np.append(world.x, world.agent_x[0, :count])
        y = np.append(world.y, world.agent_y[0, :count])
        heading = np.append(world.heading, world.agent_heading[0, :count])
        free = clearance((x[:, None], y[:, None], heading[:, None]), (x, y, heading))
        for second in range(1, count + 1):
            for first in range(second):
                if free[first, second] < 0.0:
                    other = "the ego" if first == 0 else f"vehicle {first - 1}"
                    raise self._refuse(
                        ScenarioStartError, ("vehicles", second - 1), f"starts inside {other}",
                        f"their bodies overlap by {-free[first, second]:.1f} m", "move one of them along its way",
                    )  # fmt: skip


def _tightest(track: FloatArray) -> tuple[float, float]:
    """Radius of the tightest bend in m, and where along the track it is in m."""
    step = np.diff(track, axis=0)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    turned = np.abs(heading[_BEND_WINDOW:] - heading[:-_BEND_WINDOW])
    where = int(turned.argmax())
    return float(_BEND_WINDOW / max(turned[where], 1e-9)), float(where + _BEND_WINDOW / 2.0)
