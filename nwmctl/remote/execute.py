"""One command on another machine, over a connection that is there already.

Invariants: its output is bounded; it has ended when this returns, or its time was over and its channel is closed; no
exception of paramiko or of the socket leaves this room. Does not connect and does not copy files.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nwmctl.errors import HostUnreachableError
from nwmctl.remote.ssh import SshAddress, Timeouts, unreachable

if TYPE_CHECKING:
    import paramiko

_CHUNK = 1 << 15


@dataclass(frozen=True, slots=True)
class Executed:
    """How a command ended. ``status`` is None where it was still running when its time was over; ``output`` is what
    it printed on stdout and stderr, cut off at the limit."""

    status: int | None
    output: str


def execute(
    transport: paramiko.Transport, address: SshAddress, command: str, timeouts: Timeouts, *, output_bytes: int = 1 << 20
) -> Executed:
    """Run ``command`` by the login shell there; ``timeouts.answer_s`` seconds for all of it. Raises
    HostUnreachableError."""
    import paramiko

    try:
        channel = transport.open_session(timeout=timeouts.connect_s)
        channel.set_combine_stderr(True)
        channel.exec_command(command)
    except (paramiko.SSHException, OSError, EOFError) as problem:
        raise unreachable(address, f"it does not run commands: {problem}") from problem
    parts: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(channel, parts, output_bytes), daemon=True)
    reader.start()
    try:
        reader.join(timeouts.answer_s)
        late = reader.is_alive() or not channel.status_event.wait(timeouts.connect_s)
        status = None if late else channel.recv_exit_status()
    finally:
        with contextlib.suppress(Exception):
            channel.close()
    reader.join(timeouts.connect_s)
    if status == -1:
        # paramiko's word for a channel that closed without telling a status: the connection broke.
        raise _broken(address)
    return Executed(status, b"".join(parts).decode("utf-8", errors="replace"))


def _broken(address: SshAddress) -> HostUnreachableError:
    return unreachable(address, "the connection broke while a command ran there")


def _drain(channel: paramiko.Channel, parts: list[bytes], limit: int) -> None:
    """Keep at most ``limit`` bytes and read on, so that a command that prints much is not held up."""
    kept = 0
    with contextlib.suppress(Exception):  # a channel that is closed under us has ended; its status says how
        while chunk := channel.recv(_CHUNK):
            parts.append(chunk[: max(0, limit - kept)])
            kept += len(chunk)
