"""Opening a downloaded bundle: is it signed, is it for this vehicle, and which of its files go into the slot.

Nothing in the file is believed before the authority's signature over ``sw-description`` is verified; after that every
file must have the hash that the description gives it, where it lies and unpacked, and the bundle's own manifest must
say the same as the description. So what a slot is later given was unpacked once before, and nothing was written then.
Each reason to refuse is a class of its own. Reads the file, writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BUNDLE_MANIFEST_NAME, BundleManifest, Payload
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.packing import Base
from nwmctl.domain.platform import Role
from nwmctl.domain.requires import Reported
from nwmctl.errors import (
    BundleContentsError,
    DeltaBaseLackingError,
    NotForThisVehicleError,
    RuntimeLackingError,
)
from nwmctl.formats import cpio, documents
from nwmctl.formats.members import FoundFile, found_files, leading, unpack_part
from nwmctl.formats.packing import key_needed
from nwmctl.formats.swu import InstalledFile, SwDescription, parse_description
from nwmctl.trust.coherence import check_coherence
from nwmctl.vehicle import disk
from nwmctl.vehicle.fit import check_hardware, check_platform, check_requires, check_sequence
from nwmctl.vehicle.record import VehicleRecord
from nwmctl.vehicle.slots import SlotEntry, SlotFile

VerifySignature = Callable[[bytes, bytes], None]
"""Takes the signed bytes and the detached CMS signature; raises if the pinned authority did not sign them."""
Lacks = Callable[[ArtifactManifest], str]
"""What this machine lacks to execute an artifact; '' if nothing."""
OldFile = Callable[[str], Path | None]
"""Where a file of that name lies that this vehicle runs; None: nowhere."""
_MAX_MANIFEST = 4 << 20


@dataclass(frozen=True, slots=True)
class OpenedBundle:
    """A bundle that this vehicle may install, and the files that go into the slot of a computer, by its role."""

    manifest: BundleManifest
    files: Mapping[Role, tuple[SlotFile, ...]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file's bytes lie in the bundle: the beginnings of its members. ``proven``: it was unpacked and right;
    else it is a delta, or encrypted with a key that this vehicle does not have."""

    entry: SlotEntry
    file: InstalledFile
    offsets: tuple[int, ...]
    proven: bool

    @property
    def base(self) -> Base | None:
        """What it starts from if the bundle brings it as a delta."""
        return self.file.packing.base if self.file.packing else None


def open_bundle(
    path: Path,
    record: VehicleRecord,
    highest: int,
    verify: VerifySignature,
    lacks: Lacks | None = None,
    key: bytes | None = None,
    has: Reported | None = None,
    old: OldFile = lambda name: None,
) -> OpenedBundle:
    """Check the bundle at ``path`` for this vehicle; ``highest`` is the highest sequence it ever committed. ``lacks``
    is asked about its payloads where this machine is to execute them; ``key`` opens encrypted ones; ``has`` is what
    the bundle's requirements are compared with, None in the factory, which sees to them; ``old`` finds the files that
    deltas start from.

    Raises ArchiveError, DescriptionError and what ``verify`` raises for a bundle that cannot be believed;
    BundleContentsError, PackedDataError and PackedSizeError for one that contradicts itself; PayloadKeyError for one
    that this vehicle has no key for; WrongHardwareError, WrongPlatformError,
    SequenceTooLowError, NotForThisVehicleError, RequirementLackingError, RuntimeLackingError and DeltaBaseLackingError
    for one that is not for this vehicle.
    """
    with disk.translated(path), path.open("rb") as stream:
        entries = cpio.unpack(stream.read)
        data, signature = leading(entries)
        verify(data, signature)
        description = parse_description(data)
        check_hardware(record, description.board, description.revisions)
        check_sequence(description.sequence, highest)
        places, manifest_data = _read_files(entries, description, key)
    manifest = documents.decode(BundleManifest, manifest_data, BUNDLE_MANIFEST_NAME)
    artifacts = _read_artifacts(path, manifest, places, key)
    check_coherence(description, manifest, digest_bytes(manifest_data), artifacts)
    check_platform(record, manifest.platform)
    if has is not None:
        check_requires(record, manifest.requires, has)
    present = {name: place.entry for name, place in places.items()}
    chosen = {
        role: own_files(manifest, record, role, present)
        for role in dict.fromkeys(computer.role for computer in record.computers)
    }
    if lacks is not None:
        _check_runtimes(manifest, record, artifacts, lacks)
    for name in dict.fromkeys(entry.name for entries in chosen.values() for entry in entries):
        if places[name].base:
            _find_base(places[name], old)
        elif not places[name].proven:
            raise key_needed(name)
    files = {
        role: tuple(_slot_file(path, places[entry.name], key, old) for entry in entries)
        for role, entries in chosen.items()
    }
    return OpenedBundle(manifest, files)


def own_payloads(manifest: BundleManifest, record: VehicleRecord, role: Role) -> list[Payload]:
    """The payloads that a computer of this vehicle in ``role`` executes."""
    return [payload for payload in manifest.payloads if payload.variant == record.variant and role in payload.roles]


