"""Group commit: many small pieces of work in one transaction, each answered after the commit.

One thread owns the writing. What waits in the queue when it becomes free goes into one transaction, so a burst costs
one ``fsync`` and not one each. Invariants: a future is fulfilled only after the commit that holds its work; a piece
that raises is undone alone and gets its own exception; if the commit fails, every piece of the batch gets that error.
Does not retry anything.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from nwmctl.errors import WriterClosedError
from nwmctl.storage.database import Database, Transaction

MAX_BATCH = 256
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Piece:
    work: Callable[[Transaction], Any]
    future: Future[Any]


class GroupWriter:
    """The one writer of a process. Close it before the database."""

    def __init__(self, database: Database, max_batch: int = MAX_BATCH) -> None:
        self._database = database
        self._max_batch = max_batch
        self._queue: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Transaction], Result]) -> Future[Result]:
        """Queue ``work``; the future holds its result once it is durable. Raises WriterClosedError."""
        future: Future[Result] = Future()
        with self._gate:
            if self._closed:
                raise WriterClosedError(
                    "the database writer has been closed",
                    why="the process is shutting down",
                    next="repeat the request once the process is up again",
                )
            self._queue.put(_Piece(work, future))
        return future

    def close(self) -> None:
        """Finish what is queued, then stop."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch, last = self._next_batch()
            if batch:
                self._commit(batch)
            if last:
                return

    def _next_batch(self) -> tuple[list[_Piece], bool]:
        batch: list[_Piece] = []
        piece = self._queue.get()
        while piece is not None:
            # A request that went away (its future is cancelled) is not worth a transaction.
            if piece.future.set_running_or_notify_cancel():
                batch.append(piece)
            if len(batch) >= self._max_batch:
                return batch, False
            try:
                piece = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Piece]) -> None:
        results: list[tuple[_Piece, Any, BaseException | None]] = []
        try:
            with self._database.transaction() as tx:
                for piece in batch:
                    results.append((piece, *_attempt(tx, piece)))
        except BaseException as refusal:
            for piece in batch:
                piece.future.set_exception(refusal)
            return
        for piece, result, problem in results:
            if problem is None:
                piece.future.set_result(result)
            else:
                piece.future.set_exception(problem)


def _attempt(tx: Transaction, piece: _Piece) -> tuple[Any, BaseException | None]:
    try:
        with tx.savepoint():
            return piece.work(tx), None
    except Exception as problem:
        return None, problem
