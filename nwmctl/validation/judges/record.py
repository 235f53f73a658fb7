"""Drive logs out of the simulator, driven by its expert: to try log replay out, and for tests.

What it writes says that it is simulated, and values are rounded to 1/128 of their unit, as finely as a sensor would
have it. It is no substitute for recorded roads: reference and artifact have seen this simulator before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.model import ModelContract
from nwmctl.driving import constants as k
from nwmctl.driving import expert
from nwmctl.driving.families import generate_all
from nwmctl.driving.observe import observe
from nwmctl.driving.scenarios import ScenarioId
from nwmctl.driving.world import World
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.judges.drive_log import LogHeader, LogRows, layouts, write_log

ORIGIN = f"simulated: drives of nwmctl's rule-based expert in nwmctl's own simulator, revision {k.REVISION}"
_FINENESS = 128.0
_BATCH = 20
_STEP_US = round(1e6 * k.CONTROL_DT)


def record_expert(path: Path, contract: ModelContract, scenarios: Sequence[ScenarioId]) -> None:
    """Write a log of the expert driving these scenarios, each until it ends. Same scenarios, same drives.

    Raises ValueError for a model that wants to see something else than the simulator shows.
    """
    header = LogHeader(ORIGIN, 1.0 / k.CONTROL_DT, k.WHEELBASE, dict(layouts(contract)))
    write_log(path, header, _drives(scenarios))


def _drives(scenarios: Sequence[ScenarioId]) -> Iterator[LogRows]:
    for start in range(0, len(scenarios), _BATCH):
        yield _batch(scenarios[start : start + _BATCH])


def _batch(scenarios: Sequence[ScenarioId]) -> LogRows:
    world = World(generate_all(scenarios))
    seen, poses, controls = [], [], []
    lengths = np.zeros(world.size, dtype=np.int64)
    for _ in range(k.EPISODE_STEPS):
        seen.append(observe(world))
        poses.append(np.stack([world.x, world.y, world.heading, world.speed], axis=1))
        controls.append(expert.drive(world))
        lengths += ~world.ended
        world.step(controls[-1])
    lane = np.repeat(np.arange(world.size), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    inputs: Tensors = {
        name: _rounded(np.stack([frame[name] for frame in seen])[step, lane]).astype(np.float32) for name in seen[0]
    }
    names = [f"{identity.family}-{identity.seed}" for identity in scenarios]
    return LogRows(
        tuple(names[each] for each in lane.tolist()),
        step,
        step * _STEP_US,
        _rounded(np.stack(poses)[step, lane]),
        np.stack(controls)[step, lane],
        inputs,
    )


def _rounded(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.round(values.astype(np.float64) * _FINENESS) / _FINENESS
