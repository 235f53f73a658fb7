"""The cpio archive: reading gives back what was written, and damage is always refused."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.errors import ArchiveError
from nwmctl.formats.cpio import BLOCK, MAX_FILE, Member, pack, plain_name, unpack

FILES = {"sw-description": b"{}", "a.bin": b"x" * 1001, "empty": b""}
_names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._+-]{0,20}\Z").filter(plain_name)


def build(files: dict[str, bytes]) -> bytes:
    return b"".join(pack(Member(name, len(data), [data]) for name, data in files.items()))


def contents(data: bytes) -> dict[str, bytes]:
    return {entry.name: b"".join(entry.chunks()) for entry in unpack(io.BytesIO(data).read)}


@settings(deadline=None)
@given(files=st.dictionaries(_names, st.binary(max_size=300), max_size=6))
def test_what_was_written_is_read(files: dict[str, bytes]) -> None:
    data = build(files)
    assert len(data) % BLOCK == 0
    assert contents(data) == files
    assert list(contents(data)) == list(files), "the order is kept"


@settings(deadline=None)
@given(files=st.dictionaries(_names, st.binary(max_size=300), max_size=4), step=st.integers(1, 64))
def test_short_reads_change_nothing(files: dict[str, bytes], step: int) -> None:
    stream = io.BytesIO(build(files))
    found = {e.name: b"".join(e.chunks()) for e in unpack(lambda n: stream.read(min(n, step)))}
    assert found == files


def test_what_the_caller_leaves_is_skipped() -> None:
    assert [entry.name for entry in unpack(io.BytesIO(build(FILES)).read)] == list(FILES)


@pytest.mark.parametrize(("mode", "links"), [(0o120777, 1), (0o040755, 1), (0o060600, 1), (0o100644, 2), (0, 1)])
def test_links_folders_and_devices_are_refused(mode: int, links: int) -> None:
    data = build(FILES)
    head = b"%08X" % 1 + b"%08X" % 0o100644 + b"0" * 16 + b"%08X" % 1
    assert data.count(head) == 1
    odd = data.replace(head, b"%08X" % 1 + b"%08X" % mode + b"0" * 16 + b"%08X" % links)
    with pytest.raises(ArchiveError, match="not a regular file"):
        contents(odd)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", ".hidden", "", "..", "x" * 300, "a\nb", "TRAILER!!!"])
def test_odd_names_are_neither_written_nor_read(name: str) -> None:
    with pytest.raises(ArchiveError):
        build({name: b""})
    size = max(len(name), 1)
    if size > 200:
        return
    odd = build({"N" * size: b"data"}).replace(b"N" * size, name.encode() or b"\0", 1)
    with pytest.raises(ArchiveError):
        contents(odd)


def test_a_file_twice_and_a_wrong_length_are_refused() -> None:
    with pytest.raises(ArchiveError, match="twice"):
        contents(b"".join(pack([Member("a", 0, []), Member("a", 0, [])])))
    with pytest.raises(ArchiveError, match="changed"):
        b"".join(pack([Member("a", 2, [b"x"])]))
    with pytest.raises(ArchiveError, match="split"):
        b"".join(pack([Member("a", MAX_FILE + 1, [])]))


@settings(deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(cut: float) -> None:
    data = build(FILES).rstrip(b"\0")
    with pytest.raises(ArchiveError):
        contents(data[: int(cut * (len(data) - 1))])


@pytest.mark.parametrize("tail", [b"x", b"\0" * BLOCK, build(FILES)])
def test_bytes_behind_the_end_are_refused(tail: bytes) -> None:
    with pytest.raises(ArchiveError):
        contents(build(FILES) + tail)


def test_a_total_limit_holds() -> None:
    with pytest.raises(ArchiveError):
        list(unpack(io.BytesIO(build(FILES)).read, max_total=1000))


@settings(max_examples=400, deadline=None)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_bytes_raise_only_our_error(changes: list[tuple[float, int]]) -> None:
    data = bytearray(build(FILES))
    for position, value in changes:
        data[int(position * len(data))] = value
    try:
        found = contents(bytes(data))
    except ArchiveError:
        return
    assert all(plain_name(name) for name in found)


def test_chunks_are_bounded() -> None:
    def big() -> Iterator[bytes]:
        for _ in range(5):
            yield b"z" * (1 << 20)

    data = b"".join(pack([Member("big", 5 << 20, big())]))
    sizes = [len(chunk) for entry in unpack(io.BytesIO(data).read) for chunk in entry.chunks()]
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == 5 << 20
