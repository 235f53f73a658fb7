"""Moves the bytes of large files once: they are hashed in threads while they are compressed or copied.

A file is read into buffers of 1 MiB in turn; one is filled again only when every hash is done with it. So memory is
bounded by the buffers, whatever the file's size. Hashing and compressing let other threads run meanwhile.
Knows no format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import RawIOBase

from nwmctl.domain.digest import Digest

CHUNK = 1 << 20
_BUFFERS = 2


class Hasher:
    """A sha256 in a thread of its own, so that whoever gives it bytes goes on meanwhile."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._state = hashlib.sha256()
        self._last: Future[None] | None = None

    def take(self, data: bytes | memoryview) -> None:
        """Hash the next bytes. They must not change before the next call returns."""
        self.wait()
        self._last = self._pool.submit(self._state.update, data)

    def wait(self) -> None:
        """Until everything is hashed."""
        if self._last is not None:
            self._last.result()
            self._last = None

    @property
    def digest(self) -> Digest:
        """Of everything taken so far."""
        self.wait()
        return Digest(self._state.hexdigest())


@contextmanager
def hashers(count: int) -> Iterator[Callable[[int], Hasher]]:
    """Up to ``count`` hashes at a time: ``new(n)`` is a fresh one in the thread ``n``."""
    pools = [ThreadPoolExecutor(1, thread_name_prefix="hash") for _ in range(count)]
    try:
        yield lambda number: Hasher(pools[number])
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def flow(file: RawIOBase, most: int, states: Sequence[Hasher]) -> Iterator[memoryview]:
    """Up to ``most`` bytes of an unbuffered file in pieces, each of which holds until the next is asked for."""
    buffers = [bytearray(min(CHUNK, max(most, 1))) for _ in range(_BUFFERS)]
    left, turn = most, 0
    while left:
        # A hash holds one piece at most when it is given the next, so the buffer after that one is free.
        view = memoryview(buffers[turn])
        size = file.readinto(view[: min(CHUNK, left)])
        if not size:
            break
        for state in states:
            state.take(view[:size])
        yield view[:size]
        left -= size
        turn = (turn + 1) % _BUFFERS
    for state in states:
        state.wait()


def write_all(file: RawIOBase, data: bytes | memoryview) -> None:
    """Write all bytes to an unbuffered file, which may take fewer at once."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]
