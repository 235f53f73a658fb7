"""The DDI endpoints, in process: who may ask, what is answered, and that garbage leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nwmctl.domain.fleet import AssignmentState, SlotFact, SlotFacts, SlotName
from nwmctl.fleet.campaigns import abort, create_campaign, rollback, start
from nwmctl.fleet.consequences import Heard
from nwmctl.fleet.status import story
from nwmctl.formats import ddi
from nwmctl.formats.untrusted import MAX_BODY
from nwmctl.gateway.app import build_app
from nwmctl.gateway.ddi import cancel_report_of, report_of
from nwmctl.gateway.edge import Edge
from nwmctl.storage.database import Database
from nwmctl.storage.group_commit import GroupWriter
from tests.fakes import FakeClock
from tests.fleet import house
from tests.postgres import Cluster, Stores

NAME = "test-10"


class Vehicle:
    """A vehicle's end of the wire, as plain as can be."""

    def __init__(self, client: TestClient, vin: str) -> None:
        self.client, self.vin = client, vin
        self.base = f"/default/controller/v1/{vin}"
        self.headers = {"Authorization": f"TargetToken {house.token(vin)}"}

    def get(self, path: str) -> bytes:
        answer = self.client.get(path, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.content

    def poll(self) -> ddi.Polling:
        return ddi.decode_polling(self.get(self.base))

    def action(self) -> int:
        return int(self.poll().deployment.rpartition("/")[2])

    def post(self, path: str, body: bytes) -> int:
        return self.client.post(self.base + path, content=body, headers=self.headers).status_code

    def say(self, action: int, execution: ddi.Execution, finished: ddi.Finished, *details: str) -> int:
        body = ddi.encode_feedback(ddi.Feedback(action, execution, finished, details))
        return self.post(f"/deploymentBase/{action}/feedback", body)

    def tell(self, data: dict[str, str]) -> int:
        body = ddi.encode_config_data(data)
        return self.client.put(self.base + "/configData", content=body, headers=self.headers).status_code


@pytest.fixture
def database(tmp_path: Path, stores: Stores) -> Database:
    database = house.fleet_database(tmp_path, database=stores.open())
    create_campaign(database, house.release(), house.T0)
    start(database, NAME, house.T0)
    return database


@pytest.fixture
def client(database: Database) -> Iterator[TestClient]:
    writer = GroupWriter(database)
    edge = Edge(database, writer, FakeClock(house.T0), "default")
    yield TestClient(build_app(edge, None), base_url="http://gateway:80")
    writer.close()


@pytest.fixture
def vehicle(client: TestClient, database: Database) -> Vehicle:
    return Vehicle(client, house.wave_vins(database, 1)[0])


def everything(database: Database) -> list[object]:
    tables = ("vehicle", "assignment", "action", "feedback", "event", "tally", "wave", "campaign")
    return [database.reader.all(f"SELECT * FROM {table}") for table in tables]


def test_from_poll_to_commit(vehicle: Vehicle, database: Database) -> None:
    polling = vehicle.poll()
    assert polling.poll_s == 0.05
    assert vehicle.client.get(vehicle.base, headers=vehicle.headers).json()["config"]["polling"]["sleep"] == "00:00:01"
    action = vehicle.action()
    assert vehicle.action() == action
    deployment = ddi.decode_deployment(vehicle.get(polling.deployment))
    chunk = deployment.chunks[0]
    expected = {b.platform: b for b in house.bundles(house.release())[:2]}
    bundle = expected["nt3.0" if "et9" in vehicle.vin else "nt2.0"]
    assert chunk.metadata[ddi.META_SEQUENCE] == "10"
    assert chunk.metadata[ddi.META_TUF_NAME] == bundle.tuf_name
    assert chunk.artifacts[0].href == f"http://gateway/mirror/{bundle.path}"
    assert (chunk.artifacts[0].sha1, chunk.artifacts[0].size) == (bundle.sha1, bundle.size)
    assert vehicle.say(action, ddi.Execution.PROCEEDING, ddi.Finished.NONE, "nwm.stage=trial", "and more") == 200
    assert house.state_of(database, vehicle.vin) is AssignmentState.TRIAL
    assert vehicle.say(action, ddi.Execution.CLOSED, ddi.Finished.SUCCESS) == 200
    assert house.state_of(database, vehicle.vin) is AssignmentState.COMMITTED
    assert vehicle.poll().deployment == ""
    assert vehicle.client.get(f"{vehicle.base}/deploymentBase/{action}", headers=vehicle.headers).status_code == 404
    assert ("nwm.stage=trial", "and more") in [line.details for line in story(database, vehicle.vin)]


def test_who_may_ask(vehicle: Vehicle, client: TestClient, database: Database) -> None:
    other = house.wave_vins(database, 1)[1]
    attempts = [
        (vehicle.base, {}),
        (vehicle.base, {"Authorization": "TargetToken wrong"}),
        (vehicle.base, {"Authorization": f"GatewayToken {house.token(vehicle.vin)}"}),
        (vehicle.base, {"Authorization": f"TargetToken {house.token(other)}"}),
        (vehicle.base.replace("default", "elsewhere"), vehicle.headers),
        (vehicle.base + "X", vehicle.headers),
        # PostgreSQL has no text with a zero in it.
        (vehicle.base + "%00", vehicle.headers),
    ]
    before = everything(database)
    for path, headers in attempts:
        assert client.get(path, headers=headers).status_code == 401
        assert client.get(path + "/deploymentBase/1", headers=headers).status_code == 401
        assert client.get(path + "/cancelAction/1", headers=headers).status_code == 401
        for tail in ("/deploymentBase/1/feedback", "/cancelAction/1/feedback"):
            assert client.post(path + tail, content=b"{}", headers=headers).status_code == 401
        assert client.put(path + "/configData", content=b"{}", headers=headers).status_code == 401
    assert everything(database) == before


@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
def test_a_database_server_that_drops_its_connections_costs_one_answer(vehicle: Vehicle, postgres: Cluster) -> None:
    action = vehicle.action()
    postgres.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'nwmctl'")
    # "Come again": a vehicle must not take the failure of a server for a mistake of its own.
    assert vehicle.say(action, ddi.Execution.CLOSED, ddi.Finished.SUCCESS) == 503
    assert vehicle.say(action, ddi.Execution.CLOSED, ddi.Finished.SUCCESS) == 200


def test_an_action_belongs_to_one_vehicle(vehicle: Vehicle, client: TestClient, database: Database) -> None:
    action = vehicle.action()
    stranger = Vehicle(client, house.wave_vins(database, 1)[1])
    before = everything(database)
    assert stranger.say(action, ddi.Execution.CLOSED, ddi.Finished.SUCCESS) == 404
    assert client.get(f"{stranger.base}/deploymentBase/{action}", headers=stranger.headers).status_code == 404
    assert vehicle.say(10**17, ddi.Execution.CLOSED, ddi.Finished.SUCCESS) == 404
    huge = f"{vehicle.base}/deploymentBase/{10**30}"
    assert client.get(huge, headers=vehicle.headers).status_code == 404
    assert everything(database) == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b'{"status":{}}',
        b'{"status":{"execution":"dancing","result":{"finished":"none"}}}',
        b'{"id":"99","status":{"execution":"closed","result":{"finished":"success"}}}',
        b"x" * (MAX_BODY + 1),
    ],
)
def test_garbage_is_refused_and_leaves_nothing(vehicle: Vehicle, database: Database, body: bytes) -> None:
    action = vehicle.action()
    before = everything(database)
    assert vehicle.post(f"/deploymentBase/{action}/feedback", body) == 400
    assert vehicle.client.put(vehicle.base + "/configData", content=body, headers=vehicle.headers).status_code == 400
    assert vehicle.tell({ddi.SLOT_ACTIVE: "c"}) == 400
    assert vehicle.tell({ddi.SLOT_ACTIVE: "a", ddi.SLOT_A_SEQUENCE: "-4"}) == 400
    assert everything(database) == before


