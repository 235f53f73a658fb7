"""Resumable downloads over HTTP(S).

A dropped connection, or a killed run, is continued with ``Range``; ``If-Range`` makes a server that has changed the
file start again, and a server without ranges starts again by itself. Invariants: never more than ``limit`` bytes are
taken; only failures that can pass are repeated, and only a bounded number of times without progress. Bytes are judged
elsewhere, by digest.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from nwmctl.domain.clock import Sleep
from nwmctl.errors import SourceUriError
from nwmctl.sources.part import Done, add, shown, unavailable, writing
from nwmctl.sources.verify import wrong_size

if TYPE_CHECKING:
    import httpx

_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)\Z")
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_PROGRESS = 1 << 16


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on: attempts without progress, seconds before the second one (doubling, capped), timeouts."""

    attempts: int = 5
    wait_s: float = 0.5
    longest_wait_s: float = 8.0
    connect_s: float = 10.0
    silence_s: float = 30.0


class _PassingFailure(Exception):
    """Something that may go better the next time."""


class HttpPlace:
    """Files below one URL. The URL's query, if any, is sent with every file."""

    def __init__(self, uri: str, sleep: Sleep, patience: Patience | None = None) -> None:
        import httpx

        try:
            self._base = urlsplit(uri)
            host = self._base.hostname
        except ValueError:
            host = None
        if not host:
            raise SourceUriError(f"'{shown(uri)}' is not a URL", why="it has no host", next="write https://host/path")
        self._sleep = sleep
        self._patience = patience or Patience()
        timeout = httpx.Timeout(self._patience.silence_s, connect=self._patience.connect_s)
        self._client = httpx.Client(follow_redirects=True, max_redirects=5, timeout=timeout)

    def fetch(self, name: str, part: Path, limit: int, *, exact: bool, done: Done) -> None:
        failures, reached = 0, _size(part)
        while True:
            try:
                self._once(name, part, limit, exact, done)
                return
            except _PassingFailure as problem:
                # Only new ground counts: a server that breaks off at the same place each time must not loop us.
                failures = 0 if _size(part) - reached >= _PROGRESS else failures + 1
                reached = max(reached, _size(part))
                if failures >= self._patience.attempts:
                    raise unavailable(name, f"{problem}, {failures} attempts without progress") from problem
                wait = self._patience.wait_s * 2.0 ** max(0, failures - 1)
                self._sleep(min(wait, self._patience.longest_wait_s))

    def close(self) -> None:
        self._client.close()

    def _once(self, name: str, part: Path, limit: int, exact: bool, done: Done) -> None:
        import httpx

        offset = _size(part)
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            validator = _validator(part)
            if validator:
                headers["If-Range"] = validator
        try:
            with self._client.stream("GET", self._url(name), headers=headers) as response:
                start = _start(response, name, part, offset, limit)
                if start is not None:
                    self._take(response, name, part, limit, start, done)
                    _refuse_early_end(response, part, limit, exact)
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as problem:
            raise unavailable(name, str(problem)) from problem
        except (httpx.HTTPError, httpx.StreamError) as problem:
            raise _PassingFailure(str(problem) or type(problem).__name__) from problem

    def _take(self, response: httpx.Response, name: str, part: Path, limit: int, start: int, done: Done) -> None:
        announced = response.headers.get("content-length", "")
        if announced.isdigit() and start + int(announced) > limit:
            raise wrong_size(name, f"the server announces {start + int(announced)} bytes, at most {limit} are expected")
        if start == 0:
            _note_validator(part, response.headers.get("etag", ""), response.headers.get("last-modified", ""))
        with writing(part, start) as write:
            done(start)
            for chunk in response.iter_raw():
                start = add(chunk, name, start, limit, write, done)

    def _url(self, name: str) -> str:
        path = f"{self._base.path.rstrip('/')}/{quote(name)}"
        return urlunsplit((self._base.scheme, self._base.netloc, path, self._base.query, ""))


def _start(response: httpx.Response, name: str, part: Path, offset: int, limit: int) -> int | None:
    """Where the answer's bytes belong in the part file; None if the part file is whole already."""
    status = response.status_code
    found = _RANGE.match(response.headers.get("content-range", ""))
    whole = int(found.group(3)) if found and found.group(3) != "*" else None
    if status == 206 and offset:
        if whole is not None and whole > limit:
            raise wrong_size(name, f"the server has {whole} bytes, at most {limit} are expected")
        if found and found.group(1) and int(found.group(1)) == offset:
            return offset
        discard(part)
        raise _PassingFailure("the server answered with another range than was asked for")
    if status == 416 and offset:
        if whole == offset:
            return None
        discard(part)
        raise _PassingFailure("the server's file is shorter than what was fetched before")
    if status == 200:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise unavailable(name, "the server compresses although it was asked not to")
        return 0
    if status in _PASSING:
        raise _PassingFailure(f"the server answers {status}")
    raise unavailable(name, f"the server answers {status} {response.reason_phrase}".rstrip())


def _refuse_early_end(response: httpx.Response, part: Path, limit: int, exact: bool) -> None:
    # A whole answer (200) of announced length that is too short is the wrong file; anything else may go on.
    whole = response.status_code == 200 and "content-length" in response.headers
    if exact and _size(part) < limit and not whole:
        raise _PassingFailure("the connection ended early")


def discard(part: Path) -> None:
    """Forget what was fetched of a file."""
    part.unlink(missing_ok=True)
    _note_validator(part, "", "")


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _sidecar(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def _validator(part: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return _sidecar(part).read_text("ascii").strip()
    return ""


def _note_validator(part: Path, etag: str, modified: str) -> None:
    # A weak tag does not promise the same bytes, so it cannot join two halves of a file.
    strong = etag if etag.startswith('"') else modified
    with suppress(OSError, UnicodeEncodeError):
        if strong.isprintable() and strong:
            _sidecar(part).write_text(strong, "ascii")
        else:
            _sidecar(part).unlink(missing_ok=True)
