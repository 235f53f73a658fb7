"""Applies a delta: old file and delta in, new file out. The specification is docs/delta-format.md.

Nothing exists under the new name until every byte is written, forced to the disk and has the promised digest. The old
file is only read, and only after its digest was checked. Memory is bounded by one chunk, whatever the delta claims;
work is bounded by the delta's length and the new file's. Needs numpy and zstandard. Decides nothing about slots.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from nwmctl.domain.digest import Digest
from nwmctl.errors import DeltaBaseError, DeltaFileError, DeltaResultError, NoSpaceError
from nwmctl.formats import delta as wire
from nwmctl.formats.delta import Kind, Piece, limit, malformed
from nwmctl.formats.delta_elements import (
    BLOCK,
    UNSIGNED,
    Bytes,
    Signed,
    apply_differences,
    contexts,
    places,
)
from nwmctl.vehicle.delta_body import BodyReader, Group

_READ: Final = 1 << 18


def apply_delta(old: Path, delta: Path, out: Path, *, max_size: int = wire.MAX_SIZE) -> Digest:
    """Write to ``out`` what ``delta`` makes of ``old``, and return its digest; ``max_size`` bounds it in bytes.

    ``out`` may exist, or be ``old``: it is replaced whole, or not at all. Raises DeltaBaseError for another old file,
    DeltaTruncatedError, DeltaDamagedError, DeltaOrderError, DeltaFormatError, DeltaLimitError, DeltaVersionError for
    what is wrong with the delta, DeltaResultError, DeltaFileError, NoSpaceError.
    """
    temporary = out.with_name(f"{out.name}.partial")
    with _opened(delta) as change, _opened(old) as base:
        header = _header(change, max_size)
        _check_base(base, header, old)
        with _writing(temporary, out) as handle:
            digest = _apply(change, base, header, handle)
            if digest != header.new_digest:
                raise DeltaResultError(
                    f"the delta does not make the file that it promises for '{out.name}'",
                    why=f"the result has the digest {digest}, promised is {header.new_digest}",
                    next="fetch the delta again; the old file is untouched",
                )
    return digest


def _header(change: int, max_size: int) -> wire.Header:
    start = _read(change, wire.HEAD_BYTES)
    length = wire.header_bytes(start)
    header = wire.parse_header(start + _read(change, length - len(start)))
    if header.new_size > max_size:
        raise limit(f"it makes a file of {header.new_size} bytes, allowed are {max_size}")
    return header


def _check_base(base: int, header: wire.Header, old: Path) -> None:
    size = os.fstat(base).st_size
    state = hashlib.sha256()
    if size == header.old_size:
        while block := _read(base, _READ):
            state.update(block)
    if size != header.old_size or state.hexdigest() != header.old_digest.hex:
        raise DeltaBaseError(
            f"'{old.name}' is not the file that the delta was made against",
            why=f"it has {size} bytes; the delta is for {header.old_digest} with {header.old_size} bytes",
            next="fetch the delta for the installed version, or the full artifact",
        )


def _apply(change: int, base: int, header: wire.Header, out: int) -> Digest:
    cursor = wire.Cursor(header.segments, header.old_size)
    state = hashlib.sha256()
    left, number = header.new_size, 0
    while left:
        head = wire.parse_chunk(_read(change, wire.CHUNK_BYTES), number, left)
        body = _read(change, head.body)
        wire.check_chunk(head, body)
        block = _chunk(cursor.take(head.length), head.length, body, base)
        state.update(block)
        _write(out, block)
        left, number = left - head.length, number + 1
    if _read(change, 1):
        raise malformed("bytes follow its last chunk")
    return Digest(state.hexdigest())


def _chunk(pieces: tuple[Piece, ...], length: int, body: bytes, base: int) -> memoryview:
    block = np.empty(length, np.uint8)
    reader = BodyReader(body)
    for kind in Kind:
        parts = [piece for piece in pieces if piece.kind is kind]
        if not parts:
            continue
        if kind is Kind.BYTES:
            fresh = _bytes(parts, reader, base)
        else:
            fresh = _elements(kind, parts, reader, base)
        at = 0
        for piece in parts:
            block[piece.at : piece.at + piece.length] = fresh[at : at + piece.length]
            at += piece.length
    reader.end()
    return memoryview(block)  # type: ignore[arg-type]


def _bytes(parts: list[Piece], reader: BodyReader, base: int) -> Bytes:
    size = sum(piece.length for piece in parts)
    method = reader.byte()
    if method == 0:
        return reader.stream(size)
    if method == 1:
        window = b"".join(_read_at(base, piece.window, piece.window_length) for piece in parts)
        return reader.stream(size, window)
    raise malformed(f"a byte section has the method {method}")


def _elements(kind: Kind, parts: list[Piece], reader: BodyReader, base: int) -> Bytes:
    old = np.zeros(sum(piece.length for piece in parts) // kind.width, UNSIGNED[kind])
    method = reader.byte()
    if method != 2:
        _fill(memoryview(old.view(np.uint8)), parts, base)  # type: ignore[arg-type]
    if method == 0:
        return old.view(np.uint8)
    if method not in (1, 2):
        raise malformed(f"an element section has the method {method}")
    groups = reader.groups(len(old))
    steps = [reader.steps(group, old.dtype) for group in groups]
    used = [0] * len(groups)
    for start in range(0, len(old), BLOCK):
        part = old[start : start + BLOCK]
        block = np.empty(len(part), steps[0].dtype)
        if len(groups) == 1:
            block[:] = steps[0][start : start + BLOCK]
        else:
            _scatter(block, contexts(kind, part), groups, steps, used)
        part[:] = apply_differences(kind, part, block)
    return old.view(np.uint8)


def _scatter(block: Signed, found: Bytes, groups: Sequence[Group], steps: Sequence[Signed], used: list[int]) -> None:
    for number, where in places(found, [group.last for group in groups]):
        first, used[number] = used[number], used[number] + len(where)
        if used[number] > groups[number].count:
            raise malformed("a group has fewer values than its contexts have elements")
        block[where] = steps[number][first : used[number]]


def _fill(buffer: memoryview, parts: list[Piece], base: int) -> None:
    at = 0
    for piece in parts:
        if piece.old is not None and os.preadv(base, [buffer[at : at + piece.length]], piece.old) != piece.length:
            raise _shrunk()
        at += piece.length


# --- files -------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with _translated(path):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _writing(temporary: Path, out: Path) -> Iterator[int]:
    """A new file that gets its name when the block ends well, and is gone when it does not."""
    with _translated(out):
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            yield handle
            with _translated(out):
                os.fsync(handle)
        finally:
            os.close(handle)
        with _translated(out):
            os.replace(temporary, out)
            folder = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read(handle: int, size: int) -> bytes:
    """Up to ``size`` bytes; fewer only at the end of the file."""
    with _translated(Path("delta")):
        data = os.read(handle, size)
        while 0 < len(data) < size and (more := os.read(handle, size - len(data))):
            data += more
    return data


def _read_at(handle: int, offset: int, size: int) -> bytes:
    with _translated(Path("old")):
        data = os.pread(handle, size, offset)
    if len(data) != size:
        raise _shrunk()
    return data


def _write(handle: int, block: memoryview) -> None:
    with _translated(Path("new")):
        while block:
            block = block[os.write(handle, block) :]


def _shrunk() -> DeltaBaseError:
    return DeltaBaseError(
        "the old file became shorter while the delta was applied",
        why="bytes that were there when its digest was checked are gone",
        next="leave the old file alone until the delta is applied",
    )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"no space left to write '{path.name}'",
                why="the new file does not fit on the disk beside the old one",
                next="free space and apply the delta again; the old file is untouched",
            ) from problem
        raise DeltaFileError(
            f"cannot read or write '{path.name}'",
            why=str(problem.strerror or problem),
            next="check that the file exists and that its folder can be written",
        ) from problem
