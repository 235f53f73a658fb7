"""Links point at what was read back: another web server gets vehicles once it gave the published bytes, not before."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nwmctl.domain.bundle import BundleKind
from nwmctl.errors import GatewayConfigError
from nwmctl.fleet.campaigns import create_campaign, start
from nwmctl.fleet.releases import EnabledBundle
from nwmctl.formats import ddi
from nwmctl.gateway.app import build_app
from nwmctl.gateway.edge import Edge
from nwmctl.gateway.elsewhere import Elsewhere
from nwmctl.gateway.server import GatewayConfig, serve
from nwmctl.storage.group_commit import GroupWriter
from tests.fleet import house
from tests.postgres import Stores

BYTES = b"the bundle" * 1000
BUNDLE = EnabledBundle(
    BundleKind.RELEASE, "nt2.0", 10, "1", "b.swu", "targets/x y.b.swu", "b.swu", "", hashlib.sha256(BYTES).hexdigest(),
    len(BYTES), True,
)  # fmt: skip


@dataclass
class Hand:
    """A clock that is set."""

    at: float = 0.0

    def now_us(self) -> int:
        return house.T0

    def monotonic(self) -> float:
        return self.at


@dataclass
class Place:
    folder: Path
    url: str
    asked: list[str] = field(default_factory=list)

    def put(self, data: bytes) -> None:
        place = self.folder / BUNDLE.path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, "")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            made.asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()


async def settled(elsewhere: Elsewhere) -> None:
    while elsewhere._tasks:
        await asyncio.gather(*elsewhere._tasks)


def test_it_counts_after_it_was_read_and_is_read_once(place: Place) -> None:
    async def run() -> None:
        place.put(BYTES)
        elsewhere = Elsewhere(place.url, Hand())
        assert [elsewhere.holds(BUNDLE) for _ in range(3)] == [False] * 3
        await settled(elsewhere)
        assert [elsewhere.holds(BUNDLE) for _ in range(3)] == [True] * 3
        assert len(place.asked) == 1
        assert not elsewhere.holds(replace(BUNDLE, sha256="0" * 64)), "the path alone proves nothing"
        await elsewhere.close()

    asyncio.run(run())


@pytest.mark.parametrize("wrong", [None, BYTES[:-1], BYTES + b"x", b"X" + BYTES[1:], b""])
def test_other_bytes_get_nobody_until_they_are_right(place: Place, wrong: bytes | None) -> None:
    async def run() -> None:
        if wrong is not None:
            place.put(wrong)
        clock = Hand()
        elsewhere = Elsewhere(place.url, clock)
        elsewhere.holds(BUNDLE)
        await settled(elsewhere)
        assert not elsewhere.holds(BUNDLE)
        place.put(BYTES)
        clock.at += 59
        assert not elsewhere.holds(BUNDLE)
        assert not elsewhere._tasks, "not at every poll"
        clock.at += 2
        elsewhere.holds(BUNDLE)
        await settled(elsewhere)
        assert elsewhere.holds(BUNDLE)
        # An hour later it has lost the file again: who polls meanwhile is still sent there, afterwards nobody.
        place.put(b"gone")
        clock.at += 3601
        assert elsewhere.holds(BUNDLE)
        await settled(elsewhere)
        assert not elsewhere.holds(BUNDLE)

    asyncio.run(run())


def test_a_server_that_is_not_there(place: Place) -> None:
    async def run() -> None:
        elsewhere = Elsewhere("http://127.0.0.1:9", Hand())
        elsewhere.holds(BUNDLE)
        await settled(elsewhere)
        assert not elsewhere.holds(BUNDLE)

    asyncio.run(run())


class Known(Elsewhere):
    """One whose answer the test chooses."""

    answer = False

    def holds(self, bundle: EnabledBundle) -> bool:
        return self.answer


def test_what_a_vehicle_is_told(tmp_path: Path, stores: Stores) -> None:
    database = house.fleet_database(tmp_path, database=stores.open())
    create_campaign(database, house.release(), house.T0)
    start(database, "test-10", house.T0)
    vin = house.wave_vins(database, 1)[0]
    writer, known = GroupWriter(database), Known("https://cdn.example/files", Hand())
    edge = Edge(database, writer, Hand(), "default", known)
    client = TestClient(build_app(edge, None), base_url="http://gateway:80")
    base, headers = f"/default/controller/v1/{vin}", {"Authorization": f"TargetToken {house.token(vin)}"}
    polling = ddi.decode_polling(client.get(base, headers=headers).content)

    def href() -> str:
        found = ddi.decode_deployment(client.get(polling.deployment, headers=headers).content)
        return found.chunks[0].artifacts[0].href

    assert href().startswith("http://gateway/mirror/")
    known.answer = True
    assert href().startswith("https://cdn.example/files/targets/")
    known.answer, edge.serves_files = False, False
    refused = client.get(polling.deployment, headers=headers)
    assert refused.status_code == 503
    assert "no server is known" in refused.json()["error"]
    writer.close()


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(GatewayConfigError, match="no address"):
        serve(GatewayConfig(tmp_path / "x.db", mirror_url="ftp://host"), Hand())
