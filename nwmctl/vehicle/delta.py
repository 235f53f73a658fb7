"""Applies a delta: old file and delta in, new file out. The specification is docs/delta-format.md.

Nothing exists under the new name until every byte is written, forced to the disk and has the promised digest. The old
file is only read, and only once: the new digest proves it as well, and where that fails, the old digest says which of
the two files is to blame. Memory is bounded by one chunk, whatever the delta claims; work is bounded by the delta's
length and the new file's. Needs numpy and zstandard, and nothing else outside of the standard library. Decides nothing
about slots.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from nwmctl.domain.digest import Digest
from nwmctl.errors import DeltaBaseError, DeltaFileError, DeltaFormatError, DeltaResultError, NoSpaceError, NwmError
from nwmctl.formats import delta as wire
from nwmctl.formats.delta import Kind, Piece, limit, malformed
from nwmctl.formats.delta_elements import (
    UNSIGNED,
    Bytes,
    Sorting,
    add_biases,
    apply_differences,
    keep_memory,
    likelihoods,
    tuple_of,
)
from nwmctl.vehicle.delta_body import BodyReader

_READ: Final = 1 << 18


def apply_delta(old: Path, delta: Path, out: Path, *, max_size: int = wire.MAX_SIZE) -> Digest:
    """Write to ``out`` what ``delta`` makes of ``old``, and return its digest; ``max_size`` bounds it in bytes.

    ``out`` may exist, or be ``old``: it is replaced whole, or not at all. Raises DeltaBaseError for another old file,
    DeltaTruncatedError, DeltaDamagedError, DeltaOrderError, DeltaFormatError, DeltaLimitError, DeltaVersionError for
    what is wrong with the delta, DeltaResultError, DeltaFileError, NoSpaceError.
    """
    keep_memory()
    temporary = out.with_name(f"{out.name}.partial")
    with _opened(delta) as change, _opened(old) as base:
        header = _header(change, max_size)
        if os.fstat(base).st_size != header.old_size:
            raise _other_base(old, header)
        with _writing(temporary, out) as handle:
            try:
                digest = _apply(change, base, header, handle)
                if digest != header.new_digest:
                    raise DeltaResultError(
                        f"the delta does not make the file that it promises for '{out.name}'",
                        why=f"the result has the digest {digest}, promised is {header.new_digest}",
                        next="fetch the delta again; the old file is untouched",
                    )
            except (DeltaFormatError, DeltaResultError):
                # The new digest proves the old file as well, so that it is read once; here it has to be blamed first.
                _check_base(base, header, old)
                raise
    return digest


def _header(change: int, max_size: int) -> wire.Header:
    start = _read(change, wire.HEAD_BYTES)
    length = wire.header_bytes(start)
    header = wire.parse_header(start + _read(change, length - len(start)))
    if header.new_size > max_size:
        raise limit(f"it makes a file of {header.new_size} bytes, allowed are {max_size}")
    return header


def _check_base(base: int, header: wire.Header, old: Path) -> None:
    state = hashlib.sha256()
    os.lseek(base, 0, os.SEEK_SET)
    while block := _read(base, _READ):
        state.update(block)
    if state.hexdigest() != header.old_digest.hex:
        raise _other_base(old, header)


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
    reader = BodyReader(body)
    block: Bytes | None = None
    for kind in Kind:
        parts = [piece for piece in pieces if piece.kind is kind]
        if not parts:
            continue
        fresh = _bytes(parts, reader, base) if kind is Kind.BYTES else _elements(kind, parts, reader, base)
        if len(parts) == len(pieces):
            block = fresh
            break
        block = np.empty(length, np.uint8) if block is None else block
        at = 0
        for piece in parts:
            block[piece.at : piece.at + piece.length] = fresh[at : at + piece.length]
            at += piece.length
    reader.end()
    assert block is not None  # a chunk has at least one piece
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
    form = UNSIGNED[kind]
    count = sum(piece.count for piece in parts)
    method = reader.byte()
    if method > 2:
        raise malformed(f"an element section has the method {method}")
    classes = reader.classes(parts) if method else None
    # Tuples are moved whole: what is missing to the last one are zeros.
    width = tuple_of(classes.bits) if classes else 1
    length = -(-count // width) * width
    old = np.zeros(length, form) if method == 2 else np.empty(length, form)
    old[count:] = 0
    if method != 2:
        _fill(memoryview(old.view(np.uint8)), parts, base)  # type: ignore[arg-type]
    if classes is None:
        return old.view(np.uint8)
    if classes.bits:
        found = likelihoods(kind, old, classes.low)
        add_biases(found, parts, classes.biases)
        sorting = Sorting(found, classes.bits, classes.thresholds)
        steps = sorting.together(reader.groups(sorting.counts, np.dtype(f"<i{kind.width}")))
    else:
        (steps,) = reader.groups([count], np.dtype(f"<i{kind.width}"))
    return apply_differences(kind, old, steps).view(np.uint8)[: count * kind.width]


def _fill(buffer: memoryview, parts: list[Piece], base: int) -> None:
    at = 0
    for piece in parts:
        part = buffer[at : at + piece.length]
        if piece.old is None:
            part[:] = bytes(piece.length)
        elif os.preadv(base, [part], piece.old) != piece.length:
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


def _other_base(old: Path, header: wire.Header) -> DeltaBaseError:
    return DeltaBaseError(
        f"'{old.name}' is not the file that the delta was made against",
        why=f"the delta is for {header.old_digest} with {header.old_size} bytes",
        next="fetch the delta for the installed version, or the full artifact",
    )


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


# --- the program -------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """``nwmctl-apply-delta OLD DELTA OUT``: for a vehicle's scripts. Silent when it went well; else what, why and what
    next on stderr, and the refusal's exit code."""
    parser = argparse.ArgumentParser(
        prog="nwmctl-apply-delta", description="Make a file out of an old one and a delta."
    )
    parser.add_argument("old", type=Path, help="the file that the delta starts from; only read")
    parser.add_argument("delta", type=Path, help="the delta")
    parser.add_argument("out", type=Path, help="the file to make: it appears whole, or not at all")
    asked = parser.parse_args(arguments)
    try:
        apply_delta(asked.old, asked.delta, asked.out)
    except NwmError as refusal:
        sys.stderr.write(f"{refusal}\n")
        return int(refusal.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
