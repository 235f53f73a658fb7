"""Drive logs: Parquet files with what a car saw, what its driver did and where it was, one row per step.

Columns (docs/judges.md): ``drive`` text; ``step`` int32, counted from 0 in each drive; ``time_us`` int64; ``x``, ``y``
(m), ``heading`` (rad), ``speed`` (m/s) float64; ``steer`` (rad), ``acceleration`` (m/s2) float32, the executed control;
and ``in.<tensor>``, a fixed-size list of float32, for each input of the model, sorted by name. Rows of a drive
follow one another. The schema's metadata hold a ``LogHeader`` with every unit.

The reader believes nothing: columns, types, units, sizes and counts are compared before a row is read, and each row
before it is handed on. It holds a few hundred rows at a time, however long the file is. Whatever is wrong is a
DriveLogError. Does not judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.model import ModelContract, TensorSpec
from nwmctl.errors import DriveLogError, LogsMissingError, NwmError
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.toolchains.protocol import Tensors

SCHEMA = "nwmctl.drive-log-rows/1"
ROWS = 256
"""Rows that are held at a time."""
POSE = {"x": "m", "y": "m", "heading": "rad", "speed": "m/s"}
CONTROL = {"steer": "rad", "acceleration": "m/s2"}
UNITS = {"drive": "", "step": "1", "time_us": "us", **POSE, **CONTROL}
_KEY = b"nwmctl"
_INPUT = "in."
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a log may cost: rows and row groups of the whole file, bytes of one unpacked row group."""

    rows: int = 50_000_000
    groups: int = 100_000
    group_bytes: int = 512 << 20


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """An input without its batch axis: ``shape``, and name and unit of each channel of the last axis."""

    shape: tuple[int, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]

    @classmethod
    def of(cls, spec: TensorSpec) -> TensorLayout:
        """The layout that a contract's tensor has in a log."""
        channels = tuple(channel.name for channel in spec.channels)
        shape = tuple(int(size) for size in spec.shape[1:])
        return cls(shape, channels, tuple(channel.unit for channel in spec.channels))


@dataclass(frozen=True, slots=True)
class LogHeader:
    """What the file says about itself. ``origin``: where the drives come from; a simulator's log says so.

    ``rate_hz`` steps per second; ``wheelbase_m`` of the car that was driven; ``units`` by column.
    """

    origin: str
    rate_hz: float
    wheelbase_m: float
    tensors: dict[str, TensorLayout]
    units: dict[str, str] = field(default_factory=lambda: dict(UNITS))

    def __post_init__(self) -> None:
        if not self.origin.strip():
            raise ValueError("a log says where its drives come from ('origin')")
        if not 0.1 <= self.rate_hz <= 1000 or not 0.5 <= self.wheelbase_m <= 20:
            raise ValueError(f"rate_hz is {self.rate_hz:g} and wheelbase_m {self.wheelbase_m:g}: no car is like that")


@dataclass(frozen=True, slots=True, eq=False)
class LogRows:
    """Some rows. ``drive`` [n] text; ``step``, ``time_us`` [n]; ``pose`` [n,4] as ``POSE``; ``control`` [n,2] as
    ``CONTROL``; ``inputs`` each [n, ...] as in the contract."""

    drive: tuple[str, ...]
    step: NDArray[np.int64]
    time_us: NDArray[np.int64]
    pose: NDArray[np.float64]
    control: NDArray[np.float64]
    inputs: Tensors


def write_log(path: Path, header: LogHeader, parts: Iterable[LogRows]) -> None:
    """Write a log; each part becomes a row group. Raises LogsMissingError, and ValueError for what cannot be a log.

    The file appears whole or not at all. The same parts give the same bytes (with the same version of pyarrow).
    """
    pa, pq = _arrow()
    partial = path.with_name(f".{path.name}.partial")
    schema = _schema(header)
    follow = _Follower(header.rate_hz)
    try:
        with pq.ParquetWriter(
            partial, schema, compression="zstd", compression_level=12, use_dictionary=["drive"],
            use_byte_stream_split=[name for name in schema.names if name != "drive"], store_schema=True,
        ) as writer:  # fmt: skip
            for rows in parts:
                follow.check(rows)
                writer.write_batch(_batch(pa, schema, rows))
        if not follow.rows:
            raise ValueError("a log without a row is no log")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _batch(pa: Any, schema: Any, rows: LogRows) -> Any:
    columns = [
        pa.array(rows.drive, pa.string()),
        pa.array(rows.step, pa.int32()),
        pa.array(rows.time_us, pa.int64()),
        *(pa.array(rows.pose[:, index], pa.float64()) for index in range(len(POSE))),
        *(pa.array(rows.control[:, index].astype(np.float32), pa.float32()) for index in range(len(CONTROL))),
    ]
    for _, values in sorted(rows.inputs.items()):
        flat = np.ascontiguousarray(values, np.float32).reshape(len(rows.drive), -1)
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1]))
    return pa.record_batch([column.cast(kind) for column, kind in zip(columns, schema.types, strict=True)], schema)


