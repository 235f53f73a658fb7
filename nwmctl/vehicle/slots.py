"""A vehicle's two slots on disk.

``boot.json`` is the boot loader's memory (see ``boot``); ``slot-a/`` and ``slot-b/`` hold files and a list of them,
``slot.json``, whose digest stands in ``boot.json``: from there every byte of a slot can be proven again. Power loss
at any moment leaves the old boot state or the new one, and the active slot is never opened for writing. Keeps
nothing in memory: a restart is simply a new object on the same folder. Does not know what the files mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.fleet import SlotName
from nwmctl.errors import NwmError, SlotBrokenError, VehicleStateError
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.vehicle import boot, disk
from nwmctl.vehicle.boot import BootState

BOOT_NAME = "boot.json"
LISTING_NAME = "slot.json"
_BOOT_SCHEMA = "nwmctl.boot/1"
_LISTING_SCHEMA = "nwmctl.slot/1"


@dataclass(frozen=True, slots=True)
class SlotEntry:
    """A file of a slot: ``size`` in bytes."""

    name: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class SlotFile:
    """A file to write: what it must be, and where its bytes come from (``read`` may be called once)."""

    entry: SlotEntry
    read: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class _Listing:
    files: tuple[SlotEntry, ...]


class Slots:
    """The slots in one vehicle's folder. Not safe for two writers: a vehicle has one client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def create(cls, folder: Path, sequence: int, files: Sequence[SlotFile]) -> Slots:
        """The slots as the factory leaves them: slot a good with ``files`` (may be none), slot b empty.

        Raises VehicleStateError if there are slots already.
        """
        slots = cls(folder)
        if (folder / BOOT_NAME).exists():
            raise VehicleStateError(
                f"'{folder.name}' is a vehicle already",
                why="it has a boot state, and delivering again would forget what it has committed",
                next="use the vehicle as it is, or choose another folder",
            )
        disk.clear_folder(slots.folder_of(SlotName.A))
        disk.clear_folder(slots.folder_of(SlotName.B))
        slots._keep(boot.factory(sequence, slots._fill(SlotName.A, files) if files else None))
        return slots

    def state(self) -> BootState:
        """The boot state, read from disk. Raises VehicleStateError."""
        try:
            plain = canonical.decode(disk.read_file(self._folder / BOOT_NAME), BOOT_NAME)
            if not isinstance(plain, dict) or plain.pop("schema", None) != _BOOT_SCHEMA:
                raise VehicleStateError(
                    f"{BOOT_NAME} is not {_BOOT_SCHEMA}", why="another program wrote it", next="restore the vehicle"
                )
            return from_plain(BootState, plain, Source(BOOT_NAME))
        except VehicleStateError:
            raise
        except NwmError as problem:
            raise VehicleStateError(
                f"the boot state of '{self._folder.name}' cannot be read",
                why=problem.what,
                next="deliver the vehicle anew: its slots cannot be trusted",
            ) from problem

    def folder_of(self, slot: SlotName) -> Path:
        """Where a slot's files lie."""
        return self._folder / f"slot-{slot}"

    def install(self, sequence: int, files: Sequence[SlotFile]) -> SlotName:
        """Write ``files`` to the inactive slot, read every byte back, mark it installed at ``sequence``.

        Raises SlotRuleError during a trial, SlotBrokenError if the bytes are not what was asked for, NoSpaceError,
        VehicleDiskError. After a failure or power loss the inactive slot is unbootable and all else is unchanged.
        """
        state = boot.mark_unbootable(self.state())
        self._keep(state)
        listing = self._fill(state.inactive, files)
        self._keep(boot.mark_installed(state, sequence, listing))
        return state.inactive

    def activate(self) -> BootState:
        """Let the next start run the inactive slot, on trial. Raises SlotRuleError."""
        return self._keep(boot.activate(self.state()))

    def start(self) -> BootState:
        """What the boot loader does when the vehicle starts."""
        before = self.state()
        after = boot.start(before)
        return after if after == before else self._keep(after)

    def commit(self) -> BootState:
        """Keep the slot on trial. Raises SlotRuleError."""
        return self._keep(boot.commit(self.state()))

    def fall_back(self) -> BootState:
        """Give the slot on trial up. Raises SlotRuleError."""
        return self._keep(boot.fall_back(self.state()))

    def prove(self, slot: SlotName) -> tuple[SlotEntry, ...]:
        """Hash a slot's files again; returns what was proven. Raises SlotBrokenError, VehicleDiskError.

        A slot that nobody ever wrote through this class (a factory without a bundle) cannot be proven.
        """
        record = self.state().record(slot)
        if record.listing is None:
            raise _broken(slot, "no list of its files is known")
        data = disk.read_file(self.folder_of(slot) / LISTING_NAME)
        if digest_bytes(data) != record.listing:
            raise _broken(slot, f"{LISTING_NAME} is not the one that was installed")
        listing = _read_listing(data)
        self._compare(slot, listing, from_disk=False)
        return listing

    def _fill(self, slot: SlotName, files: Sequence[SlotFile]) -> Digest:
        folder = self.folder_of(slot)
        disk.clear_folder(folder)
        for file in files:
            if not _is_plain(file.entry.name) or file.entry.name == LISTING_NAME:
                raise _broken(slot, f"'{file.entry.name[:80]}' is not a name for a file in a slot")
            disk.create_file(folder / file.entry.name, _bounded(slot, file))
        listing = tuple(file.entry for file in files)
        data = canonical.encode({"schema": _LISTING_SCHEMA, "files": to_plain(listing)})
        disk.create_file(folder / LISTING_NAME, [data])
        disk.sync_folder(folder)
        self._compare(slot, listing, from_disk=True)
        return digest_bytes(data)

    def _compare(self, slot: SlotName, listing: tuple[SlotEntry, ...], *, from_disk: bool) -> None:
        for entry in listing:
            try:
                found = disk.digest_file(self.folder_of(slot) / entry.name, from_disk=from_disk)
            except NwmError as problem:
                raise _broken(slot, f"'{entry.name}' cannot be read back: {problem.why}") from problem
            if found != (entry.digest, entry.size):
                raise _broken(slot, f"'{entry.name}' is {found[0]} with {found[1]} bytes instead of {entry.digest}")

    def _keep(self, state: BootState) -> BootState:
        data = canonical.encode({"schema": _BOOT_SCHEMA, **_table(state)})
        disk.replace_file(self._folder / BOOT_NAME, data)
        return state


def _bounded(slot: SlotName, file: SlotFile) -> Iterator[bytes]:
    left = file.entry.size
    for chunk in file.read():
        left -= len(chunk)
        if left < 0:
            raise _broken(slot, f"'{file.entry.name}' is longer than its {file.entry.size} bytes")
        yield chunk


def _read_listing(data: bytes) -> tuple[SlotEntry, ...]:
    plain = canonical.decode(data, LISTING_NAME)
    assert isinstance(plain, dict)  # the digest of these bytes was recorded when this program wrote them
    plain.pop("schema", None)
    return from_plain(_Listing, plain, Source(LISTING_NAME)).files


def _table(state: BootState) -> dict[str, canonical.Plain]:
    plain = to_plain(state)
    assert isinstance(plain, dict)
    return plain


def _is_plain(name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name and name not in (".", "..") and len(name) < 200


def _broken(slot: SlotName, why: str) -> SlotBrokenError:
    return SlotBrokenError(
        f"slot {slot} is not what was installed",
        why=why,
        next="install a bundle into this slot again; the other slot is untouched",
    )
