"""The audit chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.errors import AuditBrokenError
from nwmctl.fleet.events import Head, head, verify_chain
from nwmctl.fleet.schema import MIGRATIONS
from tests.fleet import house
from tests.postgres import Stores


def test_an_empty_chain(stores: Stores) -> None:
    database = stores.open()
    database.migrate(MIGRATIONS)
    assert verify_chain(database.reader) == Head(0, "0" * 64)


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE event SET data = '{}' WHERE number = 1",
        "UPDATE event SET at_us = at_us + 1 WHERE number = 2",
        "DELETE FROM event WHERE number = 1",
        "UPDATE event SET vin = 'somebody' WHERE number = 2",
    ],
)
def test_tampering_shows(tmp_path: Path, stores: Stores, tampering: str) -> None:
    database = house.fleet_database(tmp_path, database=stores.open())
    assert verify_chain(database.reader) == head(database.reader)
    assert head(database.reader).number == 2
    with database.transaction() as tx:
        tx.execute(tampering)
    with pytest.raises(AuditBrokenError, match="breaks at event"):
        verify_chain(database.reader)
