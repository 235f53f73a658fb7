"""Applies a delta: old file and delta in, new file out. The specification is docs/delta-format.md.

Nothing exists under the new name until every byte is written, forced to the disk and has the promised digest. The old
file is only read, and only after its digest was checked. Memory is bounded by one chunk, whatever the delta claims;
work is bounded by the delta's length and the new file's. Needs numpy and zstandard. Decides nothing about slots.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard

from nwmctl.domain.digest import Digest
from nwmctl.errors import DeltaBaseError, DeltaFileError, DeltaResultError, NoSpaceError
from nwmctl.formats import delta as wire
from nwmctl.formats.delta import Kind, Piece, limit, malformed
from nwmctl.formats.delta_elements import (
    UNSIGNED,
    Bytes,
    Coder,
    Unsigned,
    apply_differences,
    contexts,
    members,
    unzigzag,
)

_BLOCK: Final = 1 << 18
_GROUP: Final = struct.Struct("<BBBb")


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
        while block := _read(base, _BLOCK):
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
    reader = _Reader(body)
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


def _bytes(parts: list[Piece], reader: _Reader, base: int) -> Bytes:
    size = sum(piece.length for piece in parts)
    method = reader.byte()
    if method == 0:
        return reader.stream(size)
    if method == 1:
        window = b"".join(_read_at(base, piece.window, piece.window_length) for piece in parts)
        return reader.stream(size, window)
    raise malformed(f"a byte section has the method {method}")


def _elements(kind: Kind, parts: list[Piece], reader: _Reader, base: int) -> Bytes:
    old = np.zeros(sum(piece.length for piece in parts) // kind.width, UNSIGNED[kind])
    method = reader.byte()
    if method != 2:
        _fill(memoryview(old.view(np.uint8)), parts, base)  # type: ignore[arg-type]
    if method == 0:
        return old.view(np.uint8)
    if method not in (1, 2):
        raise malformed(f"an element section has the method {method}")
    found = contexts(kind, old)
    signed = np.empty(len(old), np.dtype(f"<i{kind.width}"))
    first = 0
    for last, coder, shift, centre in reader.groups():
        where = members(found, first, last)
        steps = unzigzag(reader.values(coder, shift, len(where), old.dtype))
        if centre:
            steps += signed.dtype.type(centre)
        signed[where] = steps
        first = last + 1
    return apply_differences(kind, old, signed).view(np.uint8)


def _fill(buffer: memoryview, parts: list[Piece], base: int) -> None:
    at = 0
    for piece in parts:
        if piece.old is not None and os.preadv(base, [buffer[at : at + piece.length]], piece.old) != piece.length:
            raise _shrunk()
        at += piece.length


class _Reader:
    """Takes a chunk's body apart. Every length is known before it is read; nothing is allocated on a claim."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._plain = zstandard.ZstdDecompressor()

    def byte(self) -> int:
        return self._take(1)[0]

    def end(self) -> None:
        if self._at != len(self._body):
            raise malformed("bytes follow a chunk's last section")

    def groups(self) -> list[tuple[int, Coder, int, int]]:
        """Each group's last context, coder, shift and centre; the records stand in front of all streams."""
        count = self.byte()
        if not 1 <= count <= wire.MAX_GROUPS:
            raise malformed(f"a section has {count} groups")
        groups = []
        before = -1
        for last, coder, shift, centre in _GROUP.iter_unpack(self._take(_GROUP.size * count)):
            if last <= before:
                raise malformed("a section's groups are not in order")
            if coder not in Coder._value2member_map_:
                raise malformed(f"a group has the coder {coder}")
            groups.append((last, Coder(coder), shift, centre))
            before = last
        if before != wire.LAST_CONTEXT:
            raise malformed("a section's groups leave contexts out")
        return groups

    def values(self, coder: Coder, shift: int, count: int, form: np.dtype[Any]) -> Unsigned:
        """The ``count`` values of one group, in the order of the group."""
        if shift >= 8 * form.itemsize or (shift and not coder.bits):
            raise malformed(f"a group has the shift {shift}")
        if coder is Coder.ZERO or not count:
            return np.zeros(count, form)
        if coder is Coder.GAPS:
            return self._sparse(count, form)
        symbols = _unpacked(self.stream((count * coder.bits + 7) // 8), coder.bits, count)
        values = symbols.astype(form)
        full = np.flatnonzero(symbols == (1 << coder.bits) - 1)
        if full.size:
            values[full] += self._excess(full.size, form)
        if shift:
            values <<= form.type(shift)
            self._low(values, shift)
        return values

    def _excess(self, count: int, form: np.dtype[Any]) -> Unsigned:
        small = self.stream(count)
        values = small.astype(form)
        full = np.flatnonzero(small == 255)
        if full.size:
            values[full] += self.stream(full.size * form.itemsize).view(form)
        return values

    def _low(self, values: Unsigned, shift: int) -> None:
        count = len(values)
        whole, rest = divmod(shift, 8)
        row = (count + 7) // 8
        planes = self.stream(whole * count + rest * row)
        for number in range(whole):
            values |= planes[number * count : (number + 1) * count].astype(values.dtype) << (8 * number)
        for number in range(rest):
            at = whole * count + number * row
            bits = np.unpackbits(planes[at : at + row], count=count, bitorder="little")
            values |= bits.astype(values.dtype) << (8 * whole + number)

    def _sparse(self, count: int, form: np.dtype[Any]) -> Unsigned:
        values = np.zeros(count, form)
        size = int.from_bytes(self._take(4), "little")
        if size > count:
            raise malformed("a group has more gaps than values")
        gaps = self.stream(size)
        marks = gaps != 255
        ends = np.cumsum(gaps + marks.astype(np.int64))
        where = ends[marks] - 1
        if where.size:
            if where[-1] >= count:
                raise malformed("a gap leads beyond its group")
            values[where] = self._excess(where.size, form) + form.type(1)
        return values

    def stream(self, size: int, window: bytes = b"") -> Bytes:
        """A stream of exactly ``size`` bytes; ``window`` is what it may look back on."""
        if not size:
            return np.zeros(0, np.uint8)
        word = int.from_bytes(self._take(4), "little")
        data = self._take(word >> 1)
        if not word & 1:
            if len(data) != size:
                raise malformed(f"a stream has {len(data)} bytes instead of {size}")
            return np.frombuffer(data, np.uint8)
        return np.frombuffer(self._expand(data, size, window), np.uint8)

    def _expand(self, data: memoryview, size: int, window: bytes) -> bytes:
        unpacker = self._plain
        if window:
            past = zstandard.ZstdCompressionDict(window, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            unpacker = zstandard.ZstdDecompressor(dict_data=past)
        try:
            if zstandard.frame_content_size(data) != size:
                raise malformed("a stream does not have the length that belongs there")
            return unpacker.decompress(data, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as problem:
            raise malformed("a stream cannot be unpacked") from problem

    def _take(self, size: int) -> memoryview:
        data = memoryview(self._body)[self._at : self._at + size]
        if len(data) != size:
            raise malformed("a chunk's body ends inside a stream")
        self._at += size
        return data


def _unpacked(packed: Bytes, bits: int, count: int) -> Bytes:
    """Symbols of 1, 2, 4 or 8 bits, the first one in the lowest bits."""
    if bits == 8:
        return packed
    if bits == 1:
        return np.unpackbits(packed, count=count, bitorder="little")
    symbols = np.empty(len(packed) * (8 // bits), np.uint8)
    for number in range(8 // bits):
        np.right_shift(packed, np.uint8(number * bits), out=symbols[number :: 8 // bits])
    symbols &= np.uint8((1 << bits) - 1)
    return symbols[:count]


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
