"""The delta file, version 1: header, tensor map and chunk frames (docs/delta-format.md is the specification).

All integers are little-endian. Everything is bounded and checked before anything is allocated for it. The header names
both files by size and sha256; the tensor map says, in order, what every byte of the new file is an element of and
where its counterpart lies in the old file; chunks follow, each with its number and its own checksum. What a chunk's
body means is in ``delta_elements.py`` beside this file. Pure: reads and writes no file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from nwmctl.domain.digest import Digest
from nwmctl.errors import (
    DeltaDamagedError,
    DeltaFormatError,
    DeltaLimitError,
    DeltaOrderError,
    DeltaTruncatedError,
    DeltaVersionError,
)

MAGIC: Final = b"\x8fNWMDLT\n"
VERSION: Final = 1
CHUNK: Final = 1 << 20
"""Most bytes of the new file in one chunk."""
LEAST: Final = CHUNK // 4
"""Fewest bytes of the new file in a chunk, the last one excepted: bounds the work per byte."""
BODY_SLACK: Final = 1 << 16
"""A chunk's body is never larger than what it stands for plus this."""
MAX_SEGMENTS: Final = 1 << 16
MAX_SIZE: Final = 1 << 44
MAX_WINDOW: Final = 4 << 20
"""Most bytes of the old file that one chunk's byte section may look back on."""

_NONE: Final = (1 << 64) - 1
_HEAD: Final = struct.Struct("<8sHHIQQ32s32s")
_SEGMENT: Final = struct.Struct("<QQBBHI")
_CHECK: Final = struct.Struct("<I")
_CHUNK: Final = struct.Struct("<IIII")
HEAD_BYTES: Final = _HEAD.size
CHUNK_BYTES: Final = _CHUNK.size


class Kind(IntEnum):
    """What a segment's bytes are elements of."""

    BYTES = 0
    FP16 = 1
    BF16 = 2
    FP32 = 3
    INT8 = 4

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return _WIDTHS[self]


_WIDTHS: Final = {Kind.BYTES: 1, Kind.FP16: 2, Kind.BF16: 2, Kind.FP32: 4, Kind.INT8: 1}


