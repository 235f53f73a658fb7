"""The cpio archive (newc, ``070701``) as far as a bundle needs it: flat, regular files, in order.

Written archives are deterministic: no times, no owners, numbered inodes. The reader is strict, since it stands before
every signature check: plain names only, no links, no folders, bounded sizes, no name twice, nothing behind the end.
It takes only what the writer would have written, byte for byte: what no hash covers (headers, fillings, the end) can
have one form alone, so nothing can be hidden in it and no changed archive passes for the same one. Both work on
chunks, so a payload is never whole in memory. Reads and writes no file itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from nwmctl.errors import (
    ArchiveCutOffError,
    ArchiveError,
    ArchiveLinkError,
    ArchiveNameError,
    ArchiveSizeError,
    ArchiveTwiceError,
)

Chunk = bytes | memoryview
CHUNK = 1 << 20
MAX_FILE = (1 << 32) - 1
"""Sizes are 32-bit fields."""
BLOCK = 512
"""An archive is filled with zeros to a multiple of this many bytes."""

_MAGIC = b"070701"
_HEADER = 110
_TRAILER = "TRAILER!!!"
_FIELDS = re.compile(rb"(?:[0-9A-Fa-f]{8}){13}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\Z")
_MODE = 0o100644
_REGULAR, _KIND = 0o100000, 0o170000
_MAX_FILES = 4096
_AGAIN = "fetch the bundle again; if it stays so, build it again"


@dataclass(frozen=True, slots=True)
class Member:
    """A file to write: exactly ``size`` bytes come out of ``chunks``."""

    name: str
    size: int
    chunks: Iterable[Chunk]


def plain_name(name: str) -> bool:
    """Whether a file may have this name in a bundle: letters, digits and ``._+-``, no folder, not hidden."""
    return bool(_NAME.match(name)) and name != _TRAILER


def pack(members: Iterable[Member]) -> Iterator[Chunk]:
    """The archive's bytes in chunks. Raises ArchiveError for a name or size that does not fit, or a wrong length."""
    written = 0
    for number, member in enumerate(members, start=1):
        if not plain_name(member.name):
            raise _name(f"'{member.name[:80]}' cannot be a file's name in a bundle", "the name is not plain")
        if not 0 <= member.size <= MAX_FILE:
            why = f"one file has at most {MAX_FILE}; split it"
            raise ArchiveSizeError(f"'{member.name}' has {member.size} bytes", why=why, next=_NEXT)
        head = _header(member.name, member.size, number, _MODE)
        yield head
        length = 0
        for chunk in member.chunks:
            length += len(chunk)
            yield chunk
        if length != member.size:
            raise _refuse(f"'{member.name}' changed while it was packed", f"{length} bytes, not {member.size}")
        fill = bytes(-length % 4)
        yield fill
        written += len(head) + length + len(fill)
    end = _header(_TRAILER, 0, 0, 0)
    yield end + bytes(-(written + len(end)) % BLOCK)


def _header(name: str, size: int, inode: int, mode: int) -> bytes:
    text = name.encode("ascii") + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(text), 0)
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + text
    return head + bytes(-len(head) % 4)


