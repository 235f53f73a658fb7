"""The command line as a user has it, and what a command left behind.

``Place.run`` executes ``nwmctl`` in this process, so that a refusal costs milliseconds; ``Place.spawn`` starts a real
process of its own in a session of its own, for what must be killed or needs another environment. Both refuse a
traceback. ``traces`` and ``served`` say what a command changed, and compare equal where it changed nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import nwmctl
from tests.project import ProjectFiles, write_project

ROOT = Path(nwmctl.__file__).parent.parent


def _hear_ctrl_c() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    def ok(self) -> Ran:
        assert self.code == 0, f"exit code {self.code}\n{self.err}\n{self.out}"
        return self


class _Exit(BaseException):
    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Place:
    """A release folder with a workspace and keys of its own."""

    folder: Path
    keys: Path
    project: ProjectFiles
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def new(cls, folder: Path, keys: Path, **options: Any) -> Place:
        return cls(folder, keys, write_project(folder / "release", **options))

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def environ(self) -> dict[str, str]:
        """What the command sees: nothing of the user's own settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NWMCTL_")}
        own = {
            "NWMCTL_WORKSPACE": str(self.workspace),
            "XDG_DATA_HOME": str(self.keys.parent.parent),
            "NWMCTL_WORKERS": "2",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        return {**kept, **own, **self.environment}

    def run(self, *arguments: str | Path) -> Ran:
        """Run a command in this process."""
        from nwmctl.cli.app import main

        def leave(code: int) -> None:
            raise _Exit(code)

        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["nwmctl", *map(str, arguments)]),
            mock.patch.dict(os.environ, self.environ, clear=True),
            mock.patch.object(os, "_exit", leave),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
                code = 0
            except _Exit as end:
                code = end.code
        return _whole(Ran(code, out.getvalue(), err.getvalue()))

    def run_apart(self, *arguments: str | Path, timeout: float = 120) -> Ran:
        """Run a command in a process of its own, to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "nwmctl", *map(str, arguments)],
            env=self.environ, capture_output=True, text=True, timeout=timeout, cwd=self.folder,
        )  # fmt: skip
        return _whole(Ran(done.returncode, done.stdout, done.stderr))

    @contextlib.contextmanager
    def spawn(self, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """A command as a process with a process group of its own; output goes to ``spawned.log``."""
        with (self.folder / "spawned.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "nwmctl", *map(str, arguments)],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True, preexec_fn=_hear_ctrl_c,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)

    def deploy(self, *options: str | Path) -> Ran:
        return self.run("deploy", self.project.release, *options)

    def copy(self, folder: Path) -> Place:
        """The same place elsewhere, state and all."""
        shutil.copytree(self.folder, folder)
        return Place(folder, self.keys, ProjectFiles(folder / "release"), dict(self.environment))


def _whole(ran: Ran) -> Ran:
    assert "Traceback" not in ran.err + ran.out, ran.err + ran.out
    return ran


# --- what a command left behind -----------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder with the hash of its bytes. Empty where there is no folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table. Empty where there is no database."""
    if not database.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in sorted(names)}


def traces(place: Place) -> Mapping[str, object]:
    """Everything in the workspace: files with hashes, rows."""
    files = {name: digest for name, digest in tree(place.workspace).items() if not name.startswith("fleet.db")}
    return {"files": files, "rows": rows(place.workspace / "fleet.db")}


def served(place: Place) -> Mapping[str, object]:
    """What anybody outside could notice: mirrors, repository, vehicles, rows. A run's journal, what the content store
    holds and the logs of processes are ours alone."""
    parts = {name: tree(place.workspace / name) for name in ("mirrors", "repository", "vehicles")}
    known = {name: found for name, found in rows(place.workspace / "fleet.db").items() if found}
    # The schema's version is written when the database is opened first, and says nothing about a fleet.
    return {**parts, "rows": {name: found for name, found in known.items() if name != "schema_version"}}


def refused(ran: Ran, error: str, code: int, *words: str) -> dict[str, Any]:
    """Assert that a command run with --json refused with this error, in one document, and said it to people too."""
    assert ran.code == code, f"exit code {ran.code}, {code} was expected\n{ran.err}\n{ran.out}"
    document: dict[str, Any] = ran.json
    assert document["error"] == error, document
    assert document["exit_code"] == code
    for part in ("what", "why", "next"):
        assert document[part].strip(), f"'{part}' is empty: {document}"
        assert document[part].split("\n")[0].strip() in ran.err.replace("\n", " ") or part == "why", ran.err
    said = json.dumps(document, ensure_ascii=False)
    for word in words:
        assert word in said, f"'{word}' is not in {said}"
    return document
