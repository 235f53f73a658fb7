"""Another web server that vehicles download from, once it has proven itself: links point at what was read back.

A file there is read whole and compared with what was published before any vehicle is sent to it, and again every hour;
a server that lost it, or gives other bytes, is sent nobody until it gives the right ones. Reads one file at a time, in
the background; what vehicles get meanwhile is the caller's. Keeps nothing on the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from urllib.parse import quote

from nwmctl.domain.clock import Clock
from nwmctl.fleet.releases import EnabledBundle

_LOG = logging.getLogger("nwmctl.gateway")
_HOLDS_S = 3600.0
_AGAIN_S = 60.0
_TIMEOUT_S = 30.0
"""For each read, not for the whole file."""


class Elsewhere:
    """The server at ``url`` (no trailing slash), with the mirror's paths below it."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self._clock = clock
        self._proven: set[tuple[str, str]] = set()
        self._next: dict[tuple[str, str], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()

    def holds(self, bundle: EnabledBundle) -> bool:
        """Whether the bundle was read back from there; begins to look where that is not known, or long ago."""
        key = (bundle.path, bundle.sha256)
        now = self._clock.monotonic()
        if now >= self._next.get(key, now):
            # Until it has been looked at, nobody asks again.
            self._next[key] = now + 365 * 86_400
            task = asyncio.get_running_loop().create_task(self._look(bundle, key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return key in self._proven

    async def close(self) -> None:
        """Stop looking."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self, bundle: EnabledBundle, key: tuple[str, str]) -> None:
        async with self._one:
            wrong = await self._wrong(bundle)
        if wrong:
            self._proven.discard(key)
            _LOG.warning("%s does not serve %s, no vehicle is sent there: %s", self.url, bundle.filename, wrong)
        else:
            self._proven.add(key)
        self._next[key] = self._clock.monotonic() + (_AGAIN_S if wrong else _HOLDS_S)

    async def _wrong(self, bundle: EnabledBundle) -> str:
        """What is wrong with the file there; '' if it is the published one."""
        import httpx

        state, size = hashlib.sha256(), 0
        try:
            async with (
                httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as http,
                http.stream("GET", f"{self.url}/{quote(bundle.path)}") as response,
            ):
                if response.status_code != 200:
                    return f"it answers {response.status_code}"
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    if size > bundle.size:
                        return f"it goes on beyond {bundle.size} bytes"
                    state.update(chunk)
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            return str(problem) or type(problem).__name__
        if (size, state.hexdigest()) != (bundle.size, bundle.sha256):
            return f"{size} bytes with another hash than the {bundle.size} that were published"
        return ""
