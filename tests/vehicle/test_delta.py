"""The applier: each thing that can be wrong with a delta is refused by its own name, and leaves nothing behind."""

from __future__ import annotations

import errno
import itertools
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nwmctl.bundling.delta_encode import encode_delta
from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import (
    DeltaBaseError,
    DeltaDamagedError,
    DeltaFileError,
    DeltaFormatError,
    DeltaLimitError,
    DeltaOrderError,
    DeltaResultError,
    DeltaTruncatedError,
    NoSpaceError,
    NwmError,
)
from nwmctl.formats import delta as wire
from nwmctl.formats.delta import Kind
from nwmctl.vehicle.delta import apply_delta
from tests.bundling.tensors import grid, safetensors, tuned
from tests.mutants import Hunting, Way, mutants

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "formats" / "golden" / "delta"
KINDS = [Kind.FP16, Kind.BF16, Kind.FP32, Kind.INT8]


def pair(count: int) -> tuple[bytes, bytes]:
    """Two artifacts with a matrix of every kind, one tensor that is new, and bytes in between."""
    sides: list[dict[str, tuple[Kind, np.ndarray]]] = [{}, {}]
    for kind in KINDS:
        for side, bits in zip(sides, grid(kind, max(20, count // 64), 64, seed=int(kind)), strict=True):
            side[f"w{kind}"] = (kind, bits)
    sides[1]["added"] = (Kind.FP16, tuned(Kind.FP16, count // 4, seed=9)[0])
    return safetensors(sides[0]), safetensors(sides[1])


class Case:
    """A delta with its files in a folder."""

    def __init__(self, folder: Path, count: int) -> None:
        self.old, self.new = pair(count)
        self.folder = folder
        (folder / "old").write_bytes(self.old)
        (folder / "new").write_bytes(self.new)
        encode_delta(folder / "old", folder / "new", folder / "delta")
        self.delta = (folder / "delta").read_bytes()
        self.files = {"old", "new", "delta"}

    def apply(self, delta: bytes, **options: int) -> bytes:
        (self.folder / "delta").write_bytes(delta)
        apply_delta(self.folder / "old", self.folder / "delta", self.folder / "out", **options)
        data = (self.folder / "out").read_bytes()
        (self.folder / "out").unlink()
        return data

    def refused(self, delta: bytes, kind: type[NwmError], **options: int) -> None:
        with pytest.raises(kind):
            self.apply(delta, **options)
        assert {path.name for path in self.folder.iterdir()} == self.files


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"), 400)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("large"), 300_000)


def chunks(delta: bytes) -> tuple[bytes, list[bytes]]:
    """The header and each chunk."""
    at = wire.header_bytes(delta)
    found = []
    while at < len(delta):
        size = wire.CHUNK_BYTES + struct.unpack_from("<I", delta, at + 8)[0]
        found.append(delta[at : at + size])
        at += size
    return delta[: wire.header_bytes(delta)], found


def resealed(delta: bytes) -> bytes:
    """The same bytes with all checksums set right, so that what lies behind them is reached."""
    try:
        end = wire.header_bytes(delta)
    except NwmError:
        return delta
    data = bytearray(delta)
    if end > len(data):
        return delta
    struct.pack_into("<I", data, end - 4, zlib.crc32(data[: end - 4]))
    while end + 16 <= len(data):
        body = struct.unpack_from("<I", data, end + 8)[0]
        seal = zlib.crc32(data[end + 16 : end + 16 + body], zlib.crc32(data[end : end + 12]))
        struct.pack_into("<I", data, end + 12, seal)
        end += 16 + body
    return bytes(data)


def test_the_new_file_comes_out_and_may_replace_the_old_one(case: Case, tmp_path: Path) -> None:
    assert case.apply(case.delta) == case.new
    (tmp_path / "same").write_bytes(case.old)
    (tmp_path / "delta").write_bytes(case.delta)
    assert apply_delta(tmp_path / "same", tmp_path / "delta", tmp_path / "same") == digest_bytes(case.new)
    assert (tmp_path / "same").read_bytes() == case.new


def test_a_wrong_base_is_refused(case: Case) -> None:
    for wrong in (case.old[:-1] + b"\x00", case.old[:-1], b""):
        (case.folder / "old").write_bytes(wrong)
        case.refused(case.delta, DeltaBaseError)
    (case.folder / "old").write_bytes(case.old)


def test_a_truncated_delta_is_refused(case: Case) -> None:
    head, _ = chunks(case.delta)
    for length in (0, 3, 60, len(head) - 1, len(head), len(head) + 9, len(head) + 40, len(case.delta) - 1):
        case.refused(case.delta[:length], DeltaTruncatedError)


def test_a_flipped_bit_is_refused(case: Case) -> None:
    head, _ = chunks(case.delta)
    for at in (40, len(head) - 30, len(head) + 20, len(case.delta) // 2, len(case.delta) - 1):
        case.refused(case.delta[:at] + bytes([case.delta[at] ^ 4]) + case.delta[at + 1 :], DeltaDamagedError)


def test_reordered_doubled_and_missing_chunks_are_refused(large: Case) -> None:
    head, parts = chunks(large.delta)
    assert len(parts) == 3
    large.refused(head + parts[1] + parts[0] + parts[2], DeltaOrderError)
    large.refused(head + parts[0] + parts[0] + parts[2], DeltaOrderError)
    large.refused(head + parts[0] + parts[2], DeltaOrderError)
    large.refused(head + parts[0] + parts[1], DeltaTruncatedError)
    large.refused(large.delta + parts[2], DeltaFormatError)


def test_more_than_the_caller_allows_is_refused(case: Case) -> None:
    case.refused(case.delta, DeltaLimitError, max_size=len(case.new) - 1)
    assert case.apply(case.delta, max_size=len(case.new)) == case.new


def test_a_result_without_the_promised_digest_is_refused(case: Case) -> None:
    lie = bytearray(case.delta)
    lie[64] ^= 1
    case.refused(resealed(bytes(lie)), DeltaResultError)


def test_a_stream_that_claims_too_much_is_refused_without_allocating(case: Case) -> None:
    """A byte section whose zstd frame says 3 GiB."""
    bomb = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 3 << 30) + b"\x01\x00\x00"
    body = b"\x00" + struct.pack("<I", len(bomb) << 1 | 1) + bomb
    digests = digest_bytes(case.old), digest_bytes(b"")
    head = wire.write_header(wire.Header(len(case.old), 1000, *digests, (wire.Segment(1000, None, Kind.BYTES),)))
    tracemalloc.start()
    case.refused(head + wire.write_chunk(0, 1000, body) + body, DeltaFormatError)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_full_disk_and_a_missing_folder_are_refused(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeltaFileError):
        apply_delta(case.folder / "old", case.folder / "delta", case.folder / "none" / "out")
    with pytest.raises(DeltaFileError):
        apply_delta(case.folder / "absent", case.folder / "delta", case.folder / "out")

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (case.folder / "delta").write_bytes(case.delta)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(NoSpaceError):
            apply_delta(case.folder / "old", case.folder / "delta", case.folder / "out")
    assert {path.name for path in case.folder.iterdir()} == case.files


PROGRAM = """
import sys
from nwmctl.vehicle.delta import main
code = main(sys.argv[1:])
outside = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names - {"__main__", "nwmctl"}
print(*sorted(name for name in outside if not name.startswith(("_", "sitecustomize", "usercustomize"))))
sys.exit(code)
"""


def program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_the_program_of_a_vehicle_needs_two_packages(case: Case) -> None:
    (case.folder / "delta").write_bytes(case.delta)
    done = program(case.folder, "old", "delta", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert (case.folder / "out").read_bytes() == case.new
    (case.folder / "out").unlink()
    assert done.stdout.split() == ["numpy", "zstandard"]


def test_the_program_says_what_it_refuses(case: Case) -> None:
    (case.folder / "delta").write_bytes(case.delta)
    done = program(case.folder, "delta", "delta", "out")
    assert done.returncode == DeltaBaseError.exit_code
    assert "'delta' is not the file that the delta was made against" in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (case.folder / "out").exists()


@pytest.mark.parametrize("version", [1])
def test_deltas_of_every_version_still_apply(version: int, tmp_path: Path) -> None:
    """The files are a promise: ``old`` and ``delta`` were written once and stay."""
    digest = apply_delta(GOLDEN / "old.bin", GOLDEN / f"version-{version}.delta", tmp_path / "out")
    assert digest == digest_bytes((GOLDEN / "new.bin").read_bytes())


# --- mutants -----------------------------------------------------------------------------------------------------


def chunks_mixed(delta: bytes, seed: int, count: int) -> Iterator[tuple[Way, bytes]]:
    """Whole chunks left out, doubled, in another order; numbers of four bytes that promise too much."""
    dice = random.Random(seed)
    head, parts = chunks(delta)
    for _ in range(count):
        data = bytearray(head + b"".join(dice.choices(parts, k=dice.randint(1, len(parts) + 1))))
        struct.pack_into("<I", data, dice.randrange(len(data) - 4), dice.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF]))
        if data != delta:
            yield Way.EXCHANGED, bytes(data)


def fuzz(case: Case, hunting: Hunting, count: int, mend: Callable[[bytes], bytes] | None = None) -> None:
    """A mutant is refused by name. With all checksums set right, which reaches the decoder itself, it may only be
    refused or give the very same file: bits that fill up a byte have no meaning."""
    most = count * 9 // 10
    with hunting("deltas" if mend is None else "deltas with good checksums") as hunt:
        made = itertools.chain(mutants(case.delta, hunt.seed, most), chunks_mixed(case.delta, hunt.seed, count - most))
        for way, bad in made:
            if mend is None:
                hunt.show(way, lambda bad=bad: case.apply(bad))
            elif (whole := mend(bad)) != case.delta:
                hunt.show(way, lambda whole=whole: digest_bytes(case.apply(whole)), digest_bytes(case.new))
    assert {path.name for path in case.folder.iterdir()} == case.files


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutants need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.mark.usefixtures("quick")
def test_a_sample_of_mutants_is_refused(case: Case, hunting: Hunting) -> None:
    fuzz(case, hunting, 150)
    fuzz(case, hunting, 150, resealed)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mend", [None, resealed], ids=["damaged", "under good checksums"])
def test_a_hundred_thousand_mutants_are_refused(
    case: Case, hunting: Hunting, mend: Callable[[bytes], bytes] | None
) -> None:
    fuzz(case, hunting, 50_000, mend)
