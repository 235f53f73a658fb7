"""A private PostgreSQL for the test run, and stores that open as SQLite or as PostgreSQL.

The server is a child process with its own cluster in a temporary folder, reachable by a unix socket in it alone. Each
test gets schemas of its own. The role is no superuser, and the collation is not that of bytes: what passes here does
not rest on either. ``fsync`` is off, since no test here cuts the power.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nwmctl.storage.database import Database, Row
from nwmctl.storage.postgres import open_postgres
from nwmctl.storage.sqlite import open_sqlite
from tests.real import require_real

START_S = 30.0
OPTIONS = ("fsync=off", "full_page_writes=off", "listen_addresses=", "max_connections=40", "shared_buffers=32MB")


@dataclass(slots=True)
class Cluster:
    """A running server."""

    folder: Path
    schemas: int = 0
    connection: Any = None

    def url(self, user: str = "nwmctl", schema: str = "public") -> str:
        return f"postgresql://{user}@/nwmctl?host={self.folder}&options=-csearch_path%3D{schema}"

    def execute(self, sql: str) -> list[Any]:
        """Run one statement as superuser."""
        cursor = self.connection.execute(sql)
        return cursor.fetchall() if cursor.description else []

    def new_schema(self) -> str:
        """The name of a new, empty schema."""
        self.schemas += 1
        name = f"test_{self.schemas}"
        self.execute(f"CREATE SCHEMA {name} AUTHORIZATION nwmctl")
        return name


@dataclass(slots=True)
class Stores:
    """Databases of one kind for one test, by name: the same name is the same stored database."""

    kind: str
    make: Callable[[str], Database]
    opened: list[Database] = field(default_factory=list)

    def open(self, name: str = "fleet") -> Database:
        database = self.make(name)
        self.opened.append(database)
        return database

    def close(self) -> None:
        for database in self.opened:
            database.close()


def tables(database: Database) -> list[Row]:
    """Every column, constraint and index that the database knows of, in an order that does not depend on history."""
    queries = _SQLITE_TABLES if database.dialect.name == "sqlite" else _POSTGRES_TABLES
    rows = [row for sql in queries for row in database.reader.all(sql)]
    return sorted(tuple(" ".join(str(cell).split()) for cell in row) for row in rows)


_SQLITE_TABLES = ("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL",)
_POSTGRES_TABLES = (
    """SELECT 'column', table_name, column_name, data_type, is_nullable, column_default, is_identity
    FROM information_schema.columns WHERE table_schema = current_schema()""",
    """SELECT 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = current_schema()::regnamespace""",
    """SELECT 'index', indexname, replace(indexdef, current_schema() || '.', '')
    FROM pg_indexes WHERE schemaname = current_schema()""",
)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a server; stop it at the end. Skips or fails where PostgreSQL or its driver is missing."""
    found = shutil.which("initdb") or next(iter(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    require_real("postgresql", found is not None, "apt-get install postgresql")
    require_real("postgresql", find_spec("psycopg") is not None, "pip install 'nwmctl[postgres]'")
    programs = Path(str(found)).parent
    # A unix socket's path is short: no tmp_path.
    with tempfile.TemporaryDirectory(prefix="nwm-pg-", dir="/tmp") as name:
        folder = Path(name)
        # PostgreSQL refuses to run as root; Debian's package makes a user for it.
        who: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            who = {"user": "postgres", "group": "postgres", "extra_groups": []}
        data = folder / "data"
        layout = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"]
        command = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", *layout]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, **who)
        assert made.returncode == 0, made.stderr
        settings = [part for option in (*OPTIONS, f"unix_socket_directories={folder}") for part in ("-c", option)]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *settings], cwd=folder, stdout=log, stderr=log, **who
            )
        try:
            yield _ready(Cluster(folder), server)
        finally:
            # A fast shutdown: it ends the connections that are left.
            server.send_signal(signal.SIGINT)
            server.wait(30)


def _ready(cluster: Cluster, server: subprocess.Popen[bytes]) -> Cluster:
    import psycopg

    deadline = time.monotonic() + START_S
    while cluster.connection is None:
        try:
            cluster.connection = _connect(cluster, "postgres")
        except psycopg.OperationalError:
            log = (cluster.folder / "log").read_text()
            assert server.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
    with cluster.connection as first:
        first.execute("CREATE ROLE nwmctl LOGIN")
        first.execute("CREATE DATABASE nwmctl OWNER nwmctl")
    cluster.connection = _connect(cluster, "nwmctl")
    return cluster


def _connect(cluster: Cluster, database: str) -> Any:
    import psycopg

    return psycopg.connect(f"host={cluster.folder} user=postgres dbname={database}", autocommit=True)


@contextmanager
def sqlite_stores(folder: Path) -> Iterator[Stores]:
    stores = Stores("sqlite", lambda name: open_sqlite(folder / f"{name}.db"))
    yield stores
    stores.close()


@contextmanager
def postgres_stores(cluster: Cluster) -> Iterator[Stores]:
    schemas: dict[str, str] = {}

    def make(name: str) -> Database:
        if name not in schemas:
            schemas[name] = cluster.new_schema()
        return open_postgres(cluster.url(schema=schemas[name]))

    stores = Stores("postgres", make)
    yield stores
    stores.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """The server of this test run; started when first asked for."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Databases of either kind: a test that asks for it runs once with each."""
    kind = request.param
    cluster = request.getfixturevalue("postgres") if kind == "postgres" else None
    with sqlite_stores(tmp_path) if cluster is None else postgres_stores(cluster) as found:
        yield found
