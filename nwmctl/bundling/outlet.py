"""A new file on its way to the disk: its bytes are gathered in two buffers, hashed, and written by a thread.

A full buffer is written past the page cache where the file system lets us: that saves one copy of every byte, and a
bundle of some GB does not push everything else out of memory. Where it does not, the same bytes are written as usual.
The rest of the last buffer always is. Memory is bounded by the buffers. Names and renames nothing, and does not say
what a problem means: an OSError of the thread is raised by the next call here.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from nwmctl.bundling.flow import CHUNK, Aside, Hasher, write_all
from nwmctl.domain.digest import Digest

_BUFFERS = 2
_PAST_CACHE: int = getattr(os, "O_DIRECT", 0)


class Outlet:
    """Writes a file from its beginning; it is whole only after ``finish``. ``state`` hashes it.

    ``past_cache`` is a wish: for a file that is not read again soon.
    """

    def __init__(self, path: Path, state: Hasher, *, past_cache: bool = False) -> None:
        # Anonymous memory lies on a page's border, as writing past the cache asks for.
        self._buffers = [memoryview(mmap.mmap(-1, CHUNK)) for _ in range(_BUFFERS)]
        self._file = _create(path, _PAST_CACHE if past_cache else 0)
        self._state = state
        self._writer = Aside()
        self._turn = 0
        self._filled = 0
        self._written = 0
        self._lent: memoryview | None = None

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._written + self._filled

    def put(self, data: bytes | bytearray | memoryview) -> None:
        """The next bytes; a piece that ``read`` lent lies where it has to already. Raises OSError."""
        if data is self._lent:
            self._lent = None
            self._advance(len(data))
            return
        rest = memoryview(data)
        while rest:
            size = min(len(rest), CHUNK - self._filled)
            self._buffer[self._filled : self._filled + size] = rest[:size]
            self._advance(size)
            rest = rest[size:]

    def read(
        self, file: FileIO, most: int, states: Sequence[Hasher] = (), *, once: bool = False
    ) -> Iterator[memoryview]:
        """Up to ``most`` bytes of an unbuffered file, in pieces of which each has to be ``put`` before the next.

        They are read to where they are written from, so no other copy is made. ``once``: nobody reads that file
        again soon, so it does not stay in the page cache. Raises OSError.
        """
        left = most
        while left:
            room = self._buffer[self._filled : self._filled + left]
            size = file.readinto(room)
            if not size:
                break
            self._lent = lent = room[:size]
            for state in states:
                state.take(lent)
            yield lent
            left -= size
            if once:
                _forget(file)
        for state in states:
            state.wait()

    @property
    def digest(self) -> Digest:
        """Of the whole file, after ``finish``."""
        return self._state.digest

    def finish(self) -> None:
        """Write what is left and wait until every byte was taken by the system. Raises OSError."""
        self._writer.until(0)
        if self._filled:
            rest = self._buffer[: self._filled]
            self._state.take(rest)
            _use_cache(self._file)
            write_all(self._file, rest)
            self._written += self._filled
            self._filled = 0

    def sync(self) -> None:
        """Until what was written is on the disk. Raises OSError."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        with suppress(OSError):
            self._state.wait()
        self._file.close()

    @property
    def _buffer(self) -> memoryview:
        return self._buffers[self._turn]

    def _advance(self, size: int) -> None:
        self._filled += size
        if self._filled < CHUNK:
            return
        # The state holds this buffer until it is given the next, and the writer one: the one after that is free.
        self._state.take(self._buffer)
        self._writer.give(self._write, self._buffer)
        self._writer.until(_BUFFERS - 1)
        self._written += CHUNK
        self._filled = 0
        self._turn = (self._turn + 1) % _BUFFERS

    def _write(self, data: memoryview) -> None:
        try:
            write_all(self._file, data)
        except OSError as problem:
            # Some file systems notice only now that they cannot; what is left of a short write has no border either.
            if problem.errno != errno.EINVAL or not _use_cache(self._file):
                raise
            start = self._file.tell() % CHUNK
            write_all(self._file, data[start:])


def _create(path: Path, extra: int) -> FileIO:
    def opener(name: str, flags: int) -> int:
        if extra:
            with suppress(OSError):
                return os.open(name, flags | extra, 0o666)
        return os.open(name, flags, 0o666)

    return FileIO(path, "wb", opener=opener)


def _use_cache(file: FileIO) -> bool:
    """Write as usual from here on; whether it was otherwise."""
    flags = fcntl.fcntl(file.fileno(), fcntl.F_GETFL)
    if not flags & _PAST_CACHE:
        return False
    fcntl.fcntl(file.fileno(), fcntl.F_SETFL, flags & ~_PAST_CACHE)
    return True


def _forget(file: FileIO) -> None:
    """Let the page cache drop what was read so far."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, file.tell(), os.POSIX_FADV_DONTNEED)
