"""Opening a downloaded bundle: is it signed, is it for this vehicle, and which of its files go into the slot.

Nothing in the file is believed before the authority's signature over ``sw-description`` is verified; after that every
file must have the hash that the description gives it, and the bundle's own manifest must say the same as the
description. Each reason to refuse is a class of its own. Reads the file, writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BUNDLE_MANIFEST_NAME, BundleManifest
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.errors import BundleContentsError, NotForThisVehicleError, PayloadChangedError, RuntimeLackingError
from nwmctl.formats import cpio, documents
from nwmctl.formats.swu import (
    DESCRIPTION_NAME,
    MAX_DESCRIPTION,
    MAX_SIGNATURE,
    SIGNATURE_NAME,
    SwDescription,
    parse_description,
)
from nwmctl.trust.coherence import check_coherence
from nwmctl.vehicle import disk
from nwmctl.vehicle.fit import check_hardware, check_platform, check_sequence
from nwmctl.vehicle.record import VehicleRecord
from nwmctl.vehicle.slots import SlotEntry, SlotFile

VerifySignature = Callable[[bytes, bytes], None]
"""Takes the signed bytes and the detached CMS signature; raises if the pinned authority did not sign them."""
Lacks = Callable[[ArtifactManifest], str]
"""What this machine lacks to execute an artifact; '' if nothing."""
_MAX_MANIFEST = 4 << 20


@dataclass(frozen=True, slots=True)
class OpenedBundle:
    """A bundle that this vehicle may install, and the files that it puts into a slot."""

    manifest: BundleManifest
    files: tuple[SlotFile, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file's bytes lie in the bundle."""

    entry: SlotEntry
    offset: int


def open_bundle(
    path: Path, record: VehicleRecord, highest: int, verify: VerifySignature, lacks: Lacks | None = None
) -> OpenedBundle:
    """Check the bundle at ``path`` for this vehicle; ``highest`` is the highest sequence it ever committed. ``lacks``
    is asked about its payloads where this machine is to execute them.

    Raises ArchiveError, DescriptionError and what ``verify`` raises for a bundle that cannot be believed;
    BundleContentsError for one that contradicts itself; WrongHardwareError, WrongPlatformError,
    SequenceTooLowError, NotForThisVehicleError and RuntimeLackingError for one that is not for this vehicle.
    """
    with disk.translated(path), path.open("rb") as stream:
        position = _Position(stream)
        entries = cpio.unpack(position.read)
        data = _leading(entries, DESCRIPTION_NAME, MAX_DESCRIPTION)
        verify(data, _leading(entries, SIGNATURE_NAME, MAX_SIGNATURE))
        description = parse_description(data)
        check_hardware(record, description.board, description.revisions)
        check_sequence(description.sequence, highest)
        places, manifest_data = _read_files(entries, position, description)
    manifest = documents.decode(BundleManifest, manifest_data, BUNDLE_MANIFEST_NAME)
    artifacts = _read_artifacts(path, manifest, places)
    check_coherence(description, manifest, digest_bytes(manifest_data), artifacts)
    check_platform(record, manifest.platform)
    chosen = own_files(manifest, record, {name: place.entry for name, place in places.items()})
    if lacks is not None:
        _check_runtimes(manifest, record, artifacts, lacks)
    return OpenedBundle(manifest, tuple(_slot_file(path, places[entry.name]) for entry in chosen))


def own_files(manifest: BundleManifest, record: VehicleRecord, present: dict[str, SlotEntry]) -> tuple[SlotEntry, ...]:
    """The files of a bundle that belong into this vehicle's slot: the bundle's manifest, the payloads of its compute
    variant with their artifact manifests, and its vehicle model's chassis file.

    ``present`` are the files that there are, by name. Raises NotForThisVehicleError, BundleContentsError.
    """
    by_digest = {entry.digest: entry for entry in present.values()}
    payloads = [payload for payload in manifest.payloads if payload.variant == record.variant]
    chassis = [file for file in manifest.chassis if file.vehicle_model == record.vehicle_model]
    for what, found, wanted in [
        ("payload for compute variant", payloads, record.variant),
        ("chassis file for vehicle model", chassis, record.vehicle_model),
    ]:
        if not found:
            raise NotForThisVehicleError(
                f"the bundle has no {what} '{wanted}'",
                why="every vehicle needs the payloads of its chips and the adaptation to its chassis",
                next="build the release with this variant and vehicle model in the platform's files",
            )
    wanted_files = {BUNDLE_MANIFEST_NAME: present.get(BUNDLE_MANIFEST_NAME)}
    listed = [SlotEntry(payload.filename, payload.digest, payload.size) for payload in payloads]
    for file in [*listed, *(SlotEntry(file.filename, file.digest, file.size) for file in chassis)]:
        if present.get(file.name) != file:
            raise _contents(f"'{file.name}' is not the file that {BUNDLE_MANIFEST_NAME} lists")
        wanted_files[file.name] = file
    for payload in payloads:
        entry = by_digest.get(payload.manifest)
        if entry is None:
            raise _contents(f"the artifact manifest of '{payload.filename}' is missing")
        wanted_files[entry.name] = entry
    return tuple(entry for entry in wanted_files.values() if entry is not None)


