"""Group commit: answered after the commit, failing alone, together where the commit fails."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from nwmctl.errors import DatabaseFailedError, WriterClosedError
from nwmctl.storage.database import Migration, Transaction
from nwmctl.storage.group_commit import GroupWriter
from nwmctl.storage.sqlite import open_sqlite

TABLES = Migration(
    "room",
    1,
    "CREATE TABLE parent (id INTEGER PRIMARY KEY);"
    "CREATE TABLE thing (name TEXT PRIMARY KEY, parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.db"
    with open_sqlite(path) as database:
        database.migrate([TABLES])
    return path


def insert(name: str, parent: int | None = None) -> object:
    def work(tx: Transaction) -> str:
        tx.execute("INSERT INTO thing (name, parent) VALUES (:name, :parent)", name=name, parent=parent)
        return name

    return work


def seen_from_outside(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    names = {row[0] for row in connection.execute("SELECT name FROM thing")}
    connection.close()
    return names


def test_acknowledged_means_committed(path: Path) -> None:
    writer = GroupWriter(open_sqlite(path))
    for number in range(50):
        name = str(number)
        assert writer.submit(insert(name)).result(5) == name
        assert name in seen_from_outside(path)
    writer.close()


def test_a_burst_shares_commits_and_one_failure_stays_alone(path: Path) -> None:
    database = open_sqlite(path)
    writer = GroupWriter(database)
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
    assert len(seen_from_outside(path)) == 99
    assert len(commits) <= 3
    writer.close()


def test_a_failing_commit_fails_the_whole_batch(path: Path) -> None:
    writer = GroupWriter(open_sqlite(path))
    hold = threading.Event()
    writer.submit(lambda tx: hold.wait(5))
    # A deferred foreign key is checked by COMMIT itself.
    good, bad = writer.submit(insert("good")), writer.submit(insert("orphan", parent=7))
    hold.set()
    assert isinstance(bad.exception(5), DatabaseFailedError)
    assert good.exception(5) is None or isinstance(good.exception(5), DatabaseFailedError)
    assert seen_from_outside(path) == ({"good"} if good.exception(5) is None else set())
    assert writer.submit(insert("after")).result(5) == "after"
    writer.close()


def test_close_finishes_what_is_queued(path: Path) -> None:
    writer = GroupWriter(open_sqlite(path))
    futures = [writer.submit(insert(str(number))) for number in range(500)]
    writer.close()
    assert all(future.done() for future in futures)
    assert len(seen_from_outside(path)) == 500
    with pytest.raises(WriterClosedError):
        writer.submit(insert("late"))
