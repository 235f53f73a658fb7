"""Mirrors: folders, here or behind SFTP, in which a release's files stand before anybody may install them.

Invariants: a name on a mirror appears with all its bytes or not at all; only bytes whose digest was checked on the
way get a name; a killed run leaves at most a hidden partial file, which the next run overwrites. Does not decide what
goes where or when.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import unquote, urlsplit

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.release import Mirror
from nwmctl.errors import (
    MirrorNameError,
    MirrorUriError,
    MirrorWriteError,
    RemoteError,
    RemoteFileError,
    StagedFileChangedError,
)
from nwmctl.publishing.local import LocalFiles
from nwmctl.remote.sftp import RemoteFiles, SftpFiles
from nwmctl.remote.ssh import SshAddress, Timeouts

Progress = Callable[[int], None]
"""Called with the bytes done so far."""

_CHUNK = 1 << 18
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=-]{0,200}\Z")


@dataclass(frozen=True, slots=True)
class Prepared:
    """Bytes that lie on a mirror under a hidden name and lack only their real one."""

    hidden: str
    name: str


class MirrorSession(AbstractContextManager["MirrorSession"], Protocol):
    """An open mirror. Names are relative, with ``/``. Methods raise MirrorNameError, MirrorWriteError or, for a
    mirror behind SSH, RemoteFileError and HostUnreachableError."""

    @property
    def name(self) -> str:
        """As the release calls it."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""
        ...

    def exists(self, name: str) -> bool:
        """Whether the name is taken."""
        ...

    def put_file(self, name: str, source: Path, digest: Digest, progress: Progress | None = None) -> None:
        """Send a file, replacing what has the name. Raises StagedFileChangedError if ``source`` is not ``digest``."""
        ...

    def put_bytes(self, name: str, data: bytes) -> None:
        """Send bytes, replacing what has the name."""
        ...

    def prepare(self, name: str, data: bytes) -> Prepared:
        """Send bytes under a hidden name; ``settle`` gives them their own."""
        ...

    def settle(self, prepared: Prepared) -> None:
        """Give prepared bytes their name, in one step."""
        ...

    def read(self, name: str, limit: int) -> bytes | None:
        """A small file's bytes, None where there is none. Raises MirrorWriteError above ``limit`` bytes."""
        ...

    def read_back(self, name: str, progress: Progress | None = None) -> Digest | None:
        """The digest of what the mirror returns, None where there is nothing."""
        ...

    def close(self) -> None:
        """End the session. May be called twice."""
        ...


