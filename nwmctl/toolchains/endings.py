"""How a tool ended, and which refusal that is: one class for each way in which compilers were seen to fail.

Whether it was the tool or the machine decides what helps: a tool that eats all memory or the whole disk is a reason to
try the next recipe; a disk that somebody else has filled is not. What a dying tool says about memory and disk is
believed, since limits make it fail before it is killed. Pure.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nwmctl.errors import (
    CompileFailedError,
    DiskFullError,
    ErrorSaidError,
    NwmError,
    RunawayOutputError,
    ScratchOverflowError,
    ToolchainError,
    ToolchainTimeoutError,
    ToolMemoryError,
)

if TYPE_CHECKING:
    from nwmctl.toolchains.process import Command

_LAST_LINES = 12
_LINE_LIMIT = 300
_NEXT = "try the next recipe, or run the command of the run's log by hand in its scratch folder"
_MEMORY_WORDS = re.compile(r"MemoryError|bad_alloc|[Oo]ut of memory|Cannot allocate memory|bad allocation")
_DISK_WORDS = re.compile(r"No space left on device|Disk quota exceeded|File too large")
_STACK = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*", re.MULTILINE)
_MOST = 0.5
"""Who wrote more than this share of what was free has filled the disk."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the supervisor saw of a tool: see ``supervise``. ``broken``: the limit that it broke, or ``none``."""

    peak_bytes: int = 0
    cpu_s: float = 0.0
    used_bytes: int = 0
    free_bytes: int = 0
    free_before: int = 0
    broken: str = "none"

    @classmethod
    def read(cls, report: bytes) -> Seen:
        """A supervisor's report; nothing was seen where it died before it could write one."""
        parts = report.decode("ascii", "replace").split()
        if len(parts) != 6:
            return cls()
        peak, cpu, used, free, before, broken = parts
        return cls(int(peak), float(cpu), int(used), int(free), int(before), broken)


def refusal(
    command: Command, returncode: int, stdout: str, stderr: str, seen: Seen, *, late: bool, overflowed: bool
) -> NwmError | None:
    """The refusal that an end stands for; None where the tool did its work."""
    output, limits = stderr or stdout, command.limits
    if seen.broken == "memory":
        return _memory(command, f"needed more than {size(limits.memory_bytes)} of memory and was killed", output)
    if seen.broken in ("scratch", "disk"):
        return _disk(command, seen, output)
    if late:
        return ToolchainTimeoutError(
            f"{command.tool} did not end within {limits.timeout_s:g} s and was killed",
            why=last_lines(output) or "it printed nothing",
            next="raise the time limit if the model is large; otherwise try the next recipe",
        )
    if overflowed:
        how = f"printed more than {limits.output_bytes} bytes"
        return _failed(command, how, output, _own(command, RunawayOutputError))
    if returncode:
        return _unsuccessful(command, returncode, output, seen)
    said = _complaint(command, stderr, stdout)
    if said:
        return _failed(command, f"exited 0 and yet said '{said}'", output, _own(command, ErrorSaidError))
    return None


def _unsuccessful(command: Command, returncode: int, output: str, seen: Seen) -> NwmError:
    last = last_lines(output)
    if returncode == -signal.SIGXFSZ or _DISK_WORDS.search(last):
        return _disk(command, seen, output)
    if _MEMORY_WORDS.search(last):
        how = f"could not get the memory that it needs: {size(command.limits.memory_bytes)} are allowed"
        return _memory(command, how, output)
    return _failed(command, ending(returncode), output, command.crash if returncode < 0 else command.failure)


def _own(command: Command, kind: type[CompileFailedError]) -> type[ToolchainError]:
    """The exact class for compilers; whoever runs something else has named the class for it."""
    return kind if command.failure is CompileFailedError else command.failure


def _failed(command: Command, how: str, output: str, kind: type[ToolchainError]) -> ToolchainError:
    return kind(f"{command.tool} {how}", why=last_lines(output) or "it printed nothing", next=_NEXT)


def _memory(command: Command, how: str, output: str) -> ToolMemoryError:
    return ToolMemoryError(
        f"{command.tool} {how}",
        why=last_lines(output) or "it printed nothing",
        next="try the next recipe, or a machine with more memory",
    )


def _disk(command: Command, seen: Seen, output: str) -> NwmError:
    wrote = f"{size(seen.used_bytes)} lay in its folder, {size(seen.free_bytes)} were left on the disk"
    own = seen.used_bytes >= _MOST * seen.free_before
    if seen.broken == "scratch" or own or seen.free_bytes > seen.used_bytes:
        limit = f" (allowed: {size(command.limits.scratch_bytes)})" if command.limits.scratch_bytes else ""
        return ScratchOverflowError(
            f"{command.tool} wrote more than its disk space",
            why=f"{wrote}{limit}; {last_lines(output) or 'it printed nothing'}",
            next="try the next recipe; what it wrote is removed",
        )
    return DiskFullError(
        f"the disk became full while {command.tool} ran",
        why=f"{wrote}; {size(seen.free_before)} were free when it began, and others have taken the most of it",
        next=f"free at least {size(max(2 * seen.used_bytes, 1 << 20))} and resume the run; what was finished is kept",
    )


def size(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def ending(returncode: int) -> str:
    """How a process ended, for an error's sentence."""
    if returncode > 0:
        return f"failed with exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"was ended by {name}"


def _complaint(command: Command, stderr: str, stdout: str) -> str:
    if not command.error_pattern:
        return ""
    pattern = re.compile(command.error_pattern)
    text = stderr + "\n" + stdout if command.scan_stdout else stderr
    return next((line.strip()[:_LINE_LIMIT] for line in text.splitlines() if pattern.search(line)), "")


def last_lines(text: str) -> str:
    """The end of a tool's output in one line, for an error's ``why``; of a Python tool's stack, what it ends with."""
    lines = [line.strip()[:_LINE_LIMIT] for line in _STACK.sub("", text).splitlines() if line.strip()]
    return " | ".join(lines[-_LAST_LINES:])