def test_attributes_are_stored_and_merged(vehicle: Vehicle, database: Database) -> None:
    facts = SlotFacts(SlotName.B, SlotFact(3, True), SlotFact(7, True))
    assert vehicle.tell({"client": "stock"}) == 200
    assert vehicle.tell(ddi.slot_attributes(facts)) == 200
    row = database.reader.one(
        "SELECT attributes, sequence, slot_active, slot_a_sequence, slot_b_sequence, seen_us FROM vehicle "
        "WHERE vin = :vin",
        vin=vehicle.vin,
    )
    assert row is not None
    assert '"client":"stock"' in row[0]
    assert row[1:] == (7, "b", 3, 7, house.T0)


def test_a_withdrawn_action_is_cancelled(vehicle: Vehicle, database: Database) -> None:
    action = vehicle.action()
    vehicle.say(action, ddi.Execution.PROCEEDING, ddi.Finished.NONE)
    path = f"{vehicle.base}/cancelAction/{action}"
    assert vehicle.client.get(path, headers=vehicle.headers).status_code == 404
    abort(database, NAME, "a person asked", house.T0)
    polling = vehicle.poll()
    assert (polling.deployment, polling.cancel) == ("", f"http://gateway{path}")
    assert ddi.decode_cancel(vehicle.get(polling.cancel)) == ddi.Cancel(action)
    body = ddi.encode_feedback(ddi.Feedback(action, ddi.Execution.CLOSED, ddi.Finished.SUCCESS))
    assert vehicle.post(f"/cancelAction/{action}/feedback", body) == 200
    assert vehicle.poll().cancel == ""
    assert house.state_of(database, vehicle.vin) is AssignmentState.CANCELLED


