"""The small process between us and a tool: it makes sure that the tool never outlives us.

Started as a script by ``process``: ``supervise.py LIFELINE LIMIT BYTES FILE ARGV...``. It starts the tool in a process
group of its own under the memory limit, and under a limit for the size of any file it writes (FILE bytes; 0: none), and
waits for two things: the tool's end, whose exit status becomes its own, or the
end of the lifeline, a pipe whose other end only we hold. Either way the whole group is killed, so nothing that the tool
started stays; the lifeline closes however we die. Uses the standard library only and imports nothing of the project,
so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys

CANNOT_START = 127


def main(argv: list[str]) -> int:
    """Run the tool; returns its exit status, or dies of the signal that the tool died of."""
    lifeline, limits, command = int(argv[0]), {getattr(resource, argv[1]): int(argv[2])}, argv[4:]
    if int(argv[3]):
        limits[resource.RLIMIT_FSIZE] = int(argv[3])
    child = os.fork()
    if child == 0:
        _become(command, lifeline, limits)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)  # the child does the same: whoever is first, the group exists before it is needed
    select.select([lifeline, os.pidfd_open(child)], [], [])
    # The tool is not reaped yet, so its number cannot belong to anybody else's group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != signal.SIGKILL:
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _become(command: list[str], lifeline: int, limits: dict[int, int]) -> None:
    """In the child: take the limits and become the tool. Never returns."""
    try:
        os.setpgid(0, 0)
        os.close(lifeline)
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


if __name__ == "__main__":
    # Limits concern the tool; core dumps of this process would only hide which one crashed.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main(sys.argv[1:]))
