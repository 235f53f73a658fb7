"""HTTP: continued where it broke off, started again where it must, stopped where it lies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nwmctl.domain.model import ModelReference
from nwmctl.errors import DigestMismatchError, SizeMismatchError, SourceUnavailableError
from nwmctl.sources.fetch import ModelPackage, fetch_model
from tests.sources.package import BIG, TRUSTED, Made, assert_whole, make_package
from tests.sources.server import Server, serving

SIZE = 600_000


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_package(tmp_path / "published", size=SIZE)


@pytest.fixture
def server(made: Made) -> Iterator[Server]:
    with serving(made.folder) as running:
        yield running


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work" / "model"


class Waits:
    """A Sleep that does not wait, and remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def fetch(server: Server, made: Made, into: Path, waits: Waits | None = None, query: str = "") -> ModelPackage:
    reference = ModelReference(f"{server.url}/{query}", made.reference.digest)
    return fetch_model(reference, TRUSTED, into, base=Path("/"), sleep=waits or Waits())


def part(made: Made, into: Path) -> Path:
    return into.parent / f".partial-{into.name}" / "parts" / made.card.files["weights"].digest.hex


def test_a_good_server(server: Server, made: Made, into: Path) -> None:
    fetch(server, made, into)
    assert_whole(made, into)
    assert [r[0] for r in server.how.requests][:2] == ["/model-card.json", "/model-card.json.sig"]
    assert "/golden%20set.npz" in [r[0] for r in server.how.requests]


