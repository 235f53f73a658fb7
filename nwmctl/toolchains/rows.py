"""A session of a batch-1 artifact whose runtime is a program: one process per row, tensors as .npy files.

The program finds ``in0.npy``, ``in1.npy``, ... in its working directory and leaves ``out0.npy``, ... there, in the
order of the manifest's ports. Used for emulation and for vendors' runtimes.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest, Port
from nwmctl.errors import RuntimeCrashedError, RuntimeFailedError
from nwmctl.toolchains.process import ERROR_PATTERN, Command, Limits, MemoryLimit, run_tool
from nwmctl.toolchains.protocol import Tensors
from nwmctl.toolchains.sessions import check_inputs

FILE_BYTES = 1 << 30
"""As much as a frame of tensors may take elsewhere."""
_HEADER_BYTES = 4096


def input_name(index: int) -> str:
    """The file of the input with that index."""
    return f"in{index}.npy"


def output_name(index: int) -> str:
    """The file of the output with that index."""
    return f"out{index}.npy"


class RowSession:
    """``Session``: runs ``argv`` once per row. ``timeout_s`` holds for each row. ``environment`` goes on top of the
    fixed one; ``seconds`` is a pattern of what the program prints, its group the milliseconds that the runtime took."""

    def __init__(
        self,
        tool: str,
        argv: tuple[str, ...],
        manifest: ArtifactManifest,
        timeout_s: float,
        error_pattern: str = ERROR_PATTERN,
        environment: Mapping[str, str] | None = None,
        seconds: str = "",
    ) -> None:
        self._inputs, self._outputs = manifest.inputs, manifest.outputs
        self._scratch = Path(tempfile.mkdtemp(prefix="nwmctl-rows-"))
        self._open = True
        self._pattern = seconds
        self._seconds: list[float] = []
        self._command = Command(
            tool,
            argv,
            self._scratch,
            # Emulators reserve the emulated address space, which RLIMIT_AS would count.
            Limits(timeout_s, memory=MemoryLimit.DATA, file_bytes=FILE_BYTES),
            environment=environment or {},
            error_pattern=error_pattern,
            failure=RuntimeFailedError,
            crash=RuntimeCrashedError,
        )

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """See ``Session.run``. Raises TensorMismatchError, RuntimeFailedError, RuntimeCrashedError,
        ToolchainTimeoutError."""
        if not self._open:
            raise RuntimeFailedError(
                f"{self._command.tool} is closed", why="it was closed before", next="open the artifact again"
            )
        self._seconds = []
        rows = [self._one(inputs, row) for row in range(check_inputs(self._inputs, inputs))]
        return {port.name: np.concatenate([row[index] for row in rows]) for index, port in enumerate(self._outputs)}

    @property
    def seconds(self) -> tuple[float, ...]:
        """See ``Session.seconds``: what the program says itself. Its process's time would say little about the runtime
        in it."""
        return tuple(self._seconds)

    def close(self) -> None:
        """See ``Session.close``."""
        self._open = False
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _one(self, inputs: Mapping[str, NDArray[np.generic]], row: int) -> list[NDArray[np.generic]]:
        left = [self._scratch / output_name(index) for index in range(len(self._outputs))]
        for path in left:
            path.unlink(missing_ok=True)  # the last row's answer must never pass for this one's
        for index, port in enumerate(self._inputs):
            np.save(self._scratch / input_name(index), inputs[port.name][row : row + 1])
        done = run_tool(self._command)
        if self._pattern:
            self._seconds += told_seconds(self._pattern, done.stdout + done.stderr)
        try:
            return [self._read(path, port) for path, port in zip(left, self._outputs, strict=True)]
        except (OSError, ValueError, EOFError) as problem:
            raise RuntimeFailedError(
                f"{self._command.tool} left no outputs that can be read",
                why=str(problem).replace(str(self._scratch), "the scratch folder"),
                next="try the next recipe, or run the artifact's runtime by hand",
            ) from problem

    def _read(self, path: Path, port: Port) -> NDArray[np.generic]:
        with path.open("rb") as stream:
            return read_tensor(stream, path.stat().st_size, port)


def read_tensor(stream: IO[bytes], size: int, port: Port) -> NDArray[np.generic]:
    """One row of an output out of a ``.npy`` file of ``size`` bytes. Raises ValueError, EOFError, OSError."""
    promised = row_bytes((port,))
    if size > promised + _HEADER_BYTES:
        raise ValueError(f"'{port.name}' is a file of {size} bytes, {promised} were promised")
    values: NDArray[np.generic] = np.load(stream, allow_pickle=False)
    if values.shape != (1, *port.shape[1:]) or values.dtype.name != port.dtype:
        raise ValueError(f"'{port.name}' is {values.dtype.name}{list(values.shape)}, it must be {port}")
    return values


def row_bytes(ports: tuple[Port, ...]) -> int:
    """Bytes of one row of all ports."""
    return sum(np.dtype(port.dtype).itemsize * math.prod(int(n) for n in port.shape[1:]) for port in ports)


def told_seconds(pattern: str, text: str) -> list[float]:
    """What a program says that its executions took, in s: each match's group is a number of milliseconds."""
    try:
        return [float(found) / 1e3 for found in re.findall(pattern, text)]
    except ValueError:
        return []
