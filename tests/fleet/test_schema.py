"""The tables are a promise: what version 1 made is kept as a file, and migrating it gives today's tables."""

from __future__ import annotations

from pathlib import Path

from nwmctl.fleet.schema import MIGRATIONS, OWNER
from nwmctl.storage.database import Database, Migration
from tests.postgres import Stores, tables

OWN = [one for one in MIGRATIONS if one.owner == OWNER]
GOLDEN = Path(__file__).parent / "golden"


def from_golden(stores: Stores, version: int) -> Database:
    """A database as that version left it."""
    database = stores.open(f"from_{version}")
    text = (GOLDEN / f"{stores.kind}-{version}.sql").read_text()
    with database.transaction() as tx:
        for statement in text.split(";"):
            if statement.strip():
                tx.execute(statement)
        tx.execute("CREATE TABLE schema_version (owner TEXT PRIMARY KEY, number INTEGER NOT NULL)")
        tx.execute("INSERT INTO schema_version VALUES (:owner, :version)", owner=OWNER, version=version)
    return database


def fresh(stores: Stores, migrations: tuple[Migration, ...]) -> Database:
    database = stores.open("fresh")
    database.migrate(migrations)
    return database


def test_every_released_version_migrates_to_the_fresh_schema(stores: Stores) -> None:
    today = tables(fresh(stores, MIGRATIONS))
    assert any("action_one_unclosed" in row for row in today)
    for version in range(1, len(OWN) + 1):
        old = from_golden(stores, version)
        old.migrate(MIGRATIONS)
        assert tables(old) == today


def test_a_next_migration_reaches_old_databases(stores: Stores) -> None:
    more = Migration(OWNER, len(OWN) + 1, "ALTER TABLE fleet ADD COLUMN note TEXT NOT NULL DEFAULT '';")
    old = from_golden(stores, 1)
    before = tables(old)
    old.migrate([*MIGRATIONS, more])
    assert tables(old) == tables(fresh(stores, (*MIGRATIONS, more))) != before
