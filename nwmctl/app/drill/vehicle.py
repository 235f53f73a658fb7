"""The attacked client of our own: a whole virtual vehicle over HTTP, with director and image repository.

Nothing of it is faked: it polls the stand's gateway, verifies both repositories, downloads, installs, restarts and
reports. Only its patience with slow servers is shorter than a real vehicle's, so that a drill ends.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nwmctl
from nwmctl.app.drill.clients import Answer, Did
from nwmctl.app.drill.house import Car
from nwmctl.app.drill.server import DIRECTOR, IMAGE, Stand
from nwmctl.domain.clock import Clock
from nwmctl.domain.drill import Client, Counterparty
from nwmctl.errors import NwmError
from nwmctl.trust.attacks.scene import Act, House
from nwmctl.vehicle import pending
from nwmctl.vehicle.client import Services, VehicleClient
from nwmctl.vehicle.delivery import deliver
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.link import Link
from nwmctl.vehicle.machine import Machine, Senses
from nwmctl.vehicle.metadata import Repository
from nwmctl.vehicle.pace import Pace
from nwmctl.vehicle.pending import Ending
from nwmctl.vehicle.record import PinnedTrust, VehicleRecord

_PACE = Pace(window_s=0.5, least=256, most_s=60.0)
"""Shorter windows than a real vehicle's, and a lower least: a busy machine must not look like an attack."""
_CYCLE_S = 120.0


class VehicleAdapter:
    """Virtual vehicles of one kind."""

    def __init__(self, car: Car, clock: Clock) -> None:
        self._car = car
        self._clock = clock

    @property
    def party(self) -> Counterparty:
        """Always there: it is part of nwmctl."""
        return Counterparty(Client.VEHICLE, f"nwmctl {nwmctl.__version__}")

    def begin(self, house: House, folder: Path) -> VehicleSession:
        """A vehicle that left the factory with the oldest release and the house's roots."""
        who = self._car.record
        director = house.director(house.bundles[min(house.bundles)], 1, house.hardware)["1.root.json"]
        trust = PinnedTrust(house.factory.state.roots[0], house.ring.ca_pem(), director)
        deliver(folder / who.vin, who, trust, None, self._clock)
        return VehicleSession(folder / who.vin, who, self._clock)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """The machine's clock, ``ahead_us`` later."""

    clock: Clock
    ahead_us: int

    def now_us(self) -> int:
        return self.clock.now_us() + self.ahead_us

    def monotonic(self) -> float:
        return self.clock.monotonic()


class VehicleSession:
    """One vehicle; every act is a new start of it, and one poll."""

    def __init__(self, folder: Path, who: VehicleRecord, clock: Clock) -> None:
        self._folder = folder
        self._who = who
        self._clock = clock

    def see(self, act: Act, stand: Stand) -> Answer:
        """One poll and what follows from it; what the vehicle keeps about the action says what it did."""
        clock = _Ahead(self._clock, act.ahead_us)
        try:
            asyncio.run(asyncio.wait_for(self._poll(clock, stand), _CYCLE_S))
        except NwmError as problem:
            return Answer(Did.REFUSED, f"{problem.what}: {problem.why}", type(problem).__name__)
        except TimeoutError:
            return Answer(Did.HELD, f"it was still busy after {_CYCLE_S:g} s")
        action = pending.load(self._folder)
        if action is None or action.action != stand.action or action.outcome is None:
            return Answer(Did.HELD, "it has not finished the order")
        outcome = action.outcome
        if outcome.ending is Ending.COMMITTED:
            return Answer(Did.ACCEPTED, outcome.text)
        return Answer(Did.REFUSED, outcome.text, outcome.reason)

    async def _poll(self, clock: Clock, stand: Stand) -> None:
        import httpx

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(min(seconds, 0.05))

        repository = Repository(f"{stand.url}{IMAGE}", stand.url, clock, f"{stand.url}{DIRECTOR}")
        trouble = Trouble()
        with ThreadPoolExecutor(2) as pool:
            services = Services(pool, asyncio.Semaphore(1), sleep, repository.find, 1.0, repository.allow, _PACE)
            async with httpx.AsyncClient(verify=False, trust_env=False, timeout=20.0) as http:
                link = Link(http, stand.url, self._who.vin, self._who.token, trouble)
                client = VehicleClient(Machine(self._folder, Senses(clock), trouble), link, services, trouble)
                await client.power_on()
                await client.cycle()
