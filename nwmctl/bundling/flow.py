"""Moves the bytes of large files once: they are hashed in threads while they are compressed or copied.

A file is read into buffers of 1 MiB in turn; one is filled again only when every hash is done with it. So memory is
bounded by the buffers, whatever the file's size. Hashing, compressing and writing let other threads run meanwhile.
What goes wrong in a thread is raised where its result is waited for. Knows no format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import RawIOBase
from queue import SimpleQueue
from threading import Thread

from nwmctl.domain.digest import Digest

CHUNK = 1 << 20
PIECE = 128 << 10
"""What is handed on at a time: it stays in a core's own cache, and is a whole block of zstd's."""
_BUFFERS = 2

Job = Callable[[memoryview], object]


class Aside:
    """A thread that does one job after the other. It starts with the first one, and ends with ``close``."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Job, memoryview] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._open = 0

    def give(self, job: Job, data: memoryview) -> None:
        """Do a job after the others. The bytes must not change before it is done."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="aside", daemon=True)
            self._thread.start()
        self._open += 1
        self._jobs.put((job, data))

    def until(self, left: int) -> None:
        """Wait until ``left`` jobs are not done yet. Raises what one of the others raised."""
        while self._open > left:
            problem = self._done.get()
            self._open -= 1
            if problem is not None:
                raise problem

    def close(self) -> None:
        """Wait for all jobs, whatever became of them, and end the thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (next_one := self._jobs.get()) is not None:
            job, data = next_one
            try:
                job(data)
            except BaseException as problem:  # raised again in the thread that waits
                self._done.put(problem)
            else:
                self._done.put(None)


class Hasher:
    """A sha256; in the thread of an ``Aside``, whoever gives it bytes goes on meanwhile."""

    def __init__(self, aside: Aside | None = None) -> None:
        self._aside = aside
        self._state = hashlib.sha256()

    def take(self, data: bytes | memoryview) -> None:
        """Hash the next bytes. They must not change before the next call returns."""
        if self._aside is None:
            self._state.update(data)
            return
        self.wait()
        self._aside.give(self._state.update, memoryview(data))

    def wait(self) -> None:
        """Until everything is hashed."""
        if self._aside is not None:
            self._aside.until(0)

    @property
    def digest(self) -> Digest:
        """Of everything taken so far."""
        self.wait()
        return Digest(self._state.hexdigest())


@contextmanager
def hashers(count: int) -> Iterator[Callable[[int], Hasher]]:
    """Up to ``count`` hashes at a time: ``new(n)`` is a fresh one in the thread ``n``."""
    threads = [Aside() for _ in range(count)]
    try:
        yield lambda number: Hasher(threads[number])
    finally:
        for thread in threads:
            thread.close()


def flow(file: RawIOBase, most: int, states: Sequence[Hasher]) -> Iterator[memoryview]:
    """Up to ``most`` bytes of an unbuffered file in pieces, each of which holds until the next is asked for."""
    buffers = [bytearray(min(CHUNK, max(most, 1))) for _ in range(_BUFFERS)]
    left, turn = most, 0
    while left:
        # A hash holds one buffer at most when it is given the next, so the one after that is free.
        view = memoryview(buffers[turn])[: min(CHUNK, left)]
        filled = 0
        while filled < len(view) and (size := file.readinto(view[filled : filled + PIECE])):
            yield view[filled : filled + size]
            filled += size
        if not filled:
            break
        for state in states:
            state.take(view[:filled])
        left = left - filled if filled == len(view) else 0
        turn = (turn + 1) % _BUFFERS
    for state in states:
        state.wait()


def write_all(file: RawIOBase, data: bytes | memoryview) -> None:
    """Write all bytes to an unbuffered file, which may take fewer at once."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]
