"""Many vehicles in one process, each with its own folder, connection and fate.

Vehicles share the event loop, a few threads for heavy work, and nothing else: one that fails, loses power or talks
nonsense does not disturb the others. They start spread out over one poll and wait longer after failures. Ends on
SIGTERM or SIGINT; what was on its way is on disk and goes on at the next start. Reads no clock of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from nwmctl.domain.clock import Clock
from nwmctl.errors import NwmError
from nwmctl.formats import yamldoc
from nwmctl.formats.codec import from_plain
from nwmctl.vehicle import disk
from nwmctl.vehicle.backoff import Backoff
from nwmctl.vehicle.client import Services, VehicleClient
from nwmctl.vehicle.delivery import deliver, is_delivered
from nwmctl.vehicle.faults import FaultPlan, PowerLoss, Trouble
from nwmctl.vehicle.link import Link
from nwmctl.vehicle.machine import Machine, Senses
from nwmctl.vehicle.metadata import Repository
from nwmctl.vehicle.record import PinnedTrust, VehicleRecord, load_record
from nwmctl.vehicle.voice import Voice

_THREADS = 4
"""More than cores: most of the heavy work waits for the disk."""
_FIRST_POLL_S = 1.0
_MOST_S = 10.0
"""The longest wait after failures, unless polls are further apart than that."""
_DARK_S = 0.1
"""How long a vehicle that lost power on purpose stays dark."""

Observe = Callable[[str, str], None]
"""Told about a vehicle (VIN) and what happened to it, for people."""


@dataclass(frozen=True, slots=True)
class VehiclesConfig:
    """Which vehicles live where, and what they trust.

    ``gateway`` is a URL without a trailing slash; ``repository`` the TUF repository's, empty for the mirror
    that the gateway serves.
    ``folder`` holds one folder per vehicle, named by its VIN; ``vehicles`` are delivered into it if they are not
    there, empty means those that are. ``previous``: the bundle that the factory installed, by platform.
    ``director_root`` is pinned in vehicles that are delivered; empty for a fleet without a director.
    ``payload_key``: URI of the key that opens encrypted payloads, empty for none.
    ``poll_s`` replaces the gateway's polling time. ``concurrency``: how many vehicles update at the same moment.
    """

    gateway: str
    folder: str
    root_metadata: str
    ca_pem: str
    vehicles: tuple[VehicleRecord, ...] = ()
    previous: dict[str, str] = field(default_factory=dict)
    repository: str = ""
    tenant: str = "default"
    poll_s: float | None = None
    concurrency: int = 16
    faults: FaultPlan = field(default_factory=FaultPlan)
    director_root: str = ""
    payload_key: str = ""

    def __post_init__(self) -> None:
        if self.poll_s is not None and self.poll_s <= 0:
            raise ValueError(f"poll_s is {self.poll_s:g}, it must be positive")
        if self.concurrency < 1:
            raise ValueError(f"concurrency is {self.concurrency}, it must be at least 1")


def load_config(path: Path) -> VehiclesConfig:
    """Read a configuration (JSON or YAML). Raises SchemaError with file, line and key, or VehicleDiskError."""
    plain, source = yamldoc.parse(disk.read_file(path), path.name)
    return from_plain(VehiclesConfig, plain, source)


def deliver_all(config: VehiclesConfig, clock: Clock, pool: Executor, key: bytes | None = None) -> tuple[str, ...]:
    """Deliver the vehicles that are not there yet; returns the VINs of all. Raises as ``deliver``."""
    root = Path(config.folder)
    director = config.director_root.encode() or None
    trust = PinnedTrust(config.root_metadata.encode(), config.ca_pem.encode(), director)

    def one(who: VehicleRecord) -> str:
        previous = config.previous.get(who.platform)
        deliver(root / who.vin, who, trust, Path(previous) if previous else None, clock, key)
        return who.vin

    if config.vehicles:
        return tuple(pool.map(one, config.vehicles))
    with disk.translated(root):
        return tuple(sorted(entry.name for entry in root.iterdir() if is_delivered(entry)))


async def run_vehicles(
    config: VehiclesConfig,
    senses: Senses,
    *,
    observe: Observe = lambda vin, text: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Drive the vehicles until ``stop`` is set or the process is asked to end. Raises as ``deliver_all``."""
    ended = stop or asyncio.Event()
    _skip_missing_package("sniffio")
    with _signals(ended), ThreadPoolExecutor(_THREADS, thread_name_prefix="vehicle") as pool:
        vins = await asyncio.to_thread(deliver_all, config, senses.clock, pool, senses.payload_key)
        director = f"{config.gateway}/{config.tenant}/uptane/v1/{{vin}}/director"
        repository = Repository(config.repository or f"{config.gateway}/mirror", config.gateway, senses.clock, director)
        busy = asyncio.Semaphore(config.concurrency)
        voice = Voice(director, config.gateway)
        services = Services(
            pool, busy, asyncio.sleep, repository.find, config.poll_s, repository.allow, speak=voice.speak
        )
        tasks = [asyncio.create_task(_live(config, vin, senses, services, observe), name=vin) for vin in vins]
        for task in tasks:
            task.add_done_callback(lambda task: _tell_crash(task, observe))
        try:
            await ended.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _live(config: VehiclesConfig, vin: str, senses: Senses, services: Services, observe: Observe) -> None:
    """One vehicle, from its first start on; a power loss on purpose is followed by another start."""
    import ssl

    import httpx

    folder = Path(config.folder) / vin
    trouble: Trouble | None = None
    async with httpx.AsyncClient(
        verify=ssl.create_default_context() if config.gateway.startswith("https:") else False,
        trust_env=False,
        timeout=httpx.Timeout(20.0),
        limits=httpx.Limits(max_connections=4),
    ) as http:
        while True:
            try:
                who = load_record(folder)
                trouble = trouble or Trouble.of(config.faults, vin, who.vehicle_model)
                machine = Machine(folder, senses, trouble)
                link = Link(http, config.gateway, vin, who.token, trouble, config.tenant)
                await _one_life(VehicleClient(machine, link, services, trouble), vin, services, observe)
            except PowerLoss:
                observe(vin, "lost power")
                await services.sleep(_DARK_S)
            except NwmError as problem:
                observe(vin, f"is out of order: {problem.what} ({problem.why})")
                return


