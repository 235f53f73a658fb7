"""A file on its way in: written piece by piece, never beyond its limit, continued after a kill.

What every place shares: the part file, the limit, and the words in which a place's failure is told. Knows no place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from nwmctl.errors import DestinationError, SourceUnavailableError
from nwmctl.sources.verify import wrong_size

Done = Callable[[int], None]
"""Called with the bytes that the part file holds."""

_CHUNK = 1 << 18


def take(source: IO[bytes] | Any, name: str, part: Path, limit: int, offset: int, done: Done) -> None:
    """Append ``source`` to ``part`` from ``offset`` on, up to ``limit`` bytes in all. Raises SizeMismatchError."""
    with writing(part, offset) as write:
        while True:
            try:
                chunk = source.read(min(_CHUNK, limit - offset + 1))
            except OSError as problem:
                raise unavailable(name, problem.strerror or str(problem)) from problem
            if not chunk:
                return
            offset = add(chunk, name, offset, limit, write, done)


def add(chunk: bytes, name: str, offset: int, limit: int, write: Callable[[bytes], None], done: Done) -> int:
    """Write one piece and return the new offset; SizeMismatchError if the file grows beyond ``limit``."""
    if offset + len(chunk) > limit:
        raise wrong_size(name, f"the source sends more than {limit} bytes; the transfer was stopped")
    write(chunk)
    done(offset + len(chunk))
    return offset + len(chunk)


@contextmanager
def writing(part: Path, offset: int) -> Iterator[Callable[[bytes], None]]:
    """A part file cut to ``offset`` bytes and opened without a buffer, so that a kill loses nothing that came."""
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT, 0o644)
    except OSError as problem:
        raise _unwritable(part, problem) from problem

    def write(chunk: bytes) -> None:
        try:
            view = memoryview(chunk)
            while view:
                view = view[os.write(handle, view) :]
        except OSError as problem:
            raise _unwritable(part, problem) from problem

    try:
        os.ftruncate(handle, offset)
        os.lseek(handle, offset, os.SEEK_SET)
        yield write
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)


def shown(uri: str) -> str:
    """A URI for people: without user, password and query, which may be secrets."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.partition(":")[0] + ":..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:200]


def unavailable(name: str, reason: str) -> SourceUnavailableError:
    """The refusal of a place that does not give a file."""
    return SourceUnavailableError(
        f"'{name}' cannot be fetched",
        why=reason[:300],
        next="check the model's uri and the network, then run the command again; what has arrived is kept",
    )


def _unwritable(part: Path, problem: OSError) -> DestinationError:
    return DestinationError(
        f"'{part.name}' cannot be written",
        why=problem.strerror or str(problem),
        next="check the workspace's permissions and free space, then run the command again",
    )
