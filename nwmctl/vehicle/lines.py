"""Fetching small files over a line that may be hostile: bounded in bytes, in rate and in time.

Every wait has an end, the one for the answer's first byte included. Bytes are taken as they come: a compressed answer
could grow in memory after any limit. The vehicle's token goes to the gateway's own origin only. Blocking; runs beside
the vehicle's event loop, with a loop of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nwmctl.domain.clock import Clock
from nwmctl.errors import GatewayAnswerError, GatewayUnreachableError
from nwmctl.trust.client import too_long
from nwmctl.trust.metadata import Fetch
from nwmctl.vehicle.link import credentials
from nwmctl.vehicle.pace import Pace, Watch, no_answer

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 20.0

Limit = Callable[[str], int]
"""How many bytes of the file at a path are read at most."""


class Lines:
    """Lines to repositories, open for one order. Made by ``open_lines``."""

    def __init__(
        self, http: httpx.AsyncClient, runner: asyncio.Runner, pace: Pace, watch: Watch, gateway: str, token: str
    ) -> None:
        self._http = http
        self._runner = runner
        self._pace = pace
        self._watch = watch
        self._gateway = gateway
        self._token = token

    def fetcher(self, url: str, limit: Limit) -> Fetch:
        """Fetches the files below ``url`` (no trailing slash).

        It raises TransferTooSlowError, MetadataTooLongError, GatewayUnreachableError and GatewayAnswerError.
        """
        headers = {"Accept-Encoding": "identity", **credentials(self._gateway, self._token, url)}

        def fetch(path: str) -> bytes | None:
            return self._runner.run(self._get(f"{url}/{path}", path, limit(path), headers))

        return fetch

    async def _get(self, url: str, path: str, most: int, headers: dict[str, str]) -> bytes | None:
        import httpx

        data = bytearray()
        self._watch.begin()
        try:
            request = self._http.build_request("GET", url, headers=headers)
            try:
                async with asyncio.timeout(self._pace.answer_s):
                    response = await self._http.send(request, stream=True)
            except TimeoutError as problem:
                raise no_answer(self._pace) from problem
            try:
                if response.status_code == 404:
                    return None
                if response.status_code != 200:
                    raise _odd(path, f"the server answered {response.status_code}")
                async for chunk in response.aiter_raw():
                    data += chunk
                    if len(data) > most:
                        raise too_long(path, most)
                    self._watch.took(len(chunk))
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            raise GatewayUnreachableError(
                "the repository cannot be reached",
                why=str(problem) or type(problem).__name__,
                next="check the network and the mirror; vehicles try again",
            ) from problem
        return bytes(data)


@contextmanager
def open_lines(gateway: str, token: str, pace: Pace, clock: Clock, *, secure: bool) -> Iterator[Lines]:
    """Lines that share one pace; ``gateway`` is the origin that may see ``token``. ``secure``: check certificates."""
    import ssl

    import httpx

    with asyncio.Runner() as runner:
        http = httpx.AsyncClient(
            verify=ssl.create_default_context() if secure else False, trust_env=False, timeout=_TIMEOUT_S
        )
        try:
            yield Lines(http, runner, pace, Watch(pace, clock.monotonic), gateway, token)
        finally:
            runner.run(http.aclose())


def _odd(path: str, why: str) -> GatewayAnswerError:
    return GatewayAnswerError(
        f"'{path}' cannot be fetched from the repository", why=why, next="check the mirror and its address"
    )
