"""Signs what the director says to each vehicle, one file per vehicle, by the hundred thousand.

The cost is the signature: the text is put together from a template (``formats.uptane``), and worker processes sign,
each of which opens the keys once. Order in, file out, in the same order. Decides nothing about who shall install what,
chooses no version, and keeps nothing.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import SigningProcessError
from nwmctl.formats.uptane import Dialect, Direction, director_template, expiry_text, key_id, sealed
from nwmctl.trust.keys import Signer, load_keyring

LIFETIME_US = 7 * 86_400 * 1_000_000
"""How long a vehicle's file holds. Whoever holds back a newer one is noticed after that."""
RENEW_US = LIFETIME_US // 2
"""A file with less than this left is signed anew at the next occasion."""
_AHEAD = 3
"""Chunks per worker that wait for it: enough that none is idle, few enough to bound the memory."""

Tag = TypeVar("Tag")


class Order(NamedTuple):
    """A file to sign. ``ecus`` is the text of ``formats.uptane.ecu_identifiers``."""

    dialect: Dialect
    ecus: str
    direction: Direction
    version: int


@dataclass(frozen=True, slots=True)
class DirectorKeys:
    """Where the director's keys are: this crosses into other processes, keys never do."""

    folder: Path
    passphrase: bytes | None = field(default=None, repr=False)

    def open(self) -> DirectorSigner:
        """The opened keys. Raises KeyMissingError, KeyRingError, KeyPassphraseError and others."""
        return DirectorSigner(load_keyring(self.folder).signers(KeyRole.DIRECTOR, self.passphrase))


@dataclass(frozen=True, slots=True)
class DirectorSigner:
    """The director's keys, opened: as many as must sign."""

    signers: tuple[Signer, ...]
    _ids: Mapping[Dialect, tuple[str, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A key id is a hash; it costs as much as putting a whole file together.
        ids = {dialect: tuple(key_id(dialect, one.public) for one in self.signers) for dialect in Dialect}
        object.__setattr__(self, "_ids", ids)

    @property
    def fingerprint(self) -> str:
        """Names the keys; it is another where one of them is."""
        return "+".join(name[:16] for name in self._ids[Dialect.TUF])

    def sign(self, order: Order, expires: str) -> str:
        """One vehicle's targets metadata until ``expires`` (``expiry_text``)."""
        text = _template(order.dialect, order.direction, expires).signed(order.ecus, order.version)
        return self.seal(order.dialect, text)

    def seal(self, dialect: Dialect, text: str) -> str:
        """Any signed text as a file of that dialect."""
        data = text.encode()
        rows = [(name, one.sign(data)) for name, one in zip(self._ids[dialect], self.signers, strict=True)]
        return sealed(dialect, text, rows)


_template = lru_cache(maxsize=256)(director_template)


class DirectorPool(AbstractContextManager["DirectorPool"]):
    """Worker processes that sign. Opening one checks the keys first: a wrong passphrase is a clear refusal."""

    def __init__(self, keys: DirectorKeys, workers: int) -> None:
        keys.open()
        self._workers = workers
        # Not forked: the caller may have threads and database connections.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_open_keys, initargs=(keys,))

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def sign(self, chunks: Iterable[tuple[Tag, Sequence[Order]]], expires_us: int) -> Iterator[tuple[Tag, list[str]]]:
        """Every chunk's tag and files, in order; a few chunks are in work at a time. Raises SigningProcessError."""
        expires = expiry_text(expires_us)
        waiting: deque[tuple[Tag, Future[list[str]]]] = deque()
        try:
            for tag, orders in chunks:
                waiting.append((tag, self._pool.submit(_sign_chunk, list(orders), expires)))
                if len(waiting) >= self._workers * _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except BrokenProcessPool as problem:
            raise SigningProcessError(
                "a process that signs director metadata has died",
                why=str(problem),
                next="run the command again; what was signed before is kept",
            ) from problem


# A worker process's own; nothing of it is shared.
_OPENED: list[DirectorSigner] = []


def _open_keys(keys: DirectorKeys) -> None:
    _OPENED.append(keys.open())


def _sign_chunk(orders: Sequence[Order], expires: str) -> list[str]:
    (signer,) = _OPENED
    return [signer.sign(order, expires) for order in orders]
