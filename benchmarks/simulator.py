"""How many decisions of driven vehicles the simulator advances per second, beside highway-env in the same run.

``python -m benchmarks.simulator`` prints a table and writes its section of ``benchmarks/RESULTS.md``. Both sides drive
episodes of 12 s at five decisions a second over ten physics steps a second, with about as many other vehicles, in one
thread; a step is one decision of one driven vehicle that is still driving, and drawing scenarios (resetting) counts.
Ours follows the route by a few lines of arithmetic on its observation; highway-env's own lane keeping drives there,
and its observation is computed as well. Nothing here uses more than one thread. The two take turns, so that a busy
machine is busy for both, and time is CPU time. It says how fast, not how alike: the two simulate different things at
different depth.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.results import write_section
from nwmctl.driving import constants as k
from nwmctl.driving import episode
from nwmctl.driving.families import generate_all
from nwmctl.driving.scenarios import Family, ScenarioId

ROUNDS = 5
EPISODES = 3
SCENARIOS = 100
FLOOR = 50.0
"""The ratio that must at least be reached."""
_COMMON: dict[str, object] = {
    "policy_frequency": 5, "simulation_frequency": 10, "duration": 12, "offscreen_rendering": True,
    "observation": {"type": "Kinematics", "vehicles_count": k.AGENTS + 1},
    "action": {"type": "DiscreteMetaAction"},
}  # fmt: skip
ROADS: tuple[tuple[Family, str, dict[str, object]], ...] = (
    (Family.HIGHWAY, "highway-v0", {"vehicles_count": 6, "lanes_count": 3}),
    (Family.MERGE, "merge-v1", {}),
    (Family.ROUNDABOUT, "roundabout-v1", {}),
    (Family.INTERSECTION, "intersection-v2", {"initial_vehicle_count": 7, "spawn_probability": 0.0}),
)
"""Our family, its counterpart, and what makes the counterpart's traffic as many vehicles as ours."""


@dataclass(frozen=True)
class Rate:
    """Steps per CPU-second of one round, and the other vehicles on the road on average."""

    steps: float
    others: float


def follower(seen: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
    """Pure pursuit of the route and a little less than cruise speed."""
    ahead, ego = seen["route"][:, 4].astype(np.float64), seen["ego"][:, -1].astype(np.float64)
    steer = 2.0 * k.WHEELBASE * ahead[:, 1] / (ahead[:, 0] ** 2 + ahead[:, 1] ** 2 + 1.0)
    return np.stack([steer, 0.5 * (0.6 * ego[:, 5] - ego[:, 0])], axis=-1)


def ours(family: Family, seed: int, count: int = SCENARIOS) -> Rate:
    """Scenarios of a family, all of them in lockstep or, if there are only ``EPISODES`` of them, one by one."""
    ids = [ScenarioId(family, seed + i) for i in range(count)]
    began = time.process_time()
    outcomes = episode.run(follower, ids, SCENARIOS if count == SCENARIOS else 1)
    took = time.process_time() - began
    others = statistics.mean(len(scenario.traffic) for scenario in generate_all(ids))
    return Rate(int(outcomes.steps.sum()) / took, others)


def theirs(make: Callable[..., Any], name: str, settings: dict[str, object], seed: int) -> Rate:
    """A few episodes of one highway-env environment."""
    env = make(name, config={**_COMMON, **settings})
    steps, others = 0, []
    began = time.process_time()
    for number in range(EPISODES):
        env.reset(seed=seed + number)
        for _ in range(k.EPISODE_STEPS):
            _, _, terminated, truncated, _ = env.step(1)  # 1: keep lane and speed
            steps += 1
            others.append(len(env.unwrapped.road.vehicles) - 1)
            if terminated or truncated:
                break
    took = time.process_time() - began
    env.close()
    return Rate(steps / took, statistics.mean(others))


def spread(values: list[float], form: str) -> str:
    """``median (min to max)``."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def rows() -> tuple[list[str], float]:
    """Take turns; the table's lines and the smallest median ratio of all roads."""
    gymnasium = import_module("gymnasium")  # of the extra "bench", which a type checker may not find
    gymnasium.register_envs(import_module("highway_env"))
    mine: dict[Family, list[Rate]] = {family: [] for family, _, _ in ROADS}
    single: dict[Family, list[Rate]] = {family: [] for family, _, _ in ROADS}
    other: dict[Family, list[Rate]] = {family: [] for family, _, _ in ROADS}
    for turn in range(ROUNDS + 1):  # the first round warms up and is not kept
        for family, name, settings in ROADS:
            one, two = ours(family, 1_000_000 + 1_000 * turn), theirs(gymnasium.make, name, settings, 100 * turn)
            alone = ours(family, 2_000_000 + 1_000 * turn, EPISODES)
            if turn:
                mine[family].append(one)
                single[family].append(alone)
                other[family].append(two)
    lines = [
        "| road | ours, steps/s | highway-env, steps/s | ratio | ours one at a time | other vehicles, ours / theirs |",
        "|---|---|---|---|---|---|",
    ]
    smallest = float("inf")
    for family, name, _ in ROADS:
        fast, slow = [rate.steps for rate in mine[family]], [rate.steps for rate in other[family]]
        ratios = [a / b for a, b in zip(fast, slow, strict=True)]
        smallest = min(smallest, statistics.median(ratios))
        near = statistics.mean(rate.others for rate in mine[family])
        there = statistics.mean(rate.others for rate in other[family])
        lines.append(
            f"| {family} / {name} | {spread(fast, ',.0f')} | {spread(slow, '.1f')} | {spread(ratios, '.0f')} "
            f"| {statistics.median(rate.steps for rate in single[family]):,.0f} | {near:.1f} / {there:.1f} |"
        )
    return lines, smallest


def main() -> None:
    """Run, print, write. Exits with 1 if the floor is not reached."""
    before = os.getloadavg()[0]
    lines, smallest = rows()
    lines.append("")
    lines.append(
        f"Median (min to max) of {ROUNDS} interleaved rounds; one thread each, CPU time. Ours: {SCENARIOS} scenarios "
        f"in lockstep per round and road, and {EPISODES} one by one; highway-env: {EPISODES} episodes. "
        f"The smallest median ratio is {smallest:.0f}, the floor {FLOOR:.0f}. "
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"numpy {np.__version__}, highway-env {version('highway-env')}, {datetime.now(UTC):%Y-%m-%d}; "
        f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after."
    )
    print("\n".join(lines))
    write_section("The simulator beside highway-env", "python -m benchmarks.simulator", "\n".join(lines))
    if smallest < FLOOR:
        raise SystemExit(f"the simulator is only {smallest:.0f} times as fast as highway-env")


if __name__ == "__main__":
    main()
