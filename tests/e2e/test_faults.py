"""Vehicles in trouble: the gate on the canary stops the campaign, and nobody else is offered anything."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.command import Place, refused, traces
from tests.project import FACTORY_SEQUENCE, SEQUENCE, VINS

SOME_UNHEALTHY = f"health:{VINS[0]}:100%:9,health:{VINS[1]}:100%:9"
"""Strikes one of the two vehicles that the canary takes, by the order of their VINs' hashes."""


def at_sequence(place: Place) -> dict[int, int]:
    counts: dict[int, int] = {}
    for row in place.run("fleet", "status", "--json").ok().json["vehicles"]:
        counts[row["sequence"]] = counts.get(row["sequence"], 0) + row["vehicles"]
    return counts


def start(place: Place, faults: str, **gate: float) -> tuple[int, dict[str, Any]]:
    """Roll the published release out, two vehicles first, with another gate on them."""
    place.project.edit_release(lambda release: release["waves"][0].update(per_model=2))
    place.project.edit_release(lambda release: release["waves"][0]["gate"].update(gate))
    ran = place.run("rollout", "start", place.project.release, "--faults", faults, "--json")
    return ran.code, ran.json


@pytest.mark.parametrize(
    ("abort_failed", "state"), [pytest.param(1.0, "paused", marks=pytest.mark.long), (0.5, "aborted")]
)
def test_a_failing_health_check_in_the_canary_stops_the_campaign(
    published: Place, abort_failed: float, state: str
) -> None:
    code, document = start(published, SOME_UNHEALTHY, max_failed=0.0, abort_failed=abort_failed)
    assert code == 5, document
    assert document["error"] == "CampaignStoppedError"
    assert state in document["what"]
    assert "canary" in document["why"]
    canary, rest = document["result"]["waves"]
    assert document["result"]["state"] == state
    assert canary["counts"]["failed"] >= 1
    assert rest["state"] == "planned"
    assert rest["counts"]["committed"] == rest["counts"]["failed"] == 0
    # Whoever failed fell back to what it had.
    assert at_sequence(published) == {SEQUENCE: 1, FACTORY_SEQUENCE: 2}


def test_a_paused_campaign_goes_on_when_a_person_says_so(published: Place) -> None:
    code, document = start(published, SOME_UNHEALTHY)
    assert code == 5
    assert document["result"]["state"] == "paused"
    name = document["result"]["name"]
    resumed = published.run("rollout", "resume", name, "--reason", "it was the test bench", "--json").ok().json
    assert resumed["state"] == "completed"
    assert at_sequence(published) == {SEQUENCE: len(VINS) - 1, FACTORY_SEQUENCE: 1}


@pytest.mark.long
@pytest.mark.parametrize(
    "faults",
    ["corrupt:*:100%:1", "drop=1000:*:100%:2", "power=trial:*:100%:1", "endless:*:100%:1", "garbage:*:100%:2"],
)
def test_trouble_that_passes_does_not_stop_the_campaign(published: Place, faults: str) -> None:
    published.project.edit_release(lambda release: release.update(max_attempts=3))
    code, document = start(published, faults)
    assert code == 0, document
    assert document["state"] == "completed"
    assert at_sequence(published) == {SEQUENCE: len(VINS)}


def test_a_fault_that_nobody_knows_is_refused(published: Place) -> None:
    before = traces(published)
    ran = published.run("rollout", "start", published.project.release, "--faults", "gremlins", "--json")
    refused(ran, "FaultPlanError", 3, "gremlins")
    assert traces(published) == before
