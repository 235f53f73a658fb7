"""What executions take on a bench, as a program there says.

Either the declaration has a ``measure:`` program that times the payload on that hardware by itself, or its ``run:``
program says what each execution took. A figure that is not told is not made up: without the number of misses or a
percentile there is no ``Latency``. The connection's own time is in none of these figures.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.measurement import NO_CO_LOAD, Latency
from nwmctl.errors import PlaceUnavailableError, RuntimeCrashedError, RuntimeFailedError
from nwmctl.remote.workroom import Workroom
from nwmctl.toolchains.declaration import FIGURES, Declaration, MeasureTemplate, render
from nwmctl.toolchains.external_bench import BenchSession, run_argv
from nwmctl.toolchains.external_work import run_there
from nwmctl.toolchains.process import Command, Limits, MemoryLimit
from nwmctl.toolchains.protocol import BenchOrder
from nwmctl.toolchains.rows import input_name, told_seconds

_STREAMS = re.compile(r"stream:([1-9]\d?)\Z")
_REPORT_BYTES = 256 << 20


def measure(
    declared: Declaration,
    session: BenchSession,
    manifest: ArtifactManifest,
    inputs: Mapping[str, NDArray[np.generic]],
    order: BenchOrder,
) -> Latency:
    """What executions of one row of ``inputs`` take there. Raises PlaceUnavailableError where nothing there tells it,
    and as ``BenchSession.run``."""
    load = _load(session.room, declared)
    how = declared.measure
    if how is None:
        if not declared.run_seconds or order.co_load != NO_CO_LOAD:
            raise _untold(declared, "it has neither 'measure:' nor 'run_seconds:', or none with that co-load")
        samples = np.array(_own(session, inputs, order)) * 1e3
        return _latency(declared, samples, order, load)
    text = _measured(declared, how, session.room, manifest, inputs, order)
    if how.samples:
        samples = np.array(told_seconds(how.samples, text)) * 1e3
        return _latency(declared, samples[-order.runs :], order, load)
    found = re.search(how.figures, text)
    if not found:
        raise _untold(declared, "its 'figures' match nothing that the program said")
    n, p50, p99, p999, most, misses = (float(found.group(name)) for name in FIGURES)
    return _checked(declared, (int(n), int(misses)), (p50, p99, p999, most), order, load)


def _own(session: BenchSession, inputs: Mapping[str, NDArray[np.generic]], order: BenchOrder) -> tuple[float, ...]:
    """Seconds that ``run:`` itself tells, one process per row."""
    rows = order.warm_up + order.runs
    session.run({name: np.repeat(values[:1], rows, axis=0) for name, values in inputs.items()})
    return session.seconds[order.warm_up :]


def _measured(
    declared: Declaration,
    how: MeasureTemplate,
    room: Workroom,
    manifest: ArtifactManifest,
    inputs: Mapping[str, NDArray[np.generic]],
    order: BenchOrder,
) -> str:
    """What the measuring program said and left."""
    with tempfile.TemporaryDirectory(prefix="nwmctl-measure-") as name:
        scratch = Path(name)
        for index, port in enumerate(manifest.inputs):
            np.save(scratch / input_name(index), inputs[port.name][:1])
            room.put(input_name(index), scratch / input_name(index))
        more = {"runs": order.runs, "warm_up": order.warm_up}
        argv = run_argv(declared, how.command, manifest, declared.payload, more)
        streams = _streams(declared, how, order)
        if streams:
            argv = (
                "sh",
                "-c",
                "".join(f"{shlex.join(each)} > /dev/null 2>&1 & " for each in streams) + shlex.join(argv),
            )
        command = Command(
            f"the measurement of {declared.name}", argv, Path(), Limits(order.timeout_s, memory=MemoryLimit.DATA),
            declared.environment, declared.error_pattern, declared.scan_stdout, RuntimeFailedError, RuntimeCrashedError,
        )  # fmt: skip
        done = run_there(room, command, declared.bench_host, declared.install)
        text = done.stdout + done.stderr
        if how.report:
            room.get(how.report, scratch / "report", _REPORT_BYTES)
            text += (scratch / "report").read_text("utf-8", "replace")
        return text


def _streams(declared: Declaration, how: MeasureTemplate, order: BenchOrder) -> list[tuple[str, ...]]:
    """The programs that run beside the measurement; they end with it. Raises PlaceUnavailableError."""
    if order.co_load == NO_CO_LOAD:
        return []
    wanted = _STREAMS.match(order.co_load)
    if wanted is None or how.co_load is None:
        raise _untold(declared, f"it has no 'co_load:', so nothing there can be measured under {order.co_load}")
    return [(how.co_load.program, *render(declared, how.co_load, {}))] * int(wanted[1])


def _load(room: Workroom, declared: Declaration) -> float:
    command = Command("the load average", ("cat", "/proc/loadavg"), Path(), Limits(20.0), failure=RuntimeFailedError)
    said = run_there(room, command, declared.bench_host, "").stdout.split()
    try:
        return float(said[0])
    except (IndexError, ValueError):
        raise _untold(declared, "the host does not tell its load average") from None


def _latency(declared: Declaration, samples: NDArray[np.float64], order: BenchOrder, load: float) -> Latency:
    if len(samples) != order.runs:
        raise _untold(declared, f"it told {len(samples)} of {order.runs} executions")
    p50, p99, p999, most = (float(np.percentile(samples, share)) for share in (50, 99, 99.9, 100))
    misses = int((samples > order.deadline_ms).sum())
    return _checked(declared, (len(samples), misses), (p50, p99, p999, most), order, load)


def _checked(
    declared: Declaration,
    counts: tuple[int, int],
    times: tuple[float, float, float, float],
    order: BenchOrder,
    load: float,
) -> Latency:
    (n, misses), (p50, p99, p999, most) = counts, times
    try:
        return Latency(n, p50, p99, p999, most, misses, order.deadline_ms, order.co_load, load, Obtained.BENCH)
    except ValueError as problem:
        raise _untold(declared, f"its figures contradict one another: {problem}") from problem


def _untold(declared: Declaration, why: str) -> PlaceUnavailableError:
    return PlaceUnavailableError(
        f"the bench of '{declared.name}' does not tell what executions take",
        why=why,
        next="correct 'measure:' in its declaration (docs/toolchains.md)",
    )
