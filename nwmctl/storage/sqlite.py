"""SQLite, through the standard library: the dialect that needs no server.

Write-ahead log, so that readers never wait; ``synchronous=FULL``, so that what was acknowledged survives a power cut;
foreign keys on; a writer waits for another one up to ``BUSY_MS``.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from nwmctl.errors import DatabaseBusyError, DatabaseFailedError, DatabaseUnusableError, NwmError
from nwmctl.storage.database import Database

BUSY_MS = 20_000
CACHE_KIB = 256 * 1024
"""An upper bound: a large plan touches the whole fleet's indexes, and a small cache would make it swap."""


class SqliteDialect:
    """A database file. Its folder must exist."""

    name = "sqlite"
    begin = "BEGIN IMMEDIATE"

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self) -> sqlite3.Connection:
        """A connection in autocommit mode with the settings that this project relies on."""
        # Only close() comes from another thread, and only when nothing runs any more.
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=256)
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def usable(self, connection: sqlite3.Connection) -> bool:
        """A file stays where it is."""
        return True

    def translate(self, sql: str) -> str:
        """SQLite takes ``:name`` as it is; a row id needs no more than the integer primary key."""
        return sql.replace("AUTO_ID", "INTEGER PRIMARY KEY")

    def refusal(self, problem: Exception) -> NwmError | None:
        """Lock time-outs, unusable files, and the rest."""
        if not isinstance(problem, sqlite3.Error):
            return None
        text = str(problem)
        if "locked" in text or "busy" in text:
            return DatabaseBusyError(
                f"the database {self.path.name} is in use",
                why=f"another process has been writing for {BUSY_MS // 1000} seconds",
                next="wait for the other command to end, then repeat this one",
            )
        unusable = ("unable to open", "not a database", "malformed", "readonly", "disk I/O", "is full")
        if any(words in text for words in unusable):
            return DatabaseUnusableError(
                f"the database {self.path} cannot be used",
                why=text,
                next="check that the folder exists, is writable and has space, and that the file is nwmctl's own",
            )
        return DatabaseFailedError(
            f"the database {self.path.name} refused a statement",
            why=text,
            next="this is a defect of nwmctl: report it with the command that led here",
        )


def open_sqlite(path: Path) -> Database:
    """The database in the file ``path``; made when first used."""
    return Database(SqliteDialect(path))
