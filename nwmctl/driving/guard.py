"""The trajectory guard: simple rules that watch a policy's plan and brake where it cannot be meant.

Each decision it looks at the planned poses of the next two seconds. A plan that is not finite, whose trajectory does
not follow from its controls, that breaks physical limits, leaves the route's corridor, or runs into where a vehicle in
sight will be at constant velocity is not executed: the guard brakes (with bounded jerk, as gently as is enough) along
the plan's own way, or along the route where the way itself is at fault. It intervenes against a collision only where
braking helps, decides anew each time, and hands back as soon as the plan is sound again.

Invariants: it sees the observation and the plan, never the world; the same plan and observation give the same command
in any batch; every replaced decision is counted under one reason. It is a fallback, not a planner: it knows no gaps,
no lights and no intentions, and a policy that needs it often is not fit to drive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from nwmctl.driving import constants as k
from nwmctl.driving.constants import BoolArray, FloatArray, IntArray
from nwmctl.driving.episode import first_control
from nwmctl.driving.observe import Observation
from nwmctl.driving.rollout import rollout
from nwmctl.driving.world import clearance
from nwmctl.errors import PolicyShapeError


class Reason(StrEnum):
    """Why a decision was replaced; where several hold, the first counts."""

    NOT_FINITE = "not_finite"
    MISMATCH = "mismatch"
    LIMITS = "limits"
    ROUTE = "route"
    COLLISION = "collision"


REASONS: Final = tuple(Reason)
NONE: Final = -1
"""In an array of reasons: the policy's own control was executed."""

MISMATCH_M: Final = 0.25
MISMATCH_RAD: Final = 0.03
"""How far a trajectory may be from its controls' rollout: what half precision rounds at 60 m, and some more."""
SLACK: Final = 1e-3
"""Share of a limit by which a control may pass it."""
LATERAL_LIMIT: Final = 8.0
"""Lateral acceleration in m/s2 that a plan may ask for in its first second: about what dry tyres give."""
CORRIDOR: Final = 2.2
"""Distance in m from the route at which a planned pose leaves the corridor (the road ends at ``OFF_ROAD``)."""
WORSE: Final = 0.3
"""... if it is also this many metres farther out than the ego is now: coming back is allowed."""
LOOK_STEPS: Final = 6
"""Planned poses (1.2 s) that are compared with the corridor."""
MARGIN: Final = 0.4
"""Free space in m to a predicted vehicle below which a plan collides ..."""
AHEAD_STEPS: Final = 8
"""... within this many planned poses (1.6 s)."""
HELPS: Final = 1.0
"""m/s by which braking must slow a contact that it cannot avoid: less is not worth taking over for."""
BRAKES: Final = (-1.5, -3.0, -4.5, k.ACCEL_MIN)
"""Accelerations in m/s2 that the guard tries, gentlest first."""
MOST_JERK: Final = 20.0
"""m/s3; from coasting to full braking in two decisions."""
_NO_CONTACT: Final = -1.0
_TIMES: Final[FloatArray] = np.arange(1.0, AHEAD_STEPS + 1.0) * k.CONTROL_DT


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a policy wants: ``control`` [B,10,2] or [B,2], and ``trajectory`` [B,10,3] where it says so itself."""

    control: npt.NDArray[np.floating]
    trajectory: npt.NDArray[np.floating] | None = None


PlanPolicy = Callable[[Observation], Plan]


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A decision after the guard: ``control`` [B,2] to execute, ``reason`` [B] index into ``REASONS`` or ``NONE``."""

    control: FloatArray
    reason: IntArray


def watch(plan: Plan, seen: Observation) -> Watched:
    """Judge a plan, and replace its control where it is not sound. Pure."""
    control = _held(plan.control)
    ego = np.asarray(seen["ego"][:, -1], dtype=np.float64)
    finite: BoolArray = np.asarray(np.isfinite(control).all(axis=(1, 2)))
    known = np.where(finite[:, None, None], control, 0.0)
    poses = rollout(np.clip(known, [-k.STEER_LIMIT, k.ACCEL_MIN], [k.STEER_LIMIT, k.ACCEL_MAX]), ego[:, 0])
    flags = {
        Reason.NOT_FINITE: ~finite,
        Reason.MISMATCH: _mismatch(plan.trajectory, rollout(known, ego[:, 0]), finite),
        Reason.LIMITS: _breaks_limits(known, ego[:, 0]),
        Reason.ROUTE: _leaves_route(poses, np.asarray(seen["route"], dtype=np.float64), ego[:, 3]),
    }
    reason = np.full(len(control), NONE, dtype=np.int64)
    for number, name in reversed(list(enumerate(REASONS))):
        if name in flags:
            reason = np.where(flags[name], number, reason)
    others = _Others.of(seen)
    impact = others.impact(poses)
    collides = (reason == NONE) & (impact > _NO_CONTACT)
    executed = known[:, 0].copy()
    for lane in np.nonzero((reason != NONE) | collides)[0]:
        own = poses[lane] if collides[lane] else None
        command = _fallback(
            own, float(impact[lane]), known[lane], ego[lane], seen["route"][lane], others.lane(int(lane))
        )
        if command is not None:
            executed[lane] = command
            reason[lane] = REASONS.index(Reason.COLLISION) if collides[lane] else reason[lane]
    return Watched(executed, reason)


