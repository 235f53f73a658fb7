"""Deltas there and back: every file comes back bit for bit, whatever is in it, and weights come back small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwmctl.bundling.delta_encode import DeltaReport, encode_delta
from nwmctl.errors import DeltaFileError
from nwmctl.formats.delta import Kind
from nwmctl.formats.delta_elements import UNSIGNED, differences, exponents, zigzag
from nwmctl.vehicle.delta import apply_delta
from tests.bundling.tensors import Bits, grid, safetensors, tuned

ELEMENTS = [Kind.FP16, Kind.BF16, Kind.FP32, Kind.INT8]


def there_and_back(folder: Path, old: bytes, new: bytes) -> DeltaReport:
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    report = encode_delta(folder / "old", folder / "new", folder / "delta")
    assert apply_delta(folder / "old", folder / "delta", folder / "out") == report.new_digest
    assert (folder / "out").read_bytes() == new
    assert report.delta_size == (folder / "delta").stat().st_size == sum(share.delta for share in report.shares)
    assert sum(share.new for share in report.shares) == len(new)
    return report


PAIRS = [
    (b"", b""),
    (b"", b"abc"),
    (b"abc", b""),
    (b"abc", b"abc"),
    (bytes(5000), bytes(range(256)) * 9),
    (bytes(range(256)) * 9000, bytes(range(255)) * 9001),
]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_any_bytes_come_back(tmp_path: Path, old: bytes, new: bytes) -> None:
    there_and_back(tmp_path, old, new)


@st.composite
def tensor_pairs(draw: st.DrawFn) -> tuple[Kind, Bits, Bits]:
    """Random bits (so NaN payloads, infinities, denormals, both zeros), steps of every width, other lengths."""
    kind = draw(st.sampled_from(ELEMENTS))
    seed = draw(st.integers(0, 2**32 - 1))
    count = draw(st.integers(0, 3000))
    noise = np.random.default_rng(seed)
    form = UNSIGNED[kind]
    old = np.frombuffer(noise.bytes(count * form.itemsize), form).copy()
    if draw(st.booleans()) and count:
        old[:] = np.sort(old)[noise.integers(0, max(1, count // 50), count)]
    width = draw(st.integers(0, 8 * form.itemsize))
    steps = noise.integers(0, 1 << width, count, dtype=np.uint64).astype(form)
    steps[noise.random(count) >= draw(st.sampled_from([0.002, 0.1, 0.5, 1.0]))] = 0
    new = old + steps if draw(st.booleans()) else old - steps
    cut = draw(st.integers(-50, 50))
    new = new[:cut] if cut < 0 else np.concatenate([new, steps[:cut]])
    return kind, old, new


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=st.lists(tensor_pairs(), max_size=4), moved=st.booleans(), added=st.booleans())
def test_any_tensors_come_back(pairs: list[tuple[Kind, Bits, Bits]], moved: bool, added: bool) -> None:
    old = {f"t{number}": (kind, before) for number, (kind, before, _) in enumerate(pairs)}
    new = {f"t{number}": (kind, after) for number, (kind, _, after) in enumerate(pairs)}
    if moved:
        new = dict(reversed(new.items()))
    if added:
        new["one more"] = (Kind.FP16, np.arange(700, dtype=np.uint16))
    with TemporaryDirectory() as folder:
        there_and_back(Path(folder), safetensors(old), safetensors(new))


@pytest.mark.parametrize("kind", ELEMENTS)
def test_special_values_come_back(tmp_path: Path, kind: Kind) -> None:
    top = 1 << (8 * kind.width - 1)
    special = [0, 1, top, top + 1, top - 1, 2 * top - 1, {2: 0x7C00, 4: 0x7F800000, 1: 5}[kind.width]]
    every = np.array(special, UNSIGNED[kind])
    old, new = np.repeat(every, len(every)), np.tile(every, len(every))
    there_and_back(tmp_path, safetensors({"w": (kind, old)}), safetensors({"w": (kind, new)}))


@pytest.mark.parametrize("kind", ELEMENTS)
def test_weights_cost_at_most_five_percent_more_than_the_bound(tmp_path: Path, kind: Kind) -> None:
    """The bound: the entropy of the steps given the old exponent, each step standing for itself."""
    old, new = tuned(kind, 400_000, seed=5)
    report = there_and_back(tmp_path, safetensors({"w": (kind, old)}), safetensors({"w": (kind, new)}))
    assert report.delta_size <= 1.05 * bound(kind, old, new)


def bound(kind: Kind, old: Bits, new: Bits) -> float:
    """Bytes."""
    found = exponents(kind, old)
    steps = zigzag(differences(kind, old, new)).astype(np.uint64)
    bits = 0.0
    for context in np.unique(found):
        group = steps[found == context]
        # Values of 32 bits never repeat often enough to count: low bits are noise and count whole.
        low = max(0, int(np.log2(group.mean() + 1)) - 6)
        counts = np.unique(group >> np.uint64(low), return_counts=True)[1]
        bits += low * len(group) - float((counts * np.log2(counts / len(group))).sum())
    return bits / 8


@pytest.mark.parametrize(("kind", "part"), [(Kind.FP16, 0.97), (Kind.BF16, 0.95), (Kind.FP32, 0.99), (Kind.INT8, 0.95)])
def test_where_columns_and_rows_tell_how_far_weights_move_the_bound_is_beaten(
    tmp_path: Path, kind: Kind, part: float
) -> None:
    old, new = grid(kind, 900, 448, seed=7)
    report = there_and_back(tmp_path, safetensors({"w": (kind, old)}), safetensors({"w": (kind, new)}))
    assert report.delta_size <= part * bound(kind, old.ravel(), new.ravel())


def test_what_samples_did_not_show_comes_back(tmp_path: Path) -> None:
    """All that is sampled is quiet, so gaps look best; the rest has more of them than the format allows."""
    old = np.full(400_000, 0x2C00, np.uint16)
    new = old + np.random.default_rng(1).integers(0, 3, len(old), dtype=np.uint16)
    new.reshape(8, -1)[:, :3000] = old[0]
    there_and_back(tmp_path, safetensors({"w": (Kind.FP16, old)}), safetensors({"w": (Kind.FP16, new)}))


def test_a_tensor_is_found_where_it_moved_and_the_report_names_it(tmp_path: Path) -> None:
    one, two = tuned(Kind.FP16, 50_000, 1), tuned(Kind.BF16, 50_000, 2)
    old = safetensors({"one": (Kind.FP16, one[0]), "two": (Kind.BF16, two[0])})
    new = safetensors({"two": (Kind.BF16, two[1]), "zero": (Kind.INT8, np.ones(333)), "one": (Kind.FP16, one[1])})
    report = there_and_back(tmp_path, old, new)
    shares = {share.name: share for share in report.shares}
    assert shares["one"].kind is Kind.FP16
    assert shares["two"].kind is Kind.BF16
    assert shares["one"].delta < 0.6 * shares["one"].new
    assert shares["two"].delta < 0.4 * shares["two"].new
    assert report.ratio < 0.5


def test_unrelated_weights_cost_no_more_than_alone(tmp_path: Path) -> None:
    old, new = tuned(Kind.FP16, 100_000, 1)[0], tuned(Kind.FP16, 100_000, 2)[0]
    alone = there_and_back(tmp_path, b"", safetensors({"w": (Kind.FP16, new)}))
    beside = there_and_back(tmp_path, safetensors({"w": (Kind.FP16, old)}), safetensors({"w": (Kind.FP16, new)}))
    assert beside.delta_size <= 1.01 * alone.delta_size < 0.9 * len(safetensors({"w": (Kind.FP16, new)}))


def test_unknown_formats_are_coded_as_bytes_with_a_look_back(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).bytes(3_000_000)
    changed = noise[:700_000] + b"an insertion" + noise[700_000:1_500_000] + noise[1_510_000:]
    report = there_and_back(tmp_path, noise, changed)
    assert report.ratio < 0.02
    assert {share.kind for share in report.shares} == {Kind.BYTES}


def test_elements_that_nobody_names_are_guessed(tmp_path: Path) -> None:
    old, new = tuned(Kind.FP16, 300_000, 4)
    report = there_and_back(tmp_path, b"head" * 16 + old.tobytes(), b"HEAD" * 16 + new.tobytes())
    assert max(report.shares, key=lambda share: share.new).kind is Kind.FP16
    assert report.ratio < 0.55


def test_the_same_files_give_the_same_delta(tmp_path: Path) -> None:
    old, new = tuned(Kind.BF16, 20_000, 6)
    pair = safetensors({"w": (Kind.BF16, old)}), safetensors({"w": (Kind.BF16, new)})
    there_and_back(tmp_path, *pair)
    first = (tmp_path / "delta").read_bytes()
    there_and_back(tmp_path, *pair)
    assert (tmp_path / "delta").read_bytes() == first


def test_a_missing_file_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"x")
    with pytest.raises(DeltaFileError, match="new"):
        encode_delta(tmp_path / "old", tmp_path / "new", tmp_path / "delta")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


MEASURE = """
import sys
from pathlib import Path
from nwmctl.bundling.delta_encode import encode_delta
from nwmctl.vehicle.delta import apply_delta
folder = Path(sys.argv[1])
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
def go(size):
    old, new, delta, out = (folder / f"{size}.{name}" for name in ("old", "new", "delta", "out"))
    apply_delta(old, delta, out) if sys.argv[2] == "apply" else encode_delta(old, new, delta)
