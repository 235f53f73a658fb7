"""The content store and the append-only log: atomic, verified, chained."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import ContentCorruptError, ContentMissingError, LogCorruptError, WorkspaceLockedError
from nwmctl.storage.applog import AppendLog, read_log
from nwmctl.storage.content import ContentStore, write_atomically
from nwmctl.storage.workspace import Workspace
from tests.disks import free_bytes, small_disk


def test_bytes_and_files_meet_under_one_digest(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "c")
    (tmp_path / "f").write_bytes(b"abc" * 1000)
    assert store.put_file(tmp_path / "f") == store.put_bytes(b"abc" * 1000) == digest_bytes(b"abc" * 1000)


def test_a_damaged_object_is_refused_and_removed(tmp_path: Path) -> None:
    digest = ContentStore(tmp_path).put_bytes(b"good")
    store = ContentStore(tmp_path)
    place = next(path for path in (tmp_path / "objects").rglob("*") if path.is_file())
    place.chmod(0o644)
    place.write_bytes(b"evil")
    with pytest.raises(ContentCorruptError):
        store.path(digest)
    with pytest.raises(ContentMissingError):
        store.read(digest)


def test_nothing_temporary_stays(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    store.put_bytes(b"x")
    store.put_bytes(b"x")
    with store.scratch() as folder:
        (folder / "a").write_bytes(b"1")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_atomic_write_keeps_the_mode(tmp_path: Path) -> None:
    write_atomically(tmp_path / "k", b"secret", 0o600)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600


texts = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30), max_size=8)


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(0, 400))
def test_a_torn_tail_is_cut(tmp_path_factory: pytest.TempPathFactory, records: list[str], cut: int) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log = AppendLog(path)
    for record in records:
        log.append(record)
    log.close()
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    again = AppendLog(path)
    kept = list(again.records)
    assert records[: len(kept)] == kept
    again.append("next")
    again.close()
    assert read_log(path) == [*kept, "next"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_in_the_middle_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log = AppendLog(path)
    for number in range(5):
        log.append(f"record {number}")
    log.close()
    raw = bytearray(path.read_bytes())
    first_four = len(b"\n".join(bytes(raw).split(b"\n")[:4])) + 1
    where = data.draw(st.integers(0, first_four - 1))
    raw[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(raw))
    with pytest.raises(LogCorruptError):
        read_log(path)


def test_a_record_that_does_not_fit_leaves_nothing_of_it(tmp_path: Path) -> None:
    """A part of it fits on the disk: what follows once there is room again must not stand behind that part."""
    with small_disk(tmp_path / "disk") as disk:
        log = AppendLog(disk / "log")
        log.append("x" * 4000)
        (disk / "filler").write_bytes(bytes(free_bytes(disk)))
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                log.append("y" * 200)
        (disk / "filler").unlink()
        log.append("next")
        log.close()
        assert read_log(disk / "log") == ["x" * 4000, "next"]


@pytest.mark.parametrize("byte", [0, 65, 255])
def test_a_damaged_last_newline_is_no_torn_tail(tmp_path: Path, byte: int) -> None:
    log = AppendLog(tmp_path / "log")
    log.append("first")
    log.append("last")
    log.close()
    raw = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(raw[:-1] + bytes([byte]))
    if byte:
        with pytest.raises(LogCorruptError):
            read_log(tmp_path / "log")
    else:
        assert read_log(tmp_path / "log") == ["first"]


def _hold(root: Path, ready: multiprocessing.synchronize.Event) -> None:
    import time

    with Workspace.open(root).locked("nwmctl deploy"):
        ready.set()
        time.sleep(60)


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(WorkspaceLockedError, match=r"in use") as refusal, Workspace.open(tmp_path).locked("other"):
        pass
    assert "nwmctl deploy" in refusal.value.why
    holder.kill()
    holder.join()
    with Workspace.open(tmp_path).locked("other"):
        pass