class Guard:
    """A policy with the guard round it, for one batch of one run: a ``Policy`` that remembers its interventions."""

    def __init__(self, policy: PlanPolicy) -> None:
        self._policy = policy
        self._reasons: list[IntArray] = []

    def __call__(self, seen: Observation) -> FloatArray:
        """The control [B,2] to execute. Raises PolicyShapeError; errors of the policy pass."""
        plan = self._policy(seen)
        first_control(plan.control, len(seen["ego"]))
        if plan.trajectory is not None and plan.trajectory.shape != (len(seen["ego"]), k.HORIZON, 3):
            raise PolicyShapeError(
                f"the policy returned a trajectory of shape {list(plan.trajectory.shape)}",
                why=f"[{len(seen['ego'])},{k.HORIZON},3] was expected: x in m, y in m and heading in rad per lane",
                next="check the model's output 'trajectory' and its contract in the model card",
            )
        watched = watch(plan, seen)
        self._reasons.append(watched.reason)
        return watched.control

    @property
    def reasons(self) -> IntArray:
        """[decisions so far, B] index into ``REASONS`` or ``NONE``."""
        return np.stack(self._reasons)

    def counts(self, steps: IntArray) -> IntArray:
        """Interventions [B, reasons] of lanes that ended after ``steps`` decisions: later ones reached no wheel."""
        drove = np.arange(len(self._reasons))[:, None] < steps
        return np.stack([((self.reasons == i) & drove).sum(axis=0) for i in range(len(REASONS))], axis=1)


def _held(control: npt.NDArray[np.floating]) -> FloatArray:
    """The plan as [B,10,2]; a single control is taken to be held."""
    values = np.asarray(control, dtype=np.float64)
    return np.repeat(values[:, None], k.HORIZON, axis=1) if values.ndim == 2 else values


def _mismatch(said: npt.NDArray[np.floating] | None, expected: FloatArray, finite: BoolArray) -> BoolArray:
    if said is None:
        return np.zeros(len(expected), dtype=np.bool_)
    apart = np.abs(np.asarray(said, dtype=np.float64) - expected)
    within = (apart <= np.array([MISMATCH_M, MISMATCH_M, MISMATCH_RAD])).all(axis=(1, 2))  # NaN is not within
    return np.asarray(finite & ~within)


