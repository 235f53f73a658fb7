"""Sessions of artifacts that execute on this machine: the parent's end of the pipe to a worker.

A runtime that crashes, hangs, leaks, answers without end or talks nonsense ends its worker and becomes one error of
ours; after that the session is closed for good. A question has one deadline, however busily the runtime answers. What
the runtime says goes to a file that cannot grow beyond the limit. Inputs are compared with the manifest's ports before
they are sent. Does not know any runtime.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import Port
from nwmctl.errors import RuntimeCrashedError, RuntimeFailedError, TensorMismatchError, ToolchainTimeoutError
from nwmctl.toolchains.framing import Frame, FrameError, pack, unpack
from nwmctl.toolchains.graph_files import lay_out
from nwmctl.toolchains.lowering import GraphFiles
from nwmctl.toolchains.process import (
    Command,
    Limits,
    MemoryLimit,
    Running,
    ending,
    last_lines,
    own_path,
    python_module,
    start,
)
from nwmctl.toolchains.protocol import Tensors

_ROWS_PER_TIMEOUT = 256
_SPARE_BYTES = 1 << 20
"""Room in an answer beyond the tensors that were promised, so that a wrong answer is named and not just cut."""
_LOG = "stderr.txt"
_LOG_TAIL = 8192
_LOG_BYTES = 16 << 20
"""Beyond this a worker's words are lost; it writes no other file."""
_NEXT = "try the next recipe; if it persists, the payload or this runtime's version is at fault"


def check_inputs(ports: tuple[Port, ...], inputs: Mapping[str, NDArray[np.generic]]) -> int:
    """The number of rows. Raises TensorMismatchError if names, element types or shapes differ from the ports'.

    A batch of 1 in a port stands for any number of rows: they are run one after the other.
    """
    expected = {port.name: port for port in ports}
    if set(inputs) != set(expected):
        raise _mismatch(f"given are {', '.join(sorted(inputs)) or 'none'}", f"it takes {', '.join(expected)}")
    rows = {len(values) if values.ndim else 0 for values in inputs.values()}
    for name, values in inputs.items():
        port = expected[name]
        if values.dtype.name != port.dtype or values.shape[1:] != port.shape[1:] or not values.ndim:
            given = f"'{name}' is {values.dtype.name}{list(values.shape)}"
            raise _mismatch(given, f"it takes {port.dtype}{['B', *port.shape[1:]]}")
    if len(rows) != 1 or not min(rows):
        raise _mismatch(f"the inputs have {sorted(rows)} rows", "all have the same number of rows, at least one")
    return rows.pop()


def _mismatch(given: str, takes: str) -> TensorMismatchError:
    return TensorMismatchError(
        f"the artifact does not take these tensors: {given}", why=takes, next="pass the tensors of the model's contract"
    )


def _row_bytes(ports: tuple[Port, ...]) -> int:
    """Bytes of one row of all ports."""
    return sum(np.dtype(port.dtype).itemsize * math.prod(int(n) for n in port.shape[1:]) for port in ports)


class _Deadline:
    """Has a worker killed when its time for one answer is over, even if it answers byte by byte."""

    def __init__(self, patience: float, running: Running) -> None:
        self.patience, self.passed = patience, False
        self._running = running
        self._timer = threading.Timer(patience, self._over)
        self._timer.daemon = True

    def _over(self) -> None:
        self.passed = True
        self._running.cut()

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()


