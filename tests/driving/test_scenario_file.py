"""Scenario files: what a person writes is driven, and what nobody could drive is refused with file, line and key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.driving import constants as k
from nwmctl.driving import episode, metrics, scenario_file
from nwmctl.driving.families import generate
from nwmctl.driving.scenarios import Family, Scenario, ScenarioId, Trap, named
from nwmctl.errors import (
    NwmError,
    ScenarioGeometryError,
    ScenarioLimitError,
    ScenarioNameError,
    ScenarioStartError,
    SchemaError,
)
from tests.driving.test_episode import follower

GOOD = """\
schema: nwmctl.scenario/1
name: a lorry behind the bend
written:
  family: curvy
  route: [[0, 0], [120, 0], [160, 12], [260, 80]]
  ego:
    start_m: 10
    speed_m_s: 12.0
    cruise_m_s: 13.5
    lateral_m: 0.5
    heading_error_rad: -0.05
  vehicles:
    - start_m: 150
      speed_m_s: 0
      cruise_m_s: 0
      yields: false
    - track: [[300, 60], [0, 60]]
      start_m: 20
      speed_m_s: 9
      cruise_m_s: 9
      slows_at_s: 4
  dropped_steps: [7, 8, 9]
  late_steps: 1
"""


def load(text: str) -> Scenario:
    return scenario_file.load(text.encode(), "bend.yaml")


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_written_scenario_is_what_it_says() -> None:
    scenario = load(GOOD)
    assert scenario.route.shape == (k.TRACK_POINTS, 2)
    assert np.hypot(*np.diff(scenario.route, axis=0).T) == pytest.approx(np.ones(k.TRACK_POINTS - 1), abs=0.05)
    assert (scenario.start, scenario.speed, scenario.cruise) == (10.0, 12.0, 13.5)
    assert (scenario.lateral, scenario.heading_error, scenario.late) == (0.5, -0.05, 1)
    assert scenario.dropped == {7, 8, 9}
    lorry, oncoming = scenario.traffic
    assert lorry.track is scenario.route
    assert (lorry.yields, lorry.slows_at) == (False, np.inf)
    assert (oncoming.yields, oncoming.slows_at) == (True, 4.0)


def test_two_files_that_say_the_same_are_the_same_scenario() -> None:
    one, two = load(GOOD), load("# a comment\n" + changed("start_m: 10\n", "start_m: 10.0\n"))
    assert one.id == two.id
    assert one.id.file
    assert load(changed("speed_m_s: 12.0", "speed_m_s: 12.5")).id != one.id


def test_a_written_scenario_drives_beside_drawn_ones() -> None:
    scenarios = [load(GOOD), generate(ScenarioId(Family.MERGE, 3)), load(changed("late_steps: 1", "late_steps: 0"))]
    whole = episode.run_scenarios(follower, scenarios)
    alone = metrics.join([episode.run_scenarios(follower, [scenario]) for scenario in scenarios])
    assert whole.digest() == alone.digest()
    assert whole.digest() != episode.run_scenarios(follower, scenarios[:2]).digest()
    assert len(set(whole.ids)) == 3
    assert episode.run(follower, [scenarios[1].id]).digest() == episode.run_scenarios(follower, scenarios[1:2]).digest()
    with pytest.raises(ValueError, match="at least one scenario"):
        episode.run_scenarios(follower, [])


def test_a_drawn_scenario_keeps_its_plain_identity() -> None:
    head = "schema: nwmctl.scenario/1\nname: x\ndrawn: "
    assert load(head + "{family: merge, seed: 7}").id == ScenarioId(Family.MERGE, 7)
    stalled = load(head + "{family: merge, seed: 7, trap: stalled}")
    assert stalled.id == ScenarioId(Family.MERGE, 7, Trap.STALLED)
    assert np.array_equal(stalled.route, generate(stalled.id).route)
    with pytest.raises(SchemaError, match=r"bend\.yaml:3: drawn\.trap: the trap 'cut_in' is not laid on"):
        load(head + "{family: curvy, seed: 7, trap: cut_in}")
    with pytest.raises(SchemaError, match="seed is not between"):
        load(head + "{family: curvy, seed: -1}")


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("[[0, 0], [120, 0], [160, 12], [260, 80]]", "[[0, 0]]", "5: written.route", "too few points"),
        ("[[0, 0], [120, 0], [160, 12], [260, 80]]", "[]", "5: written.route", "too few points"),
        ("[160, 12]", "[160, 12, 3]", "5: written.route[2]", "not a point"),
        ("[160, 12]", "[120, 0.01]", "5: written.route[2]", "two points on each other"),
        ("[160, 12]", "[90, 1]", "5: written.route[", "a kink that cannot be driven"),
        ("[160, 12]", "[120, 90]", "5: written.route", "a kink that cannot be driven"),
        ("[260, 80]", "[600, 80]", "5: written.route", "too long"),
        ("[260, 80]", "[1000000, 80]", "5: written.route[3]", "is too far away"),
        ("[[300, 60], [0, 60]]", "[[300, 60], [300, 60]]", "17: written.vehicles[1].track[1]", "two points on each"),
    ],
)
def test_a_way_that_nobody_can_drive_is_refused(old: str, new: str, place: str, what: str) -> None:
    with pytest.raises(ScenarioGeometryError) as refusal:
        load(changed(old, new))
    assert refusal.value.what.startswith(f"bend.yaml:{place}")
    assert what in refusal.value.what


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("start_m: 10\n", "start_m: -1\n", "7: written.ego.start_m", "off the way"),
        ("lateral_m: 0.5", "lateral_m: 2.5", "10: written.ego.lateral_m", "off the road"),
        ("heading_error_rad: -0.05", "heading_error_rad: 3", "11: written.ego.heading_error_rad", "faces backwards"),
        ("start_m: 150", "start_m: 12", "13: written.vehicles[0]", "starts inside the ego"),
        ("start_m: 150", "start_m: 419", "13: written.vehicles[0].start_m", "off the way"),
        ("[[300, 60], [0, 60]]\n      start_m: 20", "[[0, 0], [120, 0]]\n      start_m: 12", "17: written.vehicles[1]",
         "starts inside the ego"),
        ("[[300, 60], [0, 60]]\n      start_m: 20", "[[0, 0], [120, 0], [160, 12], [260, 80]]\n      start_m: 151",
         "17: written.vehicles[1]", "starts inside vehicle 0"),
    ],
)  # fmt: skip
def test_a_start_that_is_none_is_refused(old: str, new: str, place: str, what: str) -> None:
    with pytest.raises(ScenarioStartError) as refusal:
        load(changed(old, new))
    assert refusal.value.what.startswith(f"bend.yaml:{place}")
    assert what in refusal.value.what


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("speed_m_s: 12.0", "speed_m_s: -1", "8: written.ego.speed_m_s"),
        ("speed_m_s: 12.0", "speed_m_s: 100", "8: written.ego.speed_m_s"),
        ("cruise_m_s: 13.5", "cruise_m_s: 0", "9: written.ego.cruise_m_s"),
        ("cruise_m_s: 13.5", "cruise_m_s: 50", "6: written.ego"),
        ("speed_m_s: 9\n", "speed_m_s: -9\n", "19: written.vehicles[1].speed_m_s"),
        ("slows_at_s: 4", "slows_at_s: -4", "21: written.vehicles[1].slows_at_s"),
        ("[7, 8, 9]", "[7, 60]", "22: written.dropped_steps[1]"),
        ("late_steps: 1", "late_steps: 3", "23: written.late_steps"),
    ],
)
def test_a_figure_outside_the_limits_is_refused(old: str, new: str, place: str) -> None:
    with pytest.raises(ScenarioLimitError) as refusal:
        load(changed(old, new))
    assert refusal.value.what.startswith(f"bend.yaml:{place}: ")


def test_kilometres_per_hour_are_suspected() -> None:
    with pytest.raises(ScenarioLimitError, match="write m/s, not km/h"):
        load(changed("speed_m_s: 12.0", "speed_m_s: 100"))


def test_more_vehicles_than_the_model_sees_are_refused() -> None:
    more = "".join(f"    - {{start_m: {50 + 10 * i}, speed_m_s: 5, cruise_m_s: 5}}\n" for i in range(7))
    with pytest.raises(ScenarioLimitError, match="too many vehicles"):
        load(GOOD.replace("  dropped_steps", more + "  dropped_steps"))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("[160, 12]", "[160, .nan]", "a finite number"),
        ("[160, 12]", "[160, .inf]", "a finite number"),
        ("[160, 12]", "[160, twelve]", "a number"),
        ("speed_m_s: 12.0", "speed: 12.0", "unknown key 'speed'"),
        ("scenario/1", "scenery/1", "is expected here"),
        ("written:", "drawn: {family: merge, seed: 1}\nwritten:", "exactly one of the two keys"),
    ],
)
def test_what_is_no_scenario_document_is_refused(old: str, new: str, what: str) -> None:
    with pytest.raises(SchemaError, match=what):
        load(changed(old, new))


numbers = st.floats(allow_nan=True) | st.integers(-500, 500) | st.just("x")
points = st.lists(st.lists(numbers, max_size=3), max_size=6)
gentle = st.lists(st.floats(-15.0, 15.0), min_size=2, max_size=5).map(
    lambda sides: [[80.0 * index, side] for index, side in enumerate(sides)]
)


@settings(max_examples=80, deadline=None)
@given(points | gentle, numbers | st.just(5), numbers | st.just(8), numbers | st.just(40), points | gentle)
def test_any_file_is_driven_or_refused(
    route: list[object], start: object, speed: object, other: object, track: list[object]
) -> None:
    def plain(value: object) -> str:
        return str(value).replace("nan", ".nan").replace("inf", ".inf").replace("'", "")

    text = (
        "schema: nwmctl.scenario/1\nname: x\nwritten:\n  family: merge\n"
        f"  route: {plain(route)}\n  ego: {{start_m: {plain(start)}, speed_m_s: {plain(speed)}, cruise_m_s: 9}}\n"
        f"  vehicles: [{{track: {plain(track)}, start_m: {plain(other)}, speed_m_s: 3, cruise_m_s: 3}}]\n"
    )
    try:
        scenario = load(text)
    except NwmError as problem:
        refusal: NwmError | None = problem
    else:
        refusal = None
        assert np.isfinite(episode.run_scenarios(follower, [scenario]).path).all()
    assert refusal is None or (refusal.what.startswith("bend.yaml") and refusal.why and refusal.next)


def test_names_of_scenarios_are_read_back() -> None:
    for identity in (ScenarioId(Family.MERGE, 0), ScenarioId(Family.CURVY, 12, Trap.LATE)):
        assert named(identity.label) == identity
    for text in (
        "",
        "merge",
        "merge:",
        "merge:-1",
        "merge:1:",
        "merge:1:nothing",
        "road:1",
        "merge:1:late:x",
        "merge:²",
    ):
        with pytest.raises(ScenarioNameError, match="names no scenario"):
            named(text)
