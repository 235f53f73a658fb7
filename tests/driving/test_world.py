"""The laws of the simulated world: motion, limits, collisions, freezing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.driving import constants as k
from nwmctl.driving.families import generate, generate_all
from nwmctl.driving.geometry import Tracks, resample, rotated, wrap
from nwmctl.driving.scenarios import Family, Scenario, ScenarioId, paired
from nwmctl.driving.traffic import idm
from nwmctl.driving.world import World, clearance

commands = st.floats(-8.0, 8.0) | st.floats()
controls = st.lists(st.tuples(commands, commands), min_size=1, max_size=12)
angles = st.floats(-4.0, 4.0)
metres = st.floats(-6.0, 6.0)


def alone(speed: float, cruise: float = 15.0) -> Scenario:
    """A straight empty road."""
    grid = np.arange(k.TRACK_POINTS, dtype=np.float64)
    route = np.stack([grid, np.zeros_like(grid)], axis=-1)
    return Scenario(ScenarioId(Family.CURVY, 0), route, 5.0, speed, cruise, ())


@given(st.floats(-k.STEER_LIMIT, k.STEER_LIMIT), st.floats(k.ACCEL_MIN, 0.0))
def test_a_stopped_car_does_not_move(steer: float, brake: float) -> None:
    world = World([alone(0.0)])
    before = world.x.copy(), world.y.copy(), world.heading.copy()
    for _ in range(5):
        world.step(np.array([[steer, brake]]))
    assert (world.x, world.y, world.heading) == before
    assert world.speed == 0.0


@settings(max_examples=40, deadline=None)
@given(controls, st.sampled_from(list(Family)), st.integers(0, 50))
def test_speed_and_way_stay_within_what_the_limits_allow(
    pushed: list[tuple[float, float]], family: Family, seed: int
) -> None:
    world = World([generate(ScenarioId(family, seed))])
    for control in pushed:
        speed, x, y = float(world.speed[0]), float(world.x[0]), float(world.y[0])
        live = not world.ended[0]
        world.step(np.array([control]))
        assert world.speed[0] >= 0.0
        assert k.ACCEL_MIN * k.CONTROL_DT - 1e-9 <= world.speed[0] - speed <= k.ACCEL_MAX * k.CONTROL_DT + 1e-9
        way = float(np.hypot(world.x[0] - x, world.y[0] - y))
        assert way <= max(speed, world.speed[0]) * k.CONTROL_DT + k.ACCEL_MAX * k.CONTROL_DT**2 + 1e-9
        assert live or way == 0.0
        assert abs(world.wheel[0]) <= k.STEER_LIMIT
        assert np.isfinite([world.x[0], world.y[0], world.heading[0], world.speed[0]]).all()


def test_a_control_that_is_not_finite_is_counted_and_replaced_by_zero() -> None:
    broken, zero = World([alone(10.0)]), World([alone(10.0)])
    broken.step(np.array([[np.nan, 1.0]]))
    zero.step(np.array([[0.0, 0.0]]))
    assert broken.faults[0] == 1
    assert zero.faults[0] == 0
    assert broken.x[0] == zero.x[0]
    assert broken.speed[0] == zero.speed[0]


def test_the_actuators_are_lazy() -> None:
    world = World([alone(10.0)])
    world.step(np.array([[0.0, 3.0]]))
    reached = 3.0 * (1 - (k.ACTUATOR_LAG / (0.1 + k.ACTUATOR_LAG)) ** 2)
    assert world.drive[0] == pytest.approx(reached)


def test_steering_left_turns_left_by_the_bicycle_law() -> None:
    world = World([alone(8.0)])
    for _ in range(4):
        world.step(np.array([[0.1, 0.0]]))
    settled = world.heading[0]
    world.step(np.array([[0.1, 0.0]]))
    rate = 8.0 * np.sin(np.arctan(0.5 * np.tan(0.1))) / (k.WHEELBASE / 2)
    assert world.heading[0] - settled == pytest.approx(rate * k.CONTROL_DT, rel=0.01)
    assert world.y[0] > 0.0
    assert world.lateral[0] == pytest.approx(world.y[0])


@given(metres, metres, angles, angles)
def test_collisions_are_symmetrical_and_do_not_depend_on_the_place(x: float, y: float, one: float, two: float) -> None:
    zero = np.zeros(1)
    a, b = (zero, zero, np.array([one])), (np.array([x]), np.array([y]), np.array([two]))
    assert clearance(a, b) == pytest.approx(clearance(b, a), abs=1e-12)
    moved = (zero + 100.0, zero - 40.0, a[2]), (b[0] + 100.0, b[1] - 40.0, b[2])
    assert clearance(*moved) == pytest.approx(clearance(a, b), abs=1e-9)
    both = tuple(np.concatenate(pair) for pair in zip(a, b, strict=True))
    table = clearance(tuple(v[:, None] for v in both), both)  # type: ignore[arg-type]
    assert table.shape == (2, 2)
    assert table[0, 1] == pytest.approx(clearance(a, b)[0], abs=1e-12)
    assert clearance(a, b)[0] <= np.hypot(x, y) - 2 * k.CIRCLE_RADIUS + 1e-9


def test_running_into_a_standing_vehicle_is_a_crash_and_freezes_the_lane() -> None:
    scenario = generate(ScenarioId(Family.CURVY, 3))
    world = World([scenario])
    while not world.ended[0]:
        world.step(np.array([[0.0, 3.0]]))
    assert world.crashed[0] != world.off_road[0]
    frozen = world.x.copy(), world.agent_arc.copy(), world.steps_driven.copy()
    world.step(np.array([[0.3, 3.0]]))
    assert (world.x, world.steps_driven) == (frozen[0], frozen[2])
    assert np.array_equal(world.agent_arc, frozen[1])


def test_a_scenario_is_a_function_of_its_identity() -> None:
    for identity in paired(10, 77):
        one, two = generate(identity), generate(identity)
        assert np.array_equal(one.route, two.route)
        assert [v.start for v in one.traffic] == [v.start for v in two.traffic]
        assert generate(ScenarioId(identity.family, identity.seed + 1)).start != pytest.approx(one.start) or (
            generate(ScenarioId(identity.family, identity.seed + 1)).cruise != one.cruise
        )


def test_nobody_starts_in_anybody_else() -> None:
    world = World(generate_all(paired(100, 5)))
    ego = (world.x[:, None], world.y[:, None], world.heading[:, None])
    agents = (world.agent_x, world.agent_y, world.agent_heading)
    assert (clearance(ego, agents)[world.present] > 0).all()
    assert world.present.sum(axis=1).min() >= 1


def test_traffic_follows_the_idm() -> None:
    def push(speed: float, wish: float, gap: float, closing: float, *, led: bool = True) -> float:
        v, w, g, c = (np.array([value]) for value in (speed, wish, gap, closing))
        return float(idm(v, w, g, c, np.array([led]))[0])

    assert push(10.0, 10.0, 200.0, 0.0, led=False) == pytest.approx(0.0)
    assert push(0.0, 10.0, 200.0, 0.0, led=False) == pytest.approx(2.0)
    assert push(10.0, 12.0, 8.0, 8.0) == -5.0
    assert push(10.0, 12.0, 20.0, 2.0) < push(10.0, 12.0, 40.0, 2.0)


def test_a_vehicle_that_does_not_yield_ignores_the_ego() -> None:
    for yields in (True, False):
        world = World([generate(ScenarioId(Family.MERGE, 1))])
        world.yields[:] = yields
        world.x, world.y = world.agent_x[:, 0] + 25.0, world.agent_y[:, 0]
        world.speed = np.zeros(1)
        before = world.agent_speed[0, 0]
        world.step(np.array([[0.0, 0.0]]))
        assert bool(world.agent_speed[0, 0] < before - 0.9) is yields


@given(st.floats(-50, 50), st.floats(0, 400))
def test_tracks_have_one_metre_between_points_and_turn_with_the_world(angle: float, arc: float) -> None:
    track = resample(np.array([[0.0, 0.0], [60.0, 0.0], [120.0, 40.0]]))
    assert np.hypot(*np.diff(track, axis=0).T) == pytest.approx(np.ones(k.TRACK_POINTS - 1), abs=0.05)
    both = Tracks(np.stack([track, rotated(track, angle)]))
    x, y, dx, dy = both.at(np.array([0, 1]), np.array([arc, arc]))
    assert np.hypot(x[0], y[0]) == pytest.approx(np.hypot(x[1], y[1]))
    turn = np.arctan2(dy[1], dx[1]) - np.arctan2(dy[0], dx[0]) - angle
    assert wrap(np.array([turn]))[0] == pytest.approx(0.0, abs=1e-6)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="control must be"):
        World([alone(1.0)]).step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="at least one scenario"):
        World([])
    with pytest.raises(ValueError, match="tracks must be"):
        Tracks(np.zeros((3, 10, 2)))