def _schema(header: LogHeader) -> Any:
    pa, _ = _arrow()
    kinds = {"drive": pa.string(), "step": pa.int32(), "time_us": pa.int64()}
    kinds |= dict.fromkeys(POSE, pa.float64()) | dict.fromkeys(CONTROL, pa.float32())
    fields = [pa.field(name, kind, nullable=False) for name, kind in kinds.items()]
    for name, layout in sorted(header.tensors.items()):
        item = pa.field("element", pa.float32(), nullable=False)
        fields.append(pa.field(_INPUT + name, pa.list_(item, math.prod(layout.shape)), nullable=False))
    plain = to_plain(header)
    assert isinstance(plain, dict)
    units = dict(header.units)  # written out although it is the usual: a reader in another language looks for it
    return pa.schema(fields, {_KEY: canonical.encode({**plain, "units": to_plain(units), "schema": SCHEMA})})


class DriveLogReader:
    """An open log whose header fits a model. Use ``open_log``."""

    def __init__(self, file: Any, header: LogHeader) -> None:
        self._file = file
        self.header = header

    @property
    def rows(self) -> int:
        """Steps of all drives."""
        return int(self._file.metadata.num_rows)

    def parts(self, rows: int = ROWS) -> Iterator[LogRows]:
        """The rows in their order, ``rows`` at a time. Raises DriveLogError."""
        follow = _Follower(self.header.rate_hz)
        with _translated():
            for batch in self._file.iter_batches(batch_size=rows):
                part = self._part(batch)
                follow.check(part)
                yield part
        if follow.rows != self.rows:
            raise _refuse("is damaged", f"it says {self.rows} rows and holds {follow.rows}")

    def _part(self, batch: Any) -> LogRows:
        columns = {name: batch.column(name) for name in batch.schema.names}
        for name, column in columns.items():
            if column.null_count or (name.startswith(_INPUT) and column.flatten().null_count):
                raise _refuse("has holes", f"column '{name}' has values that are missing")
        floats = {name: columns[name].to_numpy().astype(np.float64) for name in (*POSE, *CONTROL)}
        inputs: Tensors = {}
        for name, layout in self.header.tensors.items():
            flat = columns[_INPUT + name].flatten().to_numpy()
            if len(flat) != batch.num_rows * math.prod(layout.shape):
                raise _refuse("is damaged", f"column '{_INPUT + name}' has {len(flat)} values")
            inputs[name] = flat.reshape(batch.num_rows, *layout.shape)
        for name, values in {**floats, **inputs}.items():
            if not np.isfinite(values).all():
                raise _refuse("holds values that are not finite", f"'{name}' has some")
        if (floats["speed"] < -1.0).any() or (floats["speed"] > 120.0).any():
            raise _refuse("holds impossible speeds", "speeds lie between -1 and 120 m/s; is it km/h?")
        return LogRows(
            tuple(columns["drive"].to_pylist()),
            columns["step"].to_numpy().astype(np.int64),
            columns["time_us"].to_numpy().astype(np.int64),
            np.stack([floats[name] for name in POSE], axis=1),
            np.stack([floats[name] for name in CONTROL], axis=1),
            inputs,
        )


@contextmanager
def open_log(path: Path, contract: ModelContract, bounds: Bounds | None = None) -> Iterator[DriveLogReader]:
    """Open a log for a model. Raises DriveLogError where it is malformed or another model's, LogsMissingError."""
    _, pq = _arrow()
    with _translated():
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, arrow_extensions_enabled=False)
    try:
        _check_size(file.metadata, bounds or Bounds())
        with _translated():
            schema = file.schema_arrow
        header = _header(schema)
        _check_model(header, contract)
        expected = _schema(header)
        if schema.names != expected.names:
            missing, extra = sorted({*expected.names} - {*schema.names}), sorted({*schema.names} - {*expected.names})
            said = f"missing: {', '.join(missing) or 'none'}; too many: {', '.join(extra) or 'none'}"
            raise _refuse("has other columns", said if missing or extra else "their order is another")
        for found, wanted in zip(schema, expected, strict=True):
            if not _same_kind(found.type, wanted.type):
                raise _refuse("has a column of another type", f"'{found.name}' is {found.type}, not {wanted.type}")
        yield DriveLogReader(file, header)
    finally:
        file.close()


def _same_kind(found: Any, wanted: Any) -> bool:
    pa, _ = _arrow()
    if pa.types.is_fixed_size_list(wanted):
        same = pa.types.is_fixed_size_list(found) and found.list_size == wanted.list_size
        return bool(same and found.value_type == wanted.value_type)
    return bool(found == wanted)


def _check_size(metadata: Any, bounds: Bounds) -> None:
    """Before anything is unpacked: a small file can claim, and unpack to, any amount."""
    if not 1 <= metadata.num_rows <= bounds.rows:
        raise _refuse("has no useful number of rows", f"it says {metadata.num_rows}, 1 to {bounds.rows} are read")
    if not 1 <= metadata.num_row_groups <= bounds.groups:
        raise _refuse("has too many row groups", f"it says {metadata.num_row_groups}, {bounds.groups} are read")
    with _translated():
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        largest = max(max(group.total_byte_size, _unpacked(group)) for group in groups)
    if largest > bounds.group_bytes:
        raise _refuse("has a row group that is too large", f"{largest} bytes unpacked, {bounds.group_bytes} are read")


