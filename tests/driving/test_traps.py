"""The trap suite: each trap does to the ego what it says, and a careful driver gets out of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from nwmctl.driving import constants as k
from nwmctl.driving import episode, expert, metrics, traps
from nwmctl.driving.families import generate, generate_all
from nwmctl.driving.observe import observe
from nwmctl.driving.scenarios import Family, Scenario, ScenarioId, Trap
from nwmctl.driving.world import World
from nwmctl.errors import ScenarioNameError

SEED = 5_000_000
IDS = traps.paired(400, SEED)


def drawn(trap: Trap, count: int = 40) -> tuple[Scenario, ...]:
    return generate_all([identity for identity in IDS if identity.trap is trap][:count])


@pytest.fixture(scope="module")
def careful() -> metrics.Outcomes:
    return episode.run_expert(IDS)


def test_the_traps_take_turns_and_keep_to_their_families() -> None:
    counts = Counter(identity.trap for identity in IDS)
    assert set(counts) == set(Trap)
    assert set(counts.values()) == {50}
    assert len(set(IDS)) == len(IDS)
    for trap, way in traps.WAYS.items():
        assert {identity.family for identity in IDS if identity.trap is trap} == set(way.families)
        assert all(low <= high for low, high in way.ranges.values())
    assert traps.paired(400, SEED) == IDS
    assert traps.paired(16, SEED + 1)[:8] == IDS[8:16] or traps.paired(16, SEED + 1) != IDS[:16]


def test_a_trap_is_a_function_of_its_identity_and_leaves_the_plain_scenario_alone() -> None:
    for identity in IDS[:24]:
        one, two = generate(identity), generate(identity)
        assert np.array_equal(one.route, two.route)
        assert (one.start, one.speed, one.lateral, one.heading_error) == (
            two.start, two.speed, two.lateral, two.heading_error,
        )  # fmt: skip
        assert (one.dropped, one.late, len(one.traffic)) == (two.dropped, two.late, len(two.traffic))
        plain = generate(ScenarioId(identity.family, identity.seed))
        assert (plain.lateral, plain.heading_error, plain.late, plain.dropped) == (0.0, 0.0, 0, frozenset())


def test_the_ego_starts_where_the_trap_says() -> None:
    for trap in (Trap.OFF_CENTRE, Trap.HEADING_ERROR):
        scenarios = drawn(trap)
        world = World(scenarios)
        assert world.lateral == pytest.approx([s.lateral for s in scenarios], abs=0.05)
        assert world.heading_error == pytest.approx([s.heading_error for s in scenarios], abs=0.05)
        sides = {np.sign(s.lateral + s.heading_error) for s in scenarios}
        assert sides == {-1.0, 1.0}
    off, turned = drawn(Trap.OFF_CENTRE), drawn(Trap.HEADING_ERROR)
    assert all(1.2 <= abs(s.lateral) <= 1.8 < k.OFF_ROAD for s in off)
    assert all(s.speed * np.sin(abs(s.heading_error)) <= 2.0 for s in turned)


def test_too_fast_is_faster_than_the_bend_allows() -> None:
    for scenario in drawn(Trap.TOO_FAST):
        ahead = scenario.route[int(scenario.start) : int(scenario.start) + 90]
        step = np.diff(ahead, axis=0)
        bend = np.abs(np.gradient(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))).max()
        assert scenario.speed**2 * bend > 4.0, "lateral acceleration in m/s2 if nobody brakes"


@pytest.mark.parametrize("trap", [Trap.CUT_IN, Trap.STALLED, Trap.RIGHT_OF_WAY])
def test_whoever_springs_the_trap_is_there_and_does_not_yield(trap: Trap) -> None:
    for scenario in drawn(trap):
        villain = scenario.traffic[0]
        assert not villain.yields
        between = scenario.route[:, None] - villain.track[None]
        assert np.hypot(between[..., 0], between[..., 1]).min() < 1.0, "it comes into the ego's way"
        if trap is Trap.STALLED:
            assert (villain.speed, villain.cruise) == (0.0, 0.0)
            assert villain.start > scenario.start + scenario.speed**2 / (2 * -k.ACCEL_MIN)


def test_a_stalled_vehicle_stays_where_it_is() -> None:
    world = World(drawn(Trap.STALLED, 5))
    before = world.agent_x[:, 0].copy()
    for _ in range(10):
        world.step(expert.drive(world))
    assert np.array_equal(world.agent_x[:, 0], before)


def test_lost_perception_is_held_and_then_gone_and_comes_back() -> None:
    base = generate(ScenarioId(Family.HIGHWAY, SEED))
    clear, lossy = World([base]), World([replace(base, dropped=frozenset({2, 3, 4, 5}))])
    held = lossy.agent_x.copy()
    for step in range(1, 8):
        for world in (clear, lossy):
            world.step(np.array([[0.0, 0.5]]))
        seen, truth = observe(lossy), observe(clear)
        assert np.array_equal(seen["ego"], truth["ego"])
        assert np.array_equal(seen["route"], truth["route"])
        same = np.array_equal(seen["agents"], truth["agents"])
        if step == 1:
            assert same
            held = lossy.agent_x.copy()
        elif step in (2, 3):
            assert not same
            assert seen["agents"][..., -1, 0].any()
            assert np.array_equal(lossy.perception.history[-1].agent_x, held)
        elif step in (4, 5):
            assert not seen["agents"].any()
        else:
            assert np.array_equal(seen["agents"][:, :, -1], truth["agents"][:, :, -1])
            assert not same, "history keeps what was believed"


def test_the_first_frame_can_be_lost_too() -> None:
    base = generate(ScenarioId(Family.HIGHWAY, SEED))
    assert not observe(World([replace(base, dropped=frozenset({0}))]))["agents"].any()


def test_losing_perception_in_one_lane_leaves_the_others_alone() -> None:
    scenarios = [generate(ScenarioId(Family.MERGE, SEED + i)) for i in range(3)]
    hampered = [scenarios[0], replace(scenarios[1], dropped=frozenset(range(60)), late=2), scenarios[2]]
    one, two = World(scenarios), World(hampered)
    for _ in range(6):
        for world in (one, two):
            world.step(np.full((3, 2), 0.01))
    a, b = observe(one), observe(two)
    for name in a:
        assert np.array_equal(a[name][[0, 2]], b[name][[0, 2]])
    assert not b["agents"][1].any()


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_late_command_takes_effect_later(late: int) -> None:
    world = World([replace(generate(ScenarioId(Family.CURVY, SEED)), late=late)])
    for step in range(4):
        world.step(np.array([[0.0, 1.0 + step]]))
        expected = 1.0 + step - late if step >= late else 0.0
        assert world.command_accel[0] == min(expected, k.ACCEL_MAX)
        assert observe(world)["ego"][0, -1, 2] == np.float32(min(expected, k.ACCEL_MAX))


def test_a_careful_driver_gets_out_of_nearly_every_trap(careful: metrics.Outcomes) -> None:
    back = metrics.recovered(careful)
    assert back.mean() >= 0.85
    for trap in Trap:
        assert back[[identity.trap is trap for identity in IDS]].mean() >= 0.75, trap


def test_somebody_idle_or_merely_braking_does_not(careful: metrics.Outcomes) -> None:
    for accel in (0.0, k.ACCEL_MIN):
        control = np.array([0.0, accel])
        outcomes = episode.run_driver(lambda world: np.tile(control, (world.size, 1)), IDS)  # noqa: B023
        assert metrics.recovered(outcomes).mean() <= 0.10
        assert metrics.recovered(careful).mean() > metrics.recovered(outcomes).mean() + 0.7


def test_recovery_follows_its_definition(careful: metrics.Outcomes) -> None:
    count = len(IDS)
    fine = replace(
        careful, crashed=np.zeros(count, bool), off_road=np.zeros(count, bool), lateral=np.zeros(count),
        heading_error=np.zeros(count), progress=np.ones(count),
    )  # fmt: skip
    assert metrics.recovered(fine).all()
    for lost in (
        replace(fine, crashed=~fine.crashed),
        replace(fine, off_road=~fine.off_road),
        replace(fine, lateral=fine.lateral - 1.6),
        replace(fine, heading_error=fine.heading_error - 0.4),
        replace(fine, progress=fine.progress * 0.1),
    ):
        assert not metrics.recovered(lost).any()


def test_a_trap_on_a_family_that_it_is_not_laid_on_is_refused() -> None:
    with pytest.raises(ScenarioNameError, match="there is no scenario 'curvy:1:cut_in'"):
        generate(ScenarioId(Family.CURVY, 1, Trap.CUT_IN))


def test_traps_have_digests_of_their_own() -> None:
    plain = tuple(ScenarioId(identity.family, identity.seed) for identity in IDS[:8])
    outcomes = episode.run_expert(IDS[:8])
    renamed = replace(outcomes, ids=plain)
    assert len({outcomes.digest(), renamed.digest(), replace(outcomes, lateral=outcomes.lateral + 1).digest()}) == 3
