"""What a vehicle says about its computers: their registration, signed version reports, installed packages, events.

A version report is signed twice: each computer signs what it has installed, the primary one signs all of it. Both
dialects are read: signatures in hexadecimal digits or in base64, counters as numbers or as texts. What is signed is put
back into canonical JSON; key ids in a message decide nothing. Bounds come first; everything that is not as it must be
raises DdiFormatError. Verifies no signature (see ``trust.vehicle_report``). No I/O.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nwmctl.formats import canonical
from nwmctl.formats.untrusted import as_hex, as_list, as_number, as_object, as_text, garbage, parse
from nwmctl.formats.uptane import Dialect, Ecu, plain_name

MAX_ECUS = 32
MAX_SIGNATURES = 8
MAX_EVENTS = 100
MAX_NOTE = 65_536
METADATA_VERSIONS = "metadataVersions"
DIRECTOR = "director"
IMAGE = "image"
MAX_ROLES = 64
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Registration:
    """The computers of a vehicle; ``primary`` is the serial of the one that speaks for all."""

    primary: str
    ecus: tuple[Ecu, ...]
    dialect: Dialect

    def __post_init__(self) -> None:
        serials = [ecu.serial for ecu in self.ecus]
        if len(set(serials)) != len(serials):
            raise ValueError("a computer is registered twice")
        publics = [ecu.public for ecu in self.ecus]
        if len(set(publics)) != len(publics):
            raise ValueError("two computers have the same key")
        if self.primary not in serials:
            raise ValueError("the primary computer is not among those that are registered")


@dataclass(frozen=True, slots=True)
class Installed:
    """A file that a computer runs."""

    name: str
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Signed:
    """Bytes and the raw signatures that came with them."""

    data: bytes
    signatures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EcuReport:
    """What one computer says. ``counter`` grows with each report; ``attacks`` is its own words, mostly empty."""

    serial: str
    counter: int
    installed: Installed
    attacks: str
    signed: Signed


@dataclass(frozen=True, slots=True)
class VehicleReport:
    """What a vehicle says. ``director`` and ``image``: role -> the metadata version that it has verified last."""

    primary: str
    ecus: tuple[EcuReport, ...]
    signed: Signed
    director: Mapping[str, int] = field(default_factory=dict)
    image: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VehicleEvent:
    """An event of a vehicle's own diary. ``id`` is the vehicle's; ``text`` the whole event as canonical JSON."""

    id: str
    kind: str
    text: str


def decode_registration(body: bytes) -> Registration:
    """The body of a registration. The key type's spelling tells the dialect."""
    table = as_object(parse(body), "the registration")
    rows = as_list(table.get("ecus"), "ecus")
    if not 1 <= len(rows) <= MAX_ECUS:
        raise garbage(f"a vehicle has 1 to {MAX_ECUS} computers")
    read = [_ecu(as_object(row, "a computer")) for row in rows]
    dialects = {dialect for _, dialect in read}
    if len(dialects) != 1:
        raise garbage("the computers do not speak the same dialect")
    try:
        primary = as_text(table.get("primary_ecu_serial"), "primary_ecu_serial")
        return Registration(primary, tuple(ecu for ecu, _ in read), dialects.pop())
    except ValueError as problem:
        raise garbage(str(problem)) from problem


def decode_report(body: bytes) -> VehicleReport:
    """The body of a version report."""
    signed, table = _envelope(as_object(parse(body), "the report"), "the report")
    primary = as_text(table.get("primary_ecu_serial"), "primary_ecu_serial")
    rows = as_object(table.get("ecu_version_manifests"), "ecu_version_manifests")
    if not 1 <= len(rows) <= MAX_ECUS:
        raise garbage(f"a report is about 1 to {MAX_ECUS} computers")
    ecus = tuple(_ecu_report(serial, row) for serial, row in rows.items())
    if primary not in rows:
        raise garbage("the primary computer does not report")
    director, image = _versions(rows[primary])
    return VehicleReport(primary, ecus, signed, director, image)


def encode_registration(value: Registration) -> bytes:
    """The body of a registration."""
    keytype = "ED25519" if value.dialect is Dialect.REFERENCE else "ed25519"
    ecus: list[canonical.Plain] = [
        {
            "clientKey": {"keytype": keytype, "keyval": {"public": ecu.public.removeprefix("ed25519:")}},
            "ecu_serial": ecu.serial,
            "hardware_identifier": ecu.hardware,
        }
        for ecu in value.ecus
    ]
    return canonical.encode({"ecus": ecus, "primary_ecu_serial": value.primary})


def ecu_report_value(
    serial: str, counter: int, installed: Installed, attacks: str = "", metadata: canonical.Plain = None
) -> canonical.Plain:
    """What one computer signs. ``metadata``: {"director": {role: version}, "image": {...}}, by the primary only."""
    value: dict[str, canonical.Plain] = {
        "attacks_detected": attacks,
        "ecu_serial": serial,
        "installed_image": {
            "fileinfo": {"hashes": {"sha256": installed.sha256}, "length": installed.length},
            "filepath": installed.name,
        },
        "report_counter": counter,
    }
    if metadata is not None:
        value["custom"] = {METADATA_VERSIONS: metadata}
    return value


