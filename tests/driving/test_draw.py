"""The replay's picture: well-formed, small, without scripts, true to the recording, and telling without animation."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.driving import draw
from nwmctl.driving.families import generate
from nwmctl.driving.guard import Plan
from nwmctl.driving.motion import Timeline
from nwmctl.driving.record import Recording, record
from nwmctl.driving.scenarios import Family, ScenarioId, Trap
from nwmctl.driving.streets import Frame
from tests.driving.test_guard import held, pursuer

TEMPLATE = (Path(__file__).parents[2] / "templates" / "replay.svg.j2").read_text()
SVG = "{http://www.w3.org/2000/svg}"


def drawn(reference: Recording, candidate: Recording, name: str = "candidate model", title: str = "a title") -> str:
    sides = draw.Side("reference model", "measured: here", reference), draw.Side(name, "proxy: a twin", candidate)
    return draw.render(draw.scene(title, "", "a note", "an origin", *sides), TEMPLATE)


def texts(svg: str) -> list[str]:
    return ["".join(each.itertext()).strip() for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def pair() -> tuple[Recording, Recording]:
    """A careful drive and one that hits a stalled vehicle."""
    scenario = generate(ScenarioId(Family.CURVY, 12, Trap.STALLED))
    careful = record(pursuer, scenario, guarded=True)
    careless = record(lambda seen: Plan(pursuer(seen).control * [1.0, 0.0]), scenario)
    assert careless.crashed
    return careful, careless


@pytest.fixture(scope="module")
def short() -> Recording:
    """Off the road at once."""
    return record(lambda seen: Plan(held(0.4, 0.0)), generate(ScenarioId(Family.MERGE, 2)))


@pytest.mark.parametrize("family", Family)
def test_every_family_becomes_a_well_formed_small_picture(family: Family) -> None:
    scenario = generate(ScenarioId(family, 21))
    svg = drawn(record(pursuer, scenario), record(pursuer, scenario, guarded=True))
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert len(svg.encode()) < 200_000
    assert not {each.tag for each in root.iter()} & {f"{SVG}script", f"{SVG}foreignObject", f"{SVG}image"}
    assert "nan" not in svg
    assert "inf" not in svg.replace("infinite", "")
    outside = re.findall(r"https?://[^\"]+", svg)
    assert set(outside) == {"http://www.w3.org/2000/svg"}


def test_it_says_who_drove_how_and_what_became_of_it(pair: tuple[Recording, Recording]) -> None:
    said = texts(drawn(*pair))
    assert "reference: reference model" in said
    assert "candidate: candidate model" in said
    assert {"measured: here", "proxy: a twin", "a title", "a note", "an origin", "CRASH"} <= set(said)
    assert pair[1].verdict in said
    assert any("not a real road" in text for text in said)
    assert f"{pair[0].ego[0, 3]:.1f} m/s" in said
    assert any(f"guard {pair[0].interventions}×" in text for text in said)


def test_every_animation_has_its_keyframes_and_every_rule_is_used(pair: tuple[Recording, Recording]) -> None:
    svg = drawn(*pair)
    used = set(re.findall(r"animation-name:(k\d+)", svg))
    rules = re.findall(r"@keyframes (k\d+)\{", svg)
    assert len(rules) == len(set(rules))
    assert used == set(rules)


def test_the_still_is_the_moment_of_the_crash(pair: tuple[Recording, Recording]) -> None:
    content = draw.scene("t", "", "", "", draw.Side("a", "", pair[0]), draw.Side("b", "", pair[1]))
    crashed = content.panels[1]
    assert crashed.marked is not None
    assert crashed.marked.still == "1"
    assert content.panels[0].mark is None
    x, y = (float(value) for value in re.findall(r"-?[\d.]+", crashed.camera.still))
    where = Frame(float(pair[1].ego[0, 2]), pair[1].ego[0, :2]).points(pair[1].ego[-1:, :2])[0]
    assert np.allclose([x, y], -where, atol=0.02)


def test_light_and_dark_and_reduced_motion_are_cared_for(pair: tuple[Recording, Recording]) -> None:
    svg = drawn(*pair)
    assert "prefers-color-scheme:dark" in svg
    assert "prefers-reduced-motion:reduce" in svg


def test_the_same_drive_gives_the_same_bytes(pair: tuple[Recording, Recording]) -> None:
    assert drawn(*pair) == drawn(*pair)


@settings(max_examples=8, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40))
def test_names_cannot_break_out_of_the_picture(short: Recording, name: str) -> None:
    root = ElementTree.fromstring(drawn(short, short, f"<script>{name}&\"'", name + "</title>"))
    assert not list(root.iter(f"{SVG}script"))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 61))
def test_keyframes_that_are_left_out_are_not_missed(seed: int, frames: int) -> None:
    """Linear interpolation of the rule's keyframes gives every frame's place, within the tolerance and rounding."""
    g = np.random.default_rng(seed)
    places = np.cumsum(g.normal(0.0, g.uniform(0.0, 2.0), (frames, 2)), axis=0)
    timeline = Timeline(frames, 0.2, 2.5, 0)
    moving = timeline.place(places, 0.05)
    if not moving.name:
        assert np.abs(places - places[0]).max() <= 0.05
        return
    (rule,) = timeline.rules
    rows = np.array(
        [[float(v) for v in re.findall(r"-?[\d.]+", part)] for part in re.findall(r"[\d.]+%\{[^}]*\}", rule)]
    )
    seconds = rows[:, 0] / 100.0 * timeline.total_s
    for axis in (0, 1):
        shown = np.interp(np.arange(frames) * 0.2, seconds, rows[:, 1 + axis])
        assert np.abs(shown - places[:, axis]).max() < 0.08
    assert seconds[-1] == pytest.approx(timeline.total_s, abs=0.01)


def test_the_ego_starts_upwards_and_turns_clockwise_to_the_right() -> None:
    frame = Frame(heading=0.3, origin=np.array([5.0, 2.0]))
    ahead = np.array([5.0 + 10.0 * np.cos(0.3), 2.0 + 10.0 * np.sin(0.3)])
    assert np.allclose(frame.points(ahead), [0.0, -10.0])
    left = np.array([5.0 - 10.0 * np.sin(0.3), 2.0 + 10.0 * np.cos(0.3)])
    assert np.allclose(frame.points(left), [-10.0, 0.0])
    assert np.allclose(frame.angles(np.array([0.3, 0.3 - np.pi / 2])), [-np.pi / 2, 0.0])
