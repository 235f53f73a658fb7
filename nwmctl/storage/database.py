"""The database connection: transactions, readers, and the runner of migrations.

Knows how to talk to a database, and nothing about what is stored: each owner room supplies its tables as
``Migration`` values and its SQL as text. SQL is written once, with ``:name`` parameters, in the part of the language
that SQLite and PostgreSQL share; a ``Dialect`` supplies the connection and the few differences.

Invariants: one connection per thread; a writing transaction takes the write lock at once (no later upgrade that could
deadlock); it commits as a whole or not at all, and after a refused statement not at all (a savepoint confines that);
a database written by a newer nwmctl is refused; no exception of a driver leaves this module.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from nwmctl.errors import DatabaseFailedError, DatabaseTooNewError, NwmError

Value = int | float | str | None
Row = tuple[Any, ...]


class Dialect(Protocol):
    """What differs between databases. ``connect`` gives a DB-API connection in autocommit mode."""

    name: str
    begin: str
    """What begins a writing transaction and waits until it is the only one."""

    def connect(self) -> Any:
        """A new connection, ready for use."""
        ...

    def usable(self, connection: Any) -> bool:
        """Whether a connection can still be used; else the next use makes a new one."""
        ...

    def translate(self, sql: str) -> str:
        """The same statement in this database's spelling (parameters, ``AUTO_ID``)."""
        ...

    def refusal(self, problem: Exception) -> NwmError | None:
        """The project's own error for a driver's exception; None if it is not the driver's."""
        ...


@dataclass(frozen=True, slots=True)
class Migration:
    """Step ``number`` (from 1, without gaps) of the tables of the room ``owner``. ``sql`` holds statements that
    end with a semicolon; a semicolon stands nowhere else."""

    owner: str
    number: int
    sql: str


class Reader:
    """Runs queries on one connection."""

    def __init__(self, connection: Any, dialect: Dialect, spelled: dict[str, str]) -> None:
        self._connection = connection
        self._dialect = dialect
        self._spelled = spelled

    def all(self, sql: str, **parameters: Value) -> list[Row]:
        """Every row of a query."""
        try:
            rows: list[Row] = self._cursor(sql, parameters).fetchall()
        except Exception as problem:
            self._refuse(problem)
        return rows

    def one(self, sql: str, **parameters: Value) -> Row | None:
        """The first row of a query, or None."""
        try:
            row: Row | None = self._cursor(sql, parameters).fetchone()
        except Exception as problem:
            self._refuse(problem)
        return row

    def _cursor(self, sql: str, parameters: Mapping[str, Value]) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(self._spell(sql), parameters)
        return cursor

    def _spell(self, sql: str) -> str:
        found = self._spelled.get(sql)
        if found is None:
            found = self._spelled[sql] = self._dialect.translate(sql)
        return found

    def _refuse(self, problem: Exception) -> NoReturn:
        """Raise the project's own error for a driver's exception; any other (a caller's generator's) as it is."""
        refusal = self._dialect.refusal(problem)
        if refusal is None:
            raise problem
        raise refusal from problem


