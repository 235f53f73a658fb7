"""Bundles from people who mean harm: every changed byte is refused, by its own class, within bounded memory and time.

The archive has one form for its contents, so any mutant that is not the original has to be refused; the signature is
a plain word over the description here, so that a hundred thousand mutants take minutes, and real ones are in
``test_bundle``.
"""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.bundling.read import open_bundle
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.packing import Compression, Packing, Part
from nwmctl.errors import (
    ArchiveCutOffError,
    ArchiveError,
    ArchiveLinkError,
    ArchiveNameError,
    ArchiveSizeError,
    ArchiveTwiceError,
    BundleContentsError,
    ContentSignatureError,
    DescriptionError,
    NwmError,
    PackedDataError,
    PackedSizeError,
)
from nwmctl.formats import swu
from nwmctl.formats.cpio import MAX_FILE, Member, pack, unpack
from nwmctl.formats.packing import packer
from tests.bundling.packing import KEY, ORDERS, make, sign
from tests.mutants import Hunting, Way, mutants

SAMPLE, MANY = 100, 100_000


def check(description: bytes, signature: bytes) -> None:
    if signature != sign(description):
        raise ContentSignatureError("not signed", why="test", next="test")


def read(data: bytes) -> dict[str, int]:
    """The files with their sizes, each unpacked and held against its digest."""
    return drain(io.BytesIO(data).read)


def drain(source: Callable[[int], bytes]) -> dict[str, int]:
    """The same of a stream."""
    found: dict[str, int] = {}
    for file in open_bundle(source, check, KEY.secret).files:
        found[file.file.filename] = sum(len(chunk) for chunk in file.chunks)
        assert found[file.file.filename] == file.size
    return found


