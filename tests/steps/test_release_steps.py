"""stage, publish and rollout alone: repeating them changes nothing, and each refuses what does not belong together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nwmctl.app.compose import release_content
from nwmctl.app.session import Session
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.step import PlannedStep
from nwmctl.errors import CampaignOverError, MirrorConflictError, NwmError, SequenceTakenError, TrainIncompleteError
from nwmctl.fleet import campaigns
from nwmctl.fleet.releases import claim_sequence
from nwmctl.formats import canonical
from nwmctl.storage.content import ContentStore
from tests.e2e.command import rows, served, tree
from tests.project import Network
from tests.steps.conftest import Road


def step(session: Session, name: str) -> PlannedStep:
    return next(step for step in session.plan() if step.id == name)


def mirror(road: Road) -> Path:
    return road.place.workspace / "mirrors" / "local"


def but_imports(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the audit trail's lines about imports: that somebody read the inventory again is itself worth a line."""
    tables = state["rows"]
    events = [row for row in tables["event"] if "fleet_imported" not in map(str, row)]
    return {**state, "rows": {**tables, "event": events}}


@pytest.mark.parametrize("name", ["stage", "publish", "rollout"])
def test_repeating_changes_nothing(road: Road, name: str) -> None:
    before = served(road.place)
    with road.session() as session:
        assert road.run(session, step(session, name)).outputs == road.outcomes[name].outputs
    assert but_imports(served(road.place)) == but_imports(before)


def test_a_mirror_that_lost_a_file_gets_it_back(road: Road) -> None:
    before = tree(mirror(road))
    bundle = next(mirror(road).rglob("*.swu"))
    bundle.unlink()
    with road.session() as session:
        outcome = road.run(session, step(session, "stage"))
    assert tree(mirror(road)) == before
    assert outcome.summary["files_uploaded"] == 1


def test_a_mirror_with_other_bytes_is_refused_and_never_overwritten(road: Road) -> None:
    bundle = next(mirror(road).rglob("*.swu"))
    bundle.write_bytes(b"something else")
    before = tree(mirror(road))
    with road.session() as session, pytest.raises(MirrorConflictError):
        road.run(session, step(session, "stage"))
    assert tree(mirror(road)) == before


def test_what_is_staged_does_not_exist_before_the_timestamp(road: Road) -> None:
    """Only ``publish`` brings the timestamp, and it brings nothing else."""
    before = tree(mirror(road))
    timestamp = mirror(road) / "metadata" / "timestamp.json"
    timestamp.unlink()
    with road.session() as session:
        road.run(session, step(session, "stage"))
        assert not timestamp.exists()
        road.run(session, step(session, "publish"))
    assert tree(mirror(road)) == before


def test_the_receipt_names_every_bundle_on_the_mirror(road: Road) -> None:
    store = ContentStore(road.place.workspace / "content")
    receipt = canonical.decode(store.read(road.outcomes["stage"].outputs["staged"]), "receipt")
    assert isinstance(receipt, dict)
    staged = receipt["bundles"]
    assert isinstance(staged, list)
    assert len(staged) == 2
    for row in staged:
        assert isinstance(row, dict)
        assert (mirror(road) / str(row["path"])).is_file()


def test_a_train_with_a_hole_is_not_staged(road: Road) -> None:
    with road.session() as session:
        planned = step(session, "stage")
        before = served(road.place)
        planned.inputs.pop("swu:return/virtual")
        with pytest.raises(TrainIncompleteError, match="lacks the return bundle"):
            road.run(session, planned)
    assert served(road.place) == before


def test_a_factory_bundle_is_part_of_no_train(road: Road) -> None:
    with road.session() as session:
        planned = step(session, "stage")
        planned.inputs["swu:factory/virtual"] = road.outcomes["sign/factory/virtual"].outputs["swu"]
        before = served(road.place)
        with pytest.raises(NwmError) as caught:
            road.run(session, planned)
        assert caught.value.exit_code == 5
    assert served(road.place) == before


def test_a_sequence_with_other_content_is_not_staged(road: Road) -> None:
    """The road's bundles under a release that says something else about its models."""
    road.place.project.put_model("model", Network(seed=9))
    with road.session() as session:
        planned = step(session, "stage")
        before = served(road.place)
        with pytest.raises(NwmError):
            road.run(session, planned)
    assert served(road.place) == before


def test_a_taken_sequence_is_refused_in_one_place(road: Road) -> None:
    road.place.project.edit_policy(lambda policy: policy.update(version=2))
    with road.session() as session:
        content = release_content(session.project.release, digest_bytes(session.project.policy_bytes))
        with pytest.raises(SequenceTakenError):
            claim_sequence(session.parts.database, session.project.release, content)


def test_publishing_enables_both_bundles_in_the_database(road: Road) -> None:
    tables = rows(road.place.workspace / "fleet.db")
    text = json.dumps([list(map(str, row)) for table in tables.values() for row in table])
    for kind in ("release", "return"):
        assert f'"{kind}"' in text


def test_the_rollout_opens_one_campaign_however_often_it_runs(road: Road) -> None:
    with road.session() as session:
        name = str(road.outcomes["rollout"].summary["_campaign"])
        again = road.run(session, step(session, "rollout"))
        assert again.summary["_campaign"] == name
        assert "there already" in str(again.summary["campaign"])
        assert again.outputs["factory:virtual"] == road.outcomes["sign/factory/virtual"].outputs["swu"]


def test_an_ended_campaign_is_not_opened_again(road: Road) -> None:
    name = str(road.outcomes["rollout"].summary["_campaign"])
    with road.session() as session:
        campaigns.abort(session.parts.database, name, "enough", session.parts.clock.now_us())
        with pytest.raises(CampaignOverError, match="aborted"):
            road.run(session, step(session, "rollout"))


def test_an_inventory_that_was_broken_later_changes_nothing(road: Road) -> None:
    road.place.project.fleet.write_text("vin,vehicle_model,baseline,sequence\nX,nosuch-car,Bench,1\n")
    with road.session() as session:
        before = served(road.place)
        with pytest.raises(NwmError) as caught:
            road.run(session, step(session, "rollout"))
        assert caught.value.exit_code == 3
    assert served(road.place) == before
