"""One drive in every detail: what a person needs to see it again.

A scenario is driven alone (batch 1, as a vehicle runs its artifact), and every decision is kept: where everybody was,
what the policy planned, what was executed, and whether the guard stepped in. Pure as an episode is; nothing is drawn
here and nothing is judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving import metrics
from nwmctl.driving.constants import BoolArray, FloatArray, IntArray
from nwmctl.driving.episode import first_control
from nwmctl.driving.guard import NONE, Guard, Plan, PlanPolicy
from nwmctl.driving.metrics import Outcomes
from nwmctl.driving.observe import Observation, observe
from nwmctl.driving.rollout import rollout
from nwmctl.driving.scenarios import Scenario
from nwmctl.driving.world import World, clearance


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A drive of T decisions; frame 0 is the start, frame T the end. SI units, world frame."""

    scenario: Scenario
    outcomes: Outcomes
    """Of this one scenario."""
    ego: FloatArray
    """[T+1,4] x, y, heading, speed."""
    lateral: FloatArray
    """[T+1] offset to the left of the route."""
    agents: FloatArray
    """[T+1,M,4] x, y, heading, speed of the M vehicles there are."""
    perceived: BoolArray
    """[T+1] whether perception of other vehicles arrived."""
    plans: FloatArray
    """[T,10,2] planned positions; where a plan is not finite, the ego's own."""
    control: FloatArray
    """[T,2] executed: steer rad, acceleration m/s2; as the policy or its guard gave it."""
    reasons: IntArray
    """[T] why the guard replaced the control: index into ``guard.REASONS``, or ``NONE``."""
    hit: int | None
    """The vehicle that the ego touched at the end."""

    @property
    def decisions(self) -> int:
        """T."""
        return len(self.control)

    @property
    def crashed(self) -> bool:
        """Whether it ended in a collision."""
        return bool(self.outcomes.crashed[0])

    @property
    def off_road(self) -> bool:
        """Whether it ended beside the road."""
        return bool(self.outcomes.off_road[0])

    @property
    def interventions(self) -> int:
        """Decisions that the guard replaced."""
        return int((self.reasons != NONE).sum())

    @property
    def verdict(self) -> str:
        """How it ended, for people."""
        seconds = self.decisions * k.CONTROL_DT
        if self.crashed:
            return f"crashed after {seconds:.1f} s"
        return f"left the road after {seconds:.1f} s" if self.off_road else f"no crash in {seconds:.0f} s"


class _Tape:
    """A plan policy that keeps the plans that pass through."""

    def __init__(self, policy: PlanPolicy) -> None:
        self._policy = policy
        self.plans: list[Plan] = []

    def __call__(self, seen: Observation) -> Plan:
        self.plans.append(self._policy(seen))
        return self.plans[-1]


def record(policy: PlanPolicy, scenario: Scenario, *, guarded: bool = False) -> Recording:
    """Drive one scenario and keep everything. Raises PolicyShapeError; errors of the policy pass."""
    world, tape = World([scenario]), _Tape(policy)
    guard = Guard(tape)
    present = np.nonzero(world.present[0])[0]
    ego, lateral, agents, perceived, plans, control = [], [], [], [], [], []
    while True:
        ego.append([world.x[0], world.y[0], world.heading[0], world.speed[0]])
        lateral.append(world.lateral[0])
        others = (world.agent_x, world.agent_y, world.agent_heading, world.agent_speed)
        agents.append(np.stack([values[0, present] for values in others], axis=-1))
        perceived.append(world.time_step not in scenario.dropped)
        if world.ended.all():
            break
        seen = observe(world)
        command = guard(seen) if guarded else first_control(tape(seen).control, 1)
        plans.append(_in_world(tape.plans[-1], world))
        control.append(command[0])
        world.step(command)
    driven = np.array(ego)
    path = np.concatenate([driven[:, :2], np.repeat(driven[-1:, :2], k.EPISODE_STEPS + 1 - len(driven), axis=0)])
    return Recording(
        scenario=scenario,
        outcomes=metrics.collect(world, path[None]),
        ego=driven,
        lateral=np.array(lateral),
        agents=np.array(agents),
        perceived=np.array(perceived),
        plans=np.array(plans),
        control=np.array(control),
        reasons=guard.reasons[:, 0] if guarded else np.full(len(control), NONE, dtype=np.int64),
        hit=_touched(world, present) if world.crashed[0] else None,
    )


def _in_world(plan: Plan, world: World) -> FloatArray:
    """The planned positions [10,2] of lane 0 in the world's frame."""
    if plan.trajectory is not None:
        poses = np.asarray(plan.trajectory[0], dtype=np.float64)
    else:
        control = np.asarray(plan.control, dtype=np.float64)
        held = np.repeat(control[:, None], k.HORIZON, axis=1) if control.ndim == 2 else control
        poses = rollout(np.nan_to_num(held, posinf=0.0, neginf=0.0), world.speed)[0]
    poses = np.where(np.isfinite(poses).all(), poses, 0.0)
    cos, sin = np.cos(world.heading[0]), np.sin(world.heading[0])
    x = world.x[0] + poses[:, 0] * cos - poses[:, 1] * sin
    y = world.y[0] + poses[:, 0] * sin + poses[:, 1] * cos
    return np.stack([x, y], axis=-1)


def _touched(world: World, present: IntArray) -> int:
    ego = (world.x[:, None], world.y[:, None], world.heading[:, None])
    free = clearance(ego, (world.agent_x, world.agent_y, world.agent_heading))[0, present]
    return int(free.argmin())
