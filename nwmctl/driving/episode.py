"""Drive whole episodes: a policy, a list of scenarios, outcomes out.

A policy sees observations only and is called once per decision with all lanes of a batch, ended ones included (their
controls are ignored), so tensor shapes stay constant within a batch. Whatever a policy raises passes through; a wrong
shape is refused. The outcome of a scenario does not depend on the batch it drove in, provided the policy's own
arithmetic does not either (a matrix product may round differently at another batch size).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from nwmctl.driving import constants as k
from nwmctl.driving import expert, metrics
from nwmctl.driving.constants import FloatArray
from nwmctl.driving.families import generate_all
from nwmctl.driving.metrics import Outcomes
from nwmctl.driving.observe import Observation, observe
from nwmctl.driving.scenarios import Scenario, ScenarioId
from nwmctl.driving.world import World
from nwmctl.errors import PolicyShapeError

Policy = Callable[[Observation], npt.NDArray[np.floating]]
"""Observation (see ``observe``) -> control [B,10,2] or [B,2]: steer in rad, acceleration in m/s2."""
Driver = Callable[[World], FloatArray]
"""Sees the whole world, returns control [B,2]. For the expert and for tests."""


def run(policy: Policy, scenarios: Sequence[ScenarioId], batch: int = 100) -> Outcomes:
    """Drive every scenario with the policy, ``batch`` at a time. Raises PolicyShapeError; ValueError if none."""

    return run_driver(_sighted(policy), scenarios, batch)


def run_scenarios(policy: Policy, scenarios: Sequence[Scenario], batch: int = 100) -> Outcomes:
    """As ``run``, with scenarios that are already drawn, or that somebody wrote (see ``scenario_file``)."""
    if not scenarios or batch < 1:
        raise ValueError("at least one scenario and a batch of at least one are needed")
    driver = _sighted(policy)
    return metrics.join([_drive(driver, scenarios[i : i + batch]) for i in range(0, len(scenarios), batch)])


def run_expert(scenarios: Sequence[ScenarioId], batch: int = 100) -> Outcomes:
    """Drive every scenario with the rule-based expert."""
    return run_driver(expert.drive, scenarios, batch)


def run_driver(driver: Driver, scenarios: Sequence[ScenarioId], batch: int = 100) -> Outcomes:
    """Drive every scenario with somebody who may see the whole world."""
    if not scenarios or batch < 1:
        raise ValueError("at least one scenario and a batch of at least one are needed")
    parts = [_drive(driver, generate_all(scenarios[i : i + batch])) for i in range(0, len(scenarios), batch)]
    return metrics.join(parts)


def first_control(control: npt.NDArray[np.floating], lanes: int) -> FloatArray:
    """The control [B,2] to execute now, out of a plan [B,10,2] or a single control [B,2]. Raises PolicyShapeError."""
    values = np.asarray(control, dtype=np.float64)
    if values.shape == (lanes, k.HORIZON, 2):
        return values[:, 0]
    if values.shape == (lanes, 2):
        return values
    raise PolicyShapeError(
        f"the policy returned control of shape {list(values.shape)}",
        why=f"[{lanes},{k.HORIZON},2] or [{lanes},2] was expected: steer in rad and acceleration in m/s2 per lane",
        next="check which output of the model is taken as control, and its contract in the model card",
    )


def _sighted(policy: Policy) -> Driver:
    """A driver who sees no more than a policy does."""
    return lambda world: first_control(policy(observe(world)), world.size)


def _drive(driver: Driver, scenarios: Sequence[Scenario]) -> Outcomes:
    world = World(scenarios)
    path = np.empty((world.size, k.EPISODE_STEPS + 1, 2))
    for step in range(k.EPISODE_STEPS + 1):
        path[:, step, 0], path[:, step, 1] = world.x, world.y
        if step < k.EPISODE_STEPS and not world.ended.all():
            world.step(driver(world))
    return metrics.collect(world, path)