def vehicle_report_value(primary: str, ecus: Mapping[str, canonical.Plain]) -> canonical.Plain:
    """What the primary computer signs: the computers' own signed reports by serial."""
    return {"ecu_version_manifests": dict(ecus), "primary_ecu_serial": primary}


def decode_events(body: bytes) -> tuple[VehicleEvent, ...]:
    """The body of an event upload: one event or a list."""
    plain = parse(body)
    rows = plain if isinstance(plain, list) else [plain]
    if len(rows) > MAX_EVENTS:
        raise garbage(f"more than {MAX_EVENTS} events in one message")
    return tuple(_event(as_object(row, "an event")) for row in rows)


def decode_note(body: bytes) -> str:
    """Any text that a vehicle tells about itself, such as its settings."""
    if len(body) > MAX_NOTE:
        raise garbage(f"it is longer than {MAX_NOTE} bytes")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise garbage("it is not UTF-8") from problem
    if "\0" in text:
        raise garbage("it holds characters that no database stores")
    return text


def _ecu(row: dict[str, Any]) -> tuple[Ecu, Dialect]:
    key = as_object(row.get("clientKey"), "clientKey")
    keytype = as_text(key.get("keytype"), "keytype")
    dialect = {"ED25519": Dialect.REFERENCE, "ed25519": Dialect.TUF}.get(keytype)
    if dialect is None:
        raise garbage(f"keys of the type '{keytype[:20]}' are not used here; ed25519 is")
    public = as_hex(as_object(key.get("keyval"), "keyval").get("public"), 64, "public")
    try:
        serial = as_text(row.get("ecu_serial"), "ecu_serial")
        return Ecu(serial, as_text(row.get("hardware_identifier"), "hardware_identifier"), f"ed25519:{public}"), dialect
    except ValueError as problem:
        raise garbage(str(problem)) from problem


def _ecu_report(serial: str, row: object) -> EcuReport:
    signed, table = _envelope(as_object(row, "a computer's report"), "a computer's report")
    if as_text(table.get("ecu_serial"), "ecu_serial") != serial:
        raise garbage("a computer's report stands under the serial of another one")
    image = as_object(table.get("installed_image"), "installed_image")
    info = as_object(image.get("fileinfo"), "fileinfo")
    digest = as_hex(as_object(info.get("hashes"), "hashes").get("sha256"), 64, "sha256")
    installed = Installed(as_text(image.get("filepath"), "filepath"), as_number(info.get("length"), "length"), digest)
    counter = as_number(table.get("report_counter"), "report_counter")
    attacks = as_text(table.get("attacks_detected", ""), "attacks_detected")
    try:
        return EcuReport(plain_name(serial, "an ECU serial"), counter, installed, attacks, signed)
    except ValueError as problem:
        raise garbage(str(problem)) from problem


def _versions(primary: Any) -> tuple[dict[str, int], dict[str, int]]:
    custom = primary["signed"].get("custom", {})
    table = as_object(as_object(custom, "custom").get(METADATA_VERSIONS, {}), METADATA_VERSIONS)
    found = []
    for name in (DIRECTOR, IMAGE):
        versions = as_object(table.get(name, {}), name)
        if len(versions) > MAX_ROLES or not all(_ROLE.match(role) for role in versions):
            raise garbage(f"{name} holds more than {MAX_ROLES} roles, or one that has no plain name")
        found.append({role: as_number(version, role) for role, version in versions.items()})
    return found[0], found[1]


def _envelope(table: dict[str, Any], what: str) -> tuple[Signed, dict[str, Any]]:
    value = as_object(table.get("signed"), f"the signed part of {what}")
    rows = as_list(table.get("signatures"), "signatures")
    if not 1 <= len(rows) <= MAX_SIGNATURES:
        raise garbage(f"{what} has 1 to {MAX_SIGNATURES} signatures")
    try:
        data = canonical.encode(value)
    except (ValueError, RecursionError) as problem:
        raise garbage("it holds numbers or texts that no canonical form has") from problem
    return Signed(data, tuple(_signature(as_object(row, "a signature")) for row in rows)), value


def _signature(row: dict[str, Any]) -> bytes:
    text = as_text(row.get("sig"), "sig")
    try:
        raw = bytes.fromhex(text) if len(text) == 128 else base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as problem:
        raise garbage("a signature is neither hexadecimal digits nor base64") from problem
    if len(raw) != 64:
        raise garbage("a signature does not have 64 bytes")
    return raw


def _event(row: dict[str, Any]) -> VehicleEvent:
    kind = as_object(row.get("eventType"), "eventType")
    try:
        text = canonical.encode(row).decode()
    except (ValueError, RecursionError) as problem:
        raise garbage("an event holds what no canonical form has") from problem
    identity = as_text(row.get("id"), "id")
    if not 1 <= len(identity) <= 100:
        raise garbage("an event's id has 1 to 100 letters")
    return VehicleEvent(identity, as_text(kind.get("id"), "eventType.id"), as_text(text, "an event"))
