"""The workspace: one folder with everything nwmctl keeps for a user, and the lock on it.

Keys never lie in here. The layout is known in this file alone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nwmctl.errors import InputError, WorkspaceLockedError
from nwmctl.storage.content import ContentStore


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths below one root."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Workspace:
        """Create the folder if it is not there. Raises InputError where that is impossible."""
        try:
            root.mkdir(parents=True, exist_ok=True)
            workspace = cls(root.resolve())
            for folder in (workspace.runs, workspace.state):
                folder.mkdir(exist_ok=True)
        except OSError as problem:
            raise InputError(
                f"the workspace {root} cannot be used",
                why=problem.strerror or str(problem),
                next="choose another folder with --workspace or NWMCTL_WORKSPACE",
            ) from problem
        return workspace

    @property
    def content(self) -> Path:
        """The content store."""
        return self.root / "content"

    @property
    def runs(self) -> Path:
        """One folder per run, with its journal."""
        return self.root / "runs"

    @property
    def database(self) -> Path:
        """Fleets and campaigns."""
        return self.root / "fleet.db"

    @property
    def repository(self) -> Path:
        """The TUF repository's own copy, the truth that mirrors receive."""
        return self.root / "repository"

    @property
    def mirrors(self) -> Path:
        """Local mirrors."""
        return self.root / "mirrors"

    @property
    def vehicles(self) -> Path:
        """Virtual vehicles."""
        return self.root / "vehicles"

    @property
    def state(self) -> Path:
        """Ready files and logs of processes."""
        return self.root / "state"

    def store(self) -> ContentStore:
        """The content store, created if need be."""
        return ContentStore(self.content)

    @contextmanager
    def locked(self, purpose: str) -> Iterator[None]:
        """Hold the workspace alone. Raises WorkspaceLockedError at once if another process holds it.

        The kernel drops the lock when the process dies, so a kill never leaves a stale one.
        """
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
                raise WorkspaceLockedError(
                    f"the workspace {self.root} is in use",
                    why=f"it is held by {holder}",
                    next="wait for it to end, or use another --workspace",
                ) from problem
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{purpose} (process {os.getpid()})\n".encode(), 0)
            yield
        finally:
            os.close(handle)
