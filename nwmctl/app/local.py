"""Processes on this machine: the gateway, and the vehicles of a virtual fleet.

A virtual fleet is described by one file in the workspace, written when its campaign is opened, so that a rollback
days later drives the same vehicles, wherever the workspace lies then. Children die with this process, however it ends
(see ``parent``), and their output is kept in the workspace's state folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nwmctl.app.clock import SystemClock
from nwmctl.app.fleets import inventory_path, virtual_tokens
from nwmctl.app.parent import end_with_parent
from nwmctl.app.passphrases import unlock
from nwmctl.app.project import Project
from nwmctl.domain.clock import Clock, Sleep
from nwmctl.domain.digest import Digest
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import NoLocalFleetError, ProcessDiedError
from nwmctl.fleet.inventory import read_inventory
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.formats.uptane import DirectorRoot
from nwmctl.storage.content import write_atomically
from nwmctl.storage.database import Database
from nwmctl.storage.workspace import Workspace
from nwmctl.trust.director import DirectorKeys
from nwmctl.trust.keys import KeyRing, load_keyring
from nwmctl.vehicle.faults import FaultPlan
from nwmctl.vehicle.record import VehicleRecord
from nwmctl.vehicle.run import VehiclesConfig

_START_S = 20.0
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class VirtualFleet:
    """Everything needed to drive a virtual fleet: pinned trust, vehicles, and what their factory installed.

    ``mirror`` is a folder, relative to the workspace unless the release names an absolute one; ``factory`` names each
    platform's bundle in the content store. ``director_root`` is pinned in the vehicles, and the gateway signs with the
    key folder ``director_keys``; both are empty for a fleet without a director.
    """

    mirror: str
    root_metadata: str
    ca_pem: str
    vehicles: tuple[VehicleRecord, ...]
    factory: dict[str, Digest]
    poll_s: float
    director_root: str = ""
    director_keys: str = ""
    payload_key: str = ""
    """URI of the key that its vehicles open payloads with, empty for none."""


@dataclass(slots=True)
class Services:
    """What runs. ``check`` raises ProcessDiedError if something that must run has ended."""

    virtual: bool
    talk: list[str] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    logs: Path = Path()

    def check(self) -> None:
        """Look at every process."""
        for name, process in self.processes.items():
            code = process.poll()
            if code is not None:
                log = self.logs / f"{name}.log"
                tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
                raise ProcessDiedError(
                    f"the {name} process ended with {code}",
                    why=tail[0],
                    next=f"see {log}; the campaign's state is in the database, `nwmctl rollout resume` goes on",
                )


def keep_virtual_fleet(
    project: Project, workspace: Workspace, keys: KeyRing, factory: dict[str, Digest], payload_key: str = ""
) -> None:
    """Write down what a virtual fleet needs, for this and for later commands."""
    release = project.release
    boards = {name: profile.board for name, profile in project.profiles.items()}
    variants = {
        (name, variant.name): variant for name, profile in project.profiles.items() for variant in profile.variants
    }
    inventory = inventory_path(project.base, release)
    vehicles = tuple(
        VehicleRecord.of(vehicle, boards[vehicle.platform], variants[vehicle.platform, vehicle.variant])
        for vehicle in read_inventory(inventory, project.catalogue, virtual_tokens(workspace))
        if vehicle.platform in boards
    )
    local = next((mirror for mirror in release.mirrors if mirror.uri.startswith("file:")), None)
    if local is None:
        raise NoLocalFleetError(
            "a virtual fleet needs a mirror on this machine",
            why="the release names no file: mirror, and virtual vehicles download from one",
            next="add a mirror with a file: address to the release",
        )
    root = workspace.repository / "metadata" / "1.root.json"
    director = _director(workspace, keys)
    fleet = VirtualFleet(
        mirror=local.uri.removeprefix("file:"),
        root_metadata=root.read_text("utf-8"),
        ca_pem=keys.ca_pem().decode(),
        vehicles=vehicles,
        factory=factory,
        poll_s=release.poll_s,
        director_root=director.tuf.decode() if director else "",
        director_keys=str(keys.folder.resolve()) if director else "",
        payload_key=payload_key,
    )
    # Tokens are in it, so nobody else may read it.
    write_atomically(_fleet_file(workspace, release.fleet.name), canonical.encode(to_plain(fleet)), 0o600)


def _director(workspace: Workspace, keys: KeyRing) -> DirectorRoot | None:
    """The director of a virtual fleet. Only with keys that need no passphrase, since nobody is there to give one when
    the vehicles drive; rings of an older nwmctl have no such keys."""
    from nwmctl.app.director import ensure_root, first_root

    if not (keys.development and keys.has(KeyRole.DIRECTOR) and keys.has(KeyRole.DIRECTOR_ROOT)):
        return None
    first, _ = ensure_root(workspace, keys, SystemClock())
    return first_root(workspace) or first


@contextmanager
def local_fleet(
    workspace: Workspace, database: Database, fleet: str, clock: Clock, sleep: Sleep, faults: FaultPlan | None = None
) -> Iterator[Services]:
    """Run gateway and vehicles while the block runs, if the fleet is virtual; else run nothing.

    Raises NoLocalFleetError, ProcessDiedError.
    """
    row = database.reader.one("SELECT is_virtual FROM fleet WHERE name = :name", name=fleet)
    if row is None or not row[0]:
        yield Services(virtual=False, talk=["the controller advances this campaign (`nwmctl gateway serve`)"])
        return
    described = _load_fleet(workspace, fleet)
    services = Services(virtual=True, logs=workspace.state)
    try:
        url = _start_gateway(workspace, described, services, clock, sleep)
        config = VehiclesConfig(
            gateway=url,
            folder=str(workspace.vehicles),
            root_metadata=described.root_metadata,
            ca_pem=described.ca_pem,
            vehicles=described.vehicles,
            previous={name: str(workspace.store().path(digest)) for name, digest in described.factory.items()},
            repository=f"{url}/mirror",
            poll_s=described.poll_s,
            faults=faults or FaultPlan(),
            director_root=described.director_root,
            payload_key=described.payload_key,
        )
        path = workspace.state / "vehicles.json"
        write_atomically(path, canonical.encode(to_plain(config)), 0o600)
        services.processes["vehicles"] = _spawn(
            services, "vehicles", ["nwmctl.app.vehicles", str(path), str(os.getpid())]
        )
        models = len({vehicle.vehicle_model for vehicle in described.vehicles})
        services.talk.append(f"gateway at {url}; {len(described.vehicles)} virtual vehicles of {models} models poll it")
        yield services
    finally:
        _stop(list(services.processes.values()))


def serve_gateway(
    workspace: Workspace,
    host: str,
    port: int,
    mirror: str,
    *,
    controller: bool,
    mirror_url: str = "",
    director_keys: Path | None = None,
    passphrase_env: str | None = None,
    ready_file: Path | None = None,
    parent: int | None = None,
    announce: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> None:
    """Run the gateway in this process until it is asked to end, or until the process ``parent`` has ended."""
    from nwmctl.gateway.server import GatewayConfig, serve

    if parent is not None:
        end_with_parent(parent)
    director = None
    if director_keys is not None:
        director = DirectorKeys(director_keys, unlock(load_keyring(director_keys), passphrase_env))
    config = GatewayConfig(
        database=workspace.database,
        mirror=workspace.root / mirror,
        host=host,
        port=port,
        ready_file=ready_file,
        mirror_url=mirror_url,
        controller=controller,
        tick_s=0.25,
        director=director,
        announce=announce,
    )
    serve(config, SystemClock())


def _start_gateway(workspace: Workspace, fleet: VirtualFleet, services: Services, clock: Clock, sleep: Sleep) -> str:
    ready = workspace.state / "gateway-ready.json"
    ready.unlink(missing_ok=True)
    arguments = ["nwmctl", "gateway", "serve", "--port", "0", "--mirror", fleet.mirror]
    arguments += ["--ready-file", str(ready), "--workspace", str(workspace.root), "--parent", str(os.getpid())]
    if fleet.director_keys:
        arguments += ["--director-keys", fleet.director_keys]
    services.processes["gateway"] = _spawn(services, "gateway", arguments)
    deadline = clock.monotonic() + _START_S
    while not ready.exists():
        services.check()
        if clock.monotonic() > deadline:
            raise ProcessDiedError(
                "the gateway did not start in time",
                why=f"it was not ready after {_START_S:g} s",
                next=f"see {services.logs / 'gateway.log'}",
            )
        sleep(0.02)
    facts = canonical.decode(ready.read_bytes(), "ready file")
    assert isinstance(facts, dict)
    return str(facts["url"])


def _spawn(services: Services, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    with (services.logs / f"{name}.log").open("ab") as log:
        # A group of their own: Ctrl-C reaches this process first, which then ends them in order.
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _stop(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _fleet_file(workspace: Workspace, fleet: str) -> Path:
    return workspace.state / f"virtual-fleet-{fleet}.json"


def _load_fleet(workspace: Workspace, fleet: str) -> VirtualFleet:
    path = _fleet_file(workspace, fleet)
    try:
        plain = canonical.decode(path.read_bytes(), path.name)
    except FileNotFoundError as problem:
        raise NoLocalFleetError(
            f"the virtual fleet '{fleet}' was never driven from this workspace",
            why=f"{path.name} is missing",
            next="run `nwmctl deploy RELEASE` here",
        ) from problem
    return from_plain(VirtualFleet, plain, Source(path.name))
