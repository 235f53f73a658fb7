"""The director's side of what a vehicle believes, and whether director and image repository agree.

``refresh_director`` follows the director's roots one by one and then reads the vehicle's own targets metadata: signed
by the keys that the root names, never older than what was seen before, not expired. There is no snapshot and no
timestamp: each vehicle has one short file of its own, and its version and expiry are their protection.

``agree`` is where a stolen director key ends: what the director names must be listed by the image repository, under
other keys, with the same length, hash, sequence and hardware, and must be for this vehicle's own computers. Pure;
fetching and time are arguments; nothing of the old state is changed by a refusal.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nwmctl.domain.bundle import BundleTarget
from nwmctl.domain.digest import Digest
from nwmctl.errors import (
    ForeignEcuError,
    HardwareDisagreesError,
    HashDisagreesError,
    LengthDisagreesError,
    MetadataExpiredError,
    NotCanonicalError,
    NotDirectedError,
    NwmError,
    OrderRollbackError,
    SequenceDisagreesError,
    VerificationError,
)
from nwmctl.formats import canonical
from nwmctl.formats.uptane import ECU_IDENTIFIERS, HARDWARE_ID, RELEASE_SEQUENCE, USE_SLOT
from nwmctl.trust.metadata import MAX_ROOT, MAX_ROOTS, Fetch, ListedBundle, format_error, moment, translated

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, TargetFile, Targets
    from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

TARGETS_PATH = "targets.json"
MAX_DIRECTOR = 65_536
_SCHEMA = "nwmctl.trusted-director/1"
_AGAIN = "do not install; ask the fleet's operator which of the two repositories is wrong"


@dataclass(frozen=True, slots=True)
class DirectorState:
    """What was verified last. A new vehicle has the pinned ``root`` only."""

    root: bytes
    targets: bytes | None = None

    def to_bytes(self) -> bytes:
        """One file for the vehicle's disk."""
        parts = {"root": self.root, "targets": self.targets}
        table: dict[str, canonical.Plain] = {
            name: base64.b64encode(data).decode() for name, data in parts.items() if data is not None
        }
        return canonical.encode({**table, "schema": _SCHEMA})

    @classmethod
    def from_bytes(cls, data: bytes) -> DirectorState:
        """Read ``to_bytes``. Raises MetadataFormatError."""
        try:
            plain = canonical.decode(data, "trusted director metadata")
            if not isinstance(plain, dict) or plain.pop("schema", None) != _SCHEMA:
                raise ValueError("it has another schema")
            return cls(**{name: base64.b64decode(str(text), validate=True) for name, text in plain.items()})
        except (NotCanonicalError, ValueError, TypeError, binascii.Error) as problem:
            raise format_error(f"the kept state is damaged: {getattr(problem, 'why', problem)}") from problem


@dataclass(frozen=True, slots=True)
class DirectedFile:
    """A file that the director names. ``hardware``: serial of each computer -> its hardware id."""

    name: str
    length: int
    digest: Digest
    hardware: Mapping[str, str]
    sequence: int


@dataclass(frozen=True, slots=True)
class VerifiedDirector:
    """What the director says now, verified. Keep ``state`` for the next time; report both versions.

    ``use_slot``: the sequence of the own slot that the vehicle shall run, where the director wants that.
    """

    state: DirectorState
    root_version: int
    version: int
    files: Mapping[str, DirectedFile]
    use_slot: int | None

    def resolve(self, name: str) -> DirectedFile:
        """The file of that name. Raises NotDirectedError."""
        found = self.files.get(name)
        if found is None:
            raise NotDirectedError(
                f"the director does not tell this vehicle to install '{name[:120]}'",
                why=f"its signed metadata (version {self.version}) name: {', '.join(self.files) or 'nothing'}",
                next="do not install it; let the vehicle poll again",
            )
        return found


def hardware_id(board: str, revision: str) -> str:
    """A computer's hardware id."""
    return f"{board}:{revision}"


def hardware_ids(about: BundleTarget) -> tuple[str, ...]:
    """The hardware ids that a listed bundle is for."""
    return tuple(hardware_id(about.board, revision) for revision in about.revisions)


def refresh_director(state: DirectorState, fetch: Fetch, now_us: int) -> VerifiedDirector:
    """Verify the director's newest metadata on top of ``state``.

    ``fetch`` gets ``N.root.json`` (None where there is none) and ``targets.json``. Raises MetadataSignatureError,
    OrderRollbackError, MetadataExpiredError, MetadataFormatError, and what ``fetch`` raises.
    """
    from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
    from tuf.ngclient.config import EnvelopeType

    with translated():
        trusted = TrustedMetadataSet(state.root, EnvelopeType.METADATA)
        trusted.reference_time = moment(now_us)
    root = _follow_roots(trusted, state.root, fetch)
    if trusted.root.is_expired(moment(now_us)):
        raise _expired("root", trusted.root.expires)
    data = fetch(TARGETS_PATH)
    if data is None:
        raise format_error("the director has no metadata for this vehicle")
    targets = _read(trusted, data)
    _refuse_older(trusted, state.targets, targets)
    if targets.is_expired(moment(now_us)):
        raise _expired("director's", targets.expires)
    files = {name: _directed(name, file) for name, file in targets.targets.items()}
    return VerifiedDirector(DirectorState(root, data), trusted.root.version, targets.version, files, _slot(targets))


