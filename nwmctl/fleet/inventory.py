"""Which vehicles a fleet has: reading the inventory file, and bringing it into the database.

The file is CSV with a header: ``vin,vehicle_model,baseline,sequence`` and, if wanted, ``token``, ``market`` (where the
vehicle is registered: two capital letters), ``baseline_version`` and ``components`` (name=version, with spaces between:
the driver of the GPUs, say). Platform and compute variant come from the
catalogue, never from the file. An import is one transaction: a bad line is named by file and
line, and nothing has changed. Importing again is harmless: what a vehicle reported about itself wins over the file.
Only a hash of a vehicle's token is stored.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.fleet import Vehicle
from nwmctl.domain.homologation import is_market
from nwmctl.domain.platform import Catalogue, VehicleModel
from nwmctl.domain.release import MAX_SEQUENCE
from nwmctl.domain.requires import is_component
from nwmctl.errors import DuplicateVinError, FleetKindError, InventoryRowError, NwmError, UnknownVehicleModelError
from nwmctl.fleet.events import EventKind, record
from nwmctl.fleet.waves import vin_hash
from nwmctl.storage.database import Database, Transaction, Value

REQUIRED = ("vin", "vehicle_model", "baseline", "sequence")
OPTIONAL = ("token", "market", "baseline_version", "link", "components")
COLUMNS = (*REQUIRED, *OPTIONAL)
DEFAULT_POLL_S = 300.0

_VIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,63}\Z", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]{8,256}\Z", re.ASCII)
_LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,31}\Z", re.ASCII)
_NEXT = "correct the file and import it again; nothing has been changed"
_UPSERT = """
INSERT INTO vehicle
  (vin, vin_hash, fleet, vehicle_model, platform, variant, baseline, sequence, token_sha256, market, link)
VALUES
  (:vin, :vin_hash, :fleet, :vehicle_model, :platform, :variant, :baseline, :sequence, :token_sha256, :market, :link)
ON CONFLICT (vin) DO UPDATE SET
  vehicle_model = excluded.vehicle_model, platform = excluded.platform, variant = excluded.variant,
  baseline = excluded.baseline, market = excluded.market, token_sha256 = excluded.token_sha256,
  link = CASE WHEN vehicle.link = '' THEN excluded.link ELSE vehicle.link END,
  sequence = CASE WHEN vehicle.reported_us = 0 THEN excluded.sequence ELSE vehicle.sequence END
"""

TokenFor = Callable[[str], str]
"""The token of a VIN, for files that carry none."""


@dataclass(frozen=True, slots=True)
class Imported:
    """How many lines an import read, and how many vehicles were new."""

    lines: int
    added: int


def token_hash(token: str) -> str:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_inventory(path: Path, catalogue: Catalogue, token_for: TokenFor | None = None) -> Iterator[Vehicle]:
    """The vehicles of an inventory file, one by one.

    Raises InventoryRowError, UnknownVehicleModelError or DuplicateVinError, each with file and line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _read(path.name, csv.reader(file, strict=True), catalogue, token_for)
    except OSError as problem:
        raise InventoryRowError(f"the inventory '{path}' cannot be read", why=str(problem), next=_NEXT) from problem
    except UnicodeDecodeError as problem:
        raise InventoryRowError(f"{path.name}: it is not UTF-8", why=str(problem), next=_NEXT) from problem


def import_inventory(
    database: Database,
    path: Path,
    catalogue: Catalogue,
    *,
    fleet: str,
    virtual: bool,
    now_us: int,
    token_for: TokenFor | None = None,
) -> Imported:
    """Bring a file into the fleet ``fleet``. Raises what ``read_inventory`` raises, and FleetKindError."""
    lines = 0

    def rows() -> Iterator[dict[str, Value]]:
        nonlocal lines
        for vehicle in read_inventory(path, catalogue, token_for):
            lines += 1
            if vehicle.vin in elsewhere:
                raise DuplicateVinError(
                    f"{path.name}: the vehicle {vehicle.vin} belongs to another fleet",
                    why=f"a vehicle is in one fleet; this import is for '{fleet}'",
                    next=_NEXT,
                )
            yield _row(vehicle, fleet)

    with database.transaction() as tx:
        _open_fleet(tx, fleet, virtual)
        elsewhere = {row[0] for row in tx.all("SELECT vin FROM vehicle WHERE fleet <> :fleet", fleet=fleet)}
        before = _count(tx, fleet)
        tx.many(_UPSERT, rows())
        added = _count(tx, fleet) - before
        record(tx, EventKind.FLEET_IMPORTED, now_us, {"fleet": fleet, "lines": lines, "added": added})
    return Imported(lines, added)


def _row(vehicle: Vehicle, fleet: str) -> dict[str, Value]:
    return {
        "vin": vehicle.vin,
        "vin_hash": vin_hash(vehicle.vin),
        "fleet": fleet,
        "vehicle_model": vehicle.vehicle_model,
        "platform": vehicle.platform,
        "variant": vehicle.variant,
        "baseline": vehicle.baseline,
        "sequence": vehicle.sequence,
        "token_sha256": token_hash(vehicle.token),
        "market": vehicle.market,
        "link": vehicle.link,
    }


