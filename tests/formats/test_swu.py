"""``sw-description``: exact values there and back, strictness, and versions that compare as integers do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.packing import Compression, Packing, Part
from nwmctl.domain.release import MAX_SEQUENCE
from nwmctl.errors import DescriptionError
from nwmctl.formats.swu import (
    InstalledFile,
    Script,
    SwDescription,
    parse_description,
    render_description,
    sequence_of,
    version_text,
)

DESCRIPTION = SwDescription(
    release="nwm-2.5",
    sequence=7,
    board="nt2.0",
    revisions=("1.0", "1.1"),
    slot_a="/opt/nwm/a",
    slot_b="/opt/nwm/b",
    files=(InstalledFile("bundle.json", digest_bytes(b"1")), InstalledFile("x.vmfb", digest_bytes(b"2"))),
)
SMALL = InstalledFile(
    "small", digest_bytes(b"3"), Packing(Compression.ZSTD, (Part("small", digest_bytes(b"4"), 3, 9),))
)
SPLIT = InstalledFile(
    "big",
    digest_bytes(b"5"),
    Packing(
        Compression.NONE,
        (
            Part("big.000", digest_bytes(b"6"), 16, 9, "0" * 32),
            Part("big.001", digest_bytes(b"7"), 16, 8, "1" * 32),
        ),
    ),
    ("1.1",),
    Script("join-big.sh", digest_bytes(b"8"), digest_bytes(b"9")),
)
PACKED = replace(DESCRIPTION, files=(*DESCRIPTION.files, SMALL, SPLIT))
_sequences = st.integers(1, MAX_SEQUENCE)


@settings(deadline=None)
@given(one=_sequences, two=_sequences)
def test_versions_compare_as_swupdate_does(one: int, two: int) -> None:
    def number(version: str) -> int:
        """SWUpdate's own arithmetic: up to four fields of 16 bits."""
        fields = [int(field) & 0xFFFF for field in version.split(".")]
        return sum(field << 16 * (3 - place) for place, field in enumerate(fields))

    assert (number(version_text(one)) < number(version_text(two))) == (one < two)
    assert sequence_of(version_text(one)) == one


@pytest.mark.parametrize("text", ["", "1", "1.2.3", "01.2", "1.65536", "1.-2", "1.2 ", "٣.1", "1.2\n"])
def test_an_odd_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        sequence_of(text)


@settings(deadline=None)
@given(
    sequence=_sequences,
    revisions=st.lists(st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,9}\Z"), min_size=1, max_size=4, unique=True),
)
def test_what_was_rendered_is_parsed(sequence: int, revisions: list[str]) -> None:
    description = replace(DESCRIPTION, sequence=sequence, revisions=tuple(revisions))
    assert parse_description(render_description(description)) == description


def test_a_packed_file_is_what_swupdate_unpacks_and_our_reader_believes() -> None:
    data = render_description(PACKED)
    assert parse_description(data) == PACKED
    board = json.loads(data)["software"]["nt2.0"]
    first, second = board["1.0"]["copy1"], board["1.1"]["copy2"]
    assert (first["hardware-compatibility"], second["hardware-compatibility"]) == (["1.0"], ["1.1"])
    assert [file["filename"] for file in first["files"]] == ["bundle.json", "x.vmfb", "small"], "its own files alone"
    assert "scripts" not in first
    small, part = second["files"][2], second["files"][4]
    assert (small["compressed"], small["sha256"]) == ("zstd", digest_bytes(b"4").hex)
    assert "compressed" not in part
    assert (part["encrypted"], part["ivt"], part["path"]) == (True, "1" * 32, "/opt/nwm/b/big.001")
    assert second["scripts"][0]["data"] == "/opt/nwm/b"
    assert [name for name, _ in PACKED.members][2:] == ["small", "big.000", "big.001", "join-big.sh"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Packing(Compression.ZSTD, ()),
        lambda: Packing(Compression.ZSTD, SPLIT.packing.parts + SMALL.packing.parts),  # type: ignore[union-attr]
        lambda: Packing(Compression.ZSTD, SPLIT.packing.parts[:1] * 2),  # type: ignore[union-attr]
        lambda: Part("a", Digest("0" * 64), -1, 0),
        lambda: Part("a", Digest("0" * 64), 1, 1, "A" * 32),
    ],
)
def test_impossible_packings_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        make()


def test_the_dangerous_handler_is_never_written() -> None:
    text = render_description(DESCRIPTION).decode()
    assert "installed-directly" not in text
    files = json.loads(text)["software"]["nt2.0"]["1.0"]["copy1"]["files"]
    assert all(file["properties"]["atomic-install"] == "true" and file["sha256"] for file in files)


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 0},
        {"sequence": MAX_SEQUENCE + 1},
        {"board": "images"},
        {"board": ""},
        {"revisions": ()},
        {"revisions": ("#RE:.*",)},
        {"files": ()},
        {"files": (InstalledFile("../x", Digest("0" * 64)),)},
        {"files": (InstalledFile("sw-description", Digest("0" * 64)),)},
        {"files": (InstalledFile("a", Digest("0" * 64)), InstalledFile("a", Digest("1" * 64)))},
        {"slot_a": "opt/a"},
        {"slot_a": "/"},
        {"slot_a": "//opt"},
        {"slot_a": "/opt/../a"},
        {"slot_a": "/opt/nwm/b"},
        {"release": "two words"},
        {"revisions": ("1.0", "1.0")},
        {"revisions": ("copy1",)},
        {"slot_a": "/opt/$(reboot)/a"},
        {"files": (replace(SMALL, revisions=("1.0", "1.1")),)},
        {"files": (replace(SMALL, revisions=("2.0",)),)},
        {"files": (replace(SMALL, revisions=("1.0",)), InstalledFile("a", Digest("0" * 64)))},
        {"files": (replace(SPLIT, join=None),)},
        {"files": (replace(SMALL, join=SPLIT.join),)},
        {"files": (SPLIT, InstalledFile("big.000", Digest("0" * 64)))},
        {"files": (SPLIT, InstalledFile("big", Digest("0" * 64)))},
        {"files": (replace(SPLIT, filename="other"),)},
    ],
)
def test_impossible_values_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(DESCRIPTION, **change)  # type: ignore[arg-type]


def _changed(path: list[str | int], value: object) -> bytes:
    table = json.loads(render_description(DESCRIPTION))
    place = table
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode()


FILE: list[str | int] = ["software", "nt2.0", "1.0", "copy2", "files", 0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'"x"',
        _changed(["more"], 1),
        _changed(["software", "scripts"], []),
        _changed(["software", "version"], "7.0.0"),
        _changed([*FILE, "sha256"], None),
        _changed([*FILE, "sha256"], "0" * 64),
        _changed([*FILE, "path"], "/etc/passwd"),
        _changed([*FILE, "type"], "shellscript"),
        _changed([*FILE, "installed-directly"], True),
        _changed([*FILE, "properties"], {}),
        _changed(["software", "nt2.0", "1.0", "copy2"], None),
        _changed(["software", "nt2.0", "1.0", "copy1", "files"], []),
    ],
)
def test_anything_that_we_do_not_write_is_refused(data: bytes) -> None:
    with pytest.raises(DescriptionError):
        parse_description(data)


@settings(max_examples=400, deadline=None)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
def test_mutated_bytes_raise_only_our_error(changes: list[tuple[float, int]]) -> None:
    data = bytearray(render_description(PACKED))
    for position, value in changes:
        data[int(position * len(data))] = value
    try:
        found = parse_description(bytes(data))
    except DescriptionError:
        return
    assert render_description(found) == bytes(data)
