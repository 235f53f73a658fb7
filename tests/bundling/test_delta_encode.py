"""Deltas there and back: every file comes back bit for bit, whatever is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.bundling.delta_encode import encode_delta
from nwmctl.vehicle.delta import apply_delta

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
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    report = encode_delta(tmp_path / "old", tmp_path / "new", tmp_path / "delta")
    assert apply_delta(tmp_path / "old", tmp_path / "delta", tmp_path / "out") == report.new_digest
    assert (tmp_path / "out").read_bytes() == new
    assert report.delta_size == (tmp_path / "delta").stat().st_size == sum(share.delta for share in report.shares)