def _open_fleet(tx: Transaction, fleet: str, virtual: bool) -> None:
    tx.execute(
        "INSERT INTO fleet (name, is_virtual, poll_s) VALUES (:name, :is_virtual, :poll_s) "
        "ON CONFLICT (name) DO NOTHING",
        name=fleet,
        is_virtual=int(virtual),
        poll_s=DEFAULT_POLL_S,
    )
    row = tx.one("SELECT is_virtual FROM fleet WHERE name = :name", name=fleet)
    if row is not None and bool(row[0]) is not virtual:
        was, asked = ("virtual", "real") if row[0] else ("real", "virtual")
        raise FleetKindError(
            f"the fleet '{fleet}' is {was}, it cannot be imported as {asked}",
            why="a virtual fleet accepts weaker evidence, so the two must never be mixed up",
            next="choose another fleet name in the release",
        )


def _count(tx: Transaction, fleet: str) -> int:
    row = tx.one("SELECT count(*) FROM vehicle WHERE fleet = :fleet", fleet=fleet)
    return int(row[0]) if row else 0


def _read(name: str, lines: Iterator[list[str]], catalogue: Catalogue, token_for: TokenFor | None) -> Iterator[Vehicle]:
    models = {vehicle.code: vehicle for vehicle in catalogue.vehicles}
    # Line numbers only where they will be needed: the set of VINs alone is large for a whole fleet.
    seen: set[str] = set()
    number = 0
    try:
        columns = _header(name, next(lines, []))
        for number, cells in enumerate(lines, start=2):
            if not cells:
                continue
            if len(cells) != len(columns):
                raise _bad(name, number, f"it has {len(cells)} cells, the header has {len(columns)}")
            vehicle = _vehicle(name, number, dict(zip(columns, cells, strict=True)), models, token_for)
            if vehicle.vin in seen:
                raise DuplicateVinError(
                    f"{name}:{number}: the vehicle {vehicle.vin} is listed twice",
                    why="a VIN stands for one vehicle",
                    next=_NEXT,
                )
            seen.add(vehicle.vin)
            yield vehicle
    except csv.Error as problem:
        raise _bad(name, number + 1, f"it is not CSV: {problem}") from problem


def _header(name: str, cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    unknown = [column for column in columns if column not in COLUMNS]
    missing = [column for column in REQUIRED if column not in columns]
    if unknown or missing or len(set(columns)) != len(columns):
        raise _bad(
            name,
            1,
            f"the header must be {','.join(REQUIRED)}, may add {', '.join(OPTIONAL)}, and is "
            f"{','.join(columns)[:200]!r}",
        )
    return columns


def _vehicle(
    name: str, number: int, cells: dict[str, str], models: dict[str, VehicleModel], token_for: TokenFor | None
) -> Vehicle:
    vin, code, baseline = (cells[column].strip() for column in ("vin", "vehicle_model", "baseline"))
    if not _VIN.match(vin):
        raise _bad(name, number, f"vin {vin[:80]!r} is not 3 to 64 letters, digits, '-' or '_'")
    model = models.get(code)
    if model is None:
        raise UnknownVehicleModelError(
            f"{name}:{number}: the vehicle model '{code[:80]}' is not in the catalogue",
            why=f"the catalogue knows {', '.join(sorted(models)[:30])}",
            next=_NEXT,
        )
    if not baseline:
        raise _bad(name, number, "baseline is empty")
    sequence = cells["sequence"].strip()
    if not (sequence.isascii() and sequence.isdigit() and len(sequence) < 11 and int(sequence) <= MAX_SEQUENCE):
        raise _bad(name, number, f"sequence {sequence[:80]!r} is not a whole number from 0 to {MAX_SEQUENCE}")
    token = cells.get("token", "").strip() or (token_for(vin) if token_for else "")
    if not _TOKEN.match(token):
        raise _bad(name, number, "token is missing, or not 8 to 256 visible ASCII characters")
    market, version = cells.get("market", "").strip(), cells.get("baseline_version", "").strip()
    if market and not is_market(market):
        raise _bad(name, number, f"market {market[:40]!r} is not two capital letters")
    link = cells.get("link", "").strip()
    if link and not _LINK.match(link):
        raise _bad(name, number, f"link {link[:40]!r} is not a word like wifi, ethernet or cellular")
    parts = _components(name, number, cells.get("components", ""))
    return Vehicle(
        vin, code, model.platform, model.variant, baseline, int(sequence), token, market, version, link, parts
    )


def _components(name: str, number: int, cell: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in cell.split():
        what, _, version = word.partition("=")
        if not is_component(what) or what in found or not 0 < len(version) <= 80 or not version.isprintable():
            raise _bad(name, number, f"components {word[:80]!r} is not name=version, each name once")
        found[what] = version
    return found


def _bad(name: str, number: int, why: str) -> NwmError:
    return InventoryRowError(f"{name}:{number}: this line cannot be imported", why=why, next=_NEXT)
