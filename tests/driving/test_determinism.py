"""The same seeds give the same outcome hash: in any process, at any batch size, in any order, families and traps.

The drivers here compute elementwise or per lane, so nothing but the simulator could make a difference. A network's
matrix products may round differently at another batch size; that is not the simulator's promise.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.driving import episode, metrics, traps
from nwmctl.driving.scenarios import ScenarioId, paired
from tests.driving.test_episode import follower

ROOT = Path(__file__).parents[2]
IDS = (*paired(20, 2_000_000), *traps.paired(24, 2_000_000))
_ELSEWHERE = """
from nwmctl.driving import episode
from tests.driving.test_determinism import IDS
from tests.driving.test_episode import follower
print(episode.run(follower, tuple(reversed(IDS)), 7).digest(), episode.run_expert(IDS, 31).digest())
"""


@pytest.fixture(scope="module")
def followed() -> metrics.Outcomes:
    return episode.run(follower, IDS, batch=100)


@pytest.fixture(scope="module")
def taught() -> str:
    return episode.run_expert(IDS).digest()


@pytest.mark.parametrize("batch", [1, 7, 44])
def test_the_batch_size_makes_no_difference(followed: metrics.Outcomes, batch: int) -> None:
    some = IDS[14:26] if batch == 1 else IDS
    first = IDS.index(some[0])
    again = episode.run(follower, some, batch)
    assert np.array_equal(again.path, followed.path[first : first + len(some)])
    assert batch == 1 or again.digest() == followed.digest()


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_another_process_makes_no_difference(followed: metrics.Outcomes, taught: str, seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [followed.digest(), taught]


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_choice_order_and_batch_gives_each_scenario_its_own_outcome(
    followed: metrics.Outcomes, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(IDS) - 1), min_size=1, max_size=12, unique=True))
    batch = data.draw(st.integers(1, len(chosen)))
    some = episode.run(follower, [IDS[i] for i in chosen], batch)
    for name in ("path", "crashed", "off_road", "progress", "jerk", "closest", "lateral", "heading_error", "steps"):
        assert np.array_equal(getattr(some, name), getattr(followed, name)[chosen]), name


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**40), st.integers(3, 9))
def test_fresh_seeds_are_deterministic_too(seed: int, batch: int) -> None:
    ids: tuple[ScenarioId, ...] = (*paired(5, seed), *traps.paired(8, seed))
    once = episode.run(follower, ids, 13)
    again = episode.run(follower, ids[::-1], batch)
    assert once.digest() == again.digest()
    assert once.digest() != episode.run(follower, (*paired(5, seed + 1), *ids[5:]), 13).digest()
