"""The world: B scenarios advanced in lockstep, the ego as a bicycle with lazy actuators.

Invariants: a lane's future depends on its own scenario and controls only, never on its neighbours in the batch; a
lane that has ended (crash, off the road, time) is frozen. Controls outside the physical limits are clipped; a control
that is not finite counts as a fault and is replaced by zero. Where a scenario says so, a command takes effect one or
more decisions late (until the first arrives, the commands are zero), and perception of other vehicles drops out: see
``perception``. The world observes and scores nothing: see ``observe`` and ``metrics``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving.constants import BoolArray, FloatArray, IntArray
from nwmctl.driving.geometry import Tracks, wrap
from nwmctl.driving.perception import Perception, Snapshot
from nwmctl.driving.scenarios import Scenario
from nwmctl.driving.traffic import accelerations

_FAR_AWAY = 1.0e4
_NEVER_CLOSE = 99.0


class World:
    """The state of B scenarios. Read the attributes, change them only through ``step``."""

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self.scenarios = tuple(scenarios)
        self.size = len(self.scenarios)
        if not self.size:
            raise ValueError("a world needs at least one scenario")
        self.time_step = 0
        self._place_ego()
        self._place_traffic()
        zeros = np.zeros(self.size)
        self.wheel, self.drive = zeros.copy(), zeros.copy()
        self.command_steer, self.command_accel = zeros.copy(), zeros.copy()
        self.crashed: BoolArray = np.zeros(self.size, dtype=np.bool_)
        self.off_road: BoolArray = np.zeros(self.size, dtype=np.bool_)
        self.ended: BoolArray = np.zeros(self.size, dtype=np.bool_)
        self.steps_driven = np.zeros(self.size, dtype=np.int64)
        self.faults = np.zeros(self.size, dtype=np.int64)
        self.jerk_sum, self.closest = zeros.copy(), np.full(self.size, _NEVER_CLOSE)
        self._locate()
        self.history: list[Snapshot] = [self._snapshot()] * k.HISTORY
        self.perception = Perception([s.dropped for s in self.scenarios], self.history[-1])
        self._late: IntArray = np.array([s.late for s in self.scenarios], dtype=np.int64)
        self._given = [np.zeros((self.size, 2))] * (k.MAX_LATE + 1)

    def _place_ego(self) -> None:
        self.start_arc = np.array([s.start for s in self.scenarios])
        self.arc = self.start_arc.copy()
        self.speed = np.array([s.speed for s in self.scenarios])
        self.cruise = np.array([s.cruise for s in self.scenarios])
        routes = np.stack([s.route for s in self.scenarios])
        self.routes = Tracks(routes)
        self.lane: IntArray = np.arange(self.size, dtype=np.int64)
        self.x, self.y, dx, dy = self.routes.at(self.lane, self.arc)
        self.heading = np.arctan2(dy, dx)
        left = np.array([s.lateral for s in self.scenarios])
        self.x, self.y = self.x - left * np.sin(self.heading), self.y + left * np.cos(self.heading)
        self.heading = self.heading + np.array([s.heading_error for s in self.scenarios])

    def _place_traffic(self) -> None:
        shape = (self.size, k.AGENTS)
        nowhere = np.stack([_FAR_AWAY + np.arange(k.TRACK_POINTS), np.full(k.TRACK_POINTS, _FAR_AWAY)], axis=-1)
        lines = np.broadcast_to(nowhere, (*shape, k.TRACK_POINTS, 2)).copy()
        self.agent_arc, self.agent_speed, self._agent_cruise = (np.zeros(shape) for _ in range(3))
        self._slows_at = np.full(shape, np.inf)
        self.yields, self.present = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for b, scenario in enumerate(self.scenarios):
            for m, vehicle in enumerate(scenario.traffic):
                lines[b, m] = vehicle.track
                self.agent_arc[b, m], self.agent_speed[b, m] = vehicle.start, vehicle.speed
                self._agent_cruise[b, m], self._slows_at[b, m] = vehicle.cruise, vehicle.slows_at
                self.yields[b, m], self.present[b, m] = vehicle.yields, True
        # The IDM lets whoever wishes to stand creep on; somebody who has broken down does not.
        self._stands: BoolArray = self.present & (self._agent_cruise == 0.0) & (self.agent_speed == 0.0)
        self.agent_tracks = Tracks(lines.reshape(-1, k.TRACK_POINTS, 2))
        self.agent_track: IntArray = np.arange(self.size * k.AGENTS, dtype=np.int64).reshape(shape)

    def _locate(self) -> None:
        """Derive poses of agents and the ego's place on its route from the state."""
        self.agent_x, self.agent_y, dx, dy = self.agent_tracks.at(self.agent_track, self.agent_arc)
        self.agent_heading = np.arctan2(dy, dx)
        near = np.clip(self.arc.astype(np.int64)[:, None] + np.arange(-4, 9), 0, k.TRACK_POINTS - 2)
        px, py = self.routes.vertex(self.lane[:, None], near)
        nearest = ((px - self.x[:, None]) ** 2 + (py - self.y[:, None]) ** 2).argmin(axis=1)
        index = near[self.lane, nearest]
        ax, ay = px[self.lane, nearest], py[self.lane, nearest]
        bx, by = self.routes.vertex(self.lane, index + 1)
        dx, dy, rx, ry = bx - ax, by - ay, self.x - ax, self.y - ay
        length = np.sqrt(dx * dx + dy * dy) + 1e-9
        self.arc = index + (rx * dx + ry * dy) / length
        self.lateral = (dx * ry - dy * rx) / length
        self.heading_error = wrap(self.heading - np.arctan2(dy, dx))

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            self.agent_x, self.agent_y, self.agent_heading, self.agent_speed, self.speed,
            self.command_steer, self.command_accel, self.lateral, self.heading_error,
        )  # fmt: skip

    def step(self, control: FloatArray) -> None:
        """Advance one decision (0.2 s). ``control`` [B,2]: steer rad, accel m/s2. Errors: ValueError on the shape."""
        if control.shape != (self.size, 2):
            raise ValueError(f"control must be [{self.size},2], not {control.shape}")
        live = ~self.ended
        finite: BoolArray = np.asarray(np.isfinite(control).all(axis=1))
        safe = self._arriving(np.where(finite[:, None], control, 0.0))
        self.faults += live & ~finite
        steer = np.clip(safe[:, 0], -k.STEER_LIMIT, k.STEER_LIMIT)
        accel = np.clip(safe[:, 1], k.ACCEL_MIN, k.ACCEL_MAX)
        for _ in range(k.SUBSTEPS):
            self._advance(steer, accel, live)
            self._locate()
            self.crashed |= live & self._touching(live)
        self.off_road |= live & ~self.crashed & (np.abs(self.lateral) > k.OFF_ROAD)
        self.time_step += 1
        self.steps_driven += live
        self.jerk_sum += np.where(live, np.abs(accel - self.command_accel) / k.CONTROL_DT, 0.0)
        self.command_steer = np.where(live, steer, self.command_steer)
        self.command_accel = np.where(live, accel, self.command_accel)
        self.ended |= self.crashed | self.off_road | (self.time_step >= k.EPISODE_STEPS)
        self.history = [*self.history[1:], self._snapshot()]
        self.perception.take(self.history[-1], self.time_step)

    def _arriving(self, control: FloatArray) -> FloatArray:
        """The commands [B,2] that take effect now, where ``control`` is given now."""
        if not self._late.any():
            return control
        self._given = [control, *self._given[:-1]]
        return np.stack(self._given)[self._late, self.lane]

    def _advance(self, steer: FloatArray, accel: FloatArray, live: BoolArray) -> None:
        dt = k.CONTROL_DT / k.SUBSTEPS
        follow = dt / (dt + k.ACTUATOR_LAG)
        pushes = self._traffic_accelerations(live)
        moved = np.where(self._stands, 0.0, np.maximum(self.agent_speed + pushes * dt, 0.0))
        gone = (self.agent_speed + moved) / 2.0 * dt
        self.agent_arc = self.agent_arc + np.where(live[:, None], gone, 0.0)
        self.agent_speed = np.where(live[:, None], moved, self.agent_speed)
        self.wheel = np.where(live, self.wheel + (steer - self.wheel) * follow, self.wheel)
        self.drive = np.where(live, self.drive + (accel - self.drive) * follow, self.drive)
        faster = np.maximum(self.speed + self.drive * dt, 0.0)
        way = np.where(live, (self.speed + faster) / 2.0 * dt, 0.0)
        slip = np.arctan(0.5 * np.tan(self.wheel))
        self.x = self.x + way * np.cos(self.heading + slip)
        self.y = self.y + way * np.sin(self.heading + slip)
        self.heading = self.heading + way * np.sin(slip) / (k.WHEELBASE / 2.0)
        self.speed = np.where(live, faster, self.speed)

    def _traffic_accelerations(self, live: BoolArray) -> FloatArray:
        late = self.time_step * k.CONTROL_DT > self._slows_at
        wish = np.where(late, 0.25 * self._agent_cruise, self._agent_cruise)
        bodies = (
            np.concatenate([self.agent_x, self.x[:, None]], axis=1),
            np.concatenate([self.agent_y, self.y[:, None]], axis=1),
            np.concatenate([self.agent_heading, self.heading[:, None]], axis=1),
            np.concatenate([self.agent_speed, self.speed[:, None]], axis=1),
        )
        return accelerations(self.agent_tracks, self.agent_track, self.agent_arc, wish, bodies, self.yields, live)

    def _touching(self, live: BoolArray) -> BoolArray:
        agents = (self.agent_x, self.agent_y, self.agent_heading)
        ego = (self.x[:, None], self.y[:, None], self.heading[:, None])
        clear = clearance(ego, agents).min(axis=1)
        self.closest = np.where(live, np.minimum(self.closest, clear), self.closest)
        return np.asarray(clear < 0.0)


Pose = tuple[FloatArray, FloatArray, FloatArray]
"""x m, y m, heading rad; arrays that broadcast against each other."""


def clearance(one: Pose, other: Pose) -> FloatArray:
    """Free space in m between two bodies of three circles each; negative when they overlap. Symmetric."""
    dimensions = max(one[2].ndim, other[2].ndim)
    (ax, ay), (bx, by) = _circles(one, dimensions), _circles(other, dimensions)
    away, across = ax[:, None] - bx[None], ay[:, None] - by[None]
    away *= away
    across *= across
    away += across
    return np.asarray(np.sqrt(away.min(axis=(0, 1))) - 2.0 * k.CIRCLE_RADIUS)


def _circles(pose: Pose, dimensions: int) -> tuple[FloatArray, FloatArray]:
    """Centres of a body's circles, x and y; the circles are the first axis, which is the fast one to reduce."""
    x, y, heading = pose
    axis = k.CIRCLE_OFFSETS.reshape(-1, *(1,) * dimensions)
    return x + axis * np.cos(heading), y + axis * np.sin(heading)
