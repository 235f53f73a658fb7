"""Downloading one file of known length and digest, with resume.

Bytes go to a part file that survives dropped connections and power loss; only the missing rest is asked for again.
Nothing is believed before the digest is right: a file that is too long, too short or different is removed. Tries
again after broken connections and server errors, with backoff, and gives up after a few failures without progress. A
server that drips is hung up on, and after a few times given up, although there was progress. Does not know what the
file is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nwmctl.domain.digest import Digest
from nwmctl.errors import (
    DownloadBrokenError,
    DownloadDigestError,
    DownloadLengthError,
    GatewayAnswerError,
    TransferTooSlowError,
)
from nwmctl.vehicle import disk
from nwmctl.vehicle.backoff import Backoff
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.pace import BUNDLE_PACE, Pace, Watch, no_answer

if TYPE_CHECKING:
    import httpx

AsyncSleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The file to fetch: ``size`` in bytes; both size and digest come from signed metadata, not from the server."""

    url: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """``received`` bytes came over the wire this time, in ``requests`` requests; the rest was there already."""

    received: int
    requests: int


class _Broken(Exception):
    """This try failed and another one may succeed."""


async def download(
    http: httpx.AsyncClient,
    wanted: Wanted,
    part: Path,
    backoff: Backoff,
    sleep: AsyncSleep,
    trouble: Trouble,
    credentials: Mapping[str, str],
    pace: Pace = BUNDLE_PACE,
) -> Fetched:
    """Fetch ``wanted`` into ``part``, going on where an earlier try stopped; ``credentials`` are headers.

    Raises DownloadLengthError, DownloadDigestError, DownloadBrokenError, TransferTooSlowError, GatewayAnswerError,
    VehicleDiskError.
    """
    start = _size(part)
    if start > wanted.size:
        disk.remove_file(part)
        start = 0
    received, requests, failures, slow = 0, 0, 0, 0
    while _size(part) < wanted.size:
        before = _size(part)
        requests += 1
        try:
            await _try(http, wanted, part, trouble, credentials, pace)
        except TransferTooSlowError:
            received += max(_size(part) - before, 0)
            slow += 1
            if slow >= backoff.attempts:
                raise
            await sleep(backoff.delay(slow))
        except _Broken as problem:
            received += max(_size(part) - before, 0)
            failures = 1 if _size(part) > before else failures + 1
            if failures >= backoff.attempts:
                raise _gave_up(wanted, _size(part), failures, problem) from problem
            await sleep(backoff.delay(failures))
        else:
            received += _size(part) - before
    if trouble.endless():
        _refuse_length(wanted, part)
    await asyncio.to_thread(_check, wanted, part)
    return Fetched(received, requests)


async def _try(
    http: httpx.AsyncClient,
    wanted: Wanted,
    part: Path,
    trouble: Trouble,
    credentials: Mapping[str, str],
    pace: Pace,
) -> None:
    import httpx

    offset = _size(part)
    headers = {"Accept-Encoding": "identity", **credentials}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        async with _answer(http, wanted.url, headers, pace) as response:
            watch = Watch(pace, asyncio.get_running_loop().time)
            offset = _begin(response.status_code, response.headers, offset, wanted, part)
            with disk.translated(part):
                handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                async for chunk in response.aiter_raw():
                    offset = _take(handle, chunk, offset, wanted, part, trouble)
                    watch.took(len(chunk))
                with disk.translated(part):
                    os.fsync(handle)
            finally:
                os.close(handle)
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        raise _Broken(str(problem) or type(problem).__name__) from problem
    if offset < wanted.size:
        raise _Broken(f"the answer ended after {offset} of {wanted.size} bytes")


@contextlib.asynccontextmanager
async def _answer(
    http: httpx.AsyncClient, url: str, headers: Mapping[str, str], pace: Pace
) -> AsyncIterator[httpx.Response]:
    """The begun answer. Raises TransferTooSlowError."""
    try:
        async with asyncio.timeout(pace.answer_s):
            response = await http.send(http.build_request("GET", url, headers=headers), stream=True)
    except TimeoutError as problem:
        raise no_answer(pace) from problem
    try:
        yield response
    finally:
        await response.aclose()


def _begin(status: int, headers: httpx.Headers, offset: int, wanted: Wanted, part: Path) -> int:
    """Where the answer's first byte belongs."""
    match status:
        case 206 if offset:
            if headers.get("Content-Range", "").partition("-")[0].strip() != f"bytes {offset}":
                raise _odd(wanted, f"asked for the bytes from {offset} on, it sent '{headers.get('Content-Range')}'")
        case 200:
            # The server ignored the range (or none was asked for): the answer begins at the first byte.
            disk.remove_file(part)
            offset = 0
        case 408 | 425 | 429 | 500 | 502 | 503 | 504:
            raise _Broken(f"the server answered {status}")
        case _:
            raise _odd(wanted, f"the server answered {status}")
    length = headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and offset + int(length) > wanted.size:
        _refuse_length(wanted, part)
    return offset


def _take(handle: int, chunk: bytes, offset: int, wanted: Wanted, part: Path, trouble: Trouble) -> int:
    if offset + len(chunk) > wanted.size:
        _refuse_length(wanted, part)
    left = trouble.breaks_at(offset, len(chunk))
    if chunk and trouble.corrupts():
        chunk = bytes([chunk[0] ^ 1]) + chunk[1:]
    with disk.translated(part):
        view = memoryview(chunk)[:left]
        while view:
            view = view[os.write(handle, view) :]
    if left is not None:
        raise _Broken("the connection was dropped on purpose")
    return offset + len(chunk)


def _check(wanted: Wanted, part: Path) -> None:
    found, _ = disk.digest_file(part)
    if found != wanted.digest:
        disk.remove_file(part)
        raise DownloadDigestError(
            f"the download is {found}, {wanted.digest} was signed",
            why="the bytes were changed on the way or on the mirror",
            next="check the mirror's copy with `nwmctl verify`; the vehicle starts the download anew when asked again",
        )


def _refuse_length(wanted: Wanted, part: Path) -> None:
    disk.remove_file(part)
    raise DownloadLengthError(
        f"the download is longer than the {wanted.size} bytes that were signed",
        why="the server sends something else, or data without end",
        next="check the mirror's copy with `nwmctl verify`",
    )


def _gave_up(wanted: Wanted, have: int, failures: int, problem: Exception) -> DownloadBrokenError:
    return DownloadBrokenError(
        f"the download stopped at {have} of {wanted.size} bytes",
        why=f"{failures} tries in a row brought nothing more; the last: {problem}",
        next="check that the mirror can be reached; what has arrived is kept for the next try",
    )


def _odd(wanted: Wanted, why: str) -> GatewayAnswerError:
    return GatewayAnswerError(
        "the bundle cannot be downloaded", why=why, next="check that the bundle is staged where the gateway says"
    )


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0
