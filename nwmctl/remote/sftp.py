"""Files on another machine, through SFTP.

Invariants: a name appears only with all its bytes (temporary name, fsync where the server offers it, rename over);
paths are used as given and checked by the caller; no exception of paramiko or of the socket leaves this room. Does
not retry.
"""

from __future__ import annotations

import contextlib
import errno
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from nwmctl.errors import HostUnreachableError, RemoteFileError
from nwmctl.remote.ssh import HostKey, SshAddress, Timeouts, connect, unreachable

if TYPE_CHECKING:
    import paramiko

_CHUNK = 1 << 15
_FSYNC = "fsync@openssh.com"


class RemoteFiles(Protocol):
    """Files of one host. Every method raises RemoteFileError or HostUnreachableError, and nothing else."""

    def size(self, path: str) -> int | None:
        """Bytes of a regular file, None where there is nothing."""
        ...

    def list(self, folder: str) -> tuple[str, ...]:
        """Names in a folder, sorted; empty where there is no folder."""
        ...

    def make_folder(self, path: str) -> None:
        """Make a folder and its parents; one that exists is fine."""
        ...

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file's bytes and make them durable where the server can. Overwrites."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what has it."""
        ...

    def read(self, path: str) -> Iterator[bytes]:
        """A file's bytes, in pieces."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        ...

    def close(self) -> None:
        """End the connection. May be called twice."""
        ...


class SftpFiles:
    """RemoteFiles over one SFTP session. Use as a context manager. ``durable`` tells whether fsync is offered."""

    def __init__(self, transport: paramiko.Transport, client: paramiko.SFTPClient, address: SshAddress) -> None:
        self._transport = transport
        self._client = client
        self._address = address
        self.durable: bool | None = None
        """None until the first file was written."""

    @classmethod
    def open(cls, address: SshAddress, host_key: str, identity: Path, timeouts: Timeouts | None = None) -> SftpFiles:
        """Connect. Raises HostKeyError, HostKeyFormatError, IdentityError, LoginRefusedError, HostUnreachableError."""
        timeouts = timeouts or Timeouts()
        return cls.over(connect(address, HostKey.parse(host_key), identity, timeouts), address, timeouts)

    @classmethod
    def over(cls, transport: paramiko.Transport, address: SshAddress, timeouts: Timeouts) -> SftpFiles:
        """A session over a connection that is there already, which it then owns. Raises HostUnreachableError."""
        import paramiko

        try:
            client = paramiko.SFTPClient.from_transport(transport)
            if client is None:
                raise paramiko.SSHException("no channel")
            channel = client.get_channel()
            if channel is not None:
                channel.settimeout(timeouts.answer_s)
        except (paramiko.SSHException, OSError, EOFError) as problem:
            transport.close()
            raise unreachable(address, f"it offers no SFTP: {problem}") from problem
        return cls(transport, client, address)

    def size(self, path: str) -> int | None:
        with self._translated("look at", path):
            try:
                found = self._client.stat(path)
            except FileNotFoundError:
                return None
            if found.st_mode is None or not stat.S_ISREG(found.st_mode) or found.st_size is None:
                raise OSError(errno.EINVAL, "it is not a regular file")
            return found.st_size

    def list(self, folder: str) -> tuple[str, ...]:
        with self._translated("list", folder):
            try:
                return tuple(sorted(self._client.listdir(folder)))
            except FileNotFoundError:
                return ()

    def make_folder(self, path: str) -> None:
        with self._translated("make the folder", path):
            missing: list[str] = []
            while not self._is_folder(path):
                missing.append(path)
                path = posixpath.dirname(path)
            for folder in reversed(missing):
                try:
                    self._client.mkdir(folder)
                except OSError:
                    if not self._is_folder(folder):  # another session may have been faster
                        raise

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        with self._translated("write", path):
            with self._client.open(path, "wb") as file:
                file.set_pipelined(True)
                held = b""
                for chunk in filter(None, chunks):
                    file.write(held)
                    held = chunk
                # The answers to pipelined writes are only looked at by a write that waits: without this last one a
                # full disk would go unnoticed.
                file.set_pipelined(False)
                file.write(held)
                file.flush()
                self._sync(file)

    def rename(self, old: str, new: str) -> None:
        with self._translated("rename", new):
            try:
                self._client.posix_rename(old, new)
            except OSError as problem:
                if not _not_offered(problem):
                    raise
                # Plain SFTP renames to a free name only. Replacing in two steps is not done: it could lose both.
                self._client.rename(old, new)

    def read(self, path: str) -> Iterator[bytes]:
        with self._translated("read", path):
            with self._client.open(path, "rb") as file:
                file.prefetch(max_concurrent_requests=64)
                while chunk := file.read(_CHUNK):
                    yield chunk

    def remove(self, path: str) -> None:
        with self._translated("remove", path):
            with contextlib.suppress(FileNotFoundError):
                self._client.remove(path)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._client.close()
        with contextlib.suppress(Exception):
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_folder(self, path: str) -> bool:
        if path in ("", "/", "."):
            return True
        try:
            mode = self._client.stat(path).st_mode
        except FileNotFoundError:
            return False
        if mode is None or not stat.S_ISDIR(mode):
            raise OSError(errno.ENOTDIR, f"'{posixpath.basename(path)}' is not a folder")
        return True

    def _sync(self, file: paramiko.SFTPFile) -> None:
        from paramiko.sftp import CMD_EXTENDED

        # paramiko has no public door to server extensions; the handle and the request are stable since its start.
        request: Callable[..., object] = getattr(self._client, "_request")  # noqa: B009
        try:
            request(CMD_EXTENDED, _FSYNC, file.handle)
            self.durable = True
        except OSError as problem:
            if not _not_offered(problem):
                raise
            self.durable = False

    @contextmanager
    def _translated(self, what: str, path: str) -> Iterator[None]:
        import paramiko

        try:
            yield
        except (RemoteFileError, HostUnreachableError):
            raise
        except (paramiko.SSHException, EOFError, TimeoutError, ConnectionError) as problem:
            raise unreachable(self._address, f"while it should {what} '{path}': {_said(problem)}") from problem
        except OSError as problem:
            if not self._transport.is_active():
                raise unreachable(self._address, f"while it should {what} '{path}': {_said(problem)}") from problem
            raise RemoteFileError(
                f"{self._address} could not {what} '{path}'",
                why=_said(problem),
                next="check the path, the permissions and the free space there, then run the command again",
            ) from problem


def _not_offered(problem: OSError) -> bool:
    # A server that lacks an extension says "unsupported"; OpenSSH with the extension denied says "permission denied".
    return problem.errno == errno.EACCES or (problem.errno is None and "unsupported" in str(problem).lower())


def _said(problem: BaseException) -> str:
    strerror = getattr(problem, "strerror", None)
    return str(strerror or problem) or type(problem).__name__