class Entry:
    """A file that is being read; its bytes begin at ``offset`` in the archive.

    ``chunks`` may be used once, before the next entry is asked for.
    """

    def __init__(self, name: str, size: int, offset: int, chunks: Iterator[bytes]) -> None:
        self.name = name
        self.size = size
        self.offset = offset
        self._chunks = chunks

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes, at most ``CHUNK`` at a time. Raises ArchiveError where the archive is cut off."""
        return self._chunks

    def read(self, limit: int) -> bytes:
        """The whole file, which must not be larger than ``limit`` bytes. Raises ArchiveError."""
        if self.size > limit:
            why = f"at most {limit} are read for this file"
            raise ArchiveSizeError(f"'{self.name}' has {self.size} bytes", why=why, next=_NEXT)
        return b"".join(self._chunks)


def unpack(read: Callable[[int], bytes], *, max_total: int = 1 << 40) -> Iterator[Entry]:
    """The archive's files in order; ``read(n)`` gives up to ``n`` bytes and none at the end.

    Bytes of an entry that the caller did not take are skipped. Raises ArchiveError.
    """
    source = _Source(read)
    seen: set[str] = set()
    total = 0
    while True:
        head, name, size = _read_header(source)
        if name == _TRAILER:
            _same(head, _header(_TRAILER, 0, 0, 0), "the archive's end marker")
            _read_end(source)
            return
        _same(head, _header(name, size, len(seen) + 1, _MODE), f"the header of '{name}'")
        total += size
        if name in seen:
            raise ArchiveTwiceError(
                f"'{name}' is in the bundle twice", why="the second would hide the first", next=_NEXT
            )
        if len(seen) >= _MAX_FILES or total > max_total:
            raise ArchiveSizeError(
                f"'{name}' does not fit",
                why=f"a bundle holds at most {_MAX_FILES} files, this one {max_total} bytes",
                next=_NEXT,
            )
        seen.add(name)
        chunks = source.take(size)
        yield Entry(name, size, source.position, chunks)
        for _ in chunks:
            pass
        source.zeros(-size % 4, f"the filling behind '{name}'")


def _read_header(source: _Source) -> tuple[bytes, str, int]:
    """The next header's bytes, and the name and size that it gives. Nothing is allocated by what it says."""
    head = source.exactly(_HEADER, "a file's header")
    if head[:6] != _MAGIC or not _FIELDS.match(head[6:]):
        raise _refuse("a file's header is damaged", "it is not of the form 070701 (newc without checksums)")
    fields = [int(head[at : at + 8], 16) for at in range(6, _HEADER, 8)]
    _, mode, _, _, links, _, size, *_, name_size, _ = fields
    if not 2 <= name_size <= 256:
        raise _name("a file's name is damaged", f"it would have {name_size} bytes")
    text = source.exactly(name_size, "a file's name")
    if text[-1] != 0 or b"\0" in text[:-1] or not text.isascii():
        raise _name("a file's name is damaged", "a name is ASCII text that ends with one zero")
    name = text[:-1].decode("ascii")
    if name != _TRAILER and not plain_name(name):
        raise _name(f"{name[:80]!r} cannot be a file's name in a bundle", "the name is not plain")
    if name != _TRAILER and (mode & _KIND != _REGULAR or links != 1):
        why = "a bundle holds no links, folders or devices"
        raise ArchiveLinkError(f"'{name}' is not a regular file", why=why, next=_NEXT)
    fill = source.exactly(-(_HEADER + name_size) % 4, "the filling behind a file's name")
    return head + text + fill, name, size


def _same(found: bytes, written: bytes, what: str) -> None:
    if found != written:
        raise _refuse(f"{what} is not one that nwmctl writes", "no hash covers it, so it may have one form only")


def _read_end(source: _Source) -> None:
    source.zeros(-source.position % BLOCK, "the filling at the end")
    if source.some(1):
        raise _refuse("bytes follow the archive's end", "nothing may stand behind a bundle")


class _Source:
    """Exact reads over ``read``; counts the position."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.position = 0

    def some(self, most: int) -> bytes:
        data = self._read(most)
        self.position += len(data)
        return data

    def exactly(self, size: int, what: str) -> bytes:
        parts: list[bytes] = []
        left = size
        while left:
            data = self.some(left)
            if not data:
                raise _cut_off(what)
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def zeros(self, size: int, what: str) -> None:
        if self.exactly(size, what).strip(b"\0"):
            raise _refuse(f"{what} is not empty", "hidden bytes are not allowed in a bundle")

    def take(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            data = self.some(min(CHUNK, left))
            if not data:
                raise _cut_off("a file")
            left -= len(data)
            yield data


_NEXT = "fetch the bundle again; if it stays so, build it again"


def _refuse(what: str, why: str) -> ArchiveError:
    return ArchiveError(what, why=why, next=_NEXT)


def _name(what: str, why: str) -> ArchiveNameError:
    return ArchiveNameError(what, why=why, next=_NEXT)


def _cut_off(what: str) -> ArchiveCutOffError:
    return ArchiveCutOffError("the archive is cut off", why=f"it ends in the middle of {what}", next=_NEXT)
