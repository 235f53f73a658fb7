"""Compilers and runtimes as processes of their own: limits, a clean environment, and an end that is certain.

A tool runs in its own process group behind ``supervise``; it is killed with everything it started when its time is
over, when it prints without end, when all its processes together outgrow its memory or its disk, and when we die,
however we die. Its environment is fixed, so that nothing of the user's shell reaches the payload's bytes. Exit status 0
is not believed alone: compilers print errors and exit 0. A tool runs as the user who started us: what it writes outside
of its working directory is not prevented. How it ended is judged in ``endings``. Does not know any tool.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

import nwmctl
from nwmctl.errors import CompileFailedError, ToolchainError, ToolchainMissingError
from nwmctl.toolchains import endings, surroundings
from nwmctl.toolchains.endings import Seen
from nwmctl.toolchains.endings import ending as ending
from nwmctl.toolchains.endings import last_lines as last_lines

ERROR_PATTERN = r"(?i)\berror\b"
"""What a tool says when it has failed, whatever its exit status."""
_SUPERVISOR = Path(__file__).with_name("supervise.py")
_REPORT_BYTES = 4096


class MemoryLimit(StrEnum):
    """What a tool's memory limit counts. A tool that reserves far more than it touches bears only ``DATA``."""

    ADDRESS_SPACE = "RLIMIT_AS"
    DATA = "RLIMIT_DATA"


@dataclass(frozen=True, slots=True)
class Limits:
    """``timeout_s`` seconds of wall clock, ``memory_bytes`` of each process and of all together, and bytes of output
    before a tool counts as runaway.

    ``file_bytes`` is how large any one file may become that the tool writes, 0 without limit: a compiler's payload is
    as large as its model, a runtime's answer is not. ``scratch_bytes`` may lie in its working directory, 0 without
    limit.
    """

    timeout_s: float = 600.0
    memory_bytes: int = 8 << 30
    memory: MemoryLimit = MemoryLimit.ADDRESS_SPACE
    output_bytes: int = 16 << 20
    file_bytes: int = 0
    scratch_bytes: int = 32 << 30


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: ``argv[0]`` is an absolute path, ``cwd`` the scratch folder; ``tool`` names it for people.

    ``error_pattern``: a line of stderr (of stdout too, if ``scan_stdout``) that matches means failure; '' for none.
    ``failure`` is what a refusal raises, ``crash`` what an end by a signal raises.
    """

    tool: str
    argv: tuple[str, ...]
    cwd: Path
    limits: Limits
    environment: Mapping[str, str] = field(default_factory=dict)
    error_pattern: str = ERROR_PATTERN
    scan_stdout: bool = False
    failure: type[ToolchainError] = CompileFailedError
    crash: type[ToolchainError] = CompileFailedError


@dataclass(frozen=True, slots=True)
class Finished:
    """What a tool printed; it exited 0 and printed no error."""

    stdout: str
    stderr: str


def clean_environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The fixed environment of every tool, with ``extra`` on top. ``home`` is its HOME and its working directory."""
    fixed = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HOME": str(home),
        # Relative: IREE hands such names to its linker unquoted, and a blank in a folder's name breaks the build.
        "TMPDIR": ".",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        # onnxruntime's wheels report to their maker from 1.31 on, and leave a device identifier in HOME.
        "ORT_DISABLE_TELEMETRY": "1",
    }
    return {**fixed, **extra}


def stated_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """A tool's environment as a manifest tells it: the same on every machine, so folders are named and not written."""
    said = {"PATH": "<system>", "HOME": "<scratch>", "TMPDIR": "<scratch>", "PYTHONPATH": "<nwmctl>"}
    whole = clean_environment(Path(), extra)
    return {name: said.get(name, value) for name, value in sorted(whole.items())}


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """The argv that runs ``module`` in this interpreter; ``own_path`` goes into its environment."""
    return (sys.executable, "-P", "-m", module, *arguments)


def own_path(first: Path | None = None) -> dict[str, str]:
    """The environment that lets a child interpreter import this very nwmctl, installed or not; packages in the folder
    ``first`` go before all others."""
    own = str(Path(nwmctl.__file__).parent.parent)
    return {"PYTHONPATH": f"{first}:{own}" if first else own}


