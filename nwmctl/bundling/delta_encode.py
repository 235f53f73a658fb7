"""Makes a delta: two artifacts in, one file out that turns the old one into the new one, bit for bit.

Works chunk by chunk: memory is bounded by a few chunks, whatever the size of the artifacts. The same two files always
give the same delta. The delta gets its name when it is whole. Does not decide whether a delta is worth sending.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
import zstandard

from nwmctl.bundling.delta_groups import Packer
from nwmctl.bundling.delta_layout import find_tensors
from nwmctl.bundling.delta_map import Mapped, draw_map
from nwmctl.domain.digest import Digest
from nwmctl.errors import DeltaFileError, DeltaInputChangedError, DeltaLimitError
from nwmctl.formats import delta as wire
from nwmctl.formats.delta import Cursor, Header, Kind, Piece
from nwmctl.formats.delta_elements import UNSIGNED, Unsigned, keep_memory

_TRIED: Final = 1 << 13
_PLACES: Final = 3
_LEVEL: Final = 3


@dataclass(frozen=True, slots=True)
class TensorShare:
    """What one tensor adds to the delta. Bytes; ``delta`` is its part of the chunks that it shares with others."""

    name: str
    kind: Kind
    new: int
    delta: int


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """A delta that was written. Sizes in bytes; ``shares`` in the order of the new file, "" is what is no tensor."""

    old_digest: Digest
    new_digest: Digest
    old_size: int
    new_size: int
    delta_size: int
    shares: tuple[TensorShare, ...]

    @property
    def ratio(self) -> float:
        """The delta's size as a part of the new file's; 0 for an empty file."""
        return self.delta_size / self.new_size if self.new_size else 0.0


def encode_delta(old: Path, new: Path, out: Path) -> DeltaReport:
    """Write to ``out`` the delta that turns ``old`` into ``new``.

    Raises DeltaFileError, DeltaInputChangedError when a file changes meanwhile, DeltaLimitError over 16 TiB.
    """
    keep_memory()
    with _translated(), old.open("rb") as before, new.open("rb") as after:
        sizes = os.fstat(before.fileno()).st_size, os.fstat(after.fileno()).st_size
        if max(sizes) > wire.MAX_SIZE:
            raise DeltaLimitError(
                f"a delta between files of {sizes[0]} and {sizes[1]} bytes is not made",
                why=f"the format ends at {wire.MAX_SIZE} bytes",
                next="split the artifact",
            )
        pair = _Pair(before, after, *sizes)
        temporary = out.with_name(f"{out.name}.partial")
        try:
            with temporary.open("wb") as stream:
                report = pair.encode(stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, out)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return report


@dataclass(frozen=True, slots=True)
class ChunkSample:
    """Some of a delta's chunks. ``sizes``: for each, bytes of the new file and bytes of the delta; ``chunks``: how many
    the delta has; ``header``: bytes in front of them."""

    sizes: tuple[tuple[int, int], ...]
    chunks: int
    header: int
    new_size: int


def sample_delta(old: Path, new: Path, wanted: Callable[[int, int], bool]) -> ChunkSample:
    """Code only the chunks for which ``wanted(number, chunks)`` holds, and write nothing; ``chunks`` is how many there
    are, or nearly so. Raises DeltaFileError, DeltaInputChangedError."""
    with _translated(), old.open("rb") as before, new.open("rb") as after:
        return _Pair(before, after, os.fstat(before.fileno()).st_size, os.fstat(after.fileno()).st_size).sample(wanted)


class _Pair:
    """Two open artifacts."""

    def __init__(self, old: IO[bytes], new: IO[bytes], old_size: int, new_size: int) -> None:
        self._old, self._new = old, new
        self._old_size, self._new_size = old_size, new_size
        self._packer = Packer()

    def encode(self, stream: IO[bytes]) -> DeltaReport:
        """Write the whole delta and say what is in it."""
        mapped = draw_map(
            find_tensors(self._old, self._old_size),
            find_tensors(self._new, self._new_size),
            self._old_size,
            self._new_size,
            self._guess,
        )
        segments = tuple(part.segment for part in mapped)
        old_digest = self._digest_old()
        # The header names the new digest, which is known at the end: its place is kept until then.
        nothing = Digest("0" * 64)
        stream.write(wire.write_header(Header(self._old_size, self._new_size, nothing, nothing, segments)))
        tally = _Tally(mapped)
        new_digest = self._chunks(stream, segments, tally)
        size = stream.tell()
        stream.seek(0)
        header = Header(self._old_size, self._new_size, old_digest, new_digest, segments)
        stream.write(wire.write_header(header))
        return DeltaReport(old_digest, new_digest, self._old_size, self._new_size, size, tally.shares(size))

    def sample(self, wanted: Callable[[int, int], bool]) -> ChunkSample:
        """See ``sample_delta``."""
        mapped = draw_map(
            find_tensors(self._old, self._old_size),
            find_tensors(self._new, self._new_size),
            self._old_size,
            self._new_size,
            self._guess,
        )
        segments = tuple(part.segment for part in mapped)
        cursor, tally = Cursor(segments, self._old_size), _Tally(mapped)
        about = -(-self._new_size // wire.CHUNK)
        sizes = []
        at = number = 0
        while length := cursor.fit(wire.CHUNK):
            pieces = cursor.take(length)
            if wanted(number, about):
                body = self._body(pieces, _read(self._new, at, length), at, tally)
                sizes.append((length, len(wire.write_chunk(number, length, body)) + len(body)))
            at, number = at + length, number + 1
        nothing = Digest("0" * 64)
        header = wire.write_header(Header(self._old_size, self._new_size, nothing, nothing, segments))
        return ChunkSample(tuple(sizes), number, len(header), self._new_size)

    def _chunks(self, stream: IO[bytes], segments: Sequence[wire.Segment], tally: _Tally) -> Digest:
        cursor = Cursor(segments, self._old_size)
        state = hashlib.sha256()
        at = number = 0
        while length := cursor.fit(wire.CHUNK):
            pieces = cursor.take(length)
            block = _read(self._new, at, length)
            state.update(block)
            body = self._body(pieces, block, at, tally)
            stream.write(wire.write_chunk(number, length, body))
            stream.write(body)
            at, number = at + length, number + 1
        return Digest(state.hexdigest())

    def _body(self, pieces: Sequence[Piece], block: bytes, at: int, tally: _Tally) -> bytes:
        sections = []
        view = memoryview(block)
        for kind in Kind:
            parts = [piece for piece in pieces if piece.kind is kind]
            if not parts:
                continue
            fresh = b"".join([view[piece.at : piece.at + piece.length] for piece in parts])
            if kind is Kind.BYTES:
                window = b"".join([_read(self._old, piece.window, piece.window_length) for piece in parts])
                section = self._bytes(fresh, window)
            else:
                old = self._counterpart(kind, parts)
                section = self._packer.elements(kind, old, np.frombuffer(fresh, UNSIGNED[kind]), parts)
            tally.add(at, parts, len(section))
            sections.append(section)
        return b"".join(sections)

    def _counterpart(self, kind: Kind, parts: Sequence[Piece]) -> Unsigned:
        old = np.empty(sum(part.length for part in parts), np.uint8)
        at = 0
        for part in parts:
            place = old[at : at + part.length]
            if part.old is None:
                place[:] = 0
            elif os.preadv(self._old.fileno(), [place.data], part.old) != part.length:
                raise _changed(self._old, part.length)
            at += part.length
        return old.view(UNSIGNED[kind])

    def _bytes(self, fresh: bytes, window: bytes) -> bytes:
        alone = b"\x00" + self._packer.stream(fresh)
        if not window:
            return min(alone, b"\x00" + _zstd(fresh, b""), key=len)
        return min(alone, b"\x01" + _zstd(fresh, window), key=len)

    def _guess(self, old_at: int, new_at: int, length: int) -> Kind:
        """The kind that codes samples of a stretch smallest; bytes where nothing is clearly better."""
        sizes: dict[Kind, int] = defaultdict(int)
        step = max(_TRIED, length // _PLACES // 64 * 64)
        for at in range(0, length, step):
            size = min(_TRIED, length - at)
            size -= size % 4
            old, new = _read(self._old, old_at + at, size), _read(self._new, new_at + at, size)
            if old == new:
                continue
            sizes[Kind.BYTES] += int(0.98 * len(self._bytes(new, old)))
            for kind, form in UNSIGNED.items():
                pieces = [Piece(0, size, kind, 0)]
                sizes[kind] += len(
                    self._packer.elements(kind, np.frombuffer(old, form), np.frombuffer(new, form), pieces)
                )
        return min(Kind, key=lambda kind: (sizes[kind], kind))

    def _digest_old(self) -> Digest:
        state = hashlib.sha256()
        for at in range(0, self._old_size, wire.CHUNK):
            state.update(_read(self._old, at, min(wire.CHUNK, self._old_size - at)))
        return Digest(state.hexdigest())


class _Tally:
    """Which tensor costs what."""

    def __init__(self, mapped: Sequence[Mapped]) -> None:
        self._mapped = mapped
        self._ends = list(np.cumsum([part.segment.length for part in mapped]))
        self._cost = [0.0] * len(mapped)

    def add(self, at: int, parts: Sequence[Piece], size: int) -> None:
        """A section of ``size`` bytes for these pieces of the chunk that begins at ``at`` of the new file."""
        total = sum(part.length for part in parts)
        index = int(np.searchsorted(self._ends, at + parts[0].at, side="right"))
        for part in parts:
            while self._ends[index] <= at + part.at:
                index += 1
            self._cost[index] += size * part.length / total

    def shares(self, size: int) -> tuple[TensorShare, ...]:
        """Per tensor; header and heads of chunks belong to the bytes, so that all shares add up to ``size``."""
        new: dict[tuple[str, Kind], int] = defaultdict(int)
        delta: dict[tuple[str, Kind], float] = defaultdict(float)
        for part, cost in zip(self._mapped, self._cost, strict=True):
            new[part.name, part.segment.kind] += part.segment.length
            delta[part.name, part.segment.kind] += cost
        whole = {key: int(cost) for key, cost in delta.items()}
        rest = size - sum(whole.values())
        whole["", Kind.BYTES] = whole.get(("", Kind.BYTES), 0) + rest
        return tuple(TensorShare(name, kind, new[name, kind], cost) for (name, kind), cost in whole.items())


def _zstd(fresh: bytes, window: bytes) -> bytes:
    """A stream that may look back on ``window``."""
    # zstd looks back on no more than a few bytes per entry of its tables: they grow with the window.
    reach = max(10, (len(fresh) + len(window)).bit_length())
    form = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL,
        source_size=len(fresh),
        dict_size=len(window),
        window_log=reach,
        hash_log=max(6, reach - 3),
        chain_log=max(6, reach - 3),
        write_content_size=1,
        write_checksum=0,
    )
    past = zstandard.ZstdCompressionDict(window, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if window else None
    packed = zstandard.ZstdCompressor(compression_params=form, dict_data=past).compress(fresh)
    return (len(packed) << 1 | 1).to_bytes(4, "little") + packed


def _read(stream: IO[bytes], offset: int, size: int) -> bytes:
    data = os.pread(stream.fileno(), size, offset)
    if len(data) != size:
        raise _changed(stream, size)
    return data


def _changed(stream: IO[bytes], size: int) -> DeltaInputChangedError:
    return DeltaInputChangedError(
        f"'{Path(stream.name).name}' changed while the delta was made",
        why=f"{size} bytes that were there before are gone",
        next="leave both files alone and encode again",
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DeltaFileError(
            f"cannot read or write '{Path(str(problem.filename or 'a file')).name}' for a delta",
            why=str(problem.strerror or problem),
            next="free space and encode again" if full else "check that both files exist and the folder can be written",
        ) from problem
