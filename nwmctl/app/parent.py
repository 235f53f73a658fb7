"""A child process that must not outlive its parent: the kernel asks it to end when the parent dies, even by SIGKILL."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have this process receive SIGTERM when ``parent`` (a process id) ends; at once if it has ended already.

    The kernel watches the thread that started this process, so the parent must start it from a thread that stays.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It died before the kernel was asked, and nobody would ever tell.
        os.kill(os.getpid(), signal.SIGTERM)
