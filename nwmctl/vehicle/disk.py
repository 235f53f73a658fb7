"""The few ways in which a vehicle changes its disk, each safe against power loss.

A small file is replaced whole (temporary name, fsync, rename, fsync of the folder): a reader sees the old bytes or
the new ones. A slot's file is written once under its own name and is worth nothing until the boot state says so.
Errors of the operating system become ``VehicleDiskError`` or ``NoSpaceError``. Decides nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nwmctl.domain.digest import Digest
from nwmctl.errors import NoSpaceError, VehicleDiskError

CHUNK = 1 << 20
_NEW = ".new"


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn operating system errors about ``path`` into refusals."""
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"no space left to write '{path.name}'",
                why="the bundle and both slots do not fit on the vehicle's disk",
                next="free space on the vehicle, or send a smaller bundle; the active slot is untouched",
            ) from problem
        raise VehicleDiskError(
            f"cannot read or write '{path.name}'",
            why=str(problem.strerror or problem),
            next="check the vehicle's disk and the rights on its folder",
        ) from problem


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file so that readers and crashes see the old bytes or the new ones, whole."""
    temporary = path.with_name(path.name + _NEW)
    with translated(path):
        _write(temporary, [data], os.O_TRUNC)
        os.replace(temporary, path)
        sync_folder(path.parent)


def create_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file and force it to the disk. The folder's entry is not yet durable: call ``sync_folder``."""
    with translated(path):
        _write(path, chunks, os.O_EXCL)


def digest_file(path: Path, *, from_disk: bool = False) -> tuple[Digest, int]:
    """Digest and size of a file; ``from_disk`` drops the cached pages first, so that the disk itself is read."""
    state = hashlib.sha256()
    size = 0
    with translated(path), path.open("rb") as stream:
        if from_disk:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := stream.read(CHUNK):
            state.update(chunk)
            size += len(chunk)
    return Digest(state.hexdigest()), size


def clear_folder(path: Path) -> None:
    """Make ``path`` an empty folder. Only plain files are expected in it."""
    with translated(path):
        path.mkdir(exist_ok=True)
        for entry in path.iterdir():
            os.unlink(entry)
        sync_folder(path)


def remove_file(path: Path) -> None:
    """Remove a file if it is there."""
    with translated(path):
        path.unlink(missing_ok=True)


def read_file(path: Path) -> bytes:
    """The bytes of a small file."""
    with translated(path):
        return path.read_bytes()


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    with translated(path):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write(path: Path, chunks: Iterable[bytes], flag: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o644)
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
