"""The second signature in front of the installer: what the director says must be what the image repository lists.

The two repositories have different keys and different owners. Whoever steals the director's key can choose among the
bundles that the image repository lists for this hardware, and no more; whoever steals the image repository's cannot
choose vehicles. A vehicle whose factory pinned a director believes no order without it, so leaving the director out is
no way around it. Blocking: runs beside the event loop.
"""

from __future__ import annotations

from pathlib import Path

from nwmctl.errors import NotDirectedError
from nwmctl.trust.metadata import MAX_ROOT, ListedBundle
from nwmctl.trust.uptane_client import (
    MAX_DIRECTOR,
    TARGETS_PATH,
    DirectorState,
    VerifiedDirector,
    agree,
    hardware_id,
    refresh_director,
)
from nwmctl.vehicle import disk
from nwmctl.vehicle.lines import Lines
from nwmctl.vehicle.machine import Machine
from nwmctl.vehicle.record import DIRECTOR_NAME, VehicleRecord


def ecus_of(record: VehicleRecord) -> dict[str, str]:
    """Serial -> hardware id of the vehicle's computers, as its director knows them."""
    hardware = hardware_id(record.board, record.revision)
    return {serial_of(record, each.name): hardware for each in record.computers}


def serial_of(record: VehicleRecord, computer: str) -> str:
    """The serial of a computer."""
    return f"{record.vin}/{computer}"


def confirm_bundle(machine: Machine, listed: ListedBundle, lines: Lines, url: str, now_us: int) -> None:
    """Return if the director at ``url`` tells this vehicle to install what the image repository lists.

    Raises the refusals of ``trust.uptane_client.refresh_director``, NotDirectedError and those of ``agree``.
    """
    directed = _ask(machine, lines, url, now_us).resolve(listed.name)
    agree(directed, listed, ecus_of(machine.record))


def confirm_slot(machine: Machine, sequence: int, lines: Lines, url: str, now_us: int) -> None:
    """Return if the director wants this vehicle to run its own slot with ``sequence``. Raises as ``confirm_bundle``."""
    found = _ask(machine, lines, url, now_us)
    if found.use_slot != sequence:
        raise NotDirectedError(
            f"the director does not tell this vehicle to go back to sequence {sequence}",
            why=f"its signed metadata (version {found.version}) name {found.use_slot or 'no slot'}",
            next="do not go back; let the vehicle poll again",
        )


def load_director(folder: Path, pinned_root: bytes) -> DirectorState:
    """What the vehicle in ``folder`` last believed of its director. Raises MetadataFormatError for a damaged file."""
    path = folder / DIRECTOR_NAME
    return DirectorState.from_bytes(disk.read_file(path)) if path.exists() else DirectorState(pinned_root)


def _ask(machine: Machine, lines: Lines, url: str, now_us: int) -> VerifiedDirector:
    pinned = machine.trust.director_root
    assert pinned is not None  # who has no director does not ask it
    before = load_director(machine.folder, pinned)
    fetch = lines.fetcher(url.replace("{vin}", machine.record.vin), _most)
    found = refresh_director(before, fetch, now_us)
    if found.state != before:
        disk.replace_file(machine.folder / DIRECTOR_NAME, found.state.to_bytes())
    return found


def _most(path: str) -> int:
    return MAX_DIRECTOR if path == TARGETS_PATH else MAX_ROOT