def own_files(
    manifest: BundleManifest, record: VehicleRecord, role: Role, present: dict[str, SlotEntry]
) -> tuple[SlotEntry, ...]:
    """The files of a bundle that belong into the slot of this vehicle's computer in ``role``: the bundle's manifest,
    the payloads of its compute variant and role with their artifact manifests, the runtimes that the bundle carries
    for them, and its vehicle model's chassis file.

    ``present`` are the files that there are, by name. Raises NotForThisVehicleError, BundleContentsError.
    """
    by_digest = {entry.digest: entry for entry in present.values()}
    payloads = own_payloads(manifest, record, role)
    chassis = [file for file in manifest.chassis if file.vehicle_model == record.vehicle_model]
    for what, found, wanted in [
        (f"payload for a {role} computer of compute variant", payloads, record.variant),
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
    listed += [
        SlotEntry(runtime.filename, runtime.digest, runtime.size)
        for runtime in manifest.runtimes
        if record.variant in runtime.variants
    ]
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
    """A payload that cannot execute here is refused before it takes the place of one that does. Of one whose runtime
    comes along nothing is known before its trial."""
    carried = {runtime.name for runtime in manifest.runtimes if record.variant in runtime.variants}
    for payload in manifest.payloads:
        if payload.variant != record.variant:
            continue
        needs = artifacts[payload.manifest].needs
        reason = "" if needs.runtime in carried else lacks(artifacts[payload.manifest])
        if reason:
            raise RuntimeLackingError(
                f"this vehicle cannot execute '{payload.filename}'",
                why=f"it needs {needs.runtime} {needs.version}: {reason}",
                next=f"install {needs.runtime} on the vehicle, or release with a recipe whose runtime it has",
            )


def _read_files(
    entries: Iterator[cpio.Entry], description: SwDescription, key: bytes | None
) -> tuple[dict[str, _Place], bytes]:
    places: dict[str, _Place] = {}
    manifest = b""
    for found in found_files(entries, description, key):
        name = found.file.filename
        if name == BUNDLE_MANIFEST_NAME:
            manifest = _small(found)
        else:
            for _ in found.chunks:
                pass
        entry = SlotEntry(name, found.file.digest, found.size)
        places[name] = _Place(entry, found.file, tuple(found.offsets), not found.sealed)
    if BUNDLE_MANIFEST_NAME not in places:
        raise _contents(f"'{BUNDLE_MANIFEST_NAME}' is missing")
    return places, manifest


def _small(found: FoundFile) -> bytes:
    if found.size > _MAX_MANIFEST:
        raise _contents(f"'{found.file.filename}' has {found.size} bytes")
    return b"".join(found.chunks)


def _read_artifacts(
    path: Path, manifest: BundleManifest, places: dict[str, _Place], key: bytes | None
) -> dict[Digest, ArtifactManifest]:
    wanted = {payload.manifest for payload in manifest.payloads}
    found: dict[Digest, ArtifactManifest] = {}
    for name, place in places.items():
        if place.entry.digest in wanted:
            if place.entry.size > _MAX_MANIFEST:
                raise _contents(f"the artifact manifest '{name}' has {place.entry.size} bytes")
            if not place.proven:
                raise key_needed(name)
            data = b"".join(_slot_file(path, place, key, lambda name: None).read())
            found[place.entry.digest] = documents.decode(ArtifactManifest, data, name)
    return found


def _slot_file(path: Path, place: _Place, key: bytes | None, old: OldFile) -> SlotFile:
    def read() -> Iterator[bytes]:
        packing = place.file.packing
        if place.base is not None:
            yield from _made(path, place, _find_base(place, old))
            return
        if packing is None:
            yield from _stretch(path, place.offsets[0], place.entry.size)
            return
        for offset, part in zip(place.offsets, packing.parts, strict=True):
            yield from unpack_part(_stretch(path, offset, part.size), packing, part, key)

    return SlotFile(place.entry, read)


def _made(path: Path, place: _Place, base: Path) -> Iterator[bytes]:
    """The file that a delta makes; delta and file lie beside the bundle while they are needed."""
    from nwmctl.vehicle.delta import apply_delta

    assert place.file.packing is not None, "a delta is a packing"
    change, made = (path.with_name(f"{path.name}.{what}") for what in ("delta", "made"))
    disk.remove_file(change)  # a power loss may have left it
    try:
        disk.create_file(change, _stretch(path, place.offsets[0], place.file.packing.parts[0].size))
        digest = apply_delta(base, change, made, max_size=place.entry.size)
        if digest != place.entry.digest:
            raise _contents(f"the delta of '{place.entry.name}' makes {digest}, signed is {place.entry.digest}")
        yield from _stretch(made, 0, place.entry.size)
    finally:
        disk.remove_file(change)
        disk.remove_file(made)


def _find_base(place: _Place, old: OldFile) -> Path:
    assert place.base is not None, "only deltas have one"
    found = old(place.base.name)
    if found is None:
        raise DeltaBaseLackingError(
            f"the bundle brings '{place.entry.name}' as a delta that starts from another version",
            why=f"this vehicle does not run '{place.base.name}'",
            next="offer this vehicle the full bundle, or a delta from the version that it reports",
        )
    return found


def _stretch(path: Path, offset: int, size: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(offset)
        left = size
        while left and (chunk := stream.read(min(left, disk.CHUNK))):
            left -= len(chunk)
            yield chunk


def _contents(why: str) -> BundleContentsError:
    return BundleContentsError(
        "the bundle contradicts itself", why=why, next="fetch the bundle again; if it stays so, build it again"
    )
