"""An append-only log of text records: framed, chained, fsynced.

One record is one line: 16 hexadecimal digits, a space, the record, a newline. The digits are the beginning of
sha256(digits of the line before + record), so they are at once a checksum and a chain: a record cannot be damaged,
removed or moved without notice. A torn last line is what a crash leaves; it is cut off at the next opening. Damage
before that is refused. Does not know what the records mean.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from nwmctl.errors import LogCorruptError
from nwmctl.storage.content import sync_folder

_DIGITS = 16
_START = "0" * _DIGITS


class AppendLog:
    """A log opened for appending. One writer at a time: the caller holds the workspace lock."""

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self._file = path.open("a+b", buffering=0)
        try:
            self._file.seek(0)
            self.records, self._chain, whole = _parse(self._file.read(), path)
            self._file.truncate(whole)
        except BaseException:
            self._file.close()
            raise
        if new:
            sync_folder(path.parent)

    def append(self, record: str) -> None:
        """Write one record (no newline in it); it is on disk when this returns, or nothing of it if this raises."""
        if "\n" in record:
            raise ValueError("a record is one line")
        chain = _link(self._chain, record)
        self._write(f"{chain} {record}\n".encode())
        self._chain = chain
        self.records.append(record)

    def _write(self, line: bytes) -> None:
        """The whole line or nothing: on a disk that is nearly full a part may fit, and later ones would follow it."""
        whole = os.fstat(self._file.fileno()).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(whole)
            raise

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._file.close()


def read_log(path: Path) -> list[str]:
    """The whole records of a log that may be in use. Raises LogCorruptError."""
    return _parse(path.read_bytes(), path)[0]


def _link(before: str, record: str) -> str:
    return hashlib.sha256(f"{before} {record}".encode()).hexdigest()[:_DIGITS]


def _parse(data: bytes, path: Path) -> tuple[list[str], str, int]:
    """Records, last chain value, length of the whole part in bytes."""
    records: list[str] = []
    chain, whole = _START, 0
    *lines, tail = data.split(b"\n")
    for index, line in enumerate(lines):
        record = line[_DIGITS + 1 :].decode("utf-8", "replace")
        expected = _link(chain, record)
        if line[: _DIGITS + 1] != f"{expected} ".encode():
            if index < len(lines) - 1 or tail:
                raise _damaged(path, index)
            tail = line  # the last line: a crash can leave blocks of it unwritten
            break
        records.append(record)
        chain = expected
        whole += len(line) + 1
    if _was_whole(tail, chain):
        raise _damaged(path, len(records))
    return records, chain, whole


def _was_whole(tail: bytes, chain: str) -> bool:
    """Whether a torn-looking tail begins with a whole record: then its newline was damaged later, and dropping it would
    lose a record that somebody was told is on disk. Unwritten (zero) bytes after a record are what a crash leaves."""
    digits, state = tail[: _DIGITS + 1], hashlib.sha256(f"{chain} ".encode())
    for end in range(_DIGITS + 1, len(tail)):
        if digits == f"{state.hexdigest()[:_DIGITS]} ".encode():
            return any(tail[end:])
        state.update(tail[end : end + 1])
    return False


def _damaged(path: Path, index: int) -> LogCorruptError:
    return LogCorruptError(
        f"{path.name} is damaged at record {index + 1}",
        why="a record does not continue the chain of checksums, and more follows it",
        next="restore the file from a backup; the content store keeps finished steps, so a new run is cheap",
    )
