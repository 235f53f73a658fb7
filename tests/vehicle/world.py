"""One vehicle, a fake gateway, and signed bundles: the stage on which the client's tests play."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from nwmctl.domain.bundle import BundleManifest
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.errors import NwmError
from nwmctl.trust.cms import sign_cms
from nwmctl.trust.keys import KeyRing
from nwmctl.vehicle.boot import BootState
from nwmctl.vehicle.client import Services, SignedFile, VehicleClient
from nwmctl.vehicle.delivery import deliver
from nwmctl.vehicle.faults import PowerLoss, Trouble, plan_from_text
from nwmctl.vehicle.link import Link
from nwmctl.vehicle.machine import Machine, Senses
from nwmctl.vehicle.order import BundleOrder
from nwmctl.vehicle.record import PinnedTrust, VehicleRecord
from nwmctl.vehicle.slots import Slots
from tests.vehicle.bundles import RECORD, contents, write_swu
from tests.vehicle.fake_gateway import BASE, FakeGateway

_SIGNATURES: dict[tuple[Path, bytes], bytes] = {}


def signed(data: bytes, keyring: KeyRing) -> bytes:
    """A real signature; loading the key takes long, and the same bytes have the same signature."""
    key = (keyring.folder, data)
    if key not in _SIGNATURES:
        _SIGNATURES[key] = sign_cms(data, keyring)
    return _SIGNATURES[key]


@dataclass
class World:
    """``drive`` lets the vehicle live until nothing is offered any more; errors of a cycle go to ``errors``."""

    folder: Path
    clock: Clock
    keyring: KeyRing
    gateway: FakeGateway = field(default_factory=FakeGateway)
    errors: list[NwmError] = field(default_factory=list)
    lives: int = 0
    record: VehicleRecord = RECORD
    find: Callable[[Machine, BundleOrder], SignedFile] = lambda machine, order: SignedFile(
        Digest(order.sha256), order.size
    )

    def __post_init__(self) -> None:
        trust = PinnedTrust(b"{}", self.keyring.ca_pem())
        deliver(self.folder, self.record, trust, self.swu(3, "factory.swu"), self.clock)

    def swu(
        self,
        sequence: int,
        name: str = "bundle.swu",
        *,
        keyring: KeyRing | None = None,
        change: Callable[[BundleManifest], BundleManifest] = lambda manifest: manifest,
        size: int = 5000,
    ) -> Path:
        manifest, files = contents(sequence, size=size, cpu=len(self.record.computers) > 1)
        signer = keyring or self.keyring
        path = self.folder.parent / name
        return write_swu(path, change(manifest), files, sign=lambda data: signed(data, signer))

    @property
    def state(self) -> BootState:
        return Slots(self.folder).state()

    @property
    def slots(self) -> Slots:
        return Slots(self.folder)

    def drive(self, faults: str = "", *, cycles: int = 8, poll_s: float = 0.01) -> None:
        asyncio.run(asyncio.wait_for(self._drive(faults, cycles, poll_s), 30))

    async def _drive(self, faults: str, cycles: int, poll_s: float) -> None:
        trouble = Trouble.of(plan_from_text(faults), RECORD.vin, RECORD.vehicle_model)

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(min(seconds, 0.01))

        with ThreadPoolExecutor(1) as pool:
            services = Services(pool, asyncio.Semaphore(1), sleep, self.find, poll_s)
            client: VehicleClient | None = None
            async with self.gateway.client() as http:
                for _ in range(cycles):
                    try:
                        if client is None:
                            machine = Machine(self.folder, Senses(self.clock), trouble)
                            link = Link(http, BASE, RECORD.vin, RECORD.token, trouble)
                            client = VehicleClient(machine, link, services, trouble)
                            self.lives += 1
                            await client.power_on()
                        await client.cycle()
                    except PowerLoss:
                        client = None
                    except NwmError as problem:
                        self.errors.append(problem)
