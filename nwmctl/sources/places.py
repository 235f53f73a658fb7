"""Places that files come from, behind one small protocol: a folder, and whatever fsspec knows.

Invariants: never more than ``limit`` bytes are taken, however much a place offers; what a killed run has brought
stays in the part file and is continued; exceptions of foreign packages do not leave this room. Judges no content.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from nwmctl.domain.clock import Sleep
from nwmctl.errors import NwmError, SourceBackendMissingError, SourceUriError
from nwmctl.sources.part import Done, shown, take, unavailable

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:::|://)")


class Place(Protocol):
    """Somewhere with files, by relative name."""

    def fetch(self, name: str, part: Path, limit: int, *, exact: bool, done: Done) -> None:
        """Continue ``part`` until it holds the file ``name``.

        ``limit`` is the most it may hold; ``exact`` says that it must end up with just that. Raises
        SizeMismatchError beyond the limit, SourceUnavailableError, DestinationError.
        """
        ...

    def close(self) -> None:
        """Let go of connections. May be called twice."""
        ...


def open_place(uri: str, base: Path, sleep: Sleep) -> Place:
    """The place behind a URI or path; relative paths start at ``base``, ``sleep`` waits between attempts.

    Raises SourceUriError, SourceBackendMissingError, SourceUnavailableError.
    """
    if not uri or "\0" in uri:
        raise SourceUriError("the model's uri is empty or damaged", why="a path or a URL is expected", next="write one")
    if uri.startswith("file:"):
        return FolderPlace(base / _file_path(uri))
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return FolderPlace(base / Path(uri).expanduser())
    if scheme.group(1).lower() in ("http", "https"):
        from nwmctl.sources.http import HttpPlace

        return HttpPlace(uri, sleep)
    return FsspecPlace(uri)


class FolderPlace:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, name: str, part: Path, limit: int, *, exact: bool, done: Done) -> None:
        source = self._folder / name
        try:
            # A pipe or a device would hang or never end.
            if source.exists() and not source.is_file():
                raise unavailable(name, "it is not a regular file")
            file = source.open("rb")
        except OSError as problem:
            raise unavailable(name, f"{problem.strerror or problem}: {source}") from problem
        with file:
            take(file, name, part, limit, 0, done)

    def close(self) -> None:
        return


class FsspecPlace:
    """Whatever fsspec has a file system for: ``memory://``, ``s3://``, ``sftp://`` and others."""

    def __init__(self, uri: str) -> None:
        from fsspec.core import url_to_fs

        self._shown = shown(uri)
        scheme = uri.partition(":")[0]
        try:
            self._system, root = url_to_fs(uri)
        except ImportError as problem:
            raise SourceBackendMissingError(
                f"'{scheme}://' needs a package that is not installed",
                why=str(problem),
                next=f"install it: {_package(scheme)}",
            ) from problem
        except ValueError as problem:
            raise SourceUriError(
                f"'{self._shown}' cannot be understood",
                why=str(problem)[:200],
                next="write a path, or a URL with file, http, https or a scheme that fsspec knows",
            ) from problem
        except Exception as problem:  # file systems of other packages raise their own kinds
            raise unavailable(self._shown, _said(problem)) from problem
        self._root = str(root).rstrip("/")

    def fetch(self, name: str, part: Path, limit: int, *, exact: bool, done: Done) -> None:
        offset = part.stat().st_size if part.exists() else 0
        try:
            with self._system.open(f"{self._root}/{name}", "rb") as file:
                if offset:
                    file.seek(offset)
                take(file, name, part, limit, offset, done)
        except NwmError:
            raise
        except Exception as problem:  # file systems of other packages raise their own kinds
            raise unavailable(name, _said(problem)) from problem

    def close(self) -> None:
        return


def _file_path(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise SourceUriError(
            f"'{shown(uri)}' is not a folder of this machine",
            why="a file: address has a path and no host",
            next="write file:///absolute/folder or a plain path",
        )
    return unquote(parts.path)


def _package(scheme: str) -> str:
    from fsspec.registry import known_implementations

    known = known_implementations.get(scheme, {})
    return str(known.get("err") or "the package that provides this scheme for fsspec")


def _said(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
