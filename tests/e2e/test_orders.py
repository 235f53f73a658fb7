"""A check that lacks power orders more scenarios through the agent; where it may not, nothing is signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nwmctl.errors import ExitCode
from tests.e2e.command import Place


@pytest.fixture
def driving(tmp_path: Path, development_keys: Path) -> Place:
    """A release whose policy demands the closed loop."""
    return Place.new(tmp_path / "place", development_keys, driving=True)


def with_validation(place: Place, **validation: Any) -> None:
    place.project.edit_release(lambda release: release.update(validation=validation))


def decisions(place: Place) -> list[dict[str, Any]]:
    events = place.run("runs", "show", "--json").ok().json["events"]
    return [event for event in events if event["event"] == "Decided"]


def test_too_few_scenarios_are_raised_until_they_say_something(driving: Place) -> None:
    with_validation(driving, scenarios=10, most_scenarios=160)
    ran = driving.run("validate", driving.project.release, "--json").ok()
    assert "inconclusive" not in ran.out
    assert "paired scenarios" in ran.out
    assert "10 paired scenarios" not in ran.out
    made = decisions(driving)
    assert {decision["rule"] for decision in made} == {"order-more-scenarios"}
    assert {decision["parameter"] for decision in made} == {"more_scenarios"}
    assert "closed_loop inconclusive" in made[0]["reason"]
    assert made[0]["choice"] in (1, 2)
    shown = driving.run("runs", "show").ok().out
    assert "order-more-scenarios" in shown


def test_without_leave_to_raise_them_nothing_is_signed(driving: Place) -> None:
    with_validation(driving, scenarios=10, most_scenarios=10)
    ran = driving.run("publish", driving.project.release, "--json")
    assert ran.code not in (0, ExitCode.INTERNAL)
    assert "inconclusive" in ran.out + ran.err
    assert "order-more-scenarios" not in {decision["rule"] for decision in decisions(driving)}


@pytest.mark.parametrize("wrong", [{"scenarios": 0}, {"profile": "thorough"}, {"scenarioes": 5}])
def test_an_impossible_amount_is_refused(driving: Place, wrong: dict[str, Any]) -> None:
    with_validation(driving, **wrong)
    ran = driving.run("validate", driving.project.release, "--json")
    assert ran.code == ExitCode.INPUT
    assert "validation" in ran.out + ran.err