@dataclass(frozen=True, slots=True)
class Segment:
    """``length`` bytes of the new file and where their counterpart begins in the old one; None: there is none.

    ``margin`` is for bytes only: how far the look back reaches beyond the counterpart, on both sides. ``row`` is for
    elements only: how many make a row of the tensor that begins with the segment; 0: it has no rows.
    """

    length: int
    old_offset: int | None
    kind: Kind
    margin: int = 0
    row: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the chunks."""

    old_size: int
    new_size: int
    old_digest: Digest
    new_digest: Digest
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class ChunkHead:
    """``number`` counts from 0; ``length`` bytes of the new file come out of ``body`` bytes of the delta."""

    number: int
    length: int
    body: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a segment that lies in one chunk, at ``at`` of the chunk. ``old`` None: no counterpart.

    For elements the counterpart is ``old`` to ``old + length``, inside the old file; ``row`` is the segment's, or 0
    where the piece is shorter than a row, and ``first`` counts the elements of its row before the piece. For bytes the
    window is ``window`` to ``window + window_length``, already cut to the old file, and may be shorter.
    """

    at: int
    length: int
    kind: Kind
    old: int | None
    window: int = 0
    window_length: int = 0
    row: int = 0
    first: int = 0

    @property
    def count(self) -> int:
        """How many elements it has."""
        return self.length // self.kind.width

    @property
    def rows(self) -> int:
        """How many rows it touches; 0 where it has none."""
        return -(-(self.first + self.count) // self.row) if self.row else 0


def write_header(header: Header) -> bytes:
    """The header's bytes, checksum included."""
    head = _HEAD.pack(
        MAGIC,
        VERSION,
        0,
        len(header.segments),
        header.old_size,
        header.new_size,
        bytes.fromhex(header.old_digest.hex),
        bytes.fromhex(header.new_digest.hex),
    )
    table = b"".join(
        _SEGMENT.pack(
            part.length,
            _NONE if part.old_offset is None else part.old_offset,
            part.kind,
            0,
            0,
            part.margin if part.kind is Kind.BYTES else part.row,
        )
        for part in header.segments
    )
    return head + table + _CHECK.pack(zlib.crc32(table, zlib.crc32(head)))


def header_bytes(start: bytes) -> int:
    """The whole header's length, from its first ``HEAD_BYTES`` bytes. Raises DeltaFormatError and its siblings."""
    if len(start) < 8 and MAGIC.startswith(start):
        raise truncated("its header")
    if not start.startswith(MAGIC):
        raise malformed("it does not begin as a delta does")
    if len(start) < HEAD_BYTES:
        raise truncated("its header")
    _, version, flags, count, old_size, new_size, _, _ = _HEAD.unpack(start[:HEAD_BYTES])
    if version > VERSION:
        raise DeltaVersionError(
            f"the delta has version {version} of the format",
            why=f"this applier reads version {VERSION}",
            next="update the vehicle's software by a full bundle first, or encode the delta for the older version",
        )
    if version != VERSION or flags:
        raise malformed(f"version {version} with flags {flags} does not exist")
    if count > MAX_SEGMENTS or old_size > MAX_SIZE or new_size > MAX_SIZE:
        raise limit(f"it claims {count} segments, {old_size} old and {new_size} new bytes")
    return HEAD_BYTES + int(count) * _SEGMENT.size + _CHECK.size


def parse_header(data: bytes) -> Header:
    """The header; ``data`` is exactly ``header_bytes`` long. Raises DeltaFormatError and its siblings."""
    if len(data) < header_bytes(data):
        raise truncated("its tensor map")
    (check,) = _CHECK.unpack(data[-_CHECK.size :])
    if zlib.crc32(data[: -_CHECK.size]) != check:
        raise damaged("the header")
    _, _, _, _, old_size, new_size, old_digest, new_digest = _HEAD.unpack(data[:HEAD_BYTES])
    segments = []
    for length, offset, kind, zero, zeros, word in _SEGMENT.iter_unpack(data[HEAD_BYTES : -_CHECK.size]):
        if zero or zeros or kind not in Kind._value2member_map_:
            raise malformed(f"a segment has the kind {kind}, which does not exist")
        margin, row = (word, 0) if kind == Kind.BYTES else (0, word)
        segments.append(Segment(length, None if offset == _NONE else offset, Kind(kind), margin, row))
    _check_segments(segments, old_size, new_size)
    return Header(old_size, new_size, Digest(old_digest.hex()), Digest(new_digest.hex()), tuple(segments))


def _check_segments(segments: Sequence[Segment], old_size: int, new_size: int) -> None:
    if sum(part.length for part in segments) != new_size:
        raise malformed("its segments do not add up to the new file")
    for part in segments:
        whole = part.length % part.kind.width == 0
        if not part.length or not whole:
            raise malformed(f"a segment of {part.length} bytes is empty or holds half an element")
        if part.kind is Kind.BYTES:
            if part.margin > MAX_WINDOW or (part.old_offset or 0) > old_size:
                raise malformed("a segment looks back beyond the old file")
        elif part.row * part.kind.width > part.length:
            raise malformed("a segment is shorter than one of its rows")
        elif part.old_offset is not None and part.old_offset + part.length > old_size:
            raise malformed("a segment's counterpart is not inside the old file")


def write_chunk(number: int, length: int, body: bytes) -> bytes:
    """A chunk's head; its body follows."""
    return _CHUNK.pack(number, length, len(body), _chunk_checksum(number, length, body))


def parse_chunk(data: bytes, number: int, left: int) -> ChunkHead:
    """The head of the chunk ``number``, with ``left`` bytes of the new file to come. Raises as the header does."""
    if len(data) < CHUNK_BYTES:
        raise truncated(f"chunk {number}")
    found, length, body, check = _CHUNK.unpack(data)
    if found != number:
        raise DeltaOrderError(
            f"chunk {found} stands where chunk {number} belongs",
            why="chunks come in their order; one is missing, doubled or moved",
            next="fetch the delta again; the old file is untouched",
        )
    if length > CHUNK or body > length + BODY_SLACK:
        raise limit(f"chunk {number} claims {length} bytes out of {body}")
    if length > left or not length or (length < LEAST and length != left):
        raise malformed(f"chunk {number} stands for {length} bytes where {left} are missing")
    return ChunkHead(number, length, body, check)


def check_chunk(head: ChunkHead, body: bytes) -> None:
    """Whether a chunk's body is the one its head was written with. Raises DeltaTruncatedError, DeltaDamagedError."""
    if len(body) != head.body:
        raise truncated(f"chunk {head.number}")
    if _chunk_checksum(head.number, head.length, body) != head.checksum:
        raise damaged(f"chunk {head.number}")


def _chunk_checksum(number: int, length: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(struct.pack("<III", number, length, len(body))))


class Cursor:
    """Walks the tensor map chunk by chunk."""

    def __init__(self, segments: Iterable[Segment], old_size: int) -> None:
        self._segments = tuple(segments)
        self._old_size = old_size
        self._index = 0
        self._done = 0

    def fit(self, length: int) -> int:
        """The longest chunk of at most ``length`` bytes from here that cuts no element; 0 at the end."""
        total, index, done = 0, self._index, self._done
        while index < len(self._segments) and total < length:
            part = self._segments[index]
            rest = part.length - done
            if total + rest > length:
                room = length - total
                return total + room - room % part.kind.width
            total, index, done = total + rest, index + 1, 0
        return total

    def take(self, length: int) -> tuple[Piece, ...]:
        """The pieces of the next ``length`` bytes. Raises DeltaFormatError, DeltaLimitError."""
        pieces: list[Piece] = []
        at = 0
        windows = 0
        while at < length:
            part = self._segments[self._index]
            size = min(part.length - self._done, length - at)
            if size % part.kind.width:
                raise malformed("a chunk ends inside an element")
            piece = self._piece(part, at, size)
            windows += piece.window_length
            pieces.append(piece)
            at += size
            self._done += size
            if self._done == part.length:
                self._index, self._done = self._index + 1, 0
        if windows > MAX_WINDOW:
            raise limit(f"a chunk looks back on {windows} bytes")
        return tuple(pieces)

    def _piece(self, part: Segment, at: int, size: int) -> Piece:
        old = None if part.old_offset is None else part.old_offset + self._done
        if part.kind is not Kind.BYTES:
            row = part.row if part.row * part.kind.width <= size else 0
            first = self._done // part.kind.width % row if row else 0
            return Piece(at, size, part.kind, old, row=row, first=first)
        if old is None:
            return Piece(at, size, part.kind, None)
        start = min(max(0, old - part.margin), self._old_size)
        end = min(old + size + part.margin, self._old_size)
        return Piece(at, size, part.kind, old, start, max(0, end - start))


def truncated(where: str) -> DeltaTruncatedError:
    """The refusal of a delta that ends too early."""
    return DeltaTruncatedError(
        f"the delta ends inside {where}",
        why="bytes at its end are missing",
        next="fetch the delta again; the old file is untouched",
    )


def damaged(where: str) -> DeltaDamagedError:
    """The refusal of flipped bytes."""
    return DeltaDamagedError(
        f"{where} of the delta is damaged",
        why="its checksum does not match its bytes",
        next="fetch the delta again; the old file is untouched",
    )


def limit(claim: str) -> DeltaLimitError:
    """The refusal of a claim beyond the limits."""
    return DeltaLimitError(
        f"the delta is refused: {claim}",
        why="that is more than the format or the caller allows",
        next="send the full artifact, and look at who made this delta",
    )


def malformed(why: str) -> DeltaFormatError:
    """The refusal of bytes that break a rule of the format."""
    return DeltaFormatError(
        "the file is not a delta that can be applied",
        why=why,
        next="encode the delta again with `nwmctl delta encode`; the old file is untouched",
    )