def _check_runtimes(
    manifest: BundleManifest, record: VehicleRecord, artifacts: dict[Digest, ArtifactManifest], lacks: Lacks
) -> None:
    """A payload that cannot execute here is refused before it takes the place of one that does."""
    for payload in manifest.payloads:
        if payload.variant != record.variant:
            continue
        needs, reason = artifacts[payload.manifest].needs, lacks(artifacts[payload.manifest])
        if reason:
            raise RuntimeLackingError(
                f"this vehicle cannot execute '{payload.filename}'",
                why=f"it needs {needs.runtime} {needs.version}: {reason}",
                next=f"install {needs.runtime} on the vehicle, or release with a recipe whose runtime it has",
            )


def _leading(entries: Iterator[cpio.Entry], name: str, limit: int) -> bytes:
    entry = next(entries, None)
    if entry is None or entry.name != name:
        raise _contents(f"'{name}' is not where it must be, in front of all files")
    return entry.read(limit)


def _read_files(
    entries: Iterator[cpio.Entry], position: _Position, description: SwDescription
) -> tuple[dict[str, _Place], bytes]:
    promised = {file.filename: file.digest for file in description.files}
    places: dict[str, _Place] = {}
    manifest = b""
    for entry in entries:
        offset = position.value
        if entry.name == BUNDLE_MANIFEST_NAME:
            manifest = entry.read(_MAX_MANIFEST)
            found = digest_bytes(manifest)
        else:
            state = hashlib.sha256()
            for chunk in entry.chunks():
                state.update(chunk)
            found = Digest(state.hexdigest())
        if entry.name not in promised:
            raise _contents(f"'{entry.name}' is in it, and the signed description does not name it")
        if promised[entry.name] != found:
            raise PayloadChangedError(
                f"'{entry.name}' is not the file that was signed",
                why=f"it is {found}, the signed description says {promised[entry.name]}",
                next="fetch the bundle again; if it stays so, build it again",
            )
        places[entry.name] = _Place(SlotEntry(entry.name, found, entry.size), offset)
    for name in (*promised, BUNDLE_MANIFEST_NAME):
        if name not in places:
            raise _contents(f"'{name}' is missing")
    return places, manifest


def _read_artifacts(path: Path, manifest: BundleManifest, places: dict[str, _Place]) -> dict[Digest, ArtifactManifest]:
    wanted = {payload.manifest for payload in manifest.payloads}
    found: dict[Digest, ArtifactManifest] = {}
    for name, place in places.items():
        if place.entry.digest in wanted:
            if place.entry.size > _MAX_MANIFEST:
                raise _contents(f"the artifact manifest '{name}' has {place.entry.size} bytes")
            data = b"".join(_slot_file(path, place).read())
            found[place.entry.digest] = documents.decode(ArtifactManifest, data, name)
    return found


def _slot_file(path: Path, place: _Place) -> SlotFile:
    def read() -> Iterator[bytes]:
        with path.open("rb") as stream:
            stream.seek(place.offset)
            left = place.entry.size
            while left and (chunk := stream.read(min(left, disk.CHUNK))):
                left -= len(chunk)
                yield chunk

    return SlotFile(place.entry, read)


class _Position:
    """Counts what was read, so that a file's bytes can be found again."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.value = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.value += len(data)
        return data


def _contents(why: str) -> BundleContentsError:
    return BundleContentsError(
        "the bundle contradicts itself", why=why, next="fetch the bundle again; if it stays so, build it again"
    )
