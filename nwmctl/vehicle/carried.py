"""Inference runtimes that came in a bundle: which ones lie in a slot, and executing a payload with one of them.

A carried runtime is a Python wheel, proven with its slot like every other file; it is good for the slot that it lies in
and for no other, so a vehicle names it (``nwm.carried.``) and does not report it as a runtime that it has. It is
unpacked for as long as it executes, beside nothing else, and found before whatever this machine has installed. Only
regular files below the target folder are unpacked, and not more than a limit. Vehicles whose chip is not this machine
never execute one here.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BUNDLE_MANIFEST_NAME, BundleManifest, CarriedRuntime
from nwmctl.errors import CarriedRuntimeError
from nwmctl.formats import documents
from nwmctl.vehicle import disk

if TYPE_CHECKING:
    from nwmctl.toolchains.protocol import Session

_MOST_BYTES = 4 << 30
_MOST_FILES = 50_000
_WORKERS: Final = {"iree-base-runtime": "iree", "onnxruntime": "onnxruntime", "openvino": "openvino"}
"""Package -> the worker's word for it."""


def carried_in(slot: Path, variant: str) -> tuple[CarriedRuntime, ...]:
    """The runtimes that the bundle in ``slot`` carries for a compute variant; none where no bundle lies there."""
    place = slot / BUNDLE_MANIFEST_NAME
    if not place.exists():
        return ()
    manifest = documents.decode(BundleManifest, disk.read_file(place), BUNDLE_MANIFEST_NAME)
    return tuple(each for each in manifest.runtimes if variant in each.variants)


def carried_for(payload: Path, needs: ArtifactManifest) -> CarriedRuntime | None:
    """The runtime beside ``payload`` that it needs and that can execute here; None if there is none."""
    place = payload.parent / BUNDLE_MANIFEST_NAME
    if needs.needs.runtime not in _WORKERS or not place.exists():
        return None
    manifest = documents.decode(BundleManifest, disk.read_file(place), BUNDLE_MANIFEST_NAME)
    return next((each for each in manifest.runtimes if each.name == needs.needs.runtime), None)


@contextmanager
def open_carried(
    payload: Path, manifest: ArtifactManifest, runtime: CarriedRuntime, timeout_s: float
) -> Iterator[Session]:
    """The payload, executed by the wheel beside it. Raises CarriedRuntimeError, VehicleDiskError, and what a worker's
    session raises."""
    from nwmctl.toolchains.sessions import open_worker

    with TemporaryDirectory(prefix="nwmctl-carried-") as folder:
        site = Path(folder)
        unpack_wheel(payload.with_name(runtime.filename), site)
        worker = _WORKERS[runtime.name]
        flags = manifest.needs.flags
        with open_worker(worker, payload, manifest.inputs, manifest.outputs, timeout_s, flags, site=site) as session:
            yield session


def unpack_wheel(wheel: Path, into: Path) -> None:
    """Unpack the files of a wheel. Raises CarriedRuntimeError, VehicleDiskError."""
    try:
        with disk.translated(into), zipfile.ZipFile(wheel) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > _MOST_FILES or sum(entry.file_size for entry in entries) > _MOST_BYTES:
                raise _refuse(wheel, "it is larger than any runtime")
            for entry in entries:
                _unpack(archive, entry, wheel, into)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError) as problem:
        raise _refuse(wheel, f"it is no wheel: {problem}") from problem


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, wheel: Path, into: Path) -> None:
    name = PurePosixPath(entry.filename)
    kind = entry.external_attr >> 28
    if name.is_absolute() or ".." in name.parts or not name.parts or "\\" in entry.filename or kind not in (0, 8):
        raise _refuse(wheel, f"'{entry.filename[:80]}' is no plain file below a folder")
    place = into / name
    place.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with archive.open(entry) as source, place.open("xb") as out:
        while chunk := source.read(min(left + 1, disk.CHUNK)):
            left -= len(chunk)
            if left < 0:
                raise _refuse(wheel, f"'{entry.filename[:80]}' is longer than it says")
            out.write(chunk)


def _refuse(wheel: Path, why: str) -> CarriedRuntimeError:
    return CarriedRuntimeError(
        f"the carried runtime '{wheel.name}' cannot be unpacked",
        why=why,
        next="release with a wheel of the runtime's maker, built for the vehicle's processor",
    )