go("small")
before = peak()
go("large")
print(peak() - before)
"""


SIZES = [
    (Kind.FP16, 20),
    (Kind.BYTES, 20),
    pytest.param(Kind.INT8, 20, marks=pytest.mark.long),
    pytest.param(Kind.FP16, 90, marks=pytest.mark.long),
    pytest.param(Kind.FP32, 90, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("kind", "large"), SIZES)
def test_memory_is_bounded_by_the_chunk_and_not_by_the_file(tmp_path: Path, kind: Kind, large: int) -> None:
    """The process's own peak: at most 16 MiB more for so many MiB than for a file of one small chunk, both ways."""
    for name, size in (("small", 4000), ("large", large << 20)):
        if kind is Kind.BYTES:
            old = np.random.default_rng(9).bytes(size // 4)
            pair = old, b"shifted" + old
        else:
            weights = grid(kind, max(1, size // kind.width // 448), 448, 8)
            pair = safetensors({"w": (kind, weights[0])}), safetensors({"w": (kind, weights[1])})
        for file, data in zip(("old", "new"), pair, strict=True):
            (tmp_path / f"{name}.{file}").write_bytes(data)
    for way in ("encode", "apply"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path), way]
        if way == "apply":
            encode_delta(tmp_path / "small.old", tmp_path / "small.new", tmp_path / "small.delta")
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert float(done.stdout) <= 16, way