class FilesMirror:
    """A mirror over any RemoteFiles below a root folder."""

    def __init__(self, name: str, files: RemoteFiles, root: str) -> None:
        self._name = name
        self._files = files
        self._root = root.rstrip("/")

    @property
    def name(self) -> str:
        return self._name

    def size(self, name: str) -> int | None:
        return self._files.size(self._place(name))

    def exists(self, name: str) -> bool:
        return self.size(name) is not None

    def put_file(self, name: str, source: Path, digest: Digest, progress: Progress | None = None) -> None:
        self.settle(self._send(name, digest, _checked(source, digest, progress)))

    def put_bytes(self, name: str, data: bytes) -> None:
        self.settle(self.prepare(name, data))

    def prepare(self, name: str, data: bytes) -> Prepared:
        return self._send(name, digest_bytes(data), [data])

    def settle(self, prepared: Prepared) -> None:
        self._files.rename(self._place(prepared.hidden, hidden=True), self._place(prepared.name))

    def read(self, name: str, limit: int) -> bytes | None:
        size = self.size(name)
        if size is None:
            return None
        data = bytearray()
        for chunk in self._files.read(self._place(name)):
            data += chunk
            if len(data) > limit:
                raise MirrorWriteError(
                    f"'{name}' on mirror '{self._name}' is too large",
                    why=f"more than {limit} bytes are not expected there",
                    next="look at the mirror: somebody else wrote this file",
                )
        return bytes(data)

    def read_back(self, name: str, progress: Progress | None = None) -> Digest | None:
        if self.size(name) is None:
            return None
        return _digest(self._files.read(self._place(name)), progress)

    def close(self) -> None:
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, name: str, digest: Digest, chunks: Iterable[bytes]) -> Prepared:
        folder, _, last = name.rpartition("/")
        # The digest in the hidden name keeps two versions of one name apart; a leftover is simply written again.
        hidden = "/".join(part for part in (folder, f".partial-{digest.short}-{last}") if part)
        place = self._place(hidden, hidden=True)
        self._place(name)
        self._files.make_folder(place.rpartition("/")[0])
        try:
            self._files.write(place, chunks)
        except (StagedFileChangedError, MirrorWriteError, RemoteFileError):
            # On a full disk the part of a file that did fit would take the space that others need.
            with suppress(RemoteError):
                self._files.remove(place)
            raise
        return Prepared(hidden, name)

    def _place(self, name: str, *, hidden: bool = False) -> str:
        parts = name.split("/")
        shown = [*parts[:-1], parts[-1].removeprefix(".partial-")] if hidden else parts
        if not all(_PART.match(part) for part in shown):
            raise MirrorNameError(
                f"'{name[:120]}' cannot be a name on a mirror",
                why="names are relative, without hidden or parent folders, of letters, digits and . _ + @ = -",
                next="rename the release or the platform",
            )
        return f"{self._root}/{name}"


def open_mirror(mirror: Mirror, base: Path, timeouts: Timeouts | None = None) -> MirrorSession:
    """Open a mirror; relative ``file:`` paths and identities start at ``base``.

    Raises MirrorUriError and, for SFTP, HostKeyError, HostKeyFormatError, IdentityError, LoginRefusedError,
    HostUnreachableError.
    """
    scheme = mirror.uri.partition(":")[0]
    if scheme == "file":
        root = base / _file_path(mirror.uri)
        return FilesMirror(mirror.name, LocalFiles(mirror.name), str(root))
    if scheme == "sftp":
        address = SshAddress.parse(mirror.uri)
        files = SftpFiles.open(address, mirror.host_key, base / Path(mirror.identity).expanduser(), timeouts)
        return FilesMirror(mirror.name, files, address.path)
    raise _bad_uri(mirror, f"'{scheme[:20]}' is not a scheme of mirrors")


def _file_path(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise MirrorUriError(
            f"'{uri[:120]}' is not a folder of this machine",
            why="a file: address has a path and no host",
            next="write file:folder (relative to the workspace) or file:///absolute/folder",
        )
    return unquote(parts.path)


def _bad_uri(mirror: Mirror, reason: str) -> MirrorUriError:
    return MirrorUriError(
        f"mirror '{mirror.name}' has an address that cannot be used",
        why=reason,
        next="write file:folder, file:///folder or sftp://user@host:port/folder",
    )


def _checked(source: Path, digest: Digest, progress: Progress | None) -> Iterator[bytes]:
    # A generator on purpose: it ends with an error before the mirror's own write can end well.
    state = hashlib.sha256()
    done = 0
    try:
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK):
                state.update(chunk)
                done += len(chunk)
                yield chunk
                if progress is not None:
                    progress(done)
    except OSError as problem:
        raise _changed(source, problem.strerror or str(problem)) from problem
    if state.hexdigest() != digest.hex:
        raise _changed(source, f"its digest is {Digest(state.hexdigest()).short}, {digest.short} was planned")


def _changed(source: Path, reason: str) -> StagedFileChangedError:
    return StagedFileChangedError(
        f"'{source.name}' is not what was planned to be staged",
        why=reason,
        next="run the command again; if it happens again, check the disk",
    )


def _digest(chunks: Iterable[bytes], progress: Progress | None) -> Digest:
    state = hashlib.sha256()
    done = 0
    for chunk in chunks:
        state.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done)
    return Digest(state.hexdigest())
