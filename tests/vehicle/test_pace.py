"""A server that drips is hung up on; one that is merely slow is not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import GatewayAnswerError, MetadataTooLongError, TransferTooSlowError
from nwmctl.vehicle.backoff import Backoff
from nwmctl.vehicle.download import Wanted, download
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.lines import open_lines
from nwmctl.vehicle.pace import Pace, Watch

PACE = Pace(window_s=10.0, least=100, most_s=60.0)
FAST = Pace(window_s=0.2, least=2000, most_s=1.0, answer_s=0.3)


class Hand:
    """A clock that is set by hand."""

    now = 0.0

    def now_us(self) -> int:
        return int(self.now * 1e6)

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("rate", "slow"), [(99, True), (101, False)])
def test_the_rate_counts_over_whole_windows(rate: int, slow: bool) -> None:
    hand = Hand()
    watch = Watch(PACE, hand.monotonic)
    for _ in range(9):
        hand.now += 1
        watch.took(rate)
    hand.now += 1
    if slow:
        with pytest.raises(TransferTooSlowError, match="99 bytes a second over 10"):
            watch.took(rate)
    else:
        watch.took(rate)


def test_a_burst_does_not_pay_for_a_later_drip() -> None:
    hand = Hand()
    watch = Watch(PACE, hand.monotonic)
    watch.took(1_000_000)
    hand.now = 10
    watch.took(1)
    hand.now = 20
    with pytest.raises(TransferTooSlowError):
        watch.took(1)


def test_all_of_it_has_an_end_however_fast_it_is() -> None:
    hand = Hand()
    watch = Watch(PACE, hand.monotonic)
    for _ in range(60):
        hand.now += 1
        watch.took(1_000_000)
    hand.now += 1
    with pytest.raises(TransferTooSlowError, match="60 s is the most"):
        watch.took(1_000_000)


def test_time_between_two_transfers_is_nobodys_fault() -> None:
    hand = Hand()
    watch = Watch(PACE, hand.monotonic)
    hand.now = 30
    watch.begin()
    watch.took(1)


class Dripping(BaseHTTPRequestHandler):
    """/drip: a byte now and then; /silent: no answer; /header: a header that never ends; /long; /moved."""

    ended = threading.Event()

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        if self.path == "/silent":
            self.ended.wait(5)
            return
        if self.path == "/header":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            self._drip()
            return
        self.send_response(301 if self.path == "/moved" else 200)
        self.end_headers()
        if self.path == "/long":
            self.wfile.write(bytes(5000))
        if self.path == "/drip":
            self._drip()

    def _drip(self) -> None:
        for _ in range(200):
            self.wfile.write(b"a")
            if self.ended.wait(0.02):
                return


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    Dripping.ended.clear()
    server = Quiet(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Dripping.ended.set()
    server.shutdown()
    server.server_close()


class Wall:
    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("drip", TransferTooSlowError),
        ("silent", TransferTooSlowError),
        ("header", TransferTooSlowError),
        ("long", MetadataTooLongError),
        ("moved", GatewayAnswerError),
    ],
)
def test_metadata_from_a_hostile_server(url: str, path: str, kind: type[Exception]) -> None:
    begun = time.monotonic()
    with open_lines(url, "secret", FAST, Wall(), secure=False) as lines, pytest.raises(kind):
        lines.fetcher(url, lambda name: 4096)(path)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("path", ["drip", "silent", "header"])
def test_a_bundle_from_a_hostile_server(url: str, path: str, tmp_path: Path) -> None:
    async def run() -> None:
        async def sleep(seconds: float) -> None:
            return

        wanted = Wanted(f"{url}/{path}", digest_bytes(b""), 100_000)
        async with httpx.AsyncClient(trust_env=False) as http:
            backoff = Backoff("vin", attempts=2)
            await download(http, wanted, tmp_path / "part", backoff, sleep, Trouble(), {}, FAST)

    with pytest.raises(TransferTooSlowError):
        asyncio.run(run())
    assert (tmp_path / "part").exists() == (path == "drip"), "what has arrived is kept"
