"""Group commit: answered after the commit, failing alone, together where the commit fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from nwmctl.errors import DatabaseFailedError, WriterClosedError
from nwmctl.storage.database import Database, Migration, Transaction
from nwmctl.storage.group_commit import GroupWriter
from tests.postgres import Stores

TABLES = Migration(
    "room",
    1,
    "CREATE TABLE parent (id INTEGER PRIMARY KEY);"
    "CREATE TABLE thing (name TEXT PRIMARY KEY, parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);",
)


@pytest.fixture
def database(stores: Stores) -> Database:
    database = stores.open()
    database.migrate([TABLES])
    return database


@pytest.fixture
def outside(database: Database, stores: Stores) -> Database:
    """The same database through connections of its own."""
    return stores.open()


@pytest.fixture
def writer(database: Database) -> Iterator[GroupWriter]:
    writer = GroupWriter(database)
    yield writer
    writer.close()


def insert(name: str, parent: int | None = None) -> object:
    def work(tx: Transaction) -> str:
        tx.execute("INSERT INTO thing (name, parent) VALUES (:name, :parent)", name=name, parent=parent)
        return name

    return work


def seen_from(outside: Database) -> set[str]:
    return {row[0] for row in outside.reader.all("SELECT name FROM thing")}


def test_acknowledged_means_committed(outside: Database, writer: GroupWriter) -> None:
    for number in range(50):
        name = str(number)
        assert writer.submit(insert(name)).result(5) == name
        assert name in seen_from(outside)


def test_a_burst_shares_commits_and_one_failure_stays_alone(
    database: Database, outside: Database, writer: GroupWriter
) -> None:
    hold, commits = threading.Event(), []
    transaction = database.transaction

    def counted() -> object:
        commits.append(1)
        return transaction()

    database.transaction = counted  # type: ignore[assignment,method-assign]
    first = writer.submit(lambda tx: hold.wait(5))
    futures = [writer.submit(insert(str(number % 99))) for number in range(100)]
    hold.set()
    assert first.result(5)
    results = [future.exception(5) for future in futures]
    assert [type(problem) for problem in results if problem] == [DatabaseFailedError]
    assert len(seen_from(outside)) == 99
    assert len(commits) <= 3


def test_a_failing_commit_fails_the_whole_batch(outside: Database, writer: GroupWriter) -> None:
    hold = threading.Event()
    writer.submit(lambda tx: hold.wait(5))
    # A deferred foreign key is checked by COMMIT itself.
    good, bad = writer.submit(insert("good")), writer.submit(insert("orphan", parent=7))
    hold.set()
    assert isinstance(bad.exception(5), DatabaseFailedError)
    assert good.exception(5) is None or isinstance(good.exception(5), DatabaseFailedError)
    assert seen_from(outside) == ({"good"} if good.exception(5) is None else set())
    assert writer.submit(insert("after")).result(5) == "after"


def test_close_finishes_what_is_queued(outside: Database, writer: GroupWriter) -> None:
    futures = [writer.submit(insert(str(number))) for number in range(500)]
    writer.close()
    assert all(future.done() for future in futures)
    assert len(seen_from(outside)) == 500
    with pytest.raises(WriterClosedError):
        writer.submit(insert("late"))
