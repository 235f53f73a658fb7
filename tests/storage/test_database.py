"""Transactions, migrations and refusals of the database connection."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from nwmctl.errors import DatabaseBusyError, DatabaseFailedError, DatabaseTooNewError, DatabaseUnusableError
from nwmctl.storage import sqlite as sqlite_room
from nwmctl.storage.database import Database, Migration, Transaction
from nwmctl.storage.sqlite import open_sqlite

FIRST = Migration("room", 1, "CREATE TABLE thing (id AUTO_ID, name TEXT NOT NULL UNIQUE);")
SECOND = Migration("room", 2, "ALTER TABLE thing ADD COLUMN weight INTEGER NOT NULL DEFAULT 0;")
OTHER = Migration("another", 1, "CREATE TABLE other (name TEXT PRIMARY KEY);")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = open_sqlite(tmp_path / "fleet.db")
    found.migrate([FIRST])
    return found


def schema(database: Database) -> list[tuple[object, ...]]:
    return database.reader.all("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")


def test_a_transaction_is_whole_or_nothing(database: Database) -> None:
    def fail_late() -> None:
        with database.transaction() as tx:
            tx.execute("INSERT INTO thing (name) VALUES (:name)", name="a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_late()
    assert database.reader.all("SELECT name FROM thing") == []
    with database.transaction() as tx:
        tx.execute("INSERT INTO thing (name) VALUES (:name)", name="a")
    assert database.reader.one("SELECT name FROM thing") == ("a",)


def test_a_savepoint_fails_alone(database: Database) -> None:
    def fail_in_part(tx: Transaction) -> None:
        with tx.savepoint():
            tx.execute("INSERT INTO thing (name) VALUES ('lost')")
            tx.execute("INSERT INTO thing (name) VALUES ('kept')")

    with database.transaction() as tx:
        tx.execute("INSERT INTO thing (name) VALUES ('kept')")
        with pytest.raises(DatabaseFailedError):
            fail_in_part(tx)
        tx.execute("INSERT INTO thing (name) VALUES ('also kept')")
    assert [row[0] for row in database.reader.all("SELECT name FROM thing ORDER BY id")] == ["kept", "also kept"]


def test_durability_settings_hold(database: Database) -> None:
    assert database.reader.one("PRAGMA journal_mode") == ("wal",)
    assert database.reader.one("PRAGMA synchronous") == (2,)
    assert database.reader.one("PRAGMA foreign_keys") == (1,)


def test_migrated_equals_fresh(tmp_path: Path) -> None:
    stepwise, fresh = open_sqlite(tmp_path / "a.db"), open_sqlite(tmp_path / "b.db")
    stepwise.migrate([FIRST])
    stepwise.migrate([FIRST, SECOND])
    stepwise.migrate([SECOND, FIRST, OTHER])
    fresh.migrate([FIRST, SECOND, OTHER])
    assert schema(stepwise) == schema(fresh)
    assert fresh.reader.all("SELECT owner, number FROM schema_version ORDER BY owner") == [("another", 1), ("room", 2)]


def test_a_newer_database_is_refused_unchanged(tmp_path: Path) -> None:
    database = open_sqlite(tmp_path / "fleet.db")
    database.migrate([FIRST, SECOND])
    before = schema(database)
    with pytest.raises(DatabaseTooNewError, match="newer nwmctl"):
        database.migrate([FIRST, OTHER])
    assert schema(database) == before


def test_a_failing_migration_changes_nothing(database: Database) -> None:
    before = schema(database)
    broken = Migration("room", 2, "CREATE TABLE half (id AUTO_ID); CREATE TABLE thing (id AUTO_ID);")
    with pytest.raises(DatabaseFailedError):
        database.migrate([FIRST, broken])
    assert schema(database) == before


def test_gaps_in_migrations_are_a_defect(database: Database) -> None:
    with pytest.raises(ValueError, match="numbered"):
        database.migrate([FIRST, Migration("room", 3, "SELECT 1;")])


def test_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is a text and certainly no database file" * 100)
    with pytest.raises(DatabaseUnusableError, match=r"text\.db"):
        open_sqlite(tmp_path / "text.db").migrate([FIRST])
    with pytest.raises(DatabaseUnusableError):
        open_sqlite(tmp_path / "no" / "folder.db").migrate([FIRST])


def test_a_writer_that_never_ends(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_room, "BUSY_MS", 50)
    other = sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    impatient = open_sqlite(tmp_path / "fleet.db")
    with pytest.raises(DatabaseBusyError), impatient.transaction():
        pass
    other.execute("ROLLBACK")
    other.close()


def test_threads_have_their_own_connections(database: Database) -> None:
    problems: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for number in range(20):
                with database.transaction() as tx:
                    tx.execute("INSERT INTO thing (name) VALUES (:name)", name=f"{name}{number}")
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert database.reader.one("SELECT count(*) FROM thing") == (80,)
    database.close()
