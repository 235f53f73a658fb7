"""Where the programs of a declaration run: in the scratch folder here, or in a fresh folder on a named host.

Both are one thing to the driver: files go in under fixed names, programs run with the folder as their working
directory, files come out. What the end of a program means is decided in ``endings`` in both cases. A connection
that breaks is a RemoteError and never a failure of the compiler.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from nwmctl.errors import RemoteDiskFullError, ToolchainError, ToolchainMissingError
from nwmctl.remote.workroom import Login, RemoteLimits, Workroom
from nwmctl.toolchains import endings, surroundings
from nwmctl.toolchains.process import Command, Finished, clean_environment, run_tool

_PAYLOAD_BYTES = 64 << 30
"""No payload is larger; a host that sends without end is cut off."""
_FULL_BYTES = 1 << 20
"""A program that failed on a disk with less room than this failed for that reason."""
_NOT_FOUND = (126, 127)
_HERE = frozenset({"PATH", "HOME", "TMPDIR"})
"""Of the fixed environment, what is of this machine."""


class Workplace(Protocol):
    """Where programs run. Raises RemoteError subclasses where the host or the way to it fails."""

    def put(self, name: str, path: Path) -> None:
        """Have a file there under that name."""
        ...

    def run(self, command: Command) -> Finished:
        """Run ``command.argv``; its first item is a program's name. Raises as ``run_tool`` does."""
        ...

    def fetch(self, name: str) -> Path | None:
        """The file that a program left under that name, as a file here; None where there is none, or an empty one."""
        ...


class _Here:
    def __init__(self, scratch: Path, install: str) -> None:
        self._scratch, self._install = scratch, install

    def put(self, name: str, path: Path) -> None:
        place = self._scratch / name
        if path.resolve() == place.resolve():
            return
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)

    def run(self, command: Command) -> Finished:
        program = shutil.which(command.argv[0])
        if program is None:
            raise _missing(command, "here", self._install)
        return run_tool(replace(command, argv=(str(Path(program).absolute()), *command.argv[1:])))

    def fetch(self, name: str) -> Path | None:
        place = self._scratch / name
        return place if place.is_file() and place.stat().st_size else None


class _There:
    def __init__(self, room: Workroom, scratch: Path, host: str, install: str) -> None:
        self._room, self._scratch, self._host, self._install = room, scratch, host, install

    def put(self, name: str, path: Path) -> None:
        self._room.put(name, path)

    def run(self, command: Command) -> Finished:
        try:
            return run_there(self._room, command, self._host, self._install)
        except ToolchainError as problem:
            free = self._room.free_bytes()
            if free is None or free >= _FULL_BYTES:
                raise
            raise RemoteDiskFullError(
                f"the disk of the host '{self._host}' is full",
                why=f"{free >> 10} kB are left there; {problem.what}",
                next="free some space there, or name another 'folder:' for that host",
            ) from problem

    def fetch(self, name: str) -> Path | None:
        told = self._room.describe(name)
        if told is None or not told[1]:
            return None
        place = self._scratch / Path(name).name
        self._room.get(name, place, _PAYLOAD_BYTES)
        return place


def run_there(room: Workroom, command: Command, host: str, install: str) -> Finished:
    """Run a command in a remote folder, with its limits. Raises as ``run_tool`` does, and RemoteError subclasses."""
    limits, around = command.limits, surroundings.here()
    fixed = {name: value for name, value in clean_environment(Path(), {}).items() if name not in _HERE}
    ended = room.run(
        command.argv,
        RemoteLimits(
            limits.timeout_s, limits.memory_bytes, limits.file_bytes or limits.scratch_bytes, limits.output_bytes
        ),
        {**fixed, **command.environment, **around.environment},
        around.umask,
    )
    status = ended.status
    if status in _NOT_FOUND and command.argv[0] in ended.errors:
        raise _missing(command, f"on the host '{host}'", install)
    if status is not None and status > 128:
        status = 128 - status  # a shell's word for the end by a signal
    problem = endings.refusal(
        command, status or 0, ended.output, ended.errors, endings.Seen(),
        late=status is None and not ended.overflowed, overflowed=ended.overflowed,
    )  # fmt: skip
    if problem is not None:
        raise problem
    return Finished(ended.output, ended.errors)


@contextmanager
def workplace(scratch: Path, host: str, login: Login | None, install: str) -> Iterator[Workplace]:
    """The scratch folder itself, or, with a ``login``, a fresh folder of that host whose files come into ``scratch``.

    Raises HostKeyError, IdentityError, LoginRefusedError, HostUnreachableError, RemoteFileError.
    """
    if login is None:
        yield _Here(scratch, install)
        return
    with Workroom.open(login) as room:
        yield _There(room, scratch, host, install)


def _missing(command: Command, where: str, install: str) -> ToolchainMissingError:
    return ToolchainMissingError(
        f"the toolchain '{command.tool}' is not installed {where}",
        why=f"there is no program '{command.argv[0]}'",
        next=install,
    )