def test_the_query_goes_with_every_file(server: Server, made: Made, into: Path) -> None:
    fetch(server, made, into, query="?token=secret")
    assert all(request[0].endswith("?token=secret") for request in server.how.requests)
    server.how.status = [403]
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(server, made, into.with_name("other"), query="?token=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("etag", ["strong", "weak", "none"])
def test_dropped_connections_are_continued(server: Server, made: Made, into: Path, etag: str) -> None:
    server.how.drop_after, server.how.etag = 100_000, etag
    fetch(server, made, into)
    assert_whole(made, into)
    requests = server.how.big("onnx")
    assert [r[1] for r in requests] == ["", *(f"bytes={n}00000-" for n in range(1, 6))]
    assert all((r[2] != "") == (etag == "strong") for r in requests[1:]), "only a strong tag joins two halves"


def test_a_server_without_ranges_starts_again(server: Server, made: Made, into: Path) -> None:
    server.how.ranges, server.how.drop_after, server.how.drops = False, 100_000, 2
    fetch(server, made, into)
    assert_whole(made, into)
    assert len(server.how.big("onnx")) == 3


def test_a_server_that_always_drops_is_given_up(server: Server, made: Made, into: Path) -> None:
    server.how.ranges, server.how.drop_after = False, 100_000
    waits = Waits()
    with pytest.raises(SourceUnavailableError, match="cannot be fetched") as caught:
        fetch(server, made, into, waits)
    assert "without progress" in caught.value.why
    assert waits.seconds == [0.5, 0.5, 1.0, 2.0, 4.0], "only the first attempt made progress"
    assert len(server.how.big("onnx")) == 6
    assert not into.exists()


def test_passing_failures_are_repeated_and_others_are_not(server: Server, made: Made, into: Path) -> None:
    server.how.status = [503, 500, 429]
    waits = Waits()
    fetch(server, made, into, waits)
    assert waits.seconds == [0.5, 1.0, 2.0]
    for status in (404, 403, 401, 400, 501):
        server.how.status, server.how.requests = [status], []
        with pytest.raises(SourceUnavailableError, match="cannot be fetched") as caught:
            fetch(server, made, into.with_name(f"other{status}"))
        assert str(status) in caught.value.why
        assert len(server.how.big("onnx")) == 1


def test_nobody_listens(made: Made, into: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as gone:
        url = gone.url
    waits = Waits()
    with pytest.raises(SourceUnavailableError):
        fetch_model(ModelReference(url, made.reference.digest), TRUSTED, into, base=Path("/"), sleep=waits)
    assert len(waits.seconds) == 4


def test_endless_data_is_stopped_early(server: Server, made: Made, into: Path) -> None:
    server.how.announce, server.how.endless = False, True
    with pytest.raises(SizeMismatchError, match=r"model\.onnx"):
        fetch(server, made, into)
    assert server.how.sent < 16 * SIZE, "the transfer ends soon after the promised size"
    assert not list(into.parent.iterdir())


def test_a_longer_file_is_refused_by_its_announcement(server: Server, made: Made, into: Path) -> None:
    (made.folder / BIG).write_bytes(bytes(SIZE + 1))
    with pytest.raises(SizeMismatchError) as caught:
        fetch(server, made, into)
    assert "announces" in caught.value.why


def test_an_endless_card_is_stopped(server: Server, made: Made, into: Path) -> None:
    (made.folder / "model-card.json").write_bytes(bytes(5 << 20))
    with pytest.raises(SizeMismatchError, match="model-card"):
        fetch(server, made, into)


@pytest.mark.parametrize("lie", [-1000, 1000])
def test_a_wrong_announcement(server: Server, made: Made, into: Path, lie: int) -> None:
    server.how.lie = lie
    with pytest.raises((SizeMismatchError, SourceUnavailableError)):
        fetch(server, made, into)
    assert not into.exists()


def test_a_file_that_is_shorter_than_the_card_says(server: Server, made: Made, into: Path) -> None:
    (made.folder / BIG).write_bytes(made.contents[BIG][:-1])
    with pytest.raises(SizeMismatchError):
        fetch(server, made, into)
    assert len(server.how.big("onnx")) == 1, "a whole answer that is too short is not asked for again"


def test_a_body_without_length_that_ends_early_is_continued(server: Server, made: Made, into: Path) -> None:
    server.how.announce, server.how.drop_after, server.how.drops = False, 100_000, 1
    fetch(server, made, into)
    assert_whole(made, into)


def test_ranges_in_small_portions(server: Server, made: Made, into: Path) -> None:
    server.how.drop_after, server.how.drops, server.how.most = 100_000, 1, 90_000
    fetch(server, made, into)
    assert_whole(made, into)


def test_a_range_answer_from_elsewhere_is_not_used(server: Server, made: Made, into: Path) -> None:
    server.how.drop_after, server.how.drops, server.how.shift = 100_000, 1, 7
    fetch(server, made, into)
    assert_whole(made, into)
    assert server.how.big("onnx")[-1][1] == "", "started again from the first byte"


def test_compression_that_was_not_asked_for(server: Server, made: Made, into: Path) -> None:
    server.how.encoding = "gzip"
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(server, made, into)
    assert "compresses" in caught.value.why


@pytest.mark.parametrize("etag", ["strong", "none"])
def test_the_file_changes_between_two_halves(server: Server, made: Made, into: Path, etag: str) -> None:
    """First half from a wrong version: If-Range, or else the digest, makes it start again."""
    good = made.contents[BIG]
    server.how.etag, server.how.drop_after = etag, 100_000
    (made.folder / BIG).write_bytes(bytes(SIZE))
    server.how.ranges = False
    with pytest.raises(SourceUnavailableError):
        fetch(server, made, into)
    assert part(made, into).stat().st_size == 100_000
    (made.folder / BIG).write_bytes(good)
    server.how.drop_after, server.how.ranges = 0, True
    fetch(server, made, into)
    assert_whole(made, into)


def test_wrong_bytes_are_not_fetched_for_ever(server: Server, made: Made, into: Path) -> None:
    (made.folder / BIG).write_bytes(bytes(SIZE))
    with pytest.raises(DigestMismatchError):
        fetch(server, made, into)
    assert len(server.how.big("onnx")) == 1
    assert not list(into.parent.iterdir())


def test_a_whole_part_is_not_fetched_again(server: Server, made: Made, into: Path) -> None:
    waiting = part(made, into)
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(made.contents[BIG])
    fetch(server, made, into)
    assert server.how.big("onnx") == []
    assert_whole(made, into)


def test_kill_9_costs_only_what_had_not_arrived(server: Server, made: Made, into: Path) -> None:
    server.how.delay_s = 0.02
    code = f"""
import time
from pathlib import Path
from nwmctl.domain.digest import Digest
from nwmctl.domain.model import ModelReference
from nwmctl.sources.fetch import fetch_model
fetch_model(ModelReference({server.url!r}, Digest({made.reference.digest.hex!r})), {TRUSTED!r}, Path({str(into)!r}),
            base=Path("/"), sleep=time.sleep)
"""
    child = subprocess.Popen([sys.executable, "-c", code])
    waiting = part(made, into)
    deadline = time.monotonic() + 30
    while not (waiting.exists() and waiting.stat().st_size > 150_000):
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    survived = waiting.stat().st_size
    assert 150_000 < survived < SIZE
    assert waiting.read_bytes() == made.contents[BIG][:survived]
    assert not into.exists()

    server.how.delay_s, server.how.requests = 0.0, []
    fetch(server, made, into)
    assert_whole(made, into)
    assert [r[1] for r in server.how.big("onnx")] == [f"bytes={survived}-"]
    assert not server.how.big("calibration.npz"), "files that had arrived are not fetched again"
