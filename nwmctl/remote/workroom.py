"""A fresh folder on another machine in which programs run, and which vanishes with the connection.

One channel is the *lifeline*: a small script there makes the folder, waits for the end of its input and then kills
what still runs and removes the folder. Its input ends when we close it, when we die and when the connection breaks, so
nothing stays behind in any case. Programs run in a session of their own with a fixed environment, with limits of time,
memory and file size that hold there too. Names there are ours; arguments are quoted, so that no shell reads them.

Needs a POSIX ``sh`` and ``mktemp``, ``setsid``, ``timeout`` and ``sha256sum`` there (coreutils and util-linux, or
busybox). Does not know what the programs are for.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nwmctl.domain.digest import Digest
from nwmctl.errors import HostUnreachableError, NwmError, RemoteDiskFullError, RemoteFileError, TransferDamagedError
from nwmctl.remote.execute import Executed, execute, start
from nwmctl.remote.sftp import SftpFiles
from nwmctl.remote.ssh import HostKey, SshAddress, Timeouts, connect, unreachable

if TYPE_CHECKING:
    import paramiko

_PIECE = 1 << 18
_GRACE_S = 30.0
"""So much later the host itself ends a program that we, cut off, could not end."""
_FOLDER = re.compile(r"/[!-~]+\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z")
_PATH = "/usr/local/bin:/usr/bin:/bin"
_LIFELINE = """umask 077
d=$(mktemp -d "$1/nwmctl-XXXXXXXXXX") && mkdir "$d/work" || exit 1
echo "$d"
cat > /dev/null
test -s "$d/group" && kill -s KILL -- "-$(cat "$d/group")" 2> /dev/null
rm -rf -- "$d" || { sleep 1; rm -rf -- "$d"; }
"""
_RUN = """cd {work} || exit 125
umask {umask:o}
ulimit -c 0
{limits}
env -i {environment} setsid timeout -s KILL {seconds} {argv} < /dev/null &
p=$!
echo $p > ../group
wait $p
s=$?
kill -s KILL -- -$p 2> /dev/null
rm -f ../group
exit $s
"""


@dataclass(frozen=True, slots=True)
class Login:
    """Where and how to log in: ``host_key`` is the pinned public key, ``folder`` where fresh folders are made."""

    address: SshAddress
    host_key: str
    identity: Path
    folder: str = "/tmp"
    path: tuple[str, ...] = ()
    """Folders there that are searched for programs before the usual ones."""


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """``timeout_s`` seconds, ``memory_bytes`` of data, ``file_bytes`` of any one file (0: no limit), ``output_bytes``
    printed."""

    timeout_s: float
    memory_bytes: int = 0
    file_bytes: int = 0
    output_bytes: int = 16 << 20


class Workroom:
    """Use as a context manager. Every method raises HostUnreachableError where the connection breaks."""

    def __init__(
        self,
        login: Login,
        timeouts: Timeouts,
        transport: paramiko.Transport,
        files: SftpFiles,
        lifeline: paramiko.Channel,
    ) -> None:
        self._login, self._timeouts, self._transport = login, timeouts, transport
        self._files, self._lifeline = files, lifeline
        self._folder = _first_line(lifeline, login.address, timeouts)

    @classmethod
    def open(cls, login: Login, timeouts: Timeouts | None = None) -> Workroom:
        """Connect and make the folder. Raises HostKeyError, HostKeyFormatError, IdentityError, LoginRefusedError,
        HostUnreachableError, RemoteFileError."""
        timeouts = timeouts or Timeouts()
        transport = connect(login.address, HostKey.parse(login.host_key), login.identity, timeouts)
        # A host that went away without a word is noticed, too.
        transport.set_keepalive(15)
        files = SftpFiles.over(transport, login.address, timeouts)
        try:
            command = f"exec sh -c {shlex.quote(_LIFELINE)} sh {shlex.quote(login.folder)}"
            return cls(
                login, timeouts, transport, files, start(transport, login.address, command, timeouts, combine=True)
            )
        except BaseException:
            files.close()
            raise

    def put(self, name: str, path: Path) -> None:
        """Copy a file there. Raises RemoteDiskFullError, RemoteFileError, TransferDamagedError."""
        try:
            self._files.write(self._at(name), _pieces(path))
        except RemoteFileError as problem:
            self._explain(problem, path.stat().st_size)
            raise
        with path.open("rb") as stream:
            here = (Digest(hashlib.file_digest(stream, "sha256").hexdigest()), path.stat().st_size)
        if self.describe(name) != here:
            raise self._damaged(name)

    def describe(self, name: str) -> tuple[Digest, int] | None:
        """What the host says about a file: digest and size in bytes; None where there is no regular file."""
        path = shlex.quote(self._at(name))
        said = self._execute(f"test -f {path} && sha256sum < {path} && wc -c < {path}", self._timeouts.answer_s * 5)
        words = said.output.split()
        if said.status != 0 or len(words) != 3 or not re.fullmatch(r"[0-9a-f]{64}", words[0]):
            return None
        return Digest(words[0]), int(words[2])

    def get(self, name: str, into: Path, limit: int) -> None:
        """Fetch a file into ``into``; complete and as the host describes it, or not at all. Raises RemoteFileError,
        TransferDamagedError."""
        told = self.describe(name)
        if told is None or told[1] > limit:
            found = "it is not there" if told is None else f"it has {told[1]} bytes, at most {limit} are expected"
            raise RemoteFileError(
                f"{self._login.address} has no '{name}' that can be fetched",
                why=found,
                next="see what the program there leaves, and correct its arguments",
            )
        state, size, partial = hashlib.sha256(), 0, into.with_name(into.name + ".part")
        try:
            with partial.open("wb") as file:
                for piece in self._files.read(self._at(name)):
                    state.update(piece)
                    size += len(piece)
                    file.write(piece)
            if (Digest(state.hexdigest()), size) != told:
                raise self._damaged(name)
            partial.replace(into)
        finally:
            partial.unlink(missing_ok=True)

    def run(
        self, argv: tuple[str, ...], limits: RemoteLimits, environment: Mapping[str, str], umask: int = 0o022
    ) -> Executed:
        """Run a program in the folder; ``status`` is None where its time was over and it was killed.

        A status above 128 is the end by that signal, 127 that there is no such program. Raises RemoteFileError.
        """
        script = f"{self._folder}/run"
        self._files.write(script, [self._script(argv, limits, environment, umask).encode()])
        timeouts = Timeouts(self._timeouts.connect_s, limits.timeout_s)
        done = execute(
            self._transport, self._login.address, f"exec sh {script}", timeouts,
            output_bytes=limits.output_bytes, apart=True,
        )  # fmt: skip
        if done.status is None:
            group = f"{self._folder}/group"
            with contextlib.suppress(NwmError):
                self._execute(f'test -s {group} && kill -s KILL -- "-$(cat {group})"; rm -f {group}', 10.0)
        return done

    def free_bytes(self) -> int | None:
        """Room on the disk of the folder; None where the host does not tell."""
        said = self._execute(f"df -Pk {self._folder}", 20.0)
        words = said.output.strip().rpartition("\n")[2].split()
        return int(words[3]) * 1024 if len(words) > 3 and words[3].isdigit() else None

    def close(self) -> None:
        """End everything there and remove the folder. May be called twice."""
        with contextlib.suppress(Exception):
            self._lifeline.shutdown_write()
            # Its end is waited for, so that the folder is gone when this returns.
            self._lifeline.status_event.wait(self._timeouts.connect_s)
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _script(self, argv: tuple[str, ...], limits: RemoteLimits, environment: Mapping[str, str], umask: int) -> str:
        work = f"{self._folder}/work"
        fixed = {
            "PATH": ":".join((*self._login.path, _PATH)),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "HOME": work,
            "TMPDIR": ".",
            **environment,
        }
        # A host whose own limit is stricter refuses to raise it: then the stricter one holds.
        wanted = [("-d", limits.memory_bytes // 1024), ("-f", limits.file_bytes // 512)]
        return _RUN.format(
            work=shlex.quote(work),
            umask=umask,
            limits="\n".join(f"ulimit {flag} {count} 2> /dev/null" for flag, count in wanted if count),
            environment=" ".join(shlex.quote(f"{name}={value}") for name, value in fixed.items()),
            seconds=f"{limits.timeout_s + _GRACE_S:.0f}",
            argv=shlex.join(argv),
        )

    def _execute(self, command: str, answer_s: float) -> Executed:
        quoted = f"exec sh -c {shlex.quote(command)}"
        return execute(self._transport, self._login.address, quoted, Timeouts(self._timeouts.connect_s, answer_s))

    def _at(self, name: str) -> str:
        if not _NAME.match(name):
            raise ValueError(f"'{name}' is no plain relative name")
        return f"{self._folder}/work/{name}"

    def _explain(self, problem: RemoteFileError, needed: int) -> None:
        """SFTP says only "failure" where the disk is full; a disk that has less room than is needed says more."""
        with contextlib.suppress(HostUnreachableError):
            free = self.free_bytes()
            if free is not None and free < needed:
                raise RemoteDiskFullError(
                    f"the disk of {self._login.address} is full",
                    why=f"{free >> 10} kB are left in '{self._login.folder}'; a file of {needed >> 10} kB did not fit",
                    next="free some space there, or name another 'folder:' for that host",
                ) from problem

    def _damaged(self, name: str) -> TransferDamagedError:
        return TransferDamagedError(
            f"'{name}' was damaged on its way to or from {self._login.address}",
            why="its digest or size there and here differ",
            next="run the command again; if it persists, check that host's disk",
        )


def _first_line(lifeline: paramiko.Channel, address: SshAddress, timeouts: Timeouts) -> str:
    """The folder that the lifeline has made. Raises HostUnreachableError, RemoteFileError."""
    lifeline.settimeout(timeouts.answer_s)
    said = b""
    try:
        while not said.endswith(b"\n") and len(said) < 4096 and (piece := lifeline.recv(256)):
            said += piece
    except (OSError, EOFError) as problem:  # paramiko's timeout is an OSError
        raise unreachable(address, "it does not answer") from problem
    folder = said.decode("utf-8", "replace").rstrip("\n")
    if not said.endswith(b"\n") or not _FOLDER.match(folder):
        raise RemoteFileError(
            f"{address} could not make a folder",
            why=" ".join(folder.split())[:300] or "it said nothing",
            next="check that the host's 'folder:' exists, may be written and has room",
        )
    return folder


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
