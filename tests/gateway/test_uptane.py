"""The Uptane endpoints, in process: both dialects from registration to install, and who may say what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nwmctl.domain.bundle import BundleKind, BundleTarget
from nwmctl.domain.digest import Digest
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import GatewayConfigError, KeyRingError
from nwmctl.fleet import director, manifests
from nwmctl.fleet.campaigns import create_campaign, start
from nwmctl.formats.untrusted import MAX_BODY
from nwmctl.formats.uptane import Dialect
from nwmctl.formats.uptane_reports import encode_registration
from nwmctl.gateway.app import build_app
from nwmctl.gateway.edge import Edge
from nwmctl.gateway.server import GatewayConfig, serve
from nwmctl.storage.database import Database
from nwmctl.storage.group_commit import GroupWriter
from nwmctl.storage.sqlite import open_sqlite
from nwmctl.trust.director import DirectorKeys, DirectorSigner
from nwmctl.trust.director_root import next_root
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.metadata import ListedBundle
from nwmctl.trust.repository import Publication, add_targets, create_repository
from nwmctl.trust.uptane_client import DirectorState, agree, refresh_director
from nwmctl.trust.uptane_image import reference_image
from nwmctl.trust.vehicle_report import sign_report
from tests.fakes import FakeClock
from tests.fleet import house
from tests.fleet.test_director import RUNS, key, registration
from tests.formats.reference_client import Refused, follow

NOW = datetime.fromtimestamp(house.T0 / 1e6, UTC)
IMAGE_ROLES = [KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP]
ROLES = [*IMAGE_ROLES, KeyRole.DIRECTOR_ROOT, KeyRole.DIRECTOR]
PLATFORMS = ("nt2.0",)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    folder = tmp_path_factory.mktemp("keys") / "ring"
    return init_keys(folder, FakeClock(house.T0), ROLES, development=True, platforms=PLATFORMS)


def image(ring: KeyRing) -> Publication:
    """A repository that lists the test release: one platform in a list of its own, one in the top list."""
    clock = FakeClock(house.T0)
    listed = [
        ListedBundle(one.tuf_name, one.size, Digest(one.sha256), about(one.platform, one.kind, one.sequence))
        for one in house.bundles(house.release())
    ]
    return add_targets(create_repository(ring, clock).state, listed, ring, clock)


def about(platform: str, kind: BundleKind, sequence: int) -> BundleTarget:
    return BundleTarget("test-10", kind, sequence, platform, "board", ("A", "B"), True)


def publish(mirror: Path, made: Publication, ring: KeyRing) -> None:
    files = {**reference_image(made.state, ring, lambda _: None).files, **made.files}
    for path, data in {**files, made.timestamp_path: made.timestamp}.items():
        place = mirror / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


@dataclass
class Car:
    """A vehicle's end of the wire."""

    client: TestClient
    vin: str

    @property
    def base(self) -> str:
        return f"/default/uptane/v1/{self.vin}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"TargetToken {house.token(self.vin)}"}

    def get(self, path: str) -> bytes | None:
        answer = self.client.get(f"{self.base}/{path}", headers=self.headers)
        assert answer.status_code in (200, 404), answer.text
        return answer.content if answer.status_code == 200 else None

    def send(self, method: str, path: str, body: bytes) -> int:
        answer = self.client.request(method, f"{self.base}/{path}", content=body, headers=self.headers)
        return int(answer.status_code)

    def register(self, dialect: Dialect) -> int:
        return self.send("POST", "director/ecus", encode_registration(registration(self.vin, "board:A", dialect)))

    def report(self, counter: int, dialect: Dialect = Dialect.TUF) -> int:
        body = sign_report(key(self.vin), f"{self.vin}/main-1", counter, RUNS, dialect=dialect)
        return self.send("PUT", "director/manifest", body)

    def hardware(self) -> dict[str, str]:
        return {f"{self.vin}/main-1": "board:A", f"{self.vin}/backup-1": "board:A"}


@pytest.fixture
def database(tmp_path: Path, ring: KeyRing) -> Database:
    database = house.fleet_database(tmp_path, database=open_sqlite(tmp_path / "fleet.db"))
    create_campaign(database, house.release(), house.T0)
    start(database, "test-10", house.T0)
    with database.transaction() as tx:
        director.keep_root(tx, next_root(ring, None, house.T0))
    return database


def serving(database: Database, mirror: Path, signer: DirectorSigner | None) -> Iterator[TestClient]:
    writer = GroupWriter(database)
    edge = Edge(database, writer, FakeClock(house.T0), "default", director=signer)
    yield TestClient(build_app(edge, mirror), base_url="http://gateway:80")
    writer.close()


@pytest.fixture
def client(database: Database, tmp_path: Path, ring: KeyRing) -> Iterator[TestClient]:
    publish(tmp_path / "mirror", image(ring), ring)
    yield from serving(database, tmp_path / "mirror", DirectorKeys(ring.folder).open())


def cars(client: TestClient, database: Database) -> list[Car]:
    return [Car(client, vin) for vin in house.wave_vins(database, 1)]


def test_the_reference_client_gets_from_registration_to_a_file(
    client: TestClient, database: Database, tmp_path: Path
) -> None:
    for car in cars(client, database):
        assert car.register(Dialect.REFERENCE) == 201
        assert car.register(Dialect.REFERENCE) == 200
        found = follow(car.get, NOW, car.hardware())
        assert set(found) == set(car.hardware())
        with pytest.raises(Refused):
            follow(car.get, NOW, dict.fromkeys(found, "board:C"))
        targets = json.loads(car.get("director/targets.json") or b"")["signed"]["targets"]
        (name,) = targets
        content = tmp_path / "mirror" / "targets" / f"{found[f'{car.vin}/main-1']}.{name}"
        content.parent.mkdir(exist_ok=True)
        content.write_bytes(b"bundle")
        body = car.get(f"repo/targets/{name}")
        assert hashlib.sha256(body or b"").hexdigest() == found[f"{car.vin}/main-1"]
        assert car.report(1, Dialect.REFERENCE) == 200


