"""Holds a whole drill: chooses attacks and clients, runs the matrix, signs and writes the report.

The key that signs the report is asked for before anything runs. Three files are written: the report as canonical JSON,
its DSSE envelope, and a page for people. Everything else lies in a temporary folder and goes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nwmctl
from nwmctl.app.clock import SystemClock
from nwmctl.app.drill.clients import Adapter
from nwmctl.app.drill.house import make_car, make_house
from nwmctl.app.drill.matrix import run_matrix
from nwmctl.app.drill.page import page
from nwmctl.app.drill.replay import replay_report
from nwmctl.app.drill.swupdate import SwupdateAdapter
from nwmctl.app.drill.tuf_js import TufJsAdapter
from nwmctl.app.drill.vehicle import VehicleAdapter
from nwmctl.app.keys import deployment_keys
from nwmctl.app.passphrases import unlock
from nwmctl.app.settings import load_settings
from nwmctl.domain.drill import Cell, Client, DrillReport
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import DrillNameError, OutputUnwritableError
from nwmctl.formats import documents
from nwmctl.storage.content import write_atomically
from nwmctl.trust.attacks.catalogue import ATTACKS, REPLAYED_REPORT
from nwmctl.trust.attacks.scene import Attack
from nwmctl.trust.dsse import sign_dsse

DRILL_TYPE = "application/vnd.nwmctl.drill-report+json"
REPORT_NAME = "drill-report.json"


@dataclass(frozen=True, slots=True)
class DrillOrder:
    """What a person asks for; no attacks or clients named means all. ``tuf_js`` is an npm folder with tuf-js."""

    out: Path
    attacks: Sequence[str] = ()
    clients: Sequence[Client] = ()
    tuf_js: Path | None = None
    keys: Path | None = None
    passphrase_env: str | None = None


@dataclass(frozen=True, slots=True)
class Drilled:
    """A held drill, the files that were written, and the public key that signed the report."""

    report: DrillReport
    written: tuple[Path, ...]
    key: str


def hold_drill(order: DrillOrder, watch: Callable[[Cell], None]) -> Drilled:
    """Run the drill and write its report. Raises DrillNameError, OutputUnwritableError, key errors."""
    attacks = _chosen(order.attacks)
    ring = deployment_keys(load_settings(keys=order.keys), virtual=True)
    signer = ring.signer(KeyRole.SAFETY, unlock(ring, order.passphrase_env))
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="nwmctl-drill-") as scratch:
        folder = Path(scratch)
        car = make_car(folder / "car")
        adapters: list[Adapter] = [VehicleAdapter(car, clock), TufJsAdapter(order.tuf_js), SwupdateAdapter(car)]
        adapters = [one for one in adapters if not order.clients or one.party.client in order.clients]
        house = make_house(folder / "house", car, clock)
        staged = [attack for attack in attacks if attack is not REPLAYED_REPORT]
        cells = list(run_matrix(house, staged, adapters, folder / "clients", watch))
        if REPLAYED_REPORT in attacks:
            for adapter in adapters:
                client = adapter.party.client
                cells.append(replay_report(house) if client is Client.VEHICLE else REPLAYED_REPORT.not_for(client))
                watch(cells[-1])
    parties = tuple(adapter.party for adapter in adapters)
    threats = tuple(attack.threat for attack in attacks)
    report = DrillReport(nwmctl.__version__, ring.development, parties, threats, tuple(cells))
    data = documents.encode(report)
    files = {
        REPORT_NAME: data,
        f"{REPORT_NAME}.sig": sign_dsse(data, DRILL_TYPE, signer),
        "drill-report.md": page(report, signer.public).encode(),
    }
    return Drilled(report, tuple(_write(order.out / name, body) for name, body in files.items()), signer.public)


def _chosen(names: Sequence[str]) -> list[Attack]:
    known = [attack.name for attack in ATTACKS]
    for name in names:
        if name not in known:
            raise DrillNameError(
                f"there is no attack '{name[:80]}'", why=f"known are {', '.join(known)}", next="correct the name"
            )
    return [attack for attack in ATTACKS if not names or attack.name in names]


def _write(path: Path, data: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{path}' cannot be written", why=problem.strerror or str(problem), next="choose another folder with --out"
        ) from problem
    return path
