"""The small process between us and a tool: it makes sure that the tool never outlives us, nor outgrows its limits.

Started as a script by ``process``: ``supervise.py LIFELINE REPORT KIND MEMORY FILE SCRATCH UMASK ARGV...``. It starts
the tool in a process group of its own, each process under the limit KIND (a name of ``resource``) of MEMORY bytes and
under a limit of FILE bytes for any one file, and waits for the tool's end, whose exit status becomes its own, or for
the end of the lifeline, a pipe whose other end only we hold. While it waits it looks at the whole tree: at its memory
(MEMORY bytes for all of them together), and at what lies in the working directory (SCRATCH bytes) and at the room
left on its disk; 0 is no limit. It looks every few hundredths of a second at first and four times a second later, so a
limit can be passed for a moment.

In the end everything that the tool started is killed, also what left its process group: orphans come to this process
and to no other. What was seen goes to REPORT, a pipe (-1: nobody asks): peak bytes, CPU seconds, bytes in the working
directory, bytes left on its disk, and which limit was broken, in one line. Not prevented: what a tool writes outside
of its working directory as the same user. Uses the standard library only and imports nothing of the project, so that it
starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys

CANNOT_START = 127
RESERVE_BYTES = 64 << 20
"""So much stays free on the disk, for what must be written whatever a tool does."""
_FIRST_LOOK_S, _LONGEST_S = 0.02, 0.25
_PDEATHSIG, _SUBREAPER = 1, 36
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main(argv: list[str]) -> int:
    """Run the tool; returns its exit status, or dies of the signal that the tool died of."""
    lifeline, report, kind, command = int(argv[0]), int(argv[1]), argv[2], argv[7:]
    memory, file, scratch, umask = (int(text) for text in argv[3:7])
    prctl = ctypes.CDLL(None).prctl
    prctl(_SUBREAPER, 1, 0, 0, 0)
    limits = {getattr(resource, kind): memory, **({resource.RLIMIT_FSIZE: file} if file else {})}
    free = _free()
    child = os.fork()
    if child == 0:
        prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _become(command, [end for end in (lifeline, report) if end >= 0], limits, umask)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)  # the child does the same: whoever is first, the group exists before it is needed
    watch = _Watch(memory, scratch)
    watch.until_end(lifeline, os.pidfd_open(child))
    # The tool is not reaped yet, so its number cannot belong to anybody else's group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    _reap_orphans()
    if report >= 0:
        with contextlib.suppress(OSError):
            os.write(report, watch.told(free))
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != signal.SIGKILL:
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


class _Watch:
    """Looks at the tool's tree until it ends or breaks a limit."""

    def __init__(self, memory: int, scratch: int) -> None:
        self._memory, self._scratch = memory, scratch
        self.peak, self.broken = 0, "none"

    def until_end(self, lifeline: int, tool: int) -> None:
        """Return when the tool has ended, when nobody holds the lifeline any more, or when a limit is broken."""
        pause = _FIRST_LOOK_S
        while not select.select([lifeline, tool], [], [], pause)[0]:
            self.broken = self._look()
            if self.broken != "none":
                return
            pause = min(_LONGEST_S, pause * 1.5)

    def _look(self) -> str:
        tree = _descendants(os.getpid())
        used = sum(map(_resident, tree))
        if used > self.peak and len(tree) > 1:
            used = sum(map(_share, tree))  # pages that they have in common count once
        self.peak = max(self.peak, used)
        if self._memory and used > self._memory:
            return "memory"
        if self._scratch:
            if _used() > self._scratch:
                return "scratch"
            if _free() < RESERVE_BYTES:
                return "disk"
        return "none"

    def told(self, free_before: int) -> bytes:
        """The report. The kernel's own high-water mark of the largest process counts where it is higher."""
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = max(self.peak, spent.ru_maxrss << 10)
        cpu = spent.ru_utime + spent.ru_stime
        return f"{peak} {cpu:.3f} {_used()} {_free()} {free_before} {self.broken}\n".encode()


def _become(command: list[str], ours: list[int], limits: dict[int, int], umask: int) -> None:
    """In the child: take the limits and become the tool. Never returns."""
    try:
        os.setpgid(0, 0)
        for end in ours:
            os.close(end)
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for limit, size in limits.items():
            _, hard = resource.getrlimit(limit)
            soft = size if hard == resource.RLIM_INFINITY else min(size, hard)
            resource.setrlimit(limit, (soft, soft))
        os.execv(command[0], command)
    except OSError as problem:
        os.write(2, f"cannot start '{command[0]}': {problem.strerror}\n".encode())
    finally:
        os._exit(CANNOT_START)


def _reap_orphans() -> None:
    """Kill and reap whatever the tool left. Orphans of orphans arrive as their parents die."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in _descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


def _descendants(root: int) -> list[int]:
    """Everything that was started below a process; a thread's children are its own."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    born = [int(text) for text in file.read().split()]
                found += born
                waiting += born
    return found


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0  # it has ended meanwhile


def _share(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    except (OSError, ValueError, StopIteration):
        return _resident(pid)


def _used() -> int:
    """Bytes on the disk below the working directory."""
    used = 0
    for folder, _, names in os.walk("."):
        for name in names:
            with contextlib.suppress(OSError):
                used += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return used


def _free() -> int:
    try:
        state = os.statvfs(".")
    except OSError:
        return sys.maxsize
    return state.f_bavail * state.f_frsize


if __name__ == "__main__":
    # Limits concern the tool; core dumps of this process would only hide which one crashed.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main(sys.argv[1:]))