class WorkerSession:
    """``Session`` over a worker process. ``timeout_s`` holds for loading and for every 256 rows."""

    def __init__(self, command: Command, inputs: tuple[Port, ...], outputs: tuple[Port, ...], timeout_s: float) -> None:
        self._tool, self._inputs, self._outputs, self._timeout = command.tool, inputs, outputs, timeout_s
        self._folder = command.cwd
        with (self._folder / _LOG).open("wb") as log:
            self._running = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self._process = self._running.process
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        self._open = True
        self._seconds: tuple[float, ...] = ()
        self._receive(timeout_s, 0)

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """See ``Session.run``. Raises TensorMismatchError, RuntimeFailedError, RuntimeCrashedError,
        ToolchainTimeoutError."""
        if not self._open:
            raise RuntimeFailedError(f"{self._tool} is closed", why="it was closed or has failed before", next=_NEXT)
        rows = check_inputs(self._inputs, inputs)
        patience = self._timeout * math.ceil(rows / _ROWS_PER_TIMEOUT)
        self._send(pack({port.name: inputs[port.name] for port in self._inputs}), patience)
        self._seconds = ()
        frame = self._receive(patience, rows * _row_bytes(self._outputs))
        answer = frame.tensors
        if list(answer) != [port.name for port in self._outputs]:
            self.close()
            raise RuntimeFailedError(
                f"{self._tool} answered with tensors that the manifest does not name",
                why=f"got {', '.join(answer) or 'none'}",
                next=_NEXT,
            )
        self._seconds = frame.seconds
        return answer

    @property
    def seconds(self) -> tuple[float, ...]:
        """See ``Session.seconds``: measured by the worker, around the runtime's own calls."""
        return self._seconds

    def close(self) -> None:
        """See ``Session.close``."""
        if not self._open:
            return
        self._open = False
        self._running.end()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, data: bytes, patience: float) -> None:
        view = memoryview(data)
        while view:
            _, ready, _ = select.select([], [self._to], [], patience)
            if not ready:
                raise self._late(patience)
            try:
                view = view[os.write(self._to, view) :]
            except BrokenPipeError as problem:
                raise self._crashed() from problem

    def _receive(self, patience: float, promised: int) -> Frame:
        """One frame within ``patience`` seconds, whose tensors take about ``promised`` bytes."""
        try:
            with _Deadline(patience, self._running) as deadline:
                frame = unpack(lambda count: self._read(count, deadline), 2 * promised + _SPARE_BYTES)
        except FrameError as problem:
            self.close()
            raise RuntimeFailedError(f"{self._tool} answered nonsense", why=str(problem), next=_NEXT) from problem
        except BaseException:
            self.close()
            raise
        if frame.error:
            self.close()
            raise RuntimeFailedError(f"{self._tool} failed", why=frame.error, next=_NEXT)
        return frame

    def _read(self, count: int, deadline: _Deadline) -> bytes:
        parts: list[bytes] = []
        while count:
            part = os.read(self._from, min(count, 1 << 20))
            if not part:
                raise self._late(deadline.patience) if deadline.passed else self._crashed()
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _late(self, patience: float) -> ToolchainTimeoutError:
        why = self._log() or "it printed nothing"
        self.close()
        return ToolchainTimeoutError(
            f"{self._tool} did not answer within {patience:g} s and was killed", why=why, next=_NEXT
        )

    def _crashed(self) -> RuntimeCrashedError:
        self._process.wait()
        why = f"its process {ending(self._process.returncode)}; {self._log() or 'it printed nothing'}"
        self.close()
        return RuntimeCrashedError(f"{self._tool} crashed", why=why, next=_NEXT)

    def _log(self) -> str:
        try:
            return last_lines((self._folder / _LOG).read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace"))
        except OSError:
            return ""


def open_worker(
    runtime: str,
    payload: Path,
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
    timeout_s: float,
    flags: tuple[str, ...] = (),
    data: Path | None = None,
    site: Path | None = None,
) -> WorkerSession:
    """Load a payload in a worker (a runtime of ``runtimes``); ``flags`` are what the manifest says that the runtime
    needs, ``data`` the file of weights that a graph keeps outside, ``site`` a folder of packages that is looked into
    before this machine's own. Raises what ``WorkerSession.run`` raises."""
    folder = Path(tempfile.mkdtemp(prefix="nwmctl-worker-"))
    order = {
        "runtime": runtime,
        "payload": str(lay_out(GraphFiles(payload.resolve(), data), folder)),
        "inputs": [_said(port) for port in inputs],
        "outputs": [_said(port) for port in outputs],
        "flags": list(flags),
    }
    command = Command(
        f"the runtime {runtime}",
        python_module("nwmctl.toolchains.worker", json.dumps(order)),
        folder,
        Limits(memory=MemoryLimit.DATA, file_bytes=_LOG_BYTES),
        own_path(site),
    )
    return WorkerSession(command, inputs, outputs, timeout_s)


def _said(port: Port) -> dict[str, object]:
    return {"name": port.name, "dtype": port.dtype, "shape": list(port.shape)}
