"""The delta file's header, tensor map and chunk frames: read back as written, and refused by name when not right."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.errors import (
    DeltaDamagedError,
    DeltaFormatError,
    DeltaLimitError,
    DeltaOrderError,
    DeltaTruncatedError,
    DeltaVersionError,
    NwmError,
)
from nwmctl.formats import delta as wire
from nwmctl.formats.delta import Cursor, Header, Kind, Segment

DIGESTS = digest_bytes(b"old"), digest_bytes(b"new")
SEGMENTS = (Segment(10, None, Kind.BYTES), Segment(40, 100, Kind.FP32), Segment(50, 7, Kind.BYTES, 25))


def header(*segments: Segment, old: int = 1000, new: int | None = None) -> bytes:
    size = sum(part.length for part in segments) if new is None else new
    return wire.write_header(Header(old, size, *DIGESTS, segments))


def sealed(data: bytes) -> bytes:
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def test_a_header_is_read_as_it_was_written() -> None:
    data = header(*SEGMENTS)
    assert wire.header_bytes(data[: wire.HEAD_BYTES]) == len(data)
    assert wire.parse_header(data) == Header(1000, 100, *DIGESTS, SEGMENTS)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 171), st.integers(1, 255))
def test_a_flipped_byte_of_the_header_is_refused(at: int, flip: int) -> None:
    data = bytearray(header(*SEGMENTS))
    data[at] ^= flip
    with pytest.raises(NwmError):
        wire.parse_header(bytes(data))


@pytest.mark.parametrize("length", [0, 5, 50, 100, 171])
def test_a_header_that_ends_early_is_truncated(length: int) -> None:
    with pytest.raises(DeltaTruncatedError):
        wire.parse_header(header(*SEGMENTS)[:length])


def test_another_file_is_no_delta() -> None:
    with pytest.raises(DeltaFormatError):
        wire.header_bytes(b"PK\x03\x04" + bytes(200))


def test_a_newer_version_is_refused_by_name() -> None:
    data = bytearray(header(*SEGMENTS))
    data[8] = 2
    with pytest.raises(DeltaVersionError, match="version 2"):
        wire.header_bytes(bytes(data))


@pytest.mark.parametrize(
    ("at", "form", "value"), [(12, "<I", 1 << 30), (16, "<Q", 1 << 60), (24, "<Q", 1 << 45)], ids=str
)
def test_a_claim_beyond_the_limits_is_refused_before_anything_is_read(at: int, form: str, value: int) -> None:
    data = bytearray(header(*SEGMENTS))
    struct.pack_into(form, data, at, value)
    with pytest.raises(DeltaLimitError):
        wire.header_bytes(bytes(data))


BAD = [
    (Segment(0, None, Kind.BYTES),),
    (Segment(7, 0, Kind.FP16),),
    (Segment(8, 993, Kind.FP16),),
    (Segment(8, 0, Kind.FP16, row=5),),
    (Segment(8, 1001, Kind.BYTES),),
    (Segment(8, 0, Kind.BYTES, wire.MAX_WINDOW + 1),),
]


@pytest.mark.parametrize("segments", BAD)
def test_a_map_that_breaks_a_rule_is_refused(segments: tuple[Segment, ...]) -> None:
    with pytest.raises(DeltaFormatError):
        wire.parse_header(header(*segments))


def test_a_map_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(DeltaFormatError, match="add up"):
        wire.parse_header(header(*SEGMENTS, new=101))


def test_an_unknown_kind_is_refused() -> None:
    data = bytearray(header(*SEGMENTS))
    data[wire.HEAD_BYTES + 16] = 77
    with pytest.raises(DeltaFormatError, match="kind 77"):
        wire.parse_header(sealed(bytes(data)))


def test_a_chunk_is_read_as_it_was_written() -> None:
    data = wire.write_chunk(3, 500, b"body")
    head = wire.parse_chunk(data, 3, 500)
    assert (head.number, head.length, head.body) == (3, 500, 4)
    wire.check_chunk(head, b"body")
    with pytest.raises(DeltaDamagedError):
        wire.check_chunk(head, b"bodY")
    with pytest.raises(DeltaTruncatedError):
        wire.check_chunk(head, b"bod")


def test_chunks_out_of_order_too_large_too_small_are_refused() -> None:
    with pytest.raises(DeltaOrderError):
        wire.parse_chunk(wire.write_chunk(3, 500, b""), 2, 500)
    with pytest.raises(DeltaFormatError):
        wire.parse_chunk(wire.write_chunk(0, 500, b""), 0, 499)
    with pytest.raises(DeltaFormatError):
        wire.parse_chunk(wire.write_chunk(0, 500, b""), 0, 501)
    with pytest.raises(DeltaLimitError):
        wire.parse_chunk(wire.write_chunk(0, wire.CHUNK + 1, b""), 0, 1 << 30)
    with pytest.raises(DeltaLimitError):
        wire.parse_chunk(wire.write_chunk(0, 1, bytes(wire.BODY_SLACK + 2)), 0, 1)
    with pytest.raises(DeltaTruncatedError):
        wire.parse_chunk(b"short", 0, 1)


@st.composite
def maps(draw: st.DrawFn) -> list[Segment]:
    parts = []
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(Kind))
        length = draw(st.integers(1, 400)) * kind.width
        old = draw(st.none() | st.integers(0, 2000))
        margin = draw(st.integers(0, 100)) if kind is Kind.BYTES else 0
        parts.append(Segment(length, old, kind, margin))
    return parts


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(maps(), st.integers(4, 900))
def test_the_cursor_walks_the_whole_map_once(parts: list[Segment], step: int) -> None:
    cursor = Cursor(parts, 5000)
    walked: dict[Kind, int] = dict.fromkeys(Kind, 0)
    total = 0
    while length := cursor.fit(step):
        assert length <= step
        at = 0
        for piece in cursor.take(length):
            assert piece.at == at
            assert piece.length % piece.kind.width == 0
            assert piece.window + piece.window_length <= 5000
            walked[piece.kind] += piece.length
            at += piece.length
        assert at == length
        total += length
    assert total == sum(part.length for part in parts)
    assert all(walked[kind] == sum(part.length for part in parts if part.kind is kind) for kind in Kind)


def test_the_cursor_cuts_no_element_and_looks_back_no_further_than_allowed() -> None:
    with pytest.raises(DeltaFormatError):
        Cursor([Segment(8, None, Kind.FP32)], 0).take(6)
    wide = [Segment(100, 0, Kind.BYTES, wire.MAX_WINDOW)] * 2
    with pytest.raises(DeltaLimitError):
        Cursor(wide, 1 << 30).take(200)


def test_a_digest_survives() -> None:
    assert wire.parse_header(header()).old_digest == Digest(DIGESTS[0].hex)
