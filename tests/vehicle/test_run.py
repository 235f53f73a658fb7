"""Many vehicles in one process: configuration, delivery, a gateway that is away, a vehicle that is broken."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.errors import DeliveryError, NwmError, SchemaError
from nwmctl.formats.codec import to_plain
from nwmctl.trust.keys import KeyRing
from nwmctl.vehicle.machine import Senses
from nwmctl.vehicle.run import VehiclesConfig, deliver_all, load_config, run_vehicles
from tests.vehicle.bundles import RECORD
from tests.vehicle.conftest import TestClock

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def config(tmp_path: Path, keyring: KeyRing) -> VehiclesConfig:
    records = tuple(replace(RECORD, vin=f"VIN{number}") for number in range(3))
    return VehiclesConfig(NOWHERE, str(tmp_path / "vehicles"), "{}", keyring.ca_pem().decode(), records, poll_s=0.05)


def test_a_configuration_survives_its_file(tmp_path: Path, config: VehiclesConfig) -> None:
    path = tmp_path / "vehicles.json"
    path.write_text(json.dumps(to_plain(config)))
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "key 'gateway' is missing"),
        ('{"gateway": "g", "folder": "f", "root_metadata": "", "ca_pem": "", "poll_s": 0}', "poll_s is 0"),
        ('{"gateway": "g", "folder": "f", "root_metadata": "", "ca_pem": "", "concurrency": 0}', "concurrency is 0"),
        (
            '{"gateway": "g", "folder": "f", "root_metadata": "", "ca_pem": "",\n"faults": {"rules": [{"kind": "x"}]}}',
            r":2: faults\.rules\[0\]\.kind",
        ),
    ],
)
def test_a_configuration_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "vehicles.json"
    path.write_text(text)
    with pytest.raises(SchemaError, match=said):
        load_config(path)


def test_the_process_ends_with_a_sentence_and_a_documented_status(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    for name, status, said in (("bad.json", 3, "key 'gateway' is missing"), ("none.json", 9, "cannot read")):
        argv = [sys.executable, "-m", "nwmctl.app.vehicles", str(tmp_path / name)]
        found = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert (found.returncode, found.stdout) == (status, "")
        assert said in found.stderr
        assert "Traceback" not in found.stderr


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as found:
        yield found


def test_without_a_list_those_in_the_folder_live(config: VehiclesConfig, clock: TestClock, pool: Executor) -> None:
    assert deliver_all(config, clock, pool) == ("VIN0", "VIN1", "VIN2")
    (Path(config.folder) / "no-vehicle").mkdir()
    assert deliver_all(replace(config, vehicles=()), clock, pool) == ("VIN0", "VIN1", "VIN2")


def test_a_factory_bundle_that_does_not_exist(config: VehiclesConfig, clock: TestClock, pool: Executor) -> None:
    with pytest.raises(NwmError):
        deliver_all(replace(config, previous={"nt2.0": "missing.swu"}), clock, pool)
    assert issubclass(DeliveryError, NwmError)


def live(config: VehiclesConfig, clock: TestClock, seconds: float) -> list[tuple[str, str]]:
    heard: list[tuple[str, str]] = []

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        await run_vehicles(config, Senses(clock), observe=lambda vin, text: heard.append((vin, text)), stop=stop)

    asyncio.run(asyncio.wait_for(run(), 20))
    return heard


def test_a_gateway_that_is_away_is_not_stormed(config: VehiclesConfig, clock: TestClock) -> None:
    heard = live(config, clock, 1.5)
    assert {vin for vin, _ in heard} == {"VIN0", "VIN1", "VIN2"}
    for vin in ("VIN0", "VIN1", "VIN2"):
        assert 1 <= sum(name == vin for name, _ in heard) <= 4, "waits grow, so there are few tries"


def test_a_broken_vehicle_does_not_stop_the_others(config: VehiclesConfig, clock: TestClock, pool: Executor) -> None:
    deliver_all(config, clock, pool)
    (Path(config.folder) / "VIN1" / "boot.json").write_bytes(b"rotten")
    (Path(config.folder) / "VIN2" / "vehicle.json").write_bytes(b"rotten")
    heard = live(replace(config, vehicles=()), clock, 1.0)
    told = {vin: text for vin, text in heard if "out of order" in text}
    assert set(told) == {"VIN1", "VIN2"}
    assert any(vin == "VIN0" and "cannot be reached" in text for vin, text in heard)
