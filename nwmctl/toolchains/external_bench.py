"""A bench over SSH: hardware elsewhere that executes payloads, row by row, with a declared program.

A host is a bench with a chip only if it says so itself: the declared ``identify:`` program runs there before each
session, and what it prints must match. Rows travel together, as tar files; each is still one process of the program,
with tensors as ``rows`` describes them. Times come from what programs there say about themselves, never from the clock
on this side of the connection. A connection that breaks is a RemoteError and no failure of the artifact.
"""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest, Option
from nwmctl.errors import PlaceUnavailableError, RuntimeCrashedError, RuntimeFailedError
from nwmctl.remote.workroom import Login, Workroom
from nwmctl.toolchains.declaration import Bench, CommandTemplate, Declaration, render, render_tensors
from nwmctl.toolchains.external_work import run_there
from nwmctl.toolchains.process import Command, Limits, MemoryLimit
from nwmctl.toolchains.protocol import Tensors
from nwmctl.toolchains.rows import FILE_BYTES, input_name, output_name, read_tensor, row_bytes, told_seconds
from nwmctl.toolchains.sessions import check_inputs

_BATCH, _ANSWERS = "batch.tar", "answers.tar"
_BATCH_BYTES, _BATCH_ROWS = 64 << 20, 256
_UP = "../../"
"""From a row's folder to the payload."""
_IDENTIFY_S = 30.0
_ROWS = f"""seconds=$1; shift
rm -rf rows {_ANSWERS}
tar -xf {_BATCH} || exit 125
for row in rows/*; do
  (cd "$row" && timeout "$seconds" "$@") || exit
done
set -- rows/*/out*.npy
test -e "$1" || set --
: > end
tar -cf {_ANSWERS} end "$@"
"""


def confirm(declared: Declaration, bench: Bench, room: Workroom) -> None:
    """Have the host say which chip it carries. Raises PlaceUnavailableError if it is not the bench's."""
    argv = (bench.identify.program, *render(declared, bench.identify, {}))
    limits = Limits(_IDENTIFY_S, memory=MemoryLimit.DATA)
    command = Command("the identification", argv, Path(), limits, error_pattern="", failure=RuntimeFailedError)
    try:
        said = run_there(room, command, declared.bench_host, f"install what 'identify:' of {declared.name} names")
    except RuntimeFailedError as problem:
        raise _another_chip(declared, bench, f"{problem.what}: {problem.why}") from problem
    if not re.search(bench.pattern, said.stdout + said.stderr):
        words = " ".join((said.stdout + said.stderr).split())[:120] or "nothing"
        raise _another_chip(declared, bench, f"it says '{words}', which does not match '{bench.pattern}'")


def _another_chip(declared: Declaration, bench: Bench, why: str) -> PlaceUnavailableError:
    return PlaceUnavailableError(
        f"the host '{declared.bench_host}' is not known to carry {bench.chip}",
        why=why,
        next="connect a bench with that chip, or correct 'identify:' in the toolchain's declaration",
    )


