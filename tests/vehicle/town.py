"""A whole small town: keys, a published release, the real gateway and the vehicles' process, each on its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from nwmctl.domain.bundle import BundleKind, BundleTarget
from nwmctl.domain.campaign import CampaignState
from nwmctl.domain.chassis import ChassisAdaptation
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.figure import Confidence
from nwmctl.domain.fleet import FINAL, AssignmentState
from nwmctl.domain.model import ModelReference
from nwmctl.domain.platform import Catalogue, VehicleModel
from nwmctl.domain.release import FleetReference, Gate, Mirror, Release, Trust, WaveSpec
from nwmctl.fleet import campaigns
from nwmctl.fleet.inventory import import_inventory
from nwmctl.fleet.releases import EnabledBundle, enable_release
from nwmctl.fleet.schema import MIGRATIONS
from nwmctl.fleet.status import StoryLine, status, story
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.storage.database import Database
from nwmctl.storage.sqlite import open_sqlite
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import TIMESTAMP_PATH, ListedBundle
from nwmctl.trust.repository import Publication, add_targets, create_repository
from nwmctl.vehicle.faults import plan_from_text
from nwmctl.vehicle.record import VehicleRecord
from nwmctl.vehicle.run import VehiclesConfig
from nwmctl.vehicle.slots import Slots
from tests.vehicle.bundles import RECORD, chassis_file, contents, write_swu
from tests.vehicle.conftest import TestClock
from tests.vehicle.world import signed

RELEASE_SEQUENCE = 4
STRICT = Gate(min_committed=1.0, max_failed=0.0)
LENIENT = Gate(min_committed=0.0, max_failed=1.0)
"""A gate that opens every wave, whatever happens."""
_GATEWAY = """
import sys
from pathlib import Path
from nwmctl.app.clock import SystemClock
from nwmctl.gateway.server import GatewayConfig, serve
root = Path(sys.argv[1])
serve(GatewayConfig(root / "fleet.db", root / "mirror", port=int(sys.argv[2]), ready_file=root / "ready.json",
                    tick_s=0.05), SystemClock())
