"""A recording is the drive itself: the same outcome as in a batch, every frame kept, deterministic."""

from __future__ import annotations

import numpy as np
import pytest

from nwmctl.driving import constants as k
from nwmctl.driving import episode
from nwmctl.driving.families import generate
from nwmctl.driving.guard import NONE, Plan
from nwmctl.driving.guarded import run_guarded
from nwmctl.driving.record import record
from nwmctl.driving.scenarios import Family, ScenarioId, Trap
from tests.driving.test_guard import held, pursuer

IDS = [ScenarioId(family, 4_000) for family in Family]


@pytest.mark.parametrize("identity", IDS, ids=str)
def test_it_is_the_same_drive_as_in_an_episode(identity: ScenarioId) -> None:
    recording = record(pursuer, generate(identity))
    outcomes = episode.run(lambda seen: pursuer(seen).control, [identity])
    assert recording.outcomes.digest() == outcomes.digest()
    assert recording.decisions == outcomes.steps[0]
    assert np.array_equal(recording.ego[:, :2], outcomes.path[0, : recording.decisions + 1])
    assert (recording.reasons == NONE).all()
    assert recording.interventions == 0


def test_guarded_it_is_the_guarded_drive() -> None:
    for identity in IDS[1:3]:
        outcomes, found = run_guarded(pursuer, [identity])
        recording = record(pursuer, generate(identity), guarded=True)
        assert recording.outcomes.digest() == outcomes.digest()
        assert recording.interventions == found.counts.sum()


def test_every_frame_is_kept() -> None:
    recording = record(pursuer, generate(ScenarioId(Family.MERGE, 3)))
    decisions, traffic = recording.decisions, len(recording.scenario.traffic)
    assert recording.ego.shape == (decisions + 1, 4)
    assert recording.agents.shape == (decisions + 1, traffic, 4)
    assert recording.plans.shape == (decisions, k.HORIZON, 2)
    assert recording.control.shape == (decisions, 2)
    assert recording.lateral.shape == recording.perceived.shape == (decisions + 1,)
    ahead = recording.plans[0, 0] - recording.ego[0, :2]
    assert np.hypot(*ahead) == pytest.approx(recording.ego[0, 3] * k.CONTROL_DT, rel=0.2)


def test_a_crash_names_who_was_hit_and_leaving_the_road_nobody() -> None:
    crash = record(
        lambda seen: Plan(pursuer(seen).control * [1.0, 0.0]), generate(ScenarioId(Family.CURVY, 12, Trap.STALLED))
    )
    assert crash.crashed
    assert crash.hit is not None
    assert np.hypot(*(crash.agents[-1, crash.hit, :2] - crash.ego[-1, :2])) < 6.0
    assert crash.verdict.startswith("crashed after")
    off = record(lambda seen: Plan(held(0.4, 0.0)), generate(ScenarioId(Family.CURVY, 12)))
    assert off.off_road
    assert off.hit is None
    assert off.verdict.startswith("left the road after")


def test_a_plan_that_is_not_finite_is_drawn_under_the_ego() -> None:
    recording = record(lambda seen: Plan(held(0.0, np.nan)), generate(ScenarioId(Family.HIGHWAY, 1)))
    assert np.isfinite(recording.plans).all()
    assert recording.outcomes.faults[0] == recording.decisions
    traced = record(
        lambda seen: Plan(held(0.0, 0.0), np.full((1, k.HORIZON, 3), np.inf)), generate(ScenarioId(Family.HIGHWAY, 1))
    )
    assert np.array_equal(traced.plans[0], np.repeat(traced.ego[:1, :2], k.HORIZON, axis=0))


def test_lost_perception_is_recorded() -> None:
    scenario = generate(ScenarioId(Family.ROUNDABOUT, 9, Trap.DROPPED))
    recording = record(pursuer, scenario)
    lost = {step for step in range(recording.decisions + 1) if not recording.perceived[step]}
    assert lost == {step for step in scenario.dropped if step <= recording.decisions}
    assert lost
