"""What a vehicle is from the factory on, and where its folder keeps what.

``vehicle.json`` holds who the vehicle is; ``root.json``, ``ca.pem`` and, where the fleet has a director,
``director-root.json`` are the pinned trust: without them nothing could be verified, so they are written at delivery and
never fetched. Does not touch slots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from nwmctl.domain.chassis import CHASSIS_INTERFACE
from nwmctl.domain.computers import ONE_COMPUTER, Computer, computers_of
from nwmctl.domain.fleet import Vehicle
from nwmctl.domain.platform import Variant
from nwmctl.errors import NwmError, VehicleStateError
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.vehicle import disk

RECORD_NAME = "vehicle.json"
ROOT_NAME = "root.json"
CA_NAME = "ca.pem"
DOWNLOAD_NAME = "download"
METADATA_NAME = "metadata.json"
DIRECTOR_ROOT_NAME = "director-root.json"
DIRECTOR_NAME = "director.json"
_SCHEMA = "nwmctl.vehicle/1"
_VIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class VehicleRecord:
    """Who the vehicle is. ``revision`` is the hardware revision of its compute variant; ``sequence`` the release
    sequence it leaves the factory with; ``token`` its own secret for the gateway."""

    vin: str
    vehicle_model: str
    platform: str
    variant: str
    board: str
    revision: str
    token: str
    sequence: int
    link: str = "wifi"
    """What it hangs on; a virtual vehicle downloads over this machine's own interfaces, where nobody pays."""
    computers: tuple[Computer, ...] = ONE_COMPUTER
    baseline: str = ""
    baseline_version: str = ""
    runtimes: dict[str, str] = field(default_factory=dict)
    """Inference runtimes that its computers have, name -> version."""
    chassis_interfaces: tuple[int, ...] = (CHASSIS_INTERFACE,)
    """Versions of the universal control interface that its chassis controller speaks."""
    components: dict[str, str] = field(default_factory=dict)
    """What else it has, name -> version: the driver of its GPUs, say."""

    def __post_init__(self) -> None:
        if not _VIN.match(self.vin):
            raise ValueError(f"vin is {self.vin[:80]!r}, it must be letters, digits, - and _")
        if not self.computers or len({each.name for each in self.computers}) != len(self.computers):
            raise ValueError("a vehicle has at least one computer, and each of them once")

    @classmethod
    def of(cls, vehicle: Vehicle, board: str, variant: Variant) -> VehicleRecord:
        """The record of a vehicle of the inventory, with the computers of its compute variant."""
        return cls(
            vehicle.vin, vehicle.vehicle_model, vehicle.platform, vehicle.variant, board, variant.revision,
            vehicle.token, vehicle.sequence, vehicle.link or "wifi", computers=computers_of(variant),
            baseline=vehicle.baseline, baseline_version=vehicle.baseline_version, components=dict(vehicle.components),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PinnedTrust:
    """What a vehicle believes from the factory on: TUF root metadata and the bundle authority's certificate.

    ``director_root`` is the director's own root metadata; a vehicle that has it installs nothing without the director.
    """

    root_metadata: bytes
    ca_pem: bytes
    director_root: bytes | None = None


def load_record(folder: Path) -> VehicleRecord:
    """Who lives in this folder. Raises VehicleStateError."""
    try:
        plain = canonical.decode(disk.read_file(folder / RECORD_NAME), RECORD_NAME)
        if not isinstance(plain, dict) or plain.pop("schema", None) != _SCHEMA:
            raise VehicleStateError(f"{RECORD_NAME} is not {_SCHEMA}", why="another program wrote it", next=_NEXT)
        return from_plain(VehicleRecord, plain, Source(RECORD_NAME))
    except VehicleStateError:
        raise
    except NwmError as problem:
        raise VehicleStateError(
            f"the vehicle in '{folder.name}' does not know who it is", why=problem.what, next=_NEXT
        ) from problem


def load_trust(folder: Path) -> PinnedTrust:
    """The pinned trust of the vehicle in this folder. Raises VehicleDiskError."""
    director = folder / DIRECTOR_ROOT_NAME
    return PinnedTrust(
        disk.read_file(folder / ROOT_NAME),
        disk.read_file(folder / CA_NAME),
        disk.read_file(director) if director.exists() else None,
    )


def keep(folder: Path, record: VehicleRecord, trust: PinnedTrust) -> None:
    """Write who the vehicle is and what it believes; the record goes last."""
    plain = to_plain(record)
    assert isinstance(plain, dict)
    disk.replace_file(folder / ROOT_NAME, trust.root_metadata)
    disk.replace_file(folder / CA_NAME, trust.ca_pem)
    if trust.director_root is not None:
        disk.replace_file(folder / DIRECTOR_ROOT_NAME, trust.director_root)
    disk.replace_file(folder / RECORD_NAME, canonical.encode({"schema": _SCHEMA, **plain}))


_NEXT = "deliver the vehicle anew into an empty folder"
