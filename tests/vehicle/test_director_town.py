"""A fleet with a director: vehicles that pinned its root register, report, and install what both repositories say."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.domain.campaign import CampaignState
from nwmctl.domain.fleet import AssignmentState
from nwmctl.fleet import director, manifests
from nwmctl.formats.codec import to_plain
from nwmctl.formats.uptane import DirectorRoot
from nwmctl.formats.uptane_reports import decode_report
from nwmctl.trust.director_root import next_root
from nwmctl.trust.keys import KeyRing
from nwmctl.vehicle.run import VehiclesConfig
from nwmctl.vehicle.slots import LISTING_NAME
from nwmctl.vehicle.uptane import serial_of
from tests.vehicle.town import RELEASE_SEQUENCE, Town, process, wait_for

_GATEWAY = """
import sys
from pathlib import Path
from nwmctl.app.clock import SystemClock
from nwmctl.gateway.server import GatewayConfig, serve
from nwmctl.trust.director import DirectorKeys
root, keys = Path(sys.argv[1]), Path(sys.argv[2])
serve(GatewayConfig(root / "fleet.db", root / "mirror", ready_file=root / "ready.json", tick_s=0.05,
                    director=DirectorKeys(keys)), SystemClock())
"""


@dataclass
class DirectedTown(Town):
    """The town, with a director in its gateway and its root in the vehicles."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.director_root = next_root(self.keyring, None, self.clock.now_us())
        with self.database() as database, database.transaction() as tx:
            director.keep_root(tx, self.director_root)

    @contextlib.contextmanager
    def gateway(self, port: int = 0) -> Iterator[None]:
        ready = self.root / "ready.json"
        with process([sys.executable, "-c", _GATEWAY, str(self.root), str(self.keyring.folder)]) as running:
            wait_for(lambda: ready.exists() or running.poll() is not None, 20)
            assert running.poll() is None, "the gateway did not start"
            self.url = json.loads(ready.read_bytes())["url"]
            yield

    def start_vehicles(self, faults: str = "", *, ca_pem: bytes = b"", seed: int = 0) -> subprocess.Popen[bytes]:
        config = VehiclesConfig(
            self.url,
            str(self.root / "vehicles"),
            self.first.state.roots[0].decode(),
            self.keyring.ca_pem().decode(),
            self.records,
            {"nt2.0": str(self.factory)},
            poll_s=0.1,
            director_root=self.pinned().tuf.decode(),
        )
        path = self.root / "vehicles.json"
        path.write_text(json.dumps(to_plain(config)))
        return subprocess.Popen([sys.executable, "-m", "nwmctl.app.vehicles", str(path)])

    def pinned(self) -> DirectorRoot:
        return self.director_root


class StrangersTown(DirectedTown):
    """The vehicles have pinned another director."""

    def pinned(self) -> DirectorRoot:
        own = json.loads(self.director_root.tuf)
        spoiled = {**own, "signatures": [{**row, "sig": "00" * 64} for row in own["signatures"]]}
        return replace(self.director_root, tuf=json.dumps(spoiled).encode())


def test_a_campaign_with_a_director_commits_and_every_computer_reports(tmp_path: Path, keyring: KeyRing) -> None:
    town = DirectedTown(tmp_path, keyring, vehicles=1)
    with town.gateway(), town.driving():
        town.settled(CampaignState.COMPLETED)
        wait_for(lambda: all(_runs(town, number) for number in range(len(town.records))), 20)
    for record in town.records:
        folder = tmp_path / "vehicles" / record.vin
        assert (folder / "computer-keys.json").stat().st_mode & 0o077 == 0
        with town.database() as database:
            assert director.kept_body(database.reader, record.vin)
            assert set(manifests.registered(database.reader, record.vin).counters) == {
                serial_of(record, each.name) for each in record.computers
            }
            seen = manifests.highest_reported(database.reader)
        assert seen["timestamp"] >= 1


def test_vehicles_refuse_a_director_whose_root_they_cannot_verify(tmp_path: Path, keyring: KeyRing) -> None:
    town = StrangersTown(tmp_path, keyring, vehicles=1)
    with town.gateway(), town.driving():
        wait_for(lambda: AssignmentState.REFUSED in town.states(), 40)
    assert AssignmentState.COMMITTED not in town.states()
    assert "MetadataSignatureError" in "".join(town.told(record.vin) for record in town.records)
    with town.database() as database:
        # They have a voice all the same: the fleet's owner sees what they run.
        assert all(manifests.last_report(database.reader, record.vin) for record in town.records)


def _runs(town: Town, number: int) -> bool:
    """Whether the last verified report names the slot that runs now."""
    record, slots = town.records[number], town.slots(number)
    with town.database() as database:
        body = manifests.last_report(database.reader, record.vin)
    state = slots.state()
    if body is None or state.record(state.active).sequence != RELEASE_SEQUENCE:
        return False
    listing = (slots.folder_of(state.active) / LISTING_NAME).read_bytes()
    report = decode_report(body)
    return report.ecus[0].installed.length == len(listing) and report.director["targets"] > 0