def test_our_client_gets_from_registration_to_agreement(client: TestClient, database: Database, ring: KeyRing) -> None:
    for car in cars(client, database):
        assert car.register(Dialect.TUF) == 201
        root = car.get("director/1.root.json")
        assert root is not None

        def fetch(path: str, car: Car = car) -> bytes | None:
            return car.get(f"director/{path}")

        found = refresh_director(DirectorState(root), fetch, house.T0)
        ((name, directed),) = found.files.items()
        bundle = next(one for one in house.bundles(house.release()) if one.tuf_name == name)
        what = about(bundle.platform, bundle.kind, bundle.sequence)
        agree(directed, ListedBundle(name, bundle.size, Digest(bundle.sha256), what), car.hardware())
        assert car.report(1) == 200
        assert refresh_director(found.state, fetch, house.T0).version == found.version


def test_one_timestamp_makes_a_release_exist_in_both_dialects(
    client: TestClient, database: Database, ring: KeyRing, tmp_path: Path
) -> None:
    car = cars(client, database)[0]
    before = car.get("repo/timestamp.json"), car.get("repo/snapshot.json"), car.get("repo/targets.json")
    again = add_targets(image(ring).state, [], ring, FakeClock(house.T0))
    mirror = tmp_path / "mirror"
    for path, data in {**reference_image(again.state, ring, lambda _: None).files, **again.files}.items():
        (mirror / path).write_bytes(data)
    # A crash here, before the timestamp, leaves what was there.
    assert (car.get("repo/timestamp.json"), car.get("repo/snapshot.json"), car.get("repo/targets.json")) == before
    (mirror / again.timestamp_path).write_bytes(again.timestamp)
    after = car.get("repo/timestamp.json")
    assert after != before[0]
    assert json.loads(after or b"")["signed"]["version"] == json.loads(again.timestamp)["signed"]["version"]


def test_who_may_say_what(client: TestClient, database: Database) -> None:
    car, other = cars(client, database)[:2]
    assert car.get("director/targets.json") is None
    assert car.report(1) == 404
    assert car.register(Dialect.TUF) == 201
    assert other.register(Dialect.TUF) == 201
    again = encode_registration(registration(car.vin, "board:B"))
    assert car.send("POST", "director/ecus", again) == 409
    assert car.report(3) == 200
    assert car.report(3) == 409
    forged = sign_report(key(other.vin), f"{car.vin}/main-1", 4, RUNS)
    assert car.send("PUT", "director/manifest", forged) == 403
    assert car.send("PUT", "director/manifest", b"{}") == 400
    assert car.send("PUT", "director/manifest", b" " * (MAX_BODY + 1)) == 400
    for path in ("director/targets.json", "director/1.root.json"):
        assert client.get(f"{car.base}/{path}", headers=other.headers).status_code == 401
    for method, path in (
        ("POST", "director/ecus"),
        ("PUT", "director/manifest"),
        ("POST", "events"),
        ("PUT", "core/installed"),
        ("POST", "system_info/config"),
    ):
        answer = client.request(method, f"{car.base}/{path}", content=b"{}", headers=other.headers)
        assert answer.status_code == 401, path
    assert manifests.last_report(database.reader, other.vin) is None


def test_notes_and_events_are_kept(client: TestClient, database: Database) -> None:
    car = cars(client, database)[0]
    events = json.dumps([{"id": "1", "eventType": {"id": "EcuDownloadStarted", "version": 0}, "event": {}}]).encode()
    assert car.send("POST", "events", events) == 200
    assert car.send("POST", "events", events) == 200
    assert car.send("POST", "events", b'[{"id": 1}]') == 400
    assert car.send("PUT", "core/installed", b'[{"name":"a","version":"1"}]') == 200
    assert car.send("PUT", "system_info/config", b"[tls]\nserver = 1\n") == 200
    assert car.send("POST", "system_info/config", b"\xff") == 400
    assert len(database.reader.all("SELECT * FROM vehicle_event")) == 1
    topics = [row[0] for row in database.reader.all("SELECT topic FROM vehicle_note ORDER BY topic")]
    assert topics == ["config", "installed"]


def test_without_keys_a_gateway_serves_what_was_signed_before(
    database: Database, tmp_path: Path, ring: KeyRing
) -> None:
    (tmp_path / "mirror").mkdir()
    for client in serving(database, tmp_path / "mirror", None):
        car = cars(client, database)[0]
        car.register(Dialect.TUF)
        assert car.get("director/targets.json") is None
        assert car.get("repo/timestamp.json") is None
        with database.transaction() as tx:
            body = director.sign_one(tx, car.vin, DirectorKeys(ring.folder).open(), house.T0)
        assert car.get("director/targets.json") == body.encode()


@pytest.mark.parametrize("path", ["repo/..%2f..%2ffleet.db", "repo/targets/x", "repo/9.root.json", "repo/x.json"])
def test_nothing_but_the_repository_is_served(client: TestClient, database: Database, path: str) -> None:
    assert cars(client, database)[0].get(path) is None


def test_a_gateway_with_wrong_director_keys_does_not_start(tmp_path: Path, database: Database) -> None:
    config = GatewayConfig(tmp_path / "fleet.db", director=DirectorKeys(tmp_path / "nowhere"))
    with pytest.raises((GatewayConfigError, KeyRingError)):
        serve(config, FakeClock())
