"""Transactions, migrations and refusals of the database connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from nwmctl.errors import DatabaseBusyError, DatabaseFailedError, DatabaseTooNewError, DatabaseUnusableError
from nwmctl.storage import postgres as postgres_room
from nwmctl.storage import sqlite as sqlite_room
from nwmctl.storage.database import Database, Migration, Transaction, Value
from nwmctl.storage.sqlite import open_sqlite
from tests.postgres import Stores, tables

FIRST = Migration("room", 1, "CREATE TABLE thing (id AUTO_ID, name TEXT NOT NULL UNIQUE);")
SECOND = Migration("room", 2, "ALTER TABLE thing ADD COLUMN weight INTEGER NOT NULL DEFAULT 0;")
OTHER = Migration("another", 1, "CREATE TABLE other (name TEXT PRIMARY KEY);")


@pytest.fixture
def database(stores: Stores) -> Database:
    found = stores.open()
    found.migrate([FIRST])
    return found


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


def test_work_that_goes_on_after_a_refused_statement_is_dropped(database: Database) -> None:
    def go_on(tx: Transaction) -> None:
        tx.execute("INSERT INTO thing (name) VALUES ('a')")
        with suppress(DatabaseFailedError):
            tx.execute("INSERT INTO thing (name) VALUES ('a')")

    with pytest.raises(DatabaseFailedError, match="went on"), database.transaction() as tx:
        go_on(tx)
    with database.transaction() as tx:
        tx.execute("INSERT INTO thing (name) VALUES ('kept')")
        with pytest.raises(DatabaseFailedError, match="went on"), tx.savepoint():
            go_on(tx)
    assert database.reader.all("SELECT name FROM thing") == [("kept",)]


def test_transactions_do_not_nest(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute("INSERT INTO thing (name) VALUES ('kept')")
        with pytest.raises(DatabaseFailedError, match="inside another"), database.transaction():
            pass
    assert database.reader.all("SELECT name FROM thing") == [("kept",)]


def test_many_rows_and_a_source_of_rows_that_breaks(database: Database) -> None:
    def rows(stop: int) -> Iterator[dict[str, Value]]:
        for number in range(1000):
            if number == stop:
                raise ZeroDivisionError
            yield {"name": f"{number}: 100 %, :name"}

    with pytest.raises(ZeroDivisionError), database.transaction() as tx:
        tx.many("INSERT INTO thing (name) VALUES (:name)", rows(500))
    assert database.reader.one("SELECT count(*) FROM thing") == (0,)
    with database.transaction() as tx:
        tx.many("INSERT INTO thing (name) VALUES (:name)", rows(-1))
    assert database.reader.one("SELECT count(*) FROM thing WHERE name LIKE '%: 100 %, :name'") == (1000,)


def test_a_reader_neither_waits_nor_sees_what_is_not_committed(database: Database, stores: Stores) -> None:
    other = stores.open()
    with database.transaction() as tx:
        tx.execute("INSERT INTO thing (name) VALUES ('a')")
        assert other.reader.all("SELECT name FROM thing") == []
    assert other.reader.all("SELECT name FROM thing") == [("a",)]


def test_writers_decide_on_what_the_one_before_has_changed(stores: Stores) -> None:
    """Read, then write what was read: with two writers at once, additions would be lost."""
    databases = [stores.open() for _ in range(4)]
    databases[0].migrate([FIRST, SECOND])
    with databases[0].transaction() as tx:
        tx.execute("INSERT INTO thing (name, weight) VALUES ('sum', 0)")

    def add(database: Database) -> None:
        for _ in range(25):
            with database.transaction() as tx:
                row = tx.one("SELECT weight FROM thing")
                assert row is not None
                tx.execute("UPDATE thing SET weight = :weight", weight=int(row[0]) + 1)

    with ThreadPoolExecutor(len(databases)) as pool:
        list(pool.map(add, databases))
    assert databases[0].reader.one("SELECT weight FROM thing") == (100,)


def test_durability_settings_hold(database: Database) -> None:
    if database.dialect.name == "sqlite":
        settings = {"PRAGMA journal_mode": "wal", "PRAGMA synchronous": 2, "PRAGMA foreign_keys": 1}
    else:
        settings = {"SHOW synchronous_commit": "on", "SHOW client_encoding": "UTF8", "SHOW lock_timeout": "20s"}
    assert {sql: row[0] for sql in settings if (row := database.reader.one(sql))} == settings


def test_migrated_equals_fresh(stores: Stores) -> None:
    stepwise, fresh = stores.open("a"), stores.open("b")
    stepwise.migrate([FIRST])
    stepwise.migrate([FIRST, SECOND])
    stepwise.migrate([SECOND, FIRST, OTHER])
    fresh.migrate([FIRST, SECOND, OTHER])
    assert tables(stepwise) == tables(fresh)
    assert fresh.reader.all("SELECT owner, number FROM schema_version ORDER BY owner") == [("another", 1), ("room", 2)]


def test_a_newer_database_is_refused_unchanged(stores: Stores) -> None:
    database = stores.open()
    database.migrate([FIRST, SECOND])
    before = tables(database)
    with pytest.raises(DatabaseTooNewError, match="newer nwmctl"):
        database.migrate([FIRST, OTHER])
    assert tables(database) == before


def test_a_failing_migration_changes_nothing(database: Database) -> None:
    before = tables(database)
    broken = Migration("room", 2, "CREATE TABLE half (id AUTO_ID); CREATE TABLE thing (id AUTO_ID);")
    with pytest.raises(DatabaseFailedError):
        database.migrate([FIRST, broken])
    assert tables(database) == before


def test_gaps_in_migrations_are_a_defect(database: Database) -> None:
    with pytest.raises(ValueError, match="numbered"):
        database.migrate([FIRST, Migration("room", 3, "SELECT 1;")])


def test_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is a text and certainly no database file" * 100)
    with pytest.raises(DatabaseUnusableError, match=r"text\.db"):
        open_sqlite(tmp_path / "text.db").migrate([FIRST])
    with pytest.raises(DatabaseUnusableError):
        open_sqlite(tmp_path / "no" / "folder.db").migrate([FIRST])


def test_a_writer_that_never_ends(database: Database, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_room, "BUSY_MS", 50)
    monkeypatch.setattr(postgres_room, "BUSY_MS", 50)
    impatient = stores.open()
    with database.transaction() as tx:
        tx.execute("INSERT INTO thing (name) VALUES ('a')")
        with pytest.raises(DatabaseBusyError), impatient.transaction():
            pass
    with impatient.transaction() as tx:
        assert tx.all("SELECT name FROM thing") == [("a",)]


def test_threads_that_have_ended_hold_no_connection(database: Database) -> None:
    for _ in range(60):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: database.reader.one("SELECT 1")).result() == (1,)
    assert len(database._connections) <= 2


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