def _breaks_limits(control: FloatArray, speed: FloatArray) -> BoolArray:
    steer, accel = control[..., 0], control[..., 1]
    over = (np.abs(steer) > k.STEER_LIMIT * (1.0 + SLACK)).any(axis=1)
    over |= (accel > k.ACCEL_MAX * (1.0 + SLACK)).any(axis=1) | (accel < k.ACCEL_MIN * (1.0 + SLACK)).any(axis=1)
    first = slice(0, k.HORIZON // 2)
    speeds = np.maximum(speed[:, None] + np.cumsum(accel[:, first], axis=1) * k.CONTROL_DT, 0.0)
    slip = np.arctan(0.5 * np.tan(np.clip(steer[:, first], -k.STEER_LIMIT, k.STEER_LIMIT)))
    lateral = speeds * speeds * np.abs(np.sin(slip)) / (k.WHEELBASE / 2.0)
    return np.asarray(over | (lateral > LATERAL_LIMIT).any(axis=1))


def _leaves_route(poses: FloatArray, route: FloatArray, offset: FloatArray) -> BoolArray:
    begin, along = route[:, None, :-1], np.diff(route, axis=1)[:, None]
    to = poses[:, :LOOK_STEPS, None, :2] - begin
    part = (to * along).sum(axis=-1) / np.maximum((along * along).sum(axis=-1), 1e-9)
    part[:, :, 1:] = np.maximum(part[:, :, 1:], 0.0)  # the first segment also goes on backwards
    missed = to - along * np.minimum(part, 1.0)[..., None]
    away = np.sqrt((missed * missed).sum(axis=-1)).min(axis=2)
    return np.asarray(((away > CORRIDOR) & (away > np.abs(offset)[:, None] + WORSE)).any(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class _Others:
    """Vehicles in sight at ``_TIMES``, each going on as it does now: x, y [B,AGENTS,times], the rest [B,AGENTS].

    In the ego's frame of now.
    """

    x: FloatArray
    y: FloatArray
    vx: FloatArray
    vy: FloatArray
    heading: FloatArray
    present: BoolArray

    @classmethod
    def of(cls, seen: Observation) -> _Others:
        agents = np.asarray(seen["agents"], dtype=np.float64)
        now = agents[:, :, -1]
        heading = np.arcsin(np.clip(now[..., 5], -1.0, 1.0))
        for frame in range(k.HISTORY):  # the latest frame in which it moved says which way it points
            vx, vy = agents[:, :, frame, 3], agents[:, :, frame, 4]
            heading = np.where(vx * vx + vy * vy > 1e-6, np.arctan2(vy, vx), heading)
        x = now[..., 1, None] + now[..., 3, None] * _TIMES
        y = now[..., 2, None] + now[..., 4, None] * _TIMES
        return cls(x, y, now[..., 3], now[..., 4], heading, now[..., 0] > 0.5)

    def lane(self, lane: int) -> _Others:
        one = slice(lane, lane + 1)
        return _Others(self.x[one], self.y[one], self.vx[one], self.vy[one], self.heading[one], self.present[one])

    def impact(self, poses: FloatArray) -> FloatArray:
        """[B] relative speed in m/s at the first contact of an ego on ``poses`` [B,times or more,3]."""
        ahead = poses[:, None, :AHEAD_STEPS]
        free = clearance((ahead[..., 0], ahead[..., 1], ahead[..., 2]), (self.x, self.y, self.heading[..., None]))
        touching = (free < MARGIN) & self.present[..., None]
        first = touching.any(axis=1).argmax(axis=1)
        lane = np.arange(len(poses))
        before = np.concatenate([np.zeros((len(poses), 1, 2)), poses[:, :, :2]], axis=1)
        velocity = (poses[lane, first, :2] - before[lane, first]) / k.CONTROL_DT
        closing = np.sqrt((self.vx - velocity[:, 0, None]) ** 2 + (self.vy - velocity[:, 1, None]) ** 2)
        return np.asarray(np.where(touching[lane, :, first], closing, _NO_CONTACT).max(axis=1))


def _fallback(
    own: FloatArray | None,
    impact: float,
    control: FloatArray,
    ego: FloatArray,
    seen_route: npt.NDArray[np.float32],
    others: _Others,
) -> FloatArray | None:
    """The command [2] instead of the plan's; None where braking along the plan's own way would not help.

    ``own`` [10,3] is the plan's way if that may be kept, ``impact`` what it leads to; one lane's values each.
    """
    speed, last = float(ego[0]), float(ego[2])
    route = np.asarray(seen_route, dtype=np.float64)
    way = route if own is None else np.concatenate([np.zeros((1, 2)), own[:, :2]])
    wish = np.zeros(k.HORIZON) if own is None else control[:, 1]
    best, least = BRAKES[-1], np.inf
    for brake in BRAKES:
        found = float(others.impact(_along(way, _braked(speed, last, brake, wish)))[0])
        if found < least - 1e-3:
            best, least = brake, found
        if found == _NO_CONTACT:
            break
    if own is not None and least > impact - HELPS:
        return None
    accel = max(min(_eased(last, best, 1), float(wish[0])), k.ACCEL_MIN)
    return np.array([_pursuit(route, speed) if own is None else float(control[0, 0]), accel])


def _eased(last: float, brake: float, step: int) -> float:
    """The braking that bounded jerk allows after ``step`` decisions."""
    return max(brake, min(last, 0.0) - MOST_JERK * k.CONTROL_DT * step)


def _braked(speed: float, last: float, brake: float, wish: FloatArray) -> FloatArray:
    """Way in m made at each of ``_TIMES`` while braking, never harder on the throttle than ``wish``."""
    way, made = 0.0, np.empty(k.HORIZON)
    for step in range(k.HORIZON):
        speed = max(speed + min(_eased(last, brake, step + 1), wish[step]) * k.CONTROL_DT, 0.0)
        way += speed * k.CONTROL_DT
        made[step] = way
    return made


def _along(way: FloatArray, made: FloatArray) -> FloatArray:
    """Poses [1,times,3] at the arc lengths ``made`` on the polyline ``way`` [K,2]; headings along its segments."""
    step = np.diff(way, axis=0)
    arc = np.concatenate([[0.0], np.cumsum(np.sqrt((step * step).sum(axis=1)))])
    segment = np.clip(np.searchsorted(arc, made, side="right") - 1, 0, len(step) - 1)
    heading = np.arctan2(step[segment, 1], step[segment, 0])
    x, y = np.interp(made, arc, way[:, 0]), np.interp(made, arc, way[:, 1])
    return np.stack([x, y, heading], axis=-1)[None]


def _pursuit(route: FloatArray, speed: float) -> float:
    """Steer in rad towards the route a little ahead."""
    look = min(max(0.6 * speed + 3.0, 4.0), 20.0)
    x, y = (float(np.interp(look, k.ROUTE_DISTANCES, route[:, axis])) for axis in (0, 1))
    steer = np.arctan2(2.0 * k.WHEELBASE * np.sin(np.arctan2(y, x)), np.hypot(x, y) + 1e-6)
    return float(np.clip(steer, -k.STEER_LIMIT, k.STEER_LIMIT))