"""


@dataclass
class Town:
    """``vehicles`` per vehicle model (et5 with variant quad, es8 with variant solo); everything under ``root``."""

    root: Path
    keyring: KeyRing
    vehicles: int = 2
    size: int = 5000
    clock: TestClock = field(default_factory=TestClock)
    gate: Gate = STRICT

    def __post_init__(self) -> None:
        self.swus = {
            kind: write_swu(self.root / f"{kind}.swu", replace(manifest, kind=kind), files, sign=self._sign)
            for kind, (manifest, files) in {
                BundleKind.RELEASE: contents(RELEASE_SEQUENCE, size=self.size),
                BundleKind.RETURN: contents(RELEASE_SEQUENCE + 1, size=self.size),
            }.items()
        }
        self.factory = write_swu(self.root / "factory.swu", *contents(3, size=self.size), sign=self._sign)
        self.first = create_repository(self.keyring, self.clock)
        listed = [self._listed(kind) for kind in BundleKind]
        self.publish(add_targets(self.first.state, listed, self.keyring, self.clock))
        for one, kind in zip(listed, BundleKind, strict=True):
            (self.root / "mirror" / one.path).parent.mkdir(exist_ok=True)
            (self.root / "mirror" / one.path).write_bytes(self.swus[kind].read_bytes())
        self.records = tuple(self._records())
        self._open_campaign(listed)
        self.url = ""

    def publish(self, publication: Publication) -> None:
        for name, data in {**publication.files, TIMESTAMP_PATH: publication.timestamp}.items():
            (self.root / "mirror" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / "mirror" / name).write_bytes(data)

    @contextlib.contextmanager
    def gateway(self, port: int = 0) -> Iterator[None]:
        ready = self.root / "ready.json"
        ready.unlink(missing_ok=True)  # a gateway that was killed leaves it behind
        with process([sys.executable, "-c", _GATEWAY, str(self.root), str(port)]) as running:
            wait_for(lambda: ready.exists() or running.poll() is not None, 20)
            assert running.poll() is None, "the gateway did not start"
            self.url = json.loads(ready.read_bytes())["url"]
            yield

    def start_vehicles(self, faults: str = "", *, ca_pem: bytes = b"", seed: int = 0) -> subprocess.Popen[bytes]:
        config = VehiclesConfig(
            self.url,
            str(self.root / "vehicles"),
            self.first.state.roots[0].decode(),
            (ca_pem or self.keyring.ca_pem()).decode(),
            self.records,
            {"nt2.0": str(self.factory)} if not ca_pem else {},
            poll_s=0.1,
            faults=plan_from_text(faults, seed),
        )
        path = self.root / "vehicles.json"
        path.write_text(json.dumps(to_plain(config)))
        return subprocess.Popen([sys.executable, "-m", "nwmctl.app.vehicles", str(path)])

    @contextlib.contextmanager
    def driving(self, faults: str = "", *, ca_pem: bytes = b"") -> Iterator[None]:
        running = self.start_vehicles(faults, ca_pem=ca_pem)
        with ended(running):
            yield
            assert running.poll() is None, "the vehicles' process ended by itself"
            running.terminate()
            assert running.wait(20) == 0

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        found = open_sqlite(self.root / "fleet.db")
        try:
            yield found
        finally:
            found.close()

    def states(self) -> dict[AssignmentState, int]:
        with self.database() as database:
            return dict(status(database, "town-4", self.clock.now_us()).states)

    def campaign(self) -> CampaignState:
        with self.database() as database:
            return status(database, "town-4", self.clock.now_us()).state

    def settled(self, state: CampaignState, timeout_s: float = 40) -> None:
        wait_for(lambda: self.campaign() is state, timeout_s)

    def answered(self, timeout_s: float = 40) -> None:
        """Wait until every vehicle's assignment has ended."""
        wait_for(lambda: set(self.states()) <= FINAL, timeout_s)

    def story(self, vin: str) -> tuple[StoryLine, ...]:
        with self.database() as database:
            return tuple(story(database, vin))

    def told(self, vin: str) -> str:
        return "\n".join(str(line) for line in self.story(vin))

    def slots(self, number: int) -> Slots:
        return Slots(self.root / "vehicles" / self.records[number].vin)

    def _sign(self, data: bytes) -> bytes:
        return signed(data, self.keyring)

    def _listed(self, kind: BundleKind) -> ListedBundle:
        manifest = replace(contents(RELEASE_SEQUENCE + (kind is BundleKind.RETURN), size=self.size)[0], kind=kind)
        data = self.swus[kind].read_bytes()
        return ListedBundle(manifest.filename, len(data), digest_bytes(data), BundleTarget.of(manifest))

    def _records(self) -> Iterator[VehicleRecord]:
        for number in range(self.vehicles):
            for model, variant in (("et5", "quad"), ("es8", "solo")):
                vin = f"VIN{model}{number:03}"
                yield replace(RECORD, vin=vin, vehicle_model=model, variant=variant, token=f"token-of-{vin}")

    def _open_campaign(self, listed: list[ListedBundle]) -> None:
        lines = [f"{who.vin},{who.vehicle_model},Banyan,{who.sequence}" for who in self.records]
        inventory = self.root / "fleet.csv"
        inventory.write_text("\n".join(["vin,vehicle_model,baseline,sequence", *lines]) + "\n")
        release = town_release(self.gate)
        with self.database() as database:
            database.migrate(MIGRATIONS)
            now_us = self.clock.now_us()
            import_inventory(
                database, inventory, catalogue(), fleet="town", virtual=True, now_us=now_us,
                token_for=lambda vin: f"token-of-{vin}",
            )  # fmt: skip
            enable_release(database, release, digest_bytes(b"content"), [enabled(one) for one in listed], now_us)
            campaigns.create_campaign(database, release, now_us)
            campaigns.start(database, "town-4", now_us)


def enabled(one: ListedBundle) -> EnabledBundle:
    about = one.about
    return EnabledBundle(
        about.kind, about.platform, about.sequence, "2.5", one.name, one.path, one.name, "0" * 40, one.digest.hex,
        one.length, about.virtual_only,
    )  # fmt: skip


def town_release(gate: Gate) -> Release:
    reference = ModelReference("model", digest_bytes(b"model"))
    return Release(
        name="nwm-2.5",
        sequence=RELEASE_SEQUENCE,
        model=reference,
        previous=reference,
        platforms=("nt2.0",),
        policy="policy.yaml",
        trust=Trust((), ()),
        fleet=FleetReference("town", "fleet.csv", virtual=True),
        waves=(WaveSpec("canary", gate, per_model=1), WaveSpec("rest", gate, share=1.0)),
        mirrors=(Mirror("local", "file:mirror"),),
        max_attempts=3,
        poll_s=0.1,
    )


def catalogue() -> Catalogue:
    found = []
    for code, variant in (("et5", "quad"), ("es8", "solo")):
        chassis = documents.decode(ChassisAdaptation, chassis_file(code), code).chassis
        found.append(VehicleModel(code, code, "test", "nt2.0", variant, "Banyan", chassis, "test", Confidence.ASSUMED))
    return Catalogue(tuple(found))


def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@contextlib.contextmanager
def process(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(argv)
    with ended(running):
        yield running


@contextlib.contextmanager
def ended(running: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        running.kill()
        running.wait()
