"""The tables are a promise: what version 1 made is kept as a file, and migrating it gives today's tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from nwmctl.fleet.schema import MIGRATIONS, OWNER
from nwmctl.storage.database import Database, Migration, Row
from nwmctl.storage.sqlite import open_sqlite

GOLDEN = Path(__file__).parent / "golden"


def schema(database: Database) -> list[Row]:
    rows = database.reader.all("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    return [(kind, name, " ".join(sql.split())) for kind, name, sql in rows]


def from_golden(path: Path, version: int) -> Database:
    """A database as that version left it."""
    connection = sqlite3.connect(path)
    connection.executescript((GOLDEN / f"schema-{version}.sql").read_text())
    connection.executescript(
        "CREATE TABLE schema_version (owner TEXT PRIMARY KEY, number INTEGER NOT NULL);"
        f"INSERT INTO schema_version VALUES ('{OWNER}', {version});"
    )
    connection.close()
    return open_sqlite(path)


def test_every_released_version_migrates_to_the_fresh_schema(tmp_path: Path) -> None:
    with open_sqlite(tmp_path / "fresh.db") as fresh:
        fresh.migrate(MIGRATIONS)
        for version in range(1, len(MIGRATIONS) + 1):
            with from_golden(tmp_path / f"{version}.db", version) as old:
                old.migrate(MIGRATIONS)
                assert schema(old) == schema(fresh)


def test_a_next_migration_reaches_old_databases(tmp_path: Path) -> None:
    more = Migration(OWNER, len(MIGRATIONS) + 1, "ALTER TABLE fleet ADD COLUMN note TEXT NOT NULL DEFAULT '';")
    with from_golden(tmp_path / "old.db", 1) as old, open_sqlite(tmp_path / "fresh.db") as fresh:
        old.migrate([*MIGRATIONS, more])
        fresh.migrate([*MIGRATIONS, more])
        assert schema(old) == schema(fresh)
