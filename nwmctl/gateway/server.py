"""Running the gateway: one process with the HTTP server, the writer, and the controller.

``serve`` returns after SIGTERM or SIGINT, when open requests have been answered and everything acknowledged is
durable. The chosen address is written to the ready file once requests are accepted, in one step; the file is removed
at the end. May die at any moment: what it acknowledged is in the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from nwmctl.domain.clock import Clock
from nwmctl.errors import GatewayConfigError
from nwmctl.fleet.schema import MIGRATIONS
from nwmctl.formats import canonical
from nwmctl.gateway.app import build_app
from nwmctl.gateway.edge import Edge
from nwmctl.gateway.elsewhere import Elsewhere
from nwmctl.gateway.ticker import Ticker
from nwmctl.storage.content import write_atomically
from nwmctl.storage.group_commit import GroupWriter
from nwmctl.storage.sqlite import open_sqlite
from nwmctl.trust.director import DirectorKeys

_BACKLOG = 2048
_GRACE_S = 5


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """How to run a gateway. ``port`` 0 takes a free one; ``mirror`` is the folder behind ``/mirror``;
    ``mirror_url`` sends vehicles to another web server for what was read back from there; ``controller`` lets this
    process advance campaigns; ``tick_s`` seconds between looks at them; ``director`` lets it sign the director's
    metadata at the poll; ``announce`` is told address and process once requests are accepted."""

    database: Path
    mirror: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    ready_file: Path | None = None
    tenant: str = "default"
    mirror_url: str = ""
    controller: bool = True
    tick_s: float = 0.5
    director: DirectorKeys | None = None
    announce: Callable[[Mapping[str, canonical.Plain]], None] = lambda _: None


def serve(config: GatewayConfig, clock: Clock) -> None:
    """Run until SIGTERM or SIGINT. Raises GatewayConfigError, and what opening the database raises."""
    if config.mirror is not None and not config.mirror.is_dir():
        raise GatewayConfigError(
            f"the mirror '{config.mirror}' is not a folder",
            why="the gateway serves bundles and metadata from it",
            next="stage a release first, or name the folder of a mirror",
        )
    if config.mirror_url and not config.mirror_url.startswith(("http://", "https://")):
        raise GatewayConfigError(
            f"'{config.mirror_url[:200]}' is no address of a web server",
            why="vehicles download from it over http or https",
            next="write --mirror-url https://HOST/PATH, where the mirror's folders begin",
        )
    director = config.director.open() if config.director else None
    database = open_sqlite(config.database)
    try:
        database.migrate(MIGRATIONS)
        with _bound(config.host, config.port) as listener:
            writer = GroupWriter(database)
            try:
                url = config.mirror_url.rstrip("/")
                elsewhere = Elsewhere(url, clock) if url else None
                files = config.mirror is not None
                edge = Edge(database, writer, clock, config.tenant, elsewhere, files, director=director)
                asyncio.run(_serve(config, edge, listener))
            finally:
                writer.close()
    finally:
        database.close()


async def _serve(config: GatewayConfig, edge: Edge, listener: socket.socket) -> None:
    server = _Server(
        uvicorn.Config(
            build_app(edge, config.mirror),
            lifespan="off",
            access_log=False,
            log_level="warning",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
            backlog=_BACKLOG,
        )
    )
    _stop_on_signals(server)
    holder = f"gateway-{os.getpid()}-{edge.clock.now_us()}"
    ticker = Ticker(edge, holder, config.tick_s, advance=config.controller)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not running.done():
        await asyncio.sleep(0.005)
    with _ready(config, listener):
        ticking = asyncio.create_task(ticker.run())
        try:
            await running
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
            await ticker.finish()
            if edge.elsewhere is not None:
                await edge.elsewhere.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The base class raises the signal again at the end, which would kill this process before it has tidied up.
        yield


def _stop_on_signals(server: uvicorn.Server) -> None:
    if threading.current_thread() is not threading.main_thread():
        return

    def stop() -> None:
        # A second signal does not wait for slow clients.
        server.force_exit = server.should_exit
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except (OSError, OverflowError) as problem:
        raise _no_address(host, port, problem) from problem
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as problem:
            raise _no_address(host, port, problem) from problem
        yield listener


def _no_address(host: str, port: int, problem: Exception) -> GatewayConfigError:
    return GatewayConfigError(
        f"the gateway cannot listen on {host}:{port}",
        why=str(problem),
        next="choose another --host or --port; port 0 takes a free one",
    )


@contextlib.contextmanager
def _ready(config: GatewayConfig, listener: socket.socket) -> Iterator[None]:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    facts: dict[str, canonical.Plain] = {"pid": os.getpid(), "port": port, "url": f"http://{shown}:{port}"}
    config.announce(facts)
    if config.ready_file is None:
        yield
        return
    write_atomically(config.ready_file, canonical.encode(facts))
    try:
        yield
    finally:
        config.ready_file.unlink(missing_ok=True)