class Transaction(Reader):
    """A reader that may also write; everything becomes durable together when the context ends."""

    _spoiled = False
    """A statement was refused, so what the transaction holds is not what its code meant. PostgreSQL would drop it
    without a word at COMMIT, SQLite would keep it; here both refuse."""

    def execute(self, sql: str, **parameters: Value) -> int:
        """Run one statement; gives the number of rows it changed."""
        try:
            count: int = self._cursor(sql, parameters).rowcount
        except Exception as problem:
            self._refuse(problem)
        return count

    def many(self, sql: str, rows: Iterable[Mapping[str, Value]]) -> None:
        """Run one statement for each set of parameters. ``rows`` may be a generator, and may raise."""
        try:
            self._connection.cursor().executemany(self._spell(sql), rows)
        except Exception as problem:
            self._refuse(problem)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part that can fail alone: an exception undoes it, leaves the rest of the transaction, and goes on up."""
        self.execute("SAVEPOINT part")
        before = self._spoiled
        try:
            yield
            self.refuse_spoiled()
        except BaseException:
            self.execute("ROLLBACK TO SAVEPOINT part")
            self.execute("RELEASE SAVEPOINT part")
            self._spoiled = before
            raise
        self.execute("RELEASE SAVEPOINT part")

    def refuse_spoiled(self) -> None:
        """Raise DatabaseFailedError if a statement was refused and the work went on all the same."""
        if self._spoiled:
            raise _defect("a transaction went on after a refused statement", "it would be half of what is meant")

    def _refuse(self, problem: Exception) -> NoReturn:
        self._spoiled = True
        super()._refuse(problem)


class Database:
    """A database that several threads of this process may use, and several processes at once."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[tuple[threading.Thread, Any]] = []
        self._spelled: dict[str, str] = {}

    @property
    def reader(self) -> Reader:
        """Queries outside a transaction; each sees what was committed before it."""
        return Reader(self._connection(), self.dialect, self._spelled)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A writing transaction: commits at the end, rolls back on any exception. Does not nest."""
        session = Transaction(self._connection(), self.dialect, self._spelled)
        local = self._local
        if getattr(local, "writing", False):
            raise _defect("a transaction was begun inside another one", "it would end together with the inner one")
        local.writing = True
        try:
            session.execute(self.dialect.begin)
            yield session
            session.refuse_spoiled()
            session.execute("COMMIT")
        except BaseException:
            # A failed BEGIN or COMMIT may have ended the transaction already; the first error is the one to tell.
            with suppress(NwmError):
                session.execute("ROLLBACK")
            raise
        finally:
            local.writing = False

    def migrate(self, migrations: Iterable[Migration]) -> None:
        """Bring the tables up to date, in one transaction. Raises DatabaseTooNewError; then nothing has changed."""
        plan = _by_owner(migrations)
        with self.transaction() as tx:
            tx.execute("CREATE TABLE IF NOT EXISTS schema_version (owner TEXT PRIMARY KEY, number INTEGER NOT NULL)")
            known = {str(owner): int(number) for owner, number in tx.all("SELECT owner, number FROM schema_version")}
            for owner, number in known.items():
                newest = len(plan.get(owner, ()))
                if number > newest:
                    raise _too_new(owner, number, newest)
            for owner, steps in plan.items():
                for step in steps[known.get(owner, 0) :]:
                    for statement in step.sql.split(";"):
                        if statement.strip():
                            tx.execute(statement)
                    tx.execute(
                        "INSERT INTO schema_version (owner, number) VALUES (:owner, :number) "
                        "ON CONFLICT (owner) DO UPDATE SET number = excluded.number",
                        owner=owner,
                        number=step.number,
                    )

    def close(self) -> None:
        """Close the connections of all threads. Nothing may be running."""
        with self._lock:
            for _, connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connection(self) -> Any:
        found = getattr(self._local, "connection", None)
        if found is None or not self.dialect.usable(found):
            try:
                found = self.dialect.connect()
            except NwmError:
                raise
            except Exception as problem:
                refusal = self.dialect.refusal(problem)
                if refusal is None:
                    raise
                raise refusal from problem
            self._keep(found)
            self._local.connection = found
        return found

    def _keep(self, connection: Any) -> None:
        """Note a connection for ``close``, and close those of threads that have ended: a server has only so many."""
        with self._lock:
            kept, ended = [(threading.current_thread(), connection)], []
            for thread, known in self._connections:
                if thread.is_alive() and self.dialect.usable(known):
                    kept.append((thread, known))
                else:
                    ended.append(known)
            self._connections = kept
        for known in ended:
            known.close()


def _defect(what: str, why: str) -> DatabaseFailedError:
    return DatabaseFailedError(
        what, why=why, next="this is a defect of nwmctl: report it with the command that led here"
    )


def _by_owner(migrations: Iterable[Migration]) -> dict[str, Sequence[Migration]]:
    plan: dict[str, list[Migration]] = {}
    for migration in migrations:
        plan.setdefault(migration.owner, []).append(migration)
    for owner, steps in plan.items():
        steps.sort(key=lambda step: step.number)
        if [step.number for step in steps] != list(range(1, len(steps) + 1)):
            raise ValueError(f"the migrations of '{owner}' are not numbered 1, 2, 3, ...")
    return dict(sorted(plan.items()))


def _too_new(owner: str, number: int, newest: int) -> DatabaseTooNewError:
    return DatabaseTooNewError(
        f"the database was migrated by a newer nwmctl (tables of '{owner}' are at {number})",
        why=f"this nwmctl knows them up to {newest} and could damage what it does not understand",
        next="use the newer nwmctl, or another database file",
    )