class Running:
    """A tool that runs behind its supervisor. ``cut`` or ``end`` kills it with everything it started."""

    def __init__(self, process: subprocess.Popen[bytes], lifeline: int) -> None:
        self.process = process
        self._lifeline: int | None = lifeline
        self._lock = threading.Lock()

    def cut(self) -> None:
        """Have it killed; returns at once. May be called twice, from any thread."""
        with self._lock:
            if self._lifeline is not None:
                os.close(self._lifeline)
                self._lifeline = None

    def end(self) -> None:
        """Have it killed and reap it; harmless if it has ended by itself."""
        self.cut()
        self.process.wait()


def start(
    command: Command, *, stdin: int | IO[bytes], stdout: int | IO[bytes], stderr: int | IO[bytes], report: int = -1
) -> Running:
    """Start a tool behind the supervisor. The caller calls ``end`` in all cases. ``report``: the end of a pipe that the
    supervisor writes to when the tool has ended (see ``supervise``)."""
    if not os.access(command.argv[0], os.X_OK):
        raise ToolchainMissingError(
            f"{command.tool} is not there",
            why=f"'{command.argv[0]}' cannot be executed",
            next="run `nwmctl doctor`; it says what to install",
        )
    theirs, ours = os.pipe()
    limits, around = command.limits, surroundings.here()
    bounds = (limits.memory_bytes, limits.file_bytes, limits.scratch_bytes, around.umask)
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(_SUPERVISOR), str(theirs), str(report), limits.memory.value),
                *map(str, bounds),
                *command.argv,
            ],
            cwd=command.cwd,
            env={**clean_environment(command.cwd, command.environment), **around.environment},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(theirs, report) if report >= 0 else (theirs,),
            start_new_session=True,  # a terminal's Ctrl-C reaches us, and we end the tool
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return Running(process, ours)


def run_tool(command: Command) -> Finished:
    """Run a tool to its end; meters around are told what it took.

    Raises ToolchainTimeoutError if it does not end, ToolMemoryError and ScratchOverflowError if it outgrows its memory
    or its disk, DiskFullError if the disk is full without its doing, RunawayOutputError if it prints without end,
    ErrorSaidError if it exits 0 and prints an error, the command's ``failure`` (CompileFailedError) if it exits with
    another status than 0, its ``crash`` if it dies of a signal, ToolchainMissingError if it is not there.
    """
    told, report = os.pipe()
    try:
        try:
            running = start(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, report=report
            )
        finally:
            os.close(report)
        process = running.process
        readers = [_Reader(stream, command.limits.output_bytes, running) for stream in (process.stdout, process.stderr)]
        late = False
        try:
            process.wait(timeout=command.limits.timeout_s)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            running.end()
            stdout, stderr = (reader.finish() for reader in readers)
        seen = Seen.read(os.read(told, _REPORT_BYTES))
    finally:
        os.close(told)
    surroundings.count(seen.peak_bytes, seen.cpu_s)
    overflowed = any(reader.overflowed for reader in readers)
    problem = endings.refusal(command, process.returncode, stdout, stderr, seen, late=late, overflowed=overflowed)
    if problem is not None:
        raise problem
    return Finished(stdout, stderr)


class _Reader:
    """Drains one stream in a thread, keeps at most ``limit`` bytes, and kills a tool that prints more."""

    def __init__(self, stream: IO[bytes] | None, limit: int, running: Running) -> None:
        assert stream is not None
        self.overflowed = False
        self._stream, self._limit, self._running = stream, limit, running
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        kept = 0
        while chunk := self._stream.read1(1 << 16):  # type: ignore[attr-defined]
            room = max(0, self._limit - kept)
            self._parts.append(chunk[:room])
            kept += len(chunk)
            if kept > self._limit and not self.overflowed:
                self.overflowed = True
                self._running.cut()

    def finish(self) -> str:
        """What was printed. The tool's whole group is dead by now, so the stream has an end."""
        self._thread.join()
        self._stream.close()
        return b"".join(self._parts).decode("utf-8", errors="replace")
