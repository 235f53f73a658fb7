"""Predicted sizes of deltas: near the truth on weights, exact for small files, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.bundling.delta_encode import ChunkSample, encode_delta
from nwmctl.bundling.delta_estimate import estimate_delta, predict, spread
from nwmctl.domain.figure import Obtained


def weights(path: Path, count: int, step: float) -> Path:
    stream = np.random.default_rng(7)
    values = stream.normal(0, 0.02, (count, 1 << 18)).astype(np.float16)
    values += (np.random.default_rng(8).normal(0, step, values.shape) * np.linspace(0, 1, count)[:, None]).astype("f2")
    np.savez(path, **{f"layer{i}": values[i] for i in range(count)})
    return path


def test_a_prediction_encloses_the_truth(tmp_path: Path) -> None:
    old, new = weights(tmp_path / "old.npz", 16, 0.0), weights(tmp_path / "new.npz", 16, 1e-4)
    found = estimate_delta(old, new, 4)
    truth = encode_delta(old, new, tmp_path / "delta").delta_size
    assert found.obtained is Obtained.ESTIMATED
    assert found.sampled == 4 < found.chunks
    assert found.low <= truth <= found.high
    assert abs(found.bytes - truth) < 0.3 * truth
    assert estimate_delta(old, new, 4) == found


def test_a_small_file_is_not_estimated(tmp_path: Path) -> None:
    old, new = weights(tmp_path / "old.npz", 2, 0.0), weights(tmp_path / "new.npz", 2, 1e-4)
    found = estimate_delta(old, new)
    assert found.obtained is Obtained.MEASURED
    assert found.bytes == found.low == found.high == encode_delta(old, new, tmp_path / "delta").delta_size


def test_an_empty_file_has_a_size_too(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"something")
    (tmp_path / "new").write_bytes(b"")
    assert estimate_delta(tmp_path / "old", tmp_path / "new").obtained is Obtained.MEASURED


@given(st.integers(1, 40), st.integers(0, 2000))
def test_the_sample_is_spread(count: int, among: int) -> None:
    picked = spread(count, among)
    assert len(picked) == min(count, among)
    assert all(0 <= number < among for number in picked)
    if among > 4 * count > 16:
        assert min(picked) < among / 3
        assert max(picked) > 2 * among / 3


def test_one_chunk_of_many_says_how_little_it_knows() -> None:
    found = predict(ChunkSample(((1 << 20, 1000),), 10, 100, 10 << 20))
    assert found.bytes == 10_100
    assert found.high >= 2 * found.bytes