class BenchSession:
    """``Session`` on a bench. ``timeout_s`` holds for each row. Besides ToolchainError subclasses its ``run`` raises
    HostUnreachableError and RemoteFileError."""

    def __init__(
        self, declared: Declaration, login: Login, payload: Path, manifest: ArtifactManifest, timeout_s: float
    ) -> None:
        assert declared.bench is not None
        assert declared.run is not None
        self._declared, self._manifest, self._timeout = declared, manifest, timeout_s
        self._tool = f"the runtime of {declared.name} on '{declared.bench_host}'"
        self._argv = run_argv(declared, declared.run, manifest, f"{_UP}{declared.payload}")
        self._seconds: tuple[float, ...] = ()
        self.room = Workroom.open(login)
        self._open = True
        try:
            confirm(declared, declared.bench, self.room)
            self.room.put(declared.payload, payload)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """See ``Session.run``. Raises as the class says."""
        if not self._open:
            raise RuntimeFailedError(
                f"{self._tool} is closed", why="it was closed before", next="open the artifact again"
            )
        rows = check_inputs(self._manifest.inputs, inputs)
        size = max(1, row_bytes(self._manifest.inputs) + row_bytes(self._manifest.outputs))
        step = max(1, min(_BATCH_ROWS, _BATCH_BYTES // size))
        self._seconds = ()
        seconds: list[float] = []
        parts = [self._batch(inputs, slice(at, min(at + step, rows)), seconds) for at in range(0, rows, step)]
        self._seconds = tuple(seconds) if len(seconds) == rows else ()
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @property
    def seconds(self) -> tuple[float, ...]:
        """See ``Session.seconds``: what the program there printed, if the declaration says where."""
        return self._seconds

    def close(self) -> None:
        """See ``Session.close``."""
        self._open = False
        self.room.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batch(self, inputs: Mapping[str, NDArray[np.generic]], which: slice, seconds: list[float]) -> Tensors:
        count = which.stop - which.start
        with tempfile.TemporaryDirectory(prefix="nwmctl-bench-") as name:
            scratch = Path(name)
            with tarfile.open(scratch / _BATCH, "w") as archive:
                for row in range(count):
                    for index, port in enumerate(self._manifest.inputs):
                        at = which.start + row
                        _add(archive, f"rows/{row:04}/{input_name(index)}", inputs[port.name][at : at + 1])
            self.room.put(_BATCH, scratch / _BATCH)
            limits = Limits(
                self._timeout * count + _IDENTIFY_S, memory=MemoryLimit.DATA, file_bytes=FILE_BYTES + _BATCH_BYTES
            )
            done = run_there(
                self.room,
                Command(
                    self._tool, ("sh", "-c", _ROWS, "sh", f"{self._timeout:g}", *self._argv), Path(), limits,
                    error_pattern=self._declared.error_pattern, scan_stdout=self._declared.scan_stdout,
                    failure=RuntimeFailedError, crash=RuntimeCrashedError,
                ),
                self._declared.bench_host,
                self._declared.install,
            )  # fmt: skip
            if self._declared.run_seconds:
                seconds += told_seconds(self._declared.run_seconds, done.stdout + done.stderr)
            self.room.get(_ANSWERS, scratch / _ANSWERS, 4 * _BATCH_BYTES + count * FILE_BYTES)
            return self._answers(scratch / _ANSWERS, count)

    def _answers(self, path: Path, count: int) -> Tensors:
        try:
            with tarfile.open(path) as archive:
                members = {member.name: member for member in archive if member.isfile()}
                return {
                    port.name: np.concatenate(
                        [
                            read_tensor(*_open(archive, members, f"rows/{row:04}/{output_name(index)}"), port)
                            for row in range(count)
                        ]
                    )
                    for index, port in enumerate(self._manifest.outputs)
                }
        except (OSError, ValueError, EOFError, tarfile.TarError) as problem:
            raise RuntimeFailedError(
                f"{self._tool} left no outputs that can be read",
                why=str(problem),
                next="try the next recipe, or run the artifact's runtime by hand",
            ) from problem


def run_argv(
    declared: Declaration,
    command: CommandTemplate,
    manifest: ArtifactManifest,
    payload: str,
    more: Mapping[str, Option] | None = None,
) -> tuple[str, ...]:
    """The program that executes a payload, with its arguments; ``more`` variables. Raises ToolchainTemplateError."""
    variables: dict[str, Option] = {"payload": payload, **(more or {})}
    given = {port.name: input_name(index) for index, port in enumerate(manifest.inputs)}
    left = {port.name: output_name(index) for index, port in enumerate(manifest.outputs)}
    return (
        command.program,
        *render(declared, command, variables),
        *render_tensors(declared, command.inputs, given, variables),
        *render_tensors(declared, command.outputs, left, variables),
    )


def _add(archive: tarfile.TarFile, name: str, values: NDArray[np.generic]) -> None:
    data = io.BytesIO()
    np.save(data, values)
    member = tarfile.TarInfo(name)
    member.size = data.tell()
    data.seek(0)
    archive.addfile(member, data)


def _open(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str) -> tuple[IO[bytes], int]:
    member = members.get(name)
    file = archive.extractfile(member) if member else None
    if member is None or file is None:
        raise ValueError(f"there is no '{name}'")
    if member.size > FILE_BYTES:
        raise ValueError(f"'{name}' has {member.size} bytes")
    return io.BytesIO(file.read()), member.size