async def _one_life(client: VehicleClient, vin: str, services: Services, observe: Observe) -> None:
    """From one start to the next power loss."""
    backoff = Backoff(vin)
    await client.power_on()
    await services.sleep(backoff.jitter(0) * (services.poll_s or _FIRST_POLL_S))
    failures, polls = 0, 0
    while True:
        try:
            wait = await client.cycle()
            polls += 1
            failures = 0
            # The first wait spreads a fleet that started at once; the later ones keep it from falling into step.
            wait *= backoff.jitter(1) if polls == 1 else 0.9 + 0.2 * backoff.jitter(polls)
        except NwmError as problem:
            failures += 1
            wait = min(backoff.delay(failures), max(_MOST_S, client.poll_s))
            observe(vin, f"{problem.what} ({problem.why}); waits {wait:.1f} s")
        await services.sleep(wait)


def _tell_crash(task: asyncio.Task[None], observe: Observe) -> None:
    """A defect of this program ends one vehicle, and somebody hears of it."""
    if not task.cancelled() and (problem := task.exception()) is not None:
        observe(task.get_name(), f"stopped because of a defect: {problem!r}")


def _skip_missing_package(name: str) -> None:
    """Let an import that fails anyway fail at once.

    The HTTP library asks for this optional package several times per request; each search of the whole path costs
    more than the request does.
    """
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        sys.modules[name] = None  # type: ignore[assignment]


@contextlib.contextmanager
def _signals(ended: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    known = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # Outside the main thread there are no signals to wait for: the caller's event ends the run.
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, ended.set)
            known.append(number)
    try:
        yield
    finally:
        for number in known:
            loop.remove_signal_handler(number)