def agree(directed: DirectedFile, listed: ListedBundle, ecus: Mapping[str, str]) -> ListedBundle:
    """``listed`` itself, if director, image repository and this vehicle mean the same.

    ``ecus``: serial -> hardware id of this vehicle's computers. Raises ForeignEcuError, HardwareDisagreesError,
    LengthDisagreesError, HashDisagreesError, SequenceDisagreesError.
    """
    name = directed.name[:120]
    if not directed.hardware:
        raise _foreign(name, "they name no computer at all")
    allowed = hardware_ids(listed.about)
    for serial, hardware in directed.hardware.items():
        own = ecus.get(serial)
        if own is None:
            raise _foreign(name, f"they name the computer '{serial[:80]}'")
        if own != hardware or own not in allowed:
            raise HardwareDisagreesError(
                f"'{name}' is not for the hardware of '{serial[:80]}'",
                why=f"the computer is {own}, the director says {hardware[:80]}, the list {', '.join(allowed)[:200]}",
                next=_AGAIN,
            )
    if directed.length != listed.length:
        raise LengthDisagreesError(
            f"two lengths are promised for '{name}'",
            why=f"the director says {directed.length} bytes, the image repository {listed.length}",
            next=_AGAIN,
        )
    if directed.digest != listed.digest:
        raise HashDisagreesError(
            f"two hashes are promised for '{name}'",
            why=f"the director says {directed.digest}, the image repository {listed.digest}",
            next=_AGAIN,
        )
    if directed.sequence != listed.about.sequence:
        raise SequenceDisagreesError(
            f"two release sequences are named for '{name}'",
            why=f"the director says {directed.sequence}, the image repository {listed.about.sequence}",
            next=_AGAIN,
        )
    return listed


def _follow_roots(trusted: TrustedMetadataSet, root: bytes, fetch: Fetch) -> bytes:
    for _ in range(MAX_ROOTS):
        data = fetch(f"{trusted.root.version + 1}.root.json")
        if data is None:
            return root
        _limit(data, MAX_ROOT, "root")
        with translated():
            trusted.update_root(data)
        root = data
    return root


def _read(trusted: TrustedMetadataSet, data: bytes) -> Targets:
    from tuf.api.metadata import Metadata

    _limit(data, MAX_DIRECTOR, TARGETS_PATH)
    with translated():
        found: Metadata[Targets] = Metadata.from_bytes(data)
        if found.signed.type != "targets":
            raise ValueError(f"it is {found.signed.type} metadata")
        trusted.root.verify_delegate("targets", found.signed_bytes, found.signatures)
        return found.signed


def _refuse_older(trusted: TrustedMetadataSet, kept: bytes | None, new: Targets) -> None:
    """Under the same keys, versions never go back. Under new keys what a stolen old one signed counts no more."""
    if kept is None:
        return
    try:
        before = _read(trusted, kept).version
    except VerificationError:
        return
    if new.version < before:
        raise OrderRollbackError(
            "the director's metadata are older than what was seen before",
            why=f"they have version {new.version}, this vehicle has seen {before}",
            next="ask again; whoever answered may be replaying old metadata",
        )


def _directed(name: str, file: TargetFile) -> DirectedFile:
    try:
        custom: Any = file.unrecognized_fields["custom"]
        hardware = {_text(serial): _text(about[HARDWARE_ID]) for serial, about in custom[ECU_IDENTIFIERS].items()}
        digest = Digest.parse(f"sha256:{file.hashes['sha256']}")
        return DirectedFile(name, file.length, digest, hardware, _number(custom[RELEASE_SEQUENCE]))
    except (KeyError, TypeError, ValueError, AttributeError, NwmError) as problem:
        raise format_error(f"the director's entry '{name[:80]}' cannot be read: {problem}") from problem


def _slot(targets: Targets) -> int | None:
    custom = targets.unrecognized_fields.get("custom")
    if not isinstance(custom, dict) or USE_SLOT not in custom:
        return None
    with translated():
        return _number(custom[USE_SLOT])


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number from 0 is expected")
    return value


def _limit(data: bytes, most: int, what: str) -> None:
    if len(data) > most:
        raise format_error(f"'{what}' has {len(data)} bytes, at most {most} are read")


def _expired(what: str, at: object) -> MetadataExpiredError:
    return MetadataExpiredError(
        f"the {what} metadata have expired",
        why=f"they held until {at}; somebody may be holding back newer ones",
        next="ask again; the director renews its metadata when it is polled",
    )


def _foreign(name: str, why: str) -> ForeignEcuError:
    return ForeignEcuError(f"the director's metadata about '{name}' are not for this vehicle", why=why, next=_AGAIN)
