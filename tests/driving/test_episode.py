"""Whole episodes: determinism, the expert, outcomes and the comparison of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.driving import constants as k
from nwmctl.driving import episode, expert, metrics
from nwmctl.driving.families import generate_all
from nwmctl.driving.observe import observe
from nwmctl.driving.scenarios import Family, paired
from nwmctl.driving.world import World
from nwmctl.errors import PolicyShapeError, UnpairedOutcomesError

IDS = paired(10, 4_000)
Seen = Mapping[str, npt.NDArray[np.float32]]


def follower(seen: Seen) -> npt.NDArray[np.float64]:
    """A small policy of elementwise arithmetic: its outcome must not depend on batching at all."""
    ahead = seen["route"][:, 4].astype(np.float64)
    ego = seen["ego"][:, -1].astype(np.float64)
    steer = 2.0 * k.WHEELBASE * ahead[:, 1] / (ahead[:, 0] ** 2 + ahead[:, 1] ** 2 + 1.0)
    return np.stack([steer, 0.5 * (0.6 * ego[:, 5] - ego[:, 0])], axis=-1)


@pytest.fixture(scope="module")
def whole() -> metrics.Outcomes:
    return episode.run(follower, IDS, batch=len(IDS))


@settings(max_examples=6, deadline=None)
@given(st.integers(1, len(IDS)), st.permutations(range(len(IDS))))
def test_the_outcome_hash_does_not_depend_on_batch_or_order(
    whole: metrics.Outcomes, batch: int, order: list[int]
) -> None:
    again = episode.run(follower, [IDS[i] for i in order], batch)
    assert again.digest() == whole.digest()
    assert np.array_equal(again.path, whole.path[order])


def test_the_expert_is_deterministic_too() -> None:
    assert episode.run_expert(IDS, 7).digest() == episode.run_expert(IDS, 10).digest()


def test_the_hash_sees_every_field(whole: metrics.Outcomes) -> None:
    changed = (
        replace(whole, crashed=~whole.crashed),
        replace(whole, off_road=~whole.off_road),
        replace(whole, progress=whole.progress + 0.01),
        replace(whole, jerk=whole.jerk + 0.01),
        replace(whole, closest=whole.closest + 0.01),
        replace(whole, steps=whole.steps + 1),
        replace(whole, faults=whole.faults + 1),
        replace(whole, path=whole.path + 0.01),
        episode.run(follower, paired(10, 4_001)),
    )
    assert len({whole.digest(), *(other.digest() for other in changed)}) == len(changed) + 1


def test_the_expert_drives_nearly_all_scenarios_and_somebody_idle_does_not() -> None:
    ids = paired(100, 9_000)
    outcomes = episode.run_expert(ids)
    expert_run = metrics.summarise(outcomes)
    idle = metrics.summarise(episode.run(lambda seen: np.zeros((len(seen["ego"]), 2)), ids))
    assert expert_run.crash_rate <= 0.08
    assert expert_run.off_road_rate == 0.0
    assert expert_run.score > 0.5
    assert idle.crash_rate + idle.off_road_rate > 0.8
    for family in Family:
        assert metrics.summarise(outcomes, family).score > 0.35, family


def test_observations_have_the_shapes_and_units_of_the_contract() -> None:
    world = World(generate_all(IDS))
    for _ in range(5):
        world.step(expert.drive(world))
    seen = observe(world)
    lanes = len(IDS)
    assert {name: values.shape for name, values in seen.items()} == {
        "ego": (lanes, 4, 6), "agents": (lanes, 8, 4, 6), "route": (lanes, 15, 2),
    }  # fmt: skip
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in seen.values())
    assert seen["ego"][:, -1, 0] == pytest.approx(world.speed, rel=1e-6)
    assert seen["ego"][:, -1, 5] == pytest.approx(world.cruise, rel=1e-6)
    presence = seen["agents"][..., 0]
    assert set(np.unique(presence)) <= {0.0, 1.0}
    assert not seen["agents"][presence == 0].any()
    away = np.hypot(seen["agents"][:, :, -1, 1], seen["agents"][:, :, -1, 2])
    assert away.max() < k.SIGHT
    true_away = np.hypot(world.agent_x - world.x[:, None], world.agent_y - world.y[:, None])
    shown = presence[:, :, -1] == 1
    assert away[shown] == pytest.approx(true_away[shown], rel=1e-5)
    speed = np.hypot(seen["agents"][:, :, -1, 3], seen["agents"][:, :, -1, 4])
    assert speed[shown] == pytest.approx(world.agent_speed[shown], abs=1e-4)
    gaps = np.hypot(*np.diff(seen["route"].astype(np.float64), axis=1).transpose(2, 0, 1))
    assert (gaps <= np.diff(k.ROUTE_DISTANCES) + 1e-3).all()
    assert np.hypot(*seen["route"][:, 0].T).max() < k.OFF_ROAD


def test_a_run_compared_with_itself_does_not_deviate(whole: metrics.Outcomes) -> None:
    same = metrics.compare(whole, whole)
    assert same.median_path_deviation == 0.0
    assert (same.only_reference_failed, same.only_candidate_failed, same.score_difference) == (0, 0, 0.0)


def test_a_policy_that_brakes_less_deviates(whole: metrics.Outcomes) -> None:
    def hasty(seen: Seen) -> npt.NDArray[np.float64]:
        return np.asarray(follower(seen) + np.array([0.0, 0.5]))

    compared = metrics.compare(whole, episode.run(hasty, IDS))
    assert compared.median_path_deviation > 0.8
    assert compared.path_deviation.shape == (len(IDS),)


def test_runs_on_other_scenarios_are_not_compared(whole: metrics.Outcomes) -> None:
    with pytest.raises(UnpairedOutcomesError, match="did not drive the same scenarios"):
        metrics.compare(whole, episode.run(follower, IDS[:5]))


def test_score_and_summary_follow_their_definitions(whole: metrics.Outcomes) -> None:
    assert (whole.score[whole.failed] == 0).all()
    assert ((whole.score >= 0) & (whole.score <= 1)).all()
    assert not (whole.crashed & whole.off_road).any()
    summary = metrics.summarise(whole)
    by_family = [metrics.summarise(whole, family) for family in Family]
    assert sum(part.scenarios for part in by_family) == summary.scenarios == len(IDS)
    assert np.mean([part.score for part in by_family]) == pytest.approx(summary.score)


@pytest.mark.parametrize("shape", [(10,), (10, 3), (9, 2), (10, 9, 2)])
def test_a_policy_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PolicyShapeError, match="returned control of shape"):
        episode.run(lambda _: np.zeros(shape), IDS)


def test_a_plan_and_its_first_control_drive_alike(whole: metrics.Outcomes) -> None:
    def planner(seen: Seen) -> npt.NDArray[np.float64]:
        return np.repeat(follower(seen)[:, None], k.HORIZON, axis=1)

    assert episode.run(planner, IDS).digest() == whole.digest()


def test_nothing_to_drive_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one scenario"):
        episode.run(follower, [])
