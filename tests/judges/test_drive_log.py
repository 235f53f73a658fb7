"""Drive logs: what is written reads back; what is wrong is refused with its reason before anybody drives on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwmctl.driving.scenarios import paired
from nwmctl.errors import DriveLogError
from nwmctl.formats import canonical
from nwmctl.validation.judges.drive_log import Bounds, LogHeader, LogRows, layouts, open_log, write_log
from nwmctl.validation.judges.record import record_expert
from tests.project import CONTRACT

HEADER = LogHeader("made up", 5.0, 2.8, dict(layouts(CONTRACT)))


def rows(drive: str = "a", count: int = 30, first: int = 0) -> LogRows:
    dice = np.random.default_rng(3)
    step = np.arange(first, first + count)
    inputs = {spec.name: dice.random((count, *map(int, spec.shape[1:])), np.float32) for spec in CONTRACT.inputs}
    pose = np.stack([step * 2.0, step * 0.0, step * 0.0, np.full(count, 10.0)], axis=1)
    return LogRows((drive,) * count, step, step * 200_000, pose, np.zeros((count, 2)), inputs)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_log(tmp_path / "log.parquet", HEADER, [rows("a"), rows("b")])
    return tmp_path / "log.parquet"


def read(path: Path, bounds: Bounds | None = None) -> list[LogRows]:
    with open_log(path, CONTRACT, bounds) as reader:
        return list(reader.parts(16))


def test_what_is_written_reads_back(log: Path) -> None:
    parts = read(log)
    assert {len(part.drive) for part in parts} == {16, 12}
    assert "".join("".join(part.drive) for part in parts) == "a" * 30 + "b" * 30
    whole = rows()
    for name, values in whole.inputs.items():
        back = np.concatenate([part.inputs[name] for part in parts])
        np.testing.assert_array_equal(back[:30], values)
        assert back.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([part.pose for part in parts])[:30], whole.pose)
    with open_log(log, CONTRACT) as reader:
        assert (reader.header, reader.rows) == (HEADER, 60)


def test_the_same_drives_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        record_expert(tmp_path / name, CONTRACT, paired(3, 9_200_000))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    parts = read(tmp_path / "one")
    names = {name for part in parts for name in part.drive}
    assert names == {"highway-9200000", "merge-9200000", "roundabout-9200000"}
    with open_log(tmp_path / "one", CONTRACT) as reader:
        assert "simulated" in reader.header.origin


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    with pytest.raises(DriveLogError, match="gap"):
        write_log(tmp_path / "log.parquet", HEADER, [rows("a"), rows("a", 5, 40)])
    with pytest.raises(ValueError, match="without a row"):
        write_log(tmp_path / "log.parquet", HEADER, [])
    assert list(tmp_path.iterdir()) == []


Table = Any
CHANGES: dict[str, tuple[Callable[[Table], Table], str]] = {
    "a column less": (lambda t: t.drop_columns(["speed"]), "has other columns"),
    "a column more": (lambda t: t.append_column("mood", pa.array([0] * len(t))), "has other columns"),
    "another order": (lambda t: t.select(t.column_names[::-1]), "has other columns"),
    "another type": (lambda t: recast(t, "speed", pa.float32()), "a column of another type"),
    "steps as text": (lambda t: recast(t, "step", pa.string()), "a column of another type"),
    "a list without a size": (lambda t: recast(t, "in.ego", pa.list_(pa.float32())), "a column of another type"),
    "a shorter list": (lambda t: put(t, "in.ego", lists(len(t), 23)), "a column of another type"),
    "no metadata": (lambda t: t.replace_schema_metadata({}), "says nothing about itself"),
    "metadata that are no JSON": (lambda t: t.replace_schema_metadata({"nwmctl": "x"}), "header that cannot be read"),
    "another schema": (lambda t: tell(t, schema="nwmctl.drive-log-rows/9"), "is of another kind"),
    "an unknown key": (lambda t: tell(t, mood="good"), "header that cannot be read"),
    "no origin": (lambda t: tell(t, origin=" "), "header that cannot be read"),
    "no such car": (lambda t: tell(t, wheelbase_m=0.0), "header that cannot be read"),
    "km/h by its own word": (lambda t: unit(t, "speed", "km/h"), "'speed' is in 'km/h'"),
    "a unit less": (lambda t: unit(t, "speed", None), "'speed' is in 'no unit'"),
    "another rate": (lambda t: tell(t, rate_hz=10.0), "10 Hz; the model decides at 5 Hz"),
    "another model's channels": (lambda t: channel(t), "made for another model"),
    "another model's tensors": (lambda t: tensors(t), "made for another model"),
    "km/h in fact": (lambda t: put(t, "speed", pa.array([130.0] * len(t))), "impossible speeds"),
    "not a number": (lambda t: put(t, "x", pa.array([float("nan")] * len(t))), "not finite"),
    "an infinite input": (lambda t: put(t, "in.ego", lists(len(t), 24, np.inf)), "not finite"),
    "a hole": (lambda t: put(t, "x", pa.array([None] * len(t), pa.float64())), "missing"),
    "a step left out": (lambda t: pa.concat_tables([t.slice(0, 7), t.slice(8)]), "step 8 of 'a' comes after step 6"),
    "a step twice": (lambda t: pa.concat_tables([t.slice(0, 7), t.slice(6)]), "step 6 of 'a' comes after step 6"),
    "no beginning": (lambda t: t.slice(3), "begins with step 3"),
    "a drive in pieces": (
        lambda t: pa.concat_tables([t.slice(0, 30), t.slice(30), t.slice(0, 30)]), "in several pieces",
    ),
    "a gap in time": (
        lambda t: put(t, "time_us", pa.array([i * 200_000 + (i > 9) * 10**6 for i in range(len(t))])), "gap in time",
    ),
    "time that runs backwards": (lambda t: put(t, "time_us", pa.array(range(len(t), 0, -1))), "gap in time"),
    "a drive without a name": (lambda t: put(t, "drive", pa.array([""] * len(t))), "without a proper name"),
    "no rows": (lambda t: t.slice(0, 0), "no useful number of rows"),
}  # fmt: skip


def recast(table: Table, name: str, kind: Any) -> Table:
    return put(table, name, table.column(name).combine_chunks().cast(kind))


def put(table: Table, name: str, values: Any) -> Table:
    at = table.column_names.index(name)
    return table.set_column(at, pa.field(name, values.type), values)


def lists(count: int, size: int, value: float = 0.0) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.full(count * size, value, np.float32)), size)


def said(table: Table) -> dict[str, Any]:
    plain = canonical.decode(table.schema.metadata[b"nwmctl"], "header")
    assert isinstance(plain, dict)
    return plain


def tell(table: Table, **changes: Any) -> Table:
    return table.replace_schema_metadata({"nwmctl": canonical.encode({**said(table), **changes})})


def unit(table: Table, name: str, value: str | None) -> Table:
    units = {**said(table)["units"], name: value}
    return tell(table, units={key: each for key, each in units.items() if each is not None})


def channel(table: Table) -> Table:
    made = said(table)["tensors"]
    made["ego"]["units"][0] = "km/h"
    return tell(table, tensors=made)


def tensors(table: Table) -> Table:
    return tell(table, tensors={"camera": said(table)["tensors"]["ego"]})


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_wrong_with_a_log_is_said(log: Path, what: str) -> None:
    change, reason = CHANGES[what]
    pq.write_table(change(pq.read_table(log)), log)
    with pytest.raises(DriveLogError) as refusal:
        read(log)
    assert reason in str(refusal.value)
    assert "docs/judges.md" in refusal.value.next


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_log_is_refused(log: Path, share: float) -> None:
    data = log.read_bytes()
    log.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DriveLogError):
        read(log)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + b"\xff" * 40 + b"PAR1", b"not parquet at all"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "log").write_bytes(data)
    with pytest.raises(DriveLogError):
        read(tmp_path / "log")


def test_a_log_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DriveLogError):
        read(tmp_path / "log")


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_is_unpacked(tmp_path: Path, log: Path) -> None:
    """Equal rows pack into almost nothing."""
    table = pq.read_table(log)
    one = table.slice(0, 1)
    many = 60_000
    bomb = pa.table([pa.repeat(one.column(name)[0], many) for name in table.column_names], schema=table.schema)
    pq.write_table(bomb, tmp_path / "bomb", row_group_size=many, compression="zstd")
    assert (tmp_path / "bomb").stat().st_size < 2 << 20
    with pytest.raises(DriveLogError, match="row group that is too large"):
        read(tmp_path / "bomb", Bounds(group_bytes=16 << 20))
    with pytest.raises(DriveLogError, match="no useful number of rows"):
        read(tmp_path / "bomb", Bounds(rows=1000))
    with pytest.raises(DriveLogError, match="too many row groups"):
        read(log, Bounds(groups=1))


def test_a_long_log_is_read_in_little_memory(tmp_path: Path) -> None:
    """15,000 rows are 15 MB of tensors; the reader holds a few hundred rows at a time."""
    write_log(tmp_path / "long", HEADER, (rows(f"d{n}", 600) for n in range(25)))
    before = pa.total_allocated_bytes()
    most, count = 0, 0
    with open_log(tmp_path / "long", CONTRACT) as reader:
        for part in reader.parts():
            count += len(part.drive)
            most = max(most, pa.total_allocated_bytes() - before)
    assert count == 15_000
    assert most < 8 << 20


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5))
def test_mutated_logs_read_or_are_refused(tmp_path: Path, cuts: list[tuple[float, int]]) -> None:
    good = tmp_path / "good"
    if not good.exists():
        write_log(good, HEADER, [rows("a", 5)])
    data = bytearray(good.read_bytes())
    for place, value in cuts:
        data[int(place * len(data))] = value
    (tmp_path / "bad").write_bytes(data)
    try:
        parts = read(tmp_path / "bad", Bounds(rows=1000, group_bytes=1 << 20))
    except DriveLogError:
        return
    assert sum(len(part.drive) for part in parts) == 5


def test_the_writer_refuses_what_the_reader_would(tmp_path: Path) -> None:
    late = replace(rows("a"), time_us=rows("a").time_us * 3)
    with pytest.raises(DriveLogError, match="gap in time"):
        write_log(tmp_path / "log", HEADER, [late])
