"""What the vehicle's computers say under their own keys: who they are, once, and what they run, whenever that changes.

Every computer has an ed25519 key that was made in the vehicle and never leaves its folder; the first computer speaks
for all. Each report has a higher counter than the one before, and the counter is on the disk before the report leaves:
after a power loss a number may be skipped, and none is used twice. A report also says which metadata versions the
vehicle has verified, so that a director that was restored from a backup knows what to exceed. Only vehicles with a
pinned director speak. Blocking: runs beside the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from nwmctl.errors import GatewayAnswerError, GatewayUnreachableError, NwmError, VehicleStateError
from nwmctl.formats import canonical
from nwmctl.formats.uptane import Dialect, Ecu
from nwmctl.formats.uptane_reports import DIRECTOR, IMAGE, Installed, Registration, encode_registration
from nwmctl.trust.client import TrustedState
from nwmctl.trust.keys import Ed25519Signer
from nwmctl.trust.uptane_client import DirectorState
from nwmctl.trust.vehicle_report import sign_report
from nwmctl.vehicle import disk
from nwmctl.vehicle.link import credentials
from nwmctl.vehicle.machine import Machine
from nwmctl.vehicle.record import DIRECTOR_NAME, METADATA_NAME
from nwmctl.vehicle.slots import LISTING_NAME, Slots
from nwmctl.vehicle.uptane import ecus_of, serial_of

KEYS_NAME = "computer-keys.json"
COUNTER_NAME = "report-counter.json"
_TIMEOUT_S = 20.0
_NEXT = "deliver the vehicle anew into an empty folder, and let the gateway forget its computers"


class Voice:
    """Speaks to the director at ``url`` (no trailing slash; ``{vin}`` in it stands for the vehicle)."""

    def __init__(self, url: str, gateway: str) -> None:
        self._url = url
        self._gateway = gateway
        self._registered: set[str] = set()

    def speak(self, machine: Machine) -> None:
        """Register if need be, and report. Raises GatewayUnreachableError, GatewayAnswerError, VehicleStateError."""
        if machine.trust.director_root is None:
            return
        record, keys = machine.record, _keys(machine)
        first = record.computers[0].name
        ecus = tuple(Ecu(serial, hardware, keys[serial].public) for serial, hardware in ecus_of(record).items())
        if record.vin not in self._registered:
            body = encode_registration(Registration(serial_of(record, first), ecus, Dialect.TUF))
            self._send(machine, "POST", "ecus", body)
            self._registered.add(record.vin)
        self._send(machine, "PUT", "manifest", self._report(machine, keys))

    def _report(self, machine: Machine, keys: Mapping[str, Ed25519Signer]) -> bytes:
        record = machine.record
        counter = _next_counter(machine.folder)
        parts = [
            (keys[serial_of(record, each.name)], serial_of(record, each.name), counter, _running(machine, each.name))
            for each in record.computers
        ]
        (key, serial, _, running), *others = parts
        return sign_report(key, serial, counter, running, metadata=_seen(machine.folder), others=others)

    def _send(self, machine: Machine, method: str, path: str, body: bytes) -> None:
        import httpx

        url = f"{self._url.replace('{vin}', machine.record.vin)}/{path}"
        headers = credentials(self._gateway, machine.record.token, url)
        try:
            with (
                httpx.Client(verify=url.startswith("https:"), trust_env=False, timeout=_TIMEOUT_S) as http,
                http.stream(method, url, content=body, headers=headers) as response,
            ):
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            raise GatewayUnreachableError(
                "the director cannot be reached",
                why=str(problem) or type(problem).__name__,
                next="check the network and the gateway; vehicles try again",
            ) from problem
        if status not in (200, 201):
            raise GatewayAnswerError(
                f"the director does not take what the vehicle says ({status})",
                why=f"it was about '{path}'",
                next="look at the vehicle's story; where a computer was replaced, `nwmctl director forget`",
            )


def _keys(machine: Machine) -> dict[str, Ed25519Signer]:
    """Each computer's key by serial, made at the first call."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = machine.folder / KEYS_NAME
    wanted = ecus_of(machine.record)
    if not path.exists():
        made: dict[str, canonical.Plain] = {
            serial: Ed25519PrivateKey.generate().private_bytes_raw().hex() for serial in wanted
        }
        disk.replace_file(path, canonical.encode(made))
        path.chmod(0o600)
    kept = _read(path)
    try:
        return {
            serial: Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(str(kept[serial]))))
            for serial in wanted
        }
    except (KeyError, TypeError, ValueError) as problem:
        raise _damaged(path) from problem


def _next_counter(folder: Path) -> int:
    path = folder / COUNTER_NAME
    last = _read(path).get("counter") if path.exists() else 0
    if not isinstance(last, int):
        raise _damaged(path)
    disk.replace_file(path, canonical.encode({"counter": last + 1}))
    return last + 1


def _running(machine: Machine, computer: str) -> Installed:
    """The list of files of the slot that a computer runs: its digest stands for every byte in the slot."""
    slots: Slots = machine.car.slots(computer)
    state = slots.state()
    path = slots.folder_of(state.active) / LISTING_NAME
    sequence = state.record(state.active).sequence
    if not path.exists():
        # A factory without a bundle.
        return Installed(f"sequence {sequence}", 0, "0" * 64)
    digest, size = disk.digest_file(path)
    return Installed(f"sequence {sequence}", size, digest.hex)


def _seen(folder: Path) -> canonical.Plain:
    """The metadata versions that the vehicle has verified last."""
    director: dict[str, canonical.Plain] = {}
    image: dict[str, canonical.Plain] = {}
    if (folder / DIRECTOR_NAME).exists():
        one = DirectorState.from_bytes(disk.read_file(folder / DIRECTOR_NAME))
        director = _versions({"root": one.root, "targets": one.targets})
    if (folder / METADATA_NAME).exists():
        two = TrustedState.from_bytes(disk.read_file(folder / METADATA_NAME))
        image = _versions({"root": two.root, "timestamp": two.timestamp, "snapshot": two.snapshot})
        if two.snapshot is not None:
            meta = json.loads(two.snapshot)["signed"]["meta"]
            image |= {name.removesuffix(".json"): about["version"] for name, about in meta.items()}
    return {DIRECTOR: director, IMAGE: image}


def _versions(parts: Mapping[str, bytes | None]) -> dict[str, canonical.Plain]:
    # Verified before they were kept.
    return {role: json.loads(data)["signed"]["version"] for role, data in parts.items() if data is not None}


def _read(path: Path) -> dict[str, canonical.Plain]:
    try:
        plain = canonical.decode(disk.read_file(path), path.name)
    except NwmError as problem:
        raise _damaged(path) from problem
    if not isinstance(plain, dict):
        raise _damaged(path)
    return plain


def _damaged(path: Path) -> VehicleStateError:
    return VehicleStateError(f"'{path.name}' is damaged", why="it is not what this vehicle wrote", next=_NEXT)
