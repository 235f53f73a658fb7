"""A file that is written through an outlet holds what was given, or whoever gives it is told."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from io import FileIO, RawIOBase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.bundling import outlet as outlet_module
from nwmctl.bundling.flow import CHUNK, Aside, Hasher, hashers, write_all
from nwmctl.bundling.outlet import Outlet
from nwmctl.domain.digest import digest_bytes

_SIZES = st.one_of(
    st.integers(0, 3 * CHUNK), st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK])
)
_SOURCE = os.urandom(3 * CHUNK)


@settings(deadline=None, max_examples=25)
@given(steps=st.lists(st.tuples(st.booleans(), _SIZES), max_size=6), past_cache=st.booleans(), in_thread=st.booleans())
def test_what_is_given_is_what_lies_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]], past_cache: bool, in_thread: bool
) -> None:
    folder = tmp_path_factory.mktemp("outlet")
    (folder / "source").write_bytes(_SOURCE)
    threads = threading.active_count()
    expected = b""
    with hashers(2) as new, Outlet(folder / "x", new(0) if in_thread else Hasher(), past_cache=past_cache) as out:
        for from_file, size in steps:
            if from_file:
                state = new(1)
                with (folder / "source").open("rb", buffering=0) as file:
                    for piece in out.read(file, size, [state], once=past_cache):
                        out.put(piece)
                assert state.digest == digest_bytes(_SOURCE[:size])
            else:
                out.put(_SOURCE[:size])
            expected += _SOURCE[:size]
            assert out.size == len(expected)
        out.finish()
        out.sync()
    assert (folder / "x").read_bytes() == expected
    assert (out.digest, out.size) == (digest_bytes(expected), len(expected))
    assert threading.active_count() == threads


@pytest.mark.parametrize("taken", [0, 512, 1000, CHUNK])
def test_where_nothing_is_written_past_the_cache_the_usual_way_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Refused at the first or second buffer, at once or behind a short write: the bytes are the same."""
    refused = 0

    def refusing(file: FileIO, data: memoryview) -> None:
        nonlocal refused
        if fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_DIRECT and file.tell() + len(data) > CHUNK * (taken > 0):
            refused += 1
            write_all(file, data[: taken // 512 * 512 % CHUNK])
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        write_all(file, data)

    monkeypatch.setattr(outlet_module, "write_all", refusing)
    with Outlet(tmp_path / "x", Hasher(), past_cache=True) as out:
        out.put(_SOURCE)
        out.put(b"and the rest")
        out.finish()
    assert (tmp_path / "x").read_bytes() == _SOURCE + b"and the rest"
    assert out.digest == digest_bytes(_SOURCE + b"and the rest")
    assert refused <= 1


def test_a_file_system_that_opens_nothing_so_is_written_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, **more: int | None) -> int:
        asked.append(flags & os.O_DIRECT)
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", refusing)
    with Outlet(tmp_path / "x", Hasher(), past_cache=True) as out:
        out.put(_SOURCE)
        out.finish()
    assert asked == [os.O_DIRECT, 0]
    assert (tmp_path / "x").read_bytes() == _SOURCE
    assert not (tmp_path / "x").stat().st_mode & 0o111


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_problem_in_the_thread_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    writes = 0

    def full(file: RawIOBase, data: memoryview) -> None:
        nonlocal writes
        writes += 1
        if writes > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(file, data)

    monkeypatch.setattr(outlet_module, "write_all", full)
    threads = threading.active_count()

    def attempt() -> None:
        with Outlet(tmp_path / "x", Hasher()) as out:
            out.put(_SOURCE[: 2 * CHUNK + 5])
            out.finish()

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        attempt()
    assert threading.active_count() == threads


def test_a_refusal_that_has_another_cause_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(file: RawIOBase, data: memoryview) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(outlet_module, "write_all", refusing)

    def attempt() -> None:
        with Outlet(tmp_path / "x", Hasher(), past_cache=True) as out:
            out.put(_SOURCE)
            out.finish()

    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        attempt()


def test_jobs_aside_are_done_in_order_and_their_problems_kept() -> None:
    done: list[bytes] = []

    def job(data: memoryview) -> None:
        if bytes(data) == b"bad":
            raise ValueError("bad")
        done.append(bytes(data))

    aside = Aside()
    try:
        for data in (b"1", b"bad", b"2"):
            aside.give(job, memoryview(data))
        with pytest.raises(ValueError, match="bad"):
            aside.until(0)
        aside.until(0)
        assert done == [b"1", b"2"]
    finally:
        aside.close()
