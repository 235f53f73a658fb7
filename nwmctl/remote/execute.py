"""One command on another machine, over a connection that is there already.

Invariants: its output is bounded; it has ended when this returns, or its time was over and its channel is closed; no
exception of paramiko or of the socket leaves this room. Does not connect and does not copy files.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nwmctl.remote.ssh import SshAddress, Timeouts, unreachable

if TYPE_CHECKING:
    import paramiko

_CHUNK = 1 << 15


@dataclass(frozen=True, slots=True)
class Executed:
    """How a command ended. ``status`` is None where it was still running when its time was over; ``output`` is what
    it printed on stdout (and on stderr, unless that was kept apart as ``errors``), cut off at the limit.
    ``overflowed``: it printed more than that."""

    status: int | None
    output: str
    errors: str = ""
    overflowed: bool = False


def execute(
    transport: paramiko.Transport,
    address: SshAddress,
    command: str,
    timeouts: Timeouts,
    *,
    output_bytes: int = 1 << 20,
    apart: bool = False,
) -> Executed:
    """Run ``command`` by the login shell there; ``timeouts.answer_s`` seconds for all of it. ``apart``: stderr is kept
    apart, and a command that prints more than ``output_bytes`` is not waited for. Raises HostUnreachableError."""
    channel = start(transport, address, command, timeouts, combine=not apart)
    stop = channel.close if apart else _go_on
    readers = [_Reader(channel.recv, output_bytes, stop)]
    if apart:
        readers.append(_Reader(channel.recv_stderr, output_bytes, stop))
    try:
        # A program may close its output long before it ends, and what it printed may arrive after its status.
        late = not channel.status_event.wait(timeouts.answer_s)
        for reader in readers if not late else ():
            reader.thread.join(timeouts.connect_s)
        overflowed = apart and any(reader.overflowed for reader in readers)
        status = None if late or overflowed else channel.recv_exit_status()
    finally:
        with contextlib.suppress(Exception):
            channel.close()
    for reader in readers:
        reader.thread.join(timeouts.connect_s)
    if status == -1 or (late and not transport.is_active()):
        # -1 is paramiko's word for a channel that closed without telling a status: the connection broke.
        raise unreachable(address, "the connection broke while a command ran there")
    texts = [reader.text() for reader in readers]
    return Executed(status, texts[0], texts[1] if apart else "", overflowed)


def start(
    transport: paramiko.Transport, address: SshAddress, command: str, timeouts: Timeouts, *, combine: bool
) -> paramiko.Channel:
    """A channel on which ``command`` has begun. Raises HostUnreachableError."""
    import paramiko

    try:
        channel = transport.open_session(timeout=timeouts.connect_s)
        channel.set_combine_stderr(combine)
        channel.exec_command(command)
    except (paramiko.SSHException, OSError, EOFError) as problem:
        raise unreachable(address, f"it does not run commands: {problem}") from problem
    return channel


def _go_on() -> None:
    """A command that prints much is read to its end, so that it is not held up."""


class _Reader:
    """Drains one stream in a thread, keeps at most ``limit`` bytes, and calls ``stop`` at the first byte beyond."""

    def __init__(self, receive: Callable[[int], bytes], limit: int, stop: Callable[[], None]) -> None:
        self.overflowed = False
        self._receive, self._limit, self._stop = receive, limit, stop
        self._parts: list[bytes] = []
        self.thread = threading.Thread(target=self._drain, daemon=True)
        self.thread.start()

    def _drain(self) -> None:
        kept = 0
        with contextlib.suppress(Exception):  # a channel that is closed under us has ended; its status says how
            while chunk := self._receive(_CHUNK):
                self._parts.append(chunk[: max(0, self._limit - kept)])
                kept += len(chunk)
                if kept > self._limit and not self.overflowed:
                    self.overflowed = True
                    self._stop()

    def text(self) -> str:
        """What was printed, as far as it was kept."""
        return b"".join(self._parts).decode("utf-8", errors="replace")
