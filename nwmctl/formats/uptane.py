"""Director and repository metadata in two dialects: values to the bytes that are signed, and to files.

``Dialect.TUF`` is what python-tuf and tuf-js read. ``Dialect.REFERENCE`` is the older one of the C++ reference client:
capitalised ``_type``, keys without a scheme, key ids over the bare public key, signatures in base64 that name their
method. One signer serves both, because a signature is over bytes and knows no dialect.

The signed bytes are canonical JSON. Names, serials and hardware ids hold plain printable ASCII without quotes (see
``plain_name``), where every canonical form that is in use is the same. A vehicle's targets metadata come from a
``DirectorTemplate``: of 700,000 files of one release only the computers and the version differ. Pure; signs nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from nwmctl.formats import canonical
from nwmctl.formats.canonical import Plain

SPEC_VERSION = "1.0.31"
"""The TUF specification that the TUF dialect follows."""
ECU_IDENTIFIERS = "ecuIdentifiers"
HARDWARE_ID = "hardwareId"
HARDWARE_IDS = "hardwareIds"
RELEASE_SEQUENCE = "releaseSequence"
USE_SLOT = "useSlotWithSequence"

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:+@/=-]{0,199}\Z", re.ASCII)
_PUBLIC = re.compile(r"ed25519:([0-9a-f]{64})\Z")


class Dialect(StrEnum):
    """How metadata are spelled. The value is stored."""

    TUF = "tuf"
    REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Ecu:
    """One computer of a vehicle. ``hardware`` is ``board:revision``; ``public`` its own key, ``ed25519:<hex>``."""

    serial: str
    hardware: str
    public: str

    def __post_init__(self) -> None:
        plain_name(self.serial, "an ECU serial")
        plain_name(self.hardware, "a hardware id")
        public_hex(self.public)


@dataclass(frozen=True, slots=True)
class Directed:
    """The file that the director wants a vehicle to install."""

    name: str
    length: int
    sha256: str
    sequence: int


@dataclass(frozen=True, slots=True)
class UseSlot:
    """The director wants the vehicle to run its own slot that holds ``sequence``; nothing is to be installed."""

    sequence: int


Direction = Directed | UseSlot | None
"""What a vehicle shall do; None: nothing."""


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """The public keys (``ed25519:<hex>``) of a role, and how many of them must sign."""

    keys: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class DirectorRoot:
    """One version of the director's root as the file of either dialect; ``reference`` is empty where nobody could
    sign it."""

    version: int
    tuf: bytes
    reference: bytes

    def of(self, dialect: Dialect) -> bytes:
        """The file of one dialect."""
        return self.tuf if dialect is Dialect.TUF else self.reference


@dataclass(frozen=True, slots=True)
class DirectorTemplate:
    """One direction in one dialect until one expiry. ``middle`` is None where no file and so no computer is named."""

    head: str
    middle: str | None
    tail: str

    def signed(self, ecus: str, version: int) -> str:
        """The text that is signed. ``ecus`` is the text of ``ecu_identifiers``."""
        named = "" if self.middle is None else f"{ecus}{self.middle}"
        return f"{self.head}{named}{version}{self.tail}"


def plain_name(text: str, what: str) -> str:
    """``text`` itself. Raises ValueError unless it is 1 to 200 plain printable ASCII characters without quotes."""
    if not _PLAIN.match(text):
        raise ValueError(f"{what} is {text[:80]!r}, it must be 1 to 200 letters, digits, spaces or ._:+@/=-")
    return text


def public_hex(public: str) -> str:
    """The 64 digits of ``ed25519:<hex>``. Raises ValueError."""
    found = _PUBLIC.match(public)
    if not found:
        raise ValueError(f"a public key is {public[:80]!r}, it must be ed25519: and 64 hexadecimal digits")
    return found.group(1)


def key_id(dialect: Dialect, public: str) -> str:
    """The id that a dialect gives a key."""
    if dialect is Dialect.REFERENCE:
        return hashlib.sha256(public_hex(public).encode()).hexdigest()
    return hashlib.sha256(canonical.encode(key_value(dialect, public))).hexdigest()


def key_value(dialect: Dialect, public: str) -> dict[str, Plain]:
    """A public key as root metadata hold it."""
    keyval: dict[str, Plain] = {"public": public_hex(public)}
    if dialect is Dialect.REFERENCE:
        return {"keytype": "ED25519", "keyval": keyval}
    return {"keytype": "ed25519", "keyval": keyval, "scheme": "ed25519"}


def ecu_identifiers(ecus: Sequence[Ecu]) -> str:
    """The canonical text of a vehicle's computers, as its director metadata name them."""
    table: dict[str, Plain] = {ecu.serial: {HARDWARE_ID: ecu.hardware} for ecu in ecus}
    return canonical.encode(table).decode()


def director_template(dialect: Dialect, direction: Direction, expires: str) -> DirectorTemplate:
    """Targets metadata of one direction. ``expires`` is ``expiry_text``'s."""
    kind = '"_type":"targets"' if dialect is Dialect.TUF else '"_type":"Targets"'
    spec = f'"spec_version":"{SPEC_VERSION}",' if dialect is Dialect.TUF else ""
    match direction:
        case Directed(name, length, sha256, sequence):
            plain_name(name, "a file name")
            head = f'{{{kind},"expires":"{expires}",{spec}"targets":{{"{name}":{{"custom":{{"{ECU_IDENTIFIERS}":'
            middle = (
                f',"{RELEASE_SEQUENCE}":{sequence}}},"hashes":{{"sha256":"{sha256}"}},"length":{length}}}}},"version":'
            )
            return DirectorTemplate(head, middle, "}")
        case UseSlot(sequence):
            custom = f'"custom":{{"{USE_SLOT}":{sequence}}},'
        case None:
            custom = ""
    return DirectorTemplate(f'{{{kind},{custom}"expires":"{expires}",{spec}"targets":{{}},"version":', None, "}")


def sealed(dialect: Dialect, signed: str, signatures: Sequence[tuple[str, bytes]]) -> str:
    """The file: the signed text, and the signatures over its UTF-8 bytes as (key id, raw signature)."""
    if dialect is Dialect.TUF:
        rows = [f'{{"keyid":"{key}","sig":"{raw.hex()}"}}' for key, raw in signatures]
    else:
        rows = [
            f'{{"keyid":"{key}","method":"ed25519","sig":"{base64.b64encode(raw).decode()}"}}'
            for key, raw in signatures
        ]
    return f'{{"signatures":[{",".join(rows)}],"signed":{signed}}}'


def root_text(version: int, expires: str, roles: Mapping[str, RoleKeys], *, consistent: bool) -> str:
    """Root metadata in the reference dialect (python-tuf writes the other one). Roles that are absent are left out."""
    dialect = Dialect.REFERENCE
    publics = dict.fromkeys(public for role in roles.values() for public in role.keys)
    keys: dict[str, Plain] = {key_id(dialect, public): key_value(dialect, public) for public in publics}
    table: dict[str, Plain] = {
        name: {"keyids": [key_id(dialect, public) for public in role.keys], "threshold": role.threshold}
        for name, role in roles.items()
    }
    value: dict[str, Plain] = {
        "_type": "Root",
        "consistent_snapshot": consistent,
        "expires": expires,
        "keys": keys,
        "roles": table,
        "version": version,
    }
    return canonical.encode(value).decode()


def expiry_text(at_us: int) -> str:
    """A time in microseconds since 1970 UTC as metadata write it, in whole seconds."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