def _unpacked(group: Any) -> int:
    """Bytes of a row group by its columns' own words; what repeats is packed, so rows count too."""
    columns = [group.column(index) for index in range(group.num_columns)]
    return sum(max(column.total_uncompressed_size, 4 * column.num_values) for column in columns)


def _header(schema: Any) -> LogHeader:
    data = (schema.metadata or {}).get(_KEY)
    if data is None:
        raise _refuse("says nothing about itself", f"its metadata lack '{_KEY.decode()}' with units and tensors")
    try:
        plain = canonical.decode(data, "the log's header")
        table = dict(plain) if isinstance(plain, dict) else {}
        tag = table.pop("schema", None)
        if tag != SCHEMA:
            raise _refuse("is of another kind", f"its header says {str(tag)[:_MAX_NAME]}, {SCHEMA} is read")
        return from_plain(LogHeader, table, Source("the log's header"))
    except DriveLogError:
        raise
    except NwmError as problem:
        raise _refuse("has a header that cannot be read", f"{problem.what}: {problem.why}") from problem


def _check_model(header: LogHeader, contract: ModelContract) -> None:
    if header.units != UNITS:
        other = sorted(name for name in {*header.units, *UNITS} if header.units.get(name) != UNITS.get(name))
        said = ", ".join(f"'{name}' is in {header.units.get(name, 'no unit')!r}" for name in other)
        raise _refuse("has other units", f"{said}; SI units are read, see docs/judges.md")
    wanted = {spec.name: spec for spec in contract.inputs}
    if set(header.tensors) != set(wanted):
        raise _refuse("was made for another model", f"it has {', '.join(header.tensors)}; wanted: {', '.join(wanted)}")
    for name, spec in wanted.items():
        if spec.dtype != "float32" or header.tensors[name] != TensorLayout.of(spec):
            raise _refuse("was made for another model", f"'{name}' has another shape, other channels or other units")
    if abs(header.rate_hz - contract.rate_hz) > 1e-3 * contract.rate_hz:
        raise _refuse("has another rate", f"{header.rate_hz:g} Hz; the model decides at {contract.rate_hz:g} Hz")


class _Follower:
    """Sees that rows follow one another: drives in one piece, steps counted, time without a gap."""

    def __init__(self, rate_hz: float) -> None:
        self.rows = 0
        self._period = 1e6 / rate_hz
        self._seen: set[str] = set()
        self._last: tuple[str, int, int] | None = None

    def check(self, part: LogRows) -> None:
        """Raises DriveLogError at the first row that does not follow."""
        rows = list(zip(part.drive, part.step.tolist(), part.time_us.tolist(), strict=True))
        chain = [self._last, *rows] if self._last else [None, *rows]
        for before, row in pairwise(chain):
            assert row is not None
            if before is None or before[0] != row[0]:
                self._begin(row)
            else:
                self._go_on(before, row)
        self._last = rows[-1] if rows else self._last
        self.rows += len(rows)

    def _begin(self, row: tuple[str, int, int]) -> None:
        drive, step, _ = row
        if not drive or len(drive) > _MAX_NAME:
            raise _refuse("has a drive without a proper name", f"names have 1 to {_MAX_NAME} letters")
        if drive in self._seen:
            raise _refuse("has a drive in several pieces", f"'{drive}' goes on after another drive")
        if step != 0:
            raise _refuse("has a drive without its beginning", f"'{drive}' begins with step {step}")
        self._seen.add(drive)

    def _go_on(self, before: tuple[str, int, int], row: tuple[str, int, int]) -> None:
        drive, step, time_us = row
        if step != before[1] + 1:
            raise _refuse("has a gap", f"step {step} of '{drive}' comes after step {before[1]}")
        if not 0.8 * self._period <= time_us - before[2] <= 1.2 * self._period:
            late = (time_us - before[2]) / 1e6
            raise _refuse("has a gap in time", f"step {step} of '{drive}' comes {late:g} s after the one before it")


@contextmanager
def _translated() -> Iterator[None]:
    pa, _ = _arrow()
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as problem:
        said = str(problem).splitlines()[:1] or [type(problem).__name__]
        raise _refuse("cannot be read", f"it is not a whole Parquet file: {said[0][:_MAX_NAME]}") from problem


def _refuse(what: str, why: str) -> DriveLogError:
    return DriveLogError(f"the drive log {what}", why=why, next="record it again; docs/judges.md describes the format")


def _arrow() -> tuple[Any, Any]:
    """pyarrow is an extra: whoever has no logs needs none."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as problem:
        raise LogsMissingError(
            "drive logs cannot be read here", why="pyarrow is not installed", next="pip install 'nwmctl[logs]'"
        ) from problem
    return pa, pq


def layouts(contract: ModelContract) -> Mapping[str, TensorLayout]:
    """The layout of each input of a model in a log."""
    return {spec.name: TensorLayout.of(spec) for spec in contract.inputs}
