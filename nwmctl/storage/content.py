"""The content store: blobs by digest, and results by step key.

Invariants: an object's name is the sha256 of its bytes; a name appears only after its bytes are on disk (temporary
name, fsync, rename, fsync of the folder); nothing is ever overwritten. So a kill at any moment leaves either no
object or a whole one. Does not know what is stored.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.errors import ContentCorruptError, ContentMissingError

_BUFFER = 1 << 20


class ContentStore:
    """A folder of blobs (``objects/``), step results (``results/``) and temporary files (``tmp/``)."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._results = root / "results"
        self._tmp = root / "tmp"
        for folder in (self._objects, self._results, self._tmp):
            folder.mkdir(parents=True, exist_ok=True)
        self._verified: set[Digest] = set()

    def put_bytes(self, data: bytes) -> Digest:
        """Store bytes; storing the same bytes again costs one look."""
        digest = digest_bytes(data)
        if not self._place(digest).exists():
            with self._temporary() as (file, name):
                file.write(data)
                self._settle(file, name, self._place(digest))
        self._verified.add(digest)
        return digest

    def put_file(self, path: Path) -> Digest:
        """Store a copy of a file, reading it once."""
        state = hashlib.sha256()
        with path.open("rb") as source, self._temporary() as (file, name):
            while chunk := source.read(_BUFFER):
                state.update(chunk)
                file.write(chunk)
            digest = Digest(state.hexdigest())
            if not self._place(digest).exists():
                self._settle(file, name, self._place(digest))
        self._verified.add(digest)
        return digest

    def adopt(self, path: Path, digest: Digest) -> Digest:
        """Make a file from ``scratch`` an object without reading it: whoever wrote it hashed it on the way.

        The file is moved. The next process that uses the object hashes its bytes, as it does for any other.
        """
        place = self._place(digest)
        if not place.exists():
            with path.open("rb") as file:
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            place.parent.mkdir(exist_ok=True)
            os.replace(path, place)
            sync_folder(place.parent)
        self._verified.add(digest)
        return digest

    def has(self, digest: Digest) -> bool:
        """Whether the object is here (its bytes are not looked at)."""
        return self._place(digest).exists()

    def path(self, digest: Digest) -> Path:
        """A verified, read-only file. Raises ContentMissingError, ContentCorruptError.

        The bytes are hashed at the first use in this process.
        """
        place = self._place(digest)
        if digest not in self._verified:
            try:
                with place.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError as problem:
                raise _missing(digest) from problem
            if found != digest.hex:
                self._discard(place)
                raise _corrupt(digest)
            self._verified.add(digest)
        elif not place.exists():
            raise _missing(digest)
        return place

    def read(self, digest: Digest) -> bytes:
        """An object's bytes, hashed as they are read. Raises ContentMissingError, ContentCorruptError."""
        place = self._place(digest)
        try:
            data = place.read_bytes()
        except FileNotFoundError as problem:
            raise _missing(digest) from problem
        if digest_bytes(data) != digest:
            self._discard(place)
            raise _corrupt(digest)
        return data

    def result(self, key: Digest) -> bytes | None:
        """What was stored under a step key, or None."""
        try:
            return (self._results / key.hex).read_bytes()
        except FileNotFoundError:
            return None

    def set_result(self, key: Digest, data: bytes) -> None:
        """Store a step's result; the objects that it names must be stored before."""
        with self._temporary() as (file, name):
            file.write(data)
            self._settle(file, name, self._results / key.hex)

    def forget_result(self, key: Digest) -> None:
        """Drop a result whose objects are gone, so that the step runs again."""
        (self._results / key.hex).unlink(missing_ok=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder on the store's file system, removed at the end."""
        with tempfile.TemporaryDirectory(dir=self._tmp, prefix="scratch-") as folder:
            yield Path(folder)

    def sweep(self) -> None:
        """Remove what killed processes left unfinished. Only for whoever holds the workspace alone."""
        for left in self._tmp.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def _place(self, digest: Digest) -> Path:
        return self._objects / digest.hex[:2] / digest.hex[2:]

    @contextmanager
    def _temporary(self) -> Iterator[tuple[BinaryIO, str]]:
        handle, name = tempfile.mkstemp(dir=self._tmp, prefix="object-")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file, name
        finally:
            Path(name).unlink(missing_ok=True)

    def _settle(self, file: BinaryIO, name: str, place: Path) -> None:
        file.flush()
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())
        place.parent.mkdir(exist_ok=True)
        os.replace(name, place)
        sync_folder(place.parent)

    def _discard(self, place: Path) -> None:
        # A damaged object is worth less than none: once it is gone, the step that made it runs again.
        place.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file so that a reader or a crash sees the old bytes or the new ones, never a mixture."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    sync_folder(path.parent)


def _missing(digest: Digest) -> ContentMissingError:
    return ContentMissingError(
        f"object {digest.short} is not in the content store",
        why="it was never stored here, or the workspace was cleaned",
        next="run the command again; the step that makes it runs again",
    )


def _corrupt(digest: Digest) -> ContentCorruptError:
    return ContentCorruptError(
        f"object {digest.short} in the content store was damaged and has been removed",
        why="its bytes no longer have the digest that names it",
        next="run the command again; if it happens again, check the disk",
    )