def test_the_way_back_by_slot_has_no_artifact(vehicle: Vehicle, database: Database) -> None:
    vehicle.say(vehicle.action(), ddi.Execution.CLOSED, ddi.Finished.SUCCESS)
    vehicle.tell(ddi.slot_attributes(SlotFacts(SlotName.B, SlotFact(1, True), SlotFact(10, True))))
    rollback(database, NAME, "reason", house.T0)
    chunk = ddi.decode_deployment(vehicle.get(vehicle.poll().deployment)).chunks[0]
    assert (chunk.part, chunk.artifacts, chunk.metadata[ddi.META_SEQUENCE]) == (ddi.PART_SLOT, (), "1")
    vehicle.say(vehicle.action(), ddi.Execution.CLOSED, ddi.Finished.FAILURE)
    chunk = ddi.decode_deployment(vehicle.get(vehicle.poll().deployment)).chunks[0]
    assert (chunk.part, len(chunk.artifacts), chunk.metadata[ddi.META_SEQUENCE]) == (ddi.PART_BUNDLE, 1, "11")


def test_a_vehicle_that_begins_anew_without_end_is_stopped(vehicle: Vehicle, database: Database) -> None:
    action = vehicle.action()
    path = f"{vehicle.base}/deploymentBase/{action}"
    states = []
    for _ in range(4):
        assert vehicle.client.get(path, headers=vehicle.headers).status_code == 200
        vehicle.say(action, ddi.Execution.PROCEEDING, ddi.Finished.NONE, "Installing Update Chunk Artifacts.")
        states.append(house.state_of(database, vehicle.vin))
    assert states == [AssignmentState.DOWNLOADING] * 3 + [AssignmentState.FAILED]
    polling = vehicle.poll()
    assert (polling.deployment, polling.cancel.endswith(f"/cancelAction/{action}")) == ("", True)
    assert vehicle.client.get(path, headers=vehicle.headers).status_code == 404
    body = ddi.encode_feedback(ddi.Feedback(action, ddi.Execution.CLOSED, ddi.Finished.SUCCESS))
    assert vehicle.post(f"/cancelAction/{action}/feedback", body) == 200
    polling = vehicle.poll()
    assert (polling.deployment, polling.cancel) == ("", "")
    assert house.state_of(database, vehicle.vin) is AssignmentState.FAILED


def test_asking_again_while_downloading_is_no_restart(vehicle: Vehicle, database: Database) -> None:
    """As Debian's swupdate was seen to speak: it asks for the action at every poll of a long download."""
    action = vehicle.action()
    path = f"{vehicle.base}/deploymentBase/{action}"
    vehicle.get(path)
    vehicle.get(path)
    said = [(0, 1, "Installing Update Chunk Artifacts."), *((number, 0, f"line {number}") for number in range(5))]
    for done, of, text in said:
        body = ddi.encode_feedback(
            ddi.Feedback(action, ddi.Execution.PROCEEDING, ddi.Finished.NONE, (text,), (done, of))
        )
        assert vehicle.post(f"/deploymentBase/{action}/feedback", body) == 200
        for _ in range(2):
            assert vehicle.action() == action
            vehicle.get(path)
    assert house.state_of(database, vehicle.vin) is AssignmentState.DOWNLOADING
    assert database.reader.one("SELECT restarts FROM action WHERE id = :id", id=action) == (0,)


def test_words_of_other_clients() -> None:
    def heard(execution: ddi.Execution, finished: ddi.Finished) -> Heard:
        return report_of(ddi.Feedback(1, execution, finished)).heard

    assert heard(ddi.Execution.CLOSED, ddi.Finished.NONE) is Heard.FAILURE
    assert heard(ddi.Execution.PROCEEDING, ddi.Finished.FAILURE) is Heard.PROGRESS
    assert heard(ddi.Execution.REJECTED, ddi.Finished.NONE) is Heard.FAILURE
    assert heard(ddi.Execution.CANCELED, ddi.Finished.NONE) is Heard.CANCELLED
    refused = ddi.Feedback(1, ddi.Execution.REJECTED, ddi.Finished.NONE)
    assert cancel_report_of(refused).heard is Heard.CANCEL_REFUSED
    assert cancel_report_of(ddi.Feedback(1, ddi.Execution.PROCEEDING, ddi.Finished.NONE)).heard is Heard.CANCEL_PROGRESS


def test_people_see_the_status(client: TestClient, vehicle: Vehicle) -> None:
    vehicle.action()
    assert client.get("/healthz").json() == {"ok": True}
    campaign = client.get("/api/status").json()["campaigns"][0]
    assert (campaign["name"], campaign["state"], campaign["states"]) == (NAME, "running", {"pending": 8, "offered": 1})
    assert client.get(f"/api/vehicles/{vehicle.vin}").json()["story"][0]["what"] == "offered"
    assert client.get("/api/vehicles/nobody").status_code == 404
