"""The trajectory guard: it sees what is wrong, helps, counts, and leaves good plans alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.driving import constants as k
from nwmctl.driving import episode, guard
from nwmctl.driving.families import generate
from nwmctl.driving.guard import NONE, REASONS, Guard, Plan, Reason, watch
from nwmctl.driving.guarded import run_guarded, way_driven
from nwmctl.driving.rollout import rollout
from nwmctl.driving.scenarios import Family, ScenarioId, paired
from nwmctl.driving.world import World
from nwmctl.errors import PolicyShapeError

MODEL = Path(__file__).parents[2] / "examples" / "nwm-2.5" / "model"
IDS = paired(5, 4_001)
Seen = Mapping[str, npt.NDArray[np.float32]]


def road(
    speed: float = 10.0, lanes: int = 1, *agents: tuple[float, float, float, float]
) -> dict[str, npt.NDArray[np.float32]]:
    """An observation: a straight road ahead, the ego in its middle; agents are (x, y, vx, vy)."""
    ego = np.zeros((lanes, k.HISTORY, k.EGO_CHANNELS), np.float32)
    ego[..., 0], ego[..., 5] = speed, speed
    others = np.zeros((lanes, k.AGENTS, k.HISTORY, k.AGENT_CHANNELS), np.float32)
    for number, (x, y, vx, vy) in enumerate(agents):
        others[:, number, :, :5] = (1.0, x, y, vx, vy)
    route = np.zeros((lanes, k.ROUTE_POINTS, 2), np.float32)
    route[..., 0] = k.ROUTE_DISTANCES
    return {"ego": ego, "agents": others, "route": route}


def held(steer: float, accel: float, lanes: int = 1) -> npt.NDArray[np.float64]:
    return np.broadcast_to(np.array([steer, accel]), (lanes, k.HORIZON, 2)).copy()


def reason(plan: Plan, seen: Seen) -> Reason | None:
    number = int(watch(plan, seen).reason[0])
    return None if number == NONE else REASONS[number]


def pursuer(seen: Seen) -> Plan:
    """Follows the route at cruise speed and looks at nobody: elementwise, so batches cannot change it."""
    ahead = seen["route"][:, 4].astype(np.float64)
    ego = seen["ego"][:, -1].astype(np.float64)
    steer = 2.0 * k.WHEELBASE * ahead[:, 1] / (ahead[:, 0] ** 2 + ahead[:, 1] ** 2 + 1.0)
    return Plan(np.stack([steer, 0.5 * (0.7 * ego[:, 5] - ego[:, 0])], axis=-1))


def test_the_rollout_is_what_the_example_model_answers() -> None:
    golden = np.load(MODEL / "golden.npz")
    expected = golden["out/trajectory"].astype(np.float64)
    found = rollout(golden["out/control"].astype(np.float64), golden["in/ego"][:, -1, 0].astype(np.float64))
    assert np.abs(found - expected)[..., :2].max() < 2e-3
    assert np.abs(found - expected)[..., 2].max() < 1e-4
    assert np.abs(found).max() > 5.0


def test_the_rollout_starts_where_the_simulators_bicycle_goes() -> None:
    """But for the finer steps of the physics (the plan turns first and then moves) the two are the same vehicle."""
    world = World([generate(ScenarioId(Family.CURVY, 3))])
    speed, x, y, heading = world.speed.copy(), world.x.copy(), world.y.copy(), world.heading.copy()
    world.wheel[:] = 0.03
    planned = rollout(held(0.03, 0.0), speed)
    for step in range(5):
        world.step(np.array([[0.03, 0.0]]))
        dx, dy = world.x - x, world.y - y
        ahead, left = dx * np.cos(heading) + dy * np.sin(heading), dy * np.cos(heading) - dx * np.sin(heading)
        assert abs(ahead[0] - planned[0, step, 0]) < 0.1
        assert abs(left[0] - planned[0, step, 1]) < 0.05 + 0.2 * planned[0, step, 1]
    assert planned[0, 4, 1] > 0.3


def test_a_sound_plan_is_executed_as_it_is() -> None:
    control = held(0.0, 0.3)
    watched = watch(Plan(control, rollout(control, np.array([10.0]))), road())
    assert watched.reason[0] == NONE
    assert np.array_equal(watched.control[0], control[0, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [0, 9])
def test_a_plan_that_is_not_finite_is_replaced_by_braking(bad: float, step: int) -> None:
    control = held(0.0, 0.0)
    control[0, step, 0] = bad
    watched = watch(Plan(control), road())
    assert REASONS[watched.reason[0]] is Reason.NOT_FINITE
    assert np.isfinite(watched.control).all()
    assert watched.control[0, 1] < 0.0


@pytest.mark.parametrize(("axis", "by"), [(0, 0.3), (1, -0.3), (2, 0.05), (1, np.nan)])
def test_a_trajectory_that_is_not_its_controls_is_noticed(axis: int, by: float) -> None:
    control = held(0.02, 0.3)
    trajectory = rollout(control, np.array([10.0]))
    trajectory[0, 7, axis] += by
    assert reason(Plan(control, trajectory), road()) is Reason.MISMATCH


def test_what_half_precision_rounds_is_no_mismatch() -> None:
    control = held(0.001, 1.0)
    trajectory = rollout(control, np.array([28.0])).astype(np.float16)
    assert reason(Plan(control.astype(np.float16), trajectory), road(28.0)) is None


@pytest.mark.parametrize(("steer", "accel"), [(0.6, 0.0), (0.0, 3.5), (0.0, -7.0)])
def test_physical_limits(steer: float, accel: float) -> None:
    assert reason(Plan(held(steer, accel)), road(3.0)) is Reason.LIMITS


def test_lateral_acceleration_is_a_limit_at_speed_only() -> None:
    assert reason(Plan(held(0.12, 0.0)), road(25.0)) is Reason.LIMITS
    assert reason(Plan(held(0.12, 0.0)), road(4.0)) is None


def test_leaving_the_route_is_noticed_and_coming_back_is_not() -> None:
    assert reason(Plan(held(0.15, 0.0)), road(9.0)) is Reason.ROUTE
    beside = road(9.0)
    beside["ego"][..., 3] = 2.4
    beside["route"][..., 1] -= 2.4
    assert reason(Plan(held(-0.05, 0.0)), beside) is None
    watched = watch(Plan(held(0.15, 0.0)), beside)
    assert REASONS[watched.reason[0]] is Reason.ROUTE
    assert watched.control[0, 0] < 0.0, "the fallback steers back to the route, which lies to the right"


def test_it_brakes_for_somebody_who_stands_in_the_way_and_no_harder_than_is_enough() -> None:
    near = watch(Plan(held(0.0, 0.0)), road(10.0, 1, (16.0, 0.0, 0.0, 0.0)))
    far = watch(Plan(held(0.0, 0.0)), road(10.0, 1, (21.5, 0.0, 0.0, 0.0)))
    assert REASONS[near.reason[0]] is Reason.COLLISION
    assert REASONS[far.reason[0]] is Reason.COLLISION
    assert near.control[0, 1] <= far.control[0, 1] < 0.0
    assert reason(Plan(held(0.0, 0.0)), road(10.0, 1, (40.0, 0.0, 0.0, 0.0))) is None
    assert reason(Plan(held(0.0, 0.0)), road(10.0, 1, (16.0, 4.0, 0.0, 0.0))) is None


def test_it_does_not_brake_where_braking_does_not_help() -> None:
    """Somebody comes from behind, faster: standing in his way is worse."""
    assert reason(Plan(held(0.0, 0.0)), road(10.0, 1, (-8.0, 0.0, 18.0, 0.0))) is None


def test_braking_builds_up_with_bounded_jerk() -> None:
    watched = watch(Plan(held(0.0, 1.0)), road(15.0, 1, (12.0, 0.0, 0.0, 0.0)))
    assert REASONS[watched.reason[0]] is Reason.COLLISION
    assert watched.control[0, 1] >= -guard.MOST_JERK * k.CONTROL_DT


def test_standing_vehicles_point_the_way_they_last_moved() -> None:
    """Across the lane beside it, a long body reaches in; along it, it does not."""
    seen = road(10.0, 1, (14.0, 3.4, 0.0, 0.0))
    assert reason(Plan(held(0.0, 0.0)), seen) is None
    seen["agents"][:, 0, 0, 4] = -3.0
    assert reason(Plan(held(0.0, 0.0)), seen) is Reason.COLLISION


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_lane_is_watched_alone(seed: int) -> None:
    """The decision of a lane does not depend on its neighbours, and what comes out can always be driven."""
    g = np.random.default_rng(seed)
    lanes = 6
    seen = road(1.0, lanes)
    seen["ego"][:] = g.normal(0.0, 5.0, seen["ego"].shape)
    seen["ego"][..., 0] = np.abs(seen["ego"][..., 0])
    seen["ego"][..., 2] = g.uniform(-6.0, 3.0)
    seen["agents"][:] = g.normal(0.0, 12.0, seen["agents"].shape)
    seen["agents"][..., 0] = g.random(seen["agents"].shape[:2])[..., None] < 0.5
    control = g.normal(0.0, 0.3, (lanes, k.HORIZON, 2)) * [1.0, 6.0]
    control[0, 3, 1] = np.nan
    both = watch(Plan(control), seen)
    for lane in range(lanes):
        one = slice(lane, lane + 1)
        alone = watch(Plan(control[one]), {name: values[one] for name, values in seen.items()})
        assert np.array_equal(alone.control[0], both.control[lane], equal_nan=True)
        assert alone.reason[0] == both.reason[lane]
    replaced = both.reason != NONE
    assert np.isfinite(both.control[replaced]).all()
    assert (np.abs(both.control[replaced, 0]) <= k.STEER_LIMIT + 1e-3 * k.STEER_LIMIT).all()
    assert (both.control[replaced, 1] >= k.ACCEL_MIN).all()


@pytest.mark.parametrize("batch", [2, 3])
def test_interventions_are_counted_per_scenario_whatever_the_batch(batch: int) -> None:
    whole, expected = run_guarded(pursuer, IDS, len(IDS))
    again, counted = run_guarded(pursuer, IDS, batch)
    assert again.digest() == whole.digest()
    assert np.array_equal(counted.counts, expected.counts)
    assert counted.ids == IDS
    assert int(expected.counts.sum()) > 0
    assert (expected.counts.sum(axis=1) <= expected.decisions).all()
    assert expected.per_km() == pytest.approx(1000.0 * expected.counts.sum() / way_driven(whole).sum())
    assert sum(expected.of(each) for each in REASONS) == expected.counts.sum()
    half = np.arange(len(IDS)) < 2
    assert expected.chosen(half).counts.sum() == expected.counts[:2].sum()


def test_decisions_after_the_end_are_not_counted() -> None:
    """A policy that always asks for the impossible: every decision that was driven counts, and no other."""
    outcomes, found = run_guarded(lambda seen: Plan(held(0.0, 9.0, len(seen["ego"]))), IDS[:3])
    assert np.array_equal(found.counts[:, REASONS.index(Reason.LIMITS)], outcomes.steps)
    assert np.array_equal(found.counts.sum(axis=1), outcomes.steps)


def test_it_keeps_a_policy_that_steers_the_wrong_way_on_the_road() -> None:
    def mirrored(seen: Seen) -> Plan:
        plan = pursuer(seen)
        return Plan(plan.control * [-1.0, 1.0])

    alone = episode.run(lambda seen: mirrored(seen).control, IDS)
    watched, found = run_guarded(mirrored, IDS)
    assert alone.off_road.mean() > 0.6
    assert watched.off_road.mean() <= 0.1
    assert found.of(Reason.ROUTE) > 0


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(PolicyShapeError, match="control"):
        run_guarded(lambda seen: Plan(np.zeros((len(seen["ego"]), 3))), IDS[:1])
    with pytest.raises(PolicyShapeError, match="trajectory"):
        run_guarded(lambda seen: Plan(held(0, 0, len(seen["ego"])), np.zeros((1, 2, 3))), IDS[:2])
    with pytest.raises(ValueError, match="at least one"):
        run_guarded(pursuer, [])


def test_a_guard_knows_its_own_run_only() -> None:
    one = Guard(pursuer)
    episode.run(one, IDS[:2])
    assert one.reasons.shape[1] == 2
    assert one.counts(np.full(2, k.EPISODE_STEPS)).sum() == (one.reasons != NONE).sum()
    assert one.counts(np.zeros(2, dtype=np.int64)).sum() == 0
