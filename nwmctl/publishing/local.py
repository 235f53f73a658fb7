"""A mirror's files on this machine, with the same promises as the ones behind SFTP.

Invariants: ``write`` has reached the disk when it returns; ``rename`` replaces in one step and is durable. Translates
the operating system's errors; does not check names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from nwmctl.errors import MirrorWriteError
from nwmctl.storage.content import sync_folder

_CHUNK = 1 << 18


class LocalFiles:
    """RemoteFiles of this machine: the same promises, kept with the local file system."""

    def __init__(self, name: str) -> None:
        self._name = name

    def size(self, path: str) -> int | None:
        try:
            if not os.path.isfile(path):
                if os.path.lexists(path):
                    raise self._failed(path, "it is not a regular file")
                return None
            return os.path.getsize(path)
        except OSError as problem:
            raise self._failed(path, problem) from problem

    def list(self, folder: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(os.listdir(folder)))
        except FileNotFoundError:
            return ()
        except OSError as problem:
            raise self._failed(folder, problem) from problem

    def make_folder(self, path: str) -> None:
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as problem:
            raise self._failed(path, problem) from problem

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        try:
            with open(path, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            raise self._failed(path, problem) from problem

    def rename(self, old: str, new: str) -> None:
        try:
            os.replace(old, new)
            sync_folder(Path(new).parent)
        except OSError as problem:
            raise self._failed(new, problem) from problem

    def read(self, path: str) -> Iterator[bytes]:
        try:
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as problem:
            raise self._failed(path, problem) from problem

    def remove(self, path: str) -> None:
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as problem:
            raise self._failed(path, problem) from problem

    def close(self) -> None:
        return

    def _failed(self, path: str, problem: OSError | str) -> MirrorWriteError:
        reason = problem if isinstance(problem, str) else problem.strerror or str(problem)
        return MirrorWriteError(
            f"mirror '{self._name}' cannot be used at '{os.path.basename(path)}'",
            why=reason,
            next="check the folder, its permissions and the free space, then run the command again",
        )
