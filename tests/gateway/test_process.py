"""The gateway as a process: ready file, shutdown, kill, two at once, and the controller in it."""

from __future__ import annotations

import signal
import socket
import sqlite3
import threading
import time
from pathlib import Path

import httpx
import pytest

from nwmctl.errors import DatabaseTooNewError, GatewayConfigError
from nwmctl.fleet.campaigns import create_campaign, start
from nwmctl.fleet.events import verify_chain
from nwmctl.fleet.tally import actual, counted
from nwmctl.formats import ddi
from nwmctl.gateway.server import GatewayConfig, serve
from nwmctl.storage.sqlite import open_sqlite
from tests.fakes import FakeClock
from tests.fleet import house
from tests.gateway.process import gateway


def prepare(folder: Path, per_model: int) -> Path:
    made = house.release(waves=(house.WAVES[1],))
    with house.fleet_database(folder, per_model, made) as database:
        create_campaign(database, made, house.T0)
        start(database, "test-10", house.T0)
    return folder / "fleet.db"


def drive(url: str, vin: str, acknowledged: list[tuple[int, str]]) -> None:
    """One vehicle that reports as fast as it can; keeps what was acknowledged."""
    base = f"{url}/default/controller/v1/{vin}"
    headers = {"Authorization": f"TargetToken {house.token(vin)}"}
    with httpx.Client(headers=headers, timeout=10) as http:
        try:
            action = int(ddi.decode_polling(http.get(base).content).deployment.rpartition("/")[2])
            for number in range(10_000):
                text = f"{vin} {number}"
                said = ddi.Feedback(action, ddi.Execution.PROCEEDING, ddi.Finished.NONE, (text,))
                answer = http.post(f"{base}/deploymentBase/{action}/feedback", content=ddi.encode_feedback(said))
                if answer.status_code == 200:
                    acknowledged.append((action, text))
        except httpx.HTTPError:
            return


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = prepare(tmp_path, per_model=4)
    acknowledged: list[tuple[int, str]] = []
    with gateway(tmp_path, path) as process:
        threads = [
            threading.Thread(target=drive, args=(process.url, vin, acknowledged)) for vin, _, _ in house.vins(4)[:8]
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(acknowledged) < 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.popen.kill()
        process.popen.wait()
        for thread in threads:
            thread.join()
    assert len(acknowledged) >= 200
    with gateway(tmp_path, path) as process:
        assert httpx.get(f"{process.url}/healthz").status_code == 200
        with open_sqlite(path) as database:
            stored = {
                (action, details) for action, details in database.reader.all("SELECT action_id, details FROM feedback")
            }
            assert {(action, f'["{text}"]') for action, text in acknowledged} <= stored
            assert counted(database.reader, 1, 1) == actual(database.reader, 1, 1)
            verify_chain(database.reader)


def test_it_stops_cleanly_and_says_where_it_is(tmp_path: Path) -> None:
    path = prepare(tmp_path, per_model=1)
    with gateway(tmp_path, path) as process:
        with httpx.Client() as http:
            assert http.get(f"{process.url}/healthz").status_code == 200
            assert process.stop(signal.SIGTERM) == 0
        assert not process.ready.exists()
    assert (tmp_path / "gateway.log").read_text() == ""
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM lease WHERE holder <> ''").fetchone() == (0,)
    connection.close()


def test_the_controller_in_it_advances_the_campaign(tmp_path: Path) -> None:
    path = prepare(tmp_path, per_model=1)
    with gateway(tmp_path, path) as process, httpx.Client() as http:
        for vin, _, _ in house.vins(1):
            base = f"{process.url}/default/controller/v1/{vin}"
            headers = {"Authorization": f"TargetToken {house.token(vin)}"}
            link = ddi.decode_polling(http.get(base, headers=headers).content).deployment
            if not link:  # the campaign may be completed before the last one asks; it is served all the same
                continue
            action = int(link.rpartition("/")[2])
            said = ddi.Feedback(action, ddi.Execution.CLOSED, ddi.Finished.SUCCESS)
            http.post(f"{link}/feedback", content=ddi.encode_feedback(said), headers=headers)
        deadline = time.monotonic() + 10
        while (state := http.get(f"{process.url}/api/status").json()["campaigns"][0]["state"]) == "running":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert state == "completed"
        process.stop()
    with open_sqlite(path) as database:
        assert database.reader.one("SELECT count(*) FROM vehicle WHERE seen_us > 0") == (3,)


def test_two_gateways_share_one_database(tmp_path: Path) -> None:
    path = prepare(tmp_path, per_model=1)
    (tmp_path / "second").mkdir()
    with gateway(tmp_path, path) as one, gateway(tmp_path / "second", path) as two:
        vin = house.vins(1)[0][0]
        headers = {"Authorization": f"TargetToken {house.token(vin)}"}
        links = {
            ddi.decode_polling(
                httpx.get(f"{process.url}/default/controller/v1/{vin}", headers=headers).content
            ).deployment.rpartition("/")[2]
            for process in (one, two, one)
        }
        assert len(links) == 1
        time.sleep(0.3)
        with open_sqlite(path) as database:
            holders = database.reader.all("SELECT holder FROM lease")
            assert len(holders) == 1
            before = holders[0][0]
        first, second = (one, two) if f"-{one.popen.pid}-" in before else (two, one)
        first.stop()
        deadline = time.monotonic() + 10
        with open_sqlite(path) as database:
            while not any(f"-{second.popen.pid}-" in row[0] for row in database.reader.all("SELECT holder FROM lease")):
                assert time.monotonic() < deadline
                time.sleep(0.02)


def test_it_refuses_to_start_as_configured(tmp_path: Path) -> None:
    clock = FakeClock()
    with pytest.raises(GatewayConfigError, match="not a folder"):
        serve(GatewayConfig(tmp_path / "fleet.db", tmp_path / "none"), clock)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GatewayConfigError, match=f"127.0.0.1:{port}"):
            serve(GatewayConfig(tmp_path / "fleet.db", port=port), clock)
    with pytest.raises(GatewayConfigError):
        serve(GatewayConfig(tmp_path / "fleet.db", host="no such host"), clock)
    with open_sqlite(tmp_path / "fleet.db") as database, database.transaction() as tx:
        tx.execute("UPDATE schema_version SET number = 99")
    with pytest.raises(DatabaseTooNewError):
        serve(GatewayConfig(tmp_path / "fleet.db"), clock)
