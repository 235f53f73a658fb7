"""Downloads over a real loopback connection from a server that misbehaves as told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import DownloadBrokenError, DownloadDigestError, DownloadLengthError, GatewayAnswerError
from nwmctl.vehicle.backoff import Backoff
from nwmctl.vehicle.download import Fetched, Wanted, download
from nwmctl.vehicle.faults import FaultKind, FaultRule, Trouble

DATA = random.Random(7).randbytes(1_000_000)


@dataclass
class Server:
    """Serves DATA; every answer is cut after the next of ``cuts`` bytes, if one is left."""

    cuts: list[int] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    status: int = 0
    ignore_range: bool = False
    lie_range: bool = False
    endless: bool = False
    sent: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked = next((line[13:-1] for line in head.splitlines() if line.lower().startswith("range: bytes=")), "")
        self.ranges.append(asked)
        start = int(asked) if asked and not self.ignore_range else 0
        body = DATA[start:]
        place = f"Content-Range: bytes {start + self.lie_range}-{len(DATA) - 1}/{len(DATA)}\r\n" if start else ""
        length = "" if self.endless else f"Content-Length: {len(body)}\r\n"
        status = self.status or (206 if start else 200)
        writer.write(f"HTTP/1.1 {status} X\r\n{place}{length}Connection: close\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            body = body[: self.cuts.pop(0)] if self.cuts else body
            self.sent += len(body)
            writer.write(body)
            while self.endless:
                writer.write(bytes(65536))
                await writer.drain()
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[str]:
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/bundle.swu"


def fetch(
    server: Server,
    part: Path,
    *,
    trouble: Trouble | None = None,
    waits: list[float] | None = None,
    wanted: Callable[[str], Wanted] = lambda url: Wanted(url, digest_bytes(DATA), len(DATA)),
) -> Fetched:
    async def sleep(seconds: float) -> None:
        (waits if waits is not None else []).append(seconds)

    async def main() -> Fetched:
        async with running(server) as url, httpx.AsyncClient() as http:
            return await asyncio.wait_for(
                download(http, wanted(url), part, Backoff("seed", attempts=3), sleep, trouble or Trouble(), {}), 20
            )

    work: Awaitable[Fetched] = main()
    return asyncio.run(work)  # type: ignore[arg-type]


def test_a_plain_download(tmp_path: Path) -> None:
    server = Server()
    assert fetch(server, tmp_path / "part") == Fetched(len(DATA), 1)
    assert (tmp_path / "part").read_bytes() == DATA


def test_dropped_connections_cost_only_the_rest(tmp_path: Path) -> None:
    server = Server(cuts=[300_000, 200_000])
    waits: list[float] = []
    assert fetch(server, tmp_path / "part", waits=waits) == Fetched(len(DATA), 3)
    assert server.ranges == ["", "300000", "500000"]
    assert server.sent == len(DATA), "nothing is sent twice"
    assert (tmp_path / "part").read_bytes() == DATA
    assert len(waits) == 2
    assert all(0.25 <= wait <= 0.5 for wait in waits)


def test_a_later_process_goes_on_where_the_earlier_one_stopped(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA[:999_000])
    server = Server()
    assert fetch(server, tmp_path / "part") == Fetched(1000, 1)
    assert server.sent == 1000


def test_what_is_there_already_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA)
    server = Server()
    assert fetch(server, tmp_path / "part") == Fetched(0, 0)


def test_a_drop_on_purpose_keeps_every_byte_before_it(tmp_path: Path) -> None:
    trouble = Trouble([FaultRule(FaultKind.DROP, "123456"), FaultRule(FaultKind.DROP, "700001")])
    server = Server()
    assert fetch(server, tmp_path / "part", trouble=trouble) == Fetched(len(DATA), 3)
    assert server.ranges == ["", "123456", "700001"]


def test_a_server_that_ignores_ranges_is_started_over(tmp_path: Path) -> None:
    server = Server(cuts=[300_000], ignore_range=True)
    fetch(server, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA


def test_a_server_that_lies_about_its_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GatewayAnswerError, match="cannot be downloaded") as caught:
        fetch(Server(cuts=[300_000], lie_range=True), tmp_path / "part")
    assert "bytes from 300000" in caught.value.why


@pytest.mark.parametrize("endless", [True, False])
def test_data_without_end_are_refused_by_length(tmp_path: Path, endless: bool) -> None:
    def shorter(url: str) -> Wanted:
        return Wanted(url, digest_bytes(DATA[:500_000]), 500_000)

    with pytest.raises(DownloadLengthError, match="longer than the 500000 bytes"):
        fetch(Server(endless=endless), tmp_path / "part", wanted=shorter)
    assert not (tmp_path / "part").exists()


def test_endless_on_purpose(tmp_path: Path) -> None:
    with pytest.raises(DownloadLengthError):
        fetch(Server(), tmp_path / "part", trouble=Trouble([FaultRule(FaultKind.ENDLESS)]))


def test_other_bytes_are_refused_and_removed(tmp_path: Path) -> None:
    with pytest.raises(DownloadDigestError, match="was signed"):
        fetch(Server(), tmp_path / "part", trouble=Trouble([FaultRule(FaultKind.CORRUPT)]))
    assert not (tmp_path / "part").exists()


def test_a_server_in_trouble_is_tried_a_few_times_and_no_more(tmp_path: Path) -> None:
    server = Server(status=503)
    waits: list[float] = []
    with pytest.raises(DownloadBrokenError, match="stopped at 0 of 1000000") as caught:
        fetch(server, tmp_path / "part", waits=waits)
    assert "503" in caught.value.why
    assert len(server.ranges) == 3
    assert len(waits) == 2
    assert waits[1] > waits[0]


@pytest.mark.parametrize("status", [401, 404, 416, 302])
def test_a_server_that_refuses_is_not_asked_again(tmp_path: Path, status: int) -> None:
    server = Server(status=status)
    with pytest.raises(GatewayAnswerError) as caught:
        fetch(server, tmp_path / "part")
    assert str(status) in caught.value.why
    assert len(server.ranges) == 1


def test_backoff_grows_is_bounded_and_spreads_vehicles_out() -> None:
    backoff = Backoff("a", first=1, most=30)
    delays = [backoff.delay(n) for n in range(1, 2000)]
    assert all(min(30, 2 ** min(n - 1, 9)) / 2 <= d <= 30 for n, d in enumerate(delays, start=1))
    assert delays == [Backoff("a", first=1, most=30).delay(n) for n in range(1, 2000)]
    first = sorted(Backoff(str(vehicle), first=1).delay(1) for vehicle in range(100))
    assert max(b - a for a, b in itertools.pairwise(first)) < 0.1