@pytest.fixture(scope="module", params=["stored", "zstd", "zstd, encrypted, in parts"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("good")
    data = make(folder, ORDERS[request.param]).write(sign, folder / "x.swu").path.read_bytes()
    assert read(data)
    return data


def headers(data: bytes, seed: int, count: int) -> Iterator[tuple[Way, bytes]]:
    """Numbers and names in headers are text: another digit there is another number, not damage."""
    dice, made = random.Random(seed), 0
    while made < count:
        place = max(0, data.find(b"070701", dice.randrange(len(data)))) + dice.randrange(6, 110)
        bad = data[:place] + dice.choice(b"0123456789ABCDEFabcdef").to_bytes(1, "big") + data[place + 1 :]
        if bad != data:
            made += 1
            yield Way.VALUE, bad


def attack(good: bytes, hunting: Hunting, count: int) -> None:
    with hunting("bundles") as hunt:
        most = count * 8 // 9
        for way, bad in itertools.chain(mutants(good, hunt.seed, most), headers(good, hunt.seed, count - most)):
            hunt.show(way, lambda bad=bad: read(bad))
        assert len(hunt.refused) > 3


def test_a_sample_of_mutants_is_refused(good: bytes, hunting: Hunting) -> None:
    attack(good, hunting, SAMPLE)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_mutants_are_refused(good: bytes, hunting: Hunting) -> None:
    attack(good, hunting, MANY // 3 + 1)


def members(data: bytes) -> list[tuple[str, bytes]]:
    return [(entry.name, b"".join(entry.chunks())) for entry in unpack(io.BytesIO(data).read)]


def packed(files: list[tuple[str, bytes]]) -> bytes:
    return b"".join(pack(Member(name, len(body), [body]) for name, body in files))


def renamed(data: bytes, number: int, name: str) -> bytes:
    """The member ``number`` under a name of the same length, in its header alone."""
    old = members(data)[number][0].encode()
    assert len(old) >= len(name)
    return data.replace(old + b"\0", name.encode().ljust(len(old), b"x") + b"\0", 1)


def header(data: bytes, number: int, field: int, value: int) -> bytes:
    """Another value in a field of the header of the member ``number``."""
    start = data.index(b"070701" + b"%08X" % (number + 1))
    return data[: start + 6 + 8 * field] + b"%08X" % value + data[start + 14 + 8 * field :]


CRAFTED: list[tuple[str, Callable[[bytes], bytes], type[NwmError]]] = [
    ("empty", lambda data: b"", ArchiveCutOffError),
    ("cut off by its filling", lambda data: data[:-1], ArchiveCutOffError),
    ("cut off in a payload", lambda data: data[: len(data) * 9 // 10], ArchiveCutOffError),
    ("bytes behind the end", lambda data: data + b"\0", ArchiveError),
    ("two archives", lambda data: data + data, ArchiveError),
    ("a member too many", lambda data: packed([*members(data), ("extra", b"x")]), BundleContentsError),
    ("a member too few", lambda data: packed(members(data)[:-1]), BundleContentsError),
    ("members exchanged", lambda data: packed([*members(data)[:2], *members(data)[:1:-1]]), BundleContentsError),
    ("the signature last", lambda data: packed(members(data)[:1] + members(data)[:0:-1]), BundleContentsError),
    ("no description", lambda data: packed(members(data)[1:]), BundleContentsError),
    ("a way out of the folder", lambda data: renamed(data, 3, "../../"), ArchiveNameError),
    ("an absolute name", lambda data: renamed(data, 3, "/etc/passwd"), ArchiveNameError),
    ("a folder's name", lambda data: renamed(data, 3, "a/b"), ArchiveNameError),
    ("a hidden name", lambda data: renamed(data, 3, ".profile"), ArchiveNameError),
    ("a zero in a name", lambda data: renamed(data, 3, "a\0b"), ArchiveNameError),
    ("a symbolic link", lambda data: header(data, 3, 1, 0o120777), ArchiveLinkError),
    ("a device", lambda data: header(data, 3, 1, 0o060660), ArchiveLinkError),
    ("a hard link", lambda data: header(data, 3, 4, 2), ArchiveLinkError),
    ("another mode", lambda data: header(data, 3, 1, 0o104755), ArchiveError),
    ("an owner", lambda data: header(data, 3, 2, 1000), ArchiveError),
    ("a time", lambda data: header(data, 3, 5, 1), ArchiveError),
    ("a huge description", lambda data: header(data, 0, 6, MAX_FILE), ArchiveSizeError),
    ("a huge signature", lambda data: header(data, 1, 6, swu.MAX_SIGNATURE + 1), ArchiveSizeError),
    ("a huge file", lambda data: header(data, 3, 6, MAX_FILE), ArchiveCutOffError),
    ("a huge name", lambda data: header(data, 3, 11, MAX_FILE), ArchiveNameError),
    ("another description", lambda data: data.replace(b'"nwm-2.5"', b'"nwm-2.6"', 1), ContentSignatureError),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error"), [pytest.param(*case[1:], id=case[0]) for case in CRAFTED])
def test_each_trick_is_refused_by_its_own_class(
    good: bytes, change: Callable[[bytes], bytes], error: type[NwmError]
) -> None:
    bad = change(good)
    assert bad != good
    with pytest.raises(error) as caught:
        read(bad)
    assert type(caught.value) is error


def test_a_name_twice_is_refused(good: bytes) -> None:
    (first, body), *rest = members(good)[2:]
    head = members(good)[:2]
    twice = packed([*head, (first, body), ("Q" * len(first), body), *rest]).replace(
        b"Q" * len(first), first.encode(), 1
    )
    with pytest.raises(ArchiveTwiceError):
        read(twice)


class Endless:
    """A stream that never ends: what an attacker on the line sends."""

    def __init__(self, start: bytes) -> None:
        self._start = io.BytesIO(start)
        self.given = 0

    def read(self, most: int) -> bytes:
        data = self._start.read(most) or bytes(most)
        self.given += len(data)
        return data


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_endless_data_is_not_read_to_its_end(good: bytes, share: float) -> None:
    stream = Endless(good[: int(len(good) * share)])
    with pytest.raises(NwmError):
        drain(stream.read)
    assert stream.given < len(good) + (8 << 20)


# --- packed bytes that are signed and still lie: a builder that was taken over ---------------------------------------


def signed_with(body: bytes, size: int, tmp_path: Path) -> bytes:
    """A bundle whose signed description says that ``body`` unpacks to ``size`` bytes."""
    made = make(tmp_path, ORDERS["zstd"])
    files = []
    bodies: dict[str, bytes] = {}
    for file in made.plan.description.files:
        if file.packing and not bodies:
            name = file.filename
            bodies[name] = body
            packing = Packing(Compression.ZSTD, (Part(name, digest_bytes(body), len(body), size),))
            files.append(replace(file, packing=packing))
        else:
            files.append(file)
    plan = replace(made.plan, description=replace(made.plan.description, files=tuple(files)))
    described = plan.description_bytes
    parts = [(swu.DESCRIPTION_NAME, described), (swu.SIGNATURE_NAME, sign(described))]
    for name, digest in plan.description.members:
        data = bodies.get(name) or plan.documents.get(name) or made.find(digest).read_bytes()
        parts.append((name, data))
    return packed(parts)


def bomb(size: int) -> bytes:
    codec = packer(Compression.ZSTD, size, None)
    piece = bytes(1 << 20)
    return b"".join(codec.update(piece) for _ in range(size >> 20)) + codec.finish()


def window(log: int) -> bytes:
    """A frame that asks for a window of 2**log bytes: magic, a descriptor without a content size, the window."""
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(log - 10) << 3]) + b"\x01\x00\x00"


@pytest.mark.parametrize(
    ("body", "size", "error"),
    [
        pytest.param(lambda: bomb(1 << 30), 1000, PackedSizeError, id="a bomb of 1 GiB where 1,000 bytes are signed"),
        pytest.param(lambda: bomb(1 << 20) * 500, 1 << 20, PackedSizeError, id="a bomb of many frames"),
        pytest.param(lambda: bomb(1 << 20), 1 << 30, PackedSizeError, id="fewer bytes than signed"),
        pytest.param(lambda: window(31), 1000, PackedDataError, id="a window of 2 GiB"),
        pytest.param(lambda: window(27), 1000, PackedDataError, id="a window of 128 MiB"),
        pytest.param(lambda: b"no frame", 1000, PackedDataError, id="no frame at all"),
        pytest.param(lambda: bomb(1 << 20)[:-9], 1 << 20, PackedSizeError, id="a frame that is cut off"),
        pytest.param(lambda: bomb(1 << 20) + b"more", 1 << 20, PackedDataError, id="bytes behind the frame"),
        pytest.param(lambda: bomb(1 << 20), 1 << 20, BundleContentsError, id="another file of the right size"),
    ],
)
def test_a_signed_lie_is_refused_before_it_is_unpacked_whole(
    tmp_path: Path, body: Callable[[], bytes], size: int, error: type[NwmError]
) -> None:
    data = signed_with(body(), size, tmp_path)
    largest = 0

    def watched() -> Iterator[None]:
        nonlocal largest
        for file in open_bundle(io.BytesIO(data).read, check).files:
            for chunk in file.chunks:
                largest = max(largest, len(chunk))
        yield

    with pytest.raises(error) as caught:
        next(watched())
    assert type(caught.value) is error
    assert largest <= 1 << 20


def test_a_description_that_swupdate_would_read_otherwise_is_refused(good: bytes) -> None:
    """Signed, but not what nwmctl writes."""
    (name, description), _, *rest = members(good)
    for old, new in [
        (b'"atomic-install":"true"', b'"installed-directly":true'),
        (b'"type":"rawfile"', b'"type":"raw",   '),
        (b"/opt/nwm/a/bundle.json", b"/etc/shadow/../passwd"),
        (b'"sha256":"', b'"sha256":"0'),
    ]:
        changed = description.replace(old, new, 1)
        assert changed != description
        bad = packed([(name, changed), (swu.SIGNATURE_NAME, sign(changed)), *rest])
        with pytest.raises(DescriptionError):
            read(bad)
