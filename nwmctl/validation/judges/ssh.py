"""A judge that is a program on another machine, such as the computer of a hardware-in-the-loop rig.

Its folder there is made for one question and removed afterwards. The host proves its pinned key before anything is
sent. The time limit is kept there too (by coreutils' ``timeout``), so that a broken connection leaves nothing running.
"""

from __future__ import annotations

import contextlib
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nwmctl.domain.judge import JudgeRequest
from nwmctl.errors import JudgeFailedError, JudgeTimeoutError, NwmError
from nwmctl.remote.execute import Executed, execute
from nwmctl.remote.sftp import SftpFiles
from nwmctl.remote.ssh import HostKey, SshAddress, Timeouts, connect
from nwmctl.trust.judgements import MAX_ENVELOPE
from nwmctl.validation.judges.command import no_answer
from nwmctl.validation.judges.protocol import ANSWER, REQUEST, Material, question

if TYPE_CHECKING:
    import paramiko

_CHUNK = 1 << 18
_GRACE_S = 15.0
_LATE = frozenset({124, 137})
"""What ``timeout`` exits with when it has ended its command."""
_MAKE_FOLDER = 'umask 077; mktemp -d "${TMPDIR:-/tmp}/nwmctl-judge.XXXXXXXXXX"'
_FOLDER = re.compile(r"/[!-~]+\Z")


@dataclass(frozen=True, slots=True)
class SshJudge:
    """Runs ``argv`` at ``address`` (``user@host`` or ``user@host:port``), whose key is ``host_key``."""

    name: str
    address: str
    host_key: str
    identity: Path
    argv: tuple[str, ...]
    timeout_s: float
    memory_mb: int

    def fingerprint(self) -> str:
        """The command and the host that it runs on; what lies there cannot be seen from here."""
        return f"{self.address} {self.host_key} {shlex.join(self.argv)}"

    def ask(self, request: JudgeRequest, material: Material) -> bytes:
        """See ``Judge.ask``. Raises JudgeTimeoutError, JudgeFailedError, HostUnreachableError, LoginRefusedError,
        HostKeyError, HostKeyFormatError, IdentityError, RemoteFileError."""
        address, timeouts = SshAddress.parse(f"sftp://{self.address}/"), Timeouts()
        transport = connect(address, HostKey.parse(self.host_key), self.identity, timeouts)
        with SftpFiles.over(transport, address, timeouts) as files:
            made = execute(transport, address, _MAKE_FOLDER, timeouts)
            folder = made.output.strip()
            if made.status != 0 or not _FOLDER.match(folder):
                raise self._failed("it could not make a folder", made)
            try:
                files.write(f"{folder}/{REQUEST}", [question(request)])
                for name, path in material.files.items():
                    files.write(f"{folder}/{name}", _pieces(path))
                self._run(transport, address, folder)
                return self._answer(files, f"{folder}/{ANSWER}")
            finally:
                with contextlib.suppress(NwmError):
                    execute(transport, address, f"rm -rf -- {shlex.quote(folder)}", timeouts)

    def _run(self, transport: paramiko.Transport, address: SshAddress, folder: str) -> None:
        limit = math.ceil(self.timeout_s)
        command = (
            f"cd {shlex.quote(folder)} && ulimit -d {self.memory_mb * 1024} && "
            f"exec timeout --kill-after=5 {limit} {shlex.join(self.argv)}"
        )
        done = execute(transport, address, command, Timeouts(answer_s=limit + _GRACE_S))
        if done.status is None or done.status in _LATE:
            raise JudgeTimeoutError(
                f"judge '{self.name}' did not end within {self.timeout_s:g} s and was killed",
                why=_last(done) or "it printed nothing",
                next="raise its 'timeout_s' in the release, or ask it for less",
            )
        if done.status:
            raise self._failed(f"it ended with {done.status}", done)

    def _answer(self, files: SftpFiles, path: str) -> bytes:
        size = files.size(path)
        if size is None:
            raise no_answer(self.name, f"it left no file '{ANSWER}'")
        data = bytearray()
        for chunk in files.read(path):
            data += chunk
            if len(data) > MAX_ENVELOPE:
                break
        return bytes(data[: MAX_ENVELOPE + 1])

    def _failed(self, what: str, done: Executed) -> JudgeFailedError:
        return JudgeFailedError(
            f"judge '{self.name}' at {self.address} failed: {what}",
            why=_last(done) or "it printed nothing",
            next="log in there and run its command by hand on the question of `nwmctl judge request`",
        )


def _last(done: Executed) -> str:
    lines = [line.strip()[:300] for line in done.output.splitlines() if line.strip()]
    return " | ".join(lines[-8:])


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
