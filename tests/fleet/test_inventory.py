"""Inventory files: good ones, bad ones with file and line, and importing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.errors import DuplicateVinError, FleetKindError, InventoryRowError, NwmError, UnknownVehicleModelError
from nwmctl.fleet.inventory import Imported, import_inventory, read_inventory, token_hash
from nwmctl.fleet.schema import MIGRATIONS
from nwmctl.storage.database import Database
from tests.fleet import house
from tests.postgres import Stores

HEADER = "vin,vehicle_model,baseline,sequence,token\n"
GOOD = "VIN1,et7,Banyan,1,secret-one\nVIN2,et9,Cedar,2,secret-two\n"


@pytest.fixture
def database(stores: Stores) -> Database:
    database = stores.open()
    database.migrate(MIGRATIONS)
    return database


def bring(database: Database, path: Path, text: str, fleet: str = "f", virtual: bool = True) -> Imported:
    path.write_text(text)
    return import_inventory(database, path, house.catalogue(), fleet=fleet, virtual=virtual, now_us=house.T0)


def test_platform_and_variant_come_from_the_catalogue(database: Database, tmp_path: Path) -> None:
    assert bring(database, tmp_path / "f.csv", HEADER + GOOD) == Imported(2, 2)
    row = database.reader.one("SELECT platform, variant, sequence, token_sha256 FROM vehicle WHERE vin = 'VIN2'")
    assert row == ("nt3.0", "base", 2, token_hash("secret-two"))
    assert not any("secret" in str(cell) for row in database.reader.all("SELECT * FROM vehicle") for cell in row)
    if database.dialect.name == "sqlite":
        assert b"secret" not in (tmp_path / "fleet.db-wal").read_bytes()


def test_importing_again_is_harmless_and_a_report_wins(database: Database, tmp_path: Path) -> None:
    bring(database, tmp_path / "f.csv", HEADER + GOOD)
    house.slots(database, "VIN1", active=7, inactive=1)
    assert bring(database, tmp_path / "f.csv", HEADER + GOOD.replace(",2,", ",3,")) == Imported(2, 0)
    assert database.reader.all("SELECT vin, sequence FROM vehicle ORDER BY vin") == [("VIN1", 7), ("VIN2", 3)]


@pytest.mark.parametrize(
    ("text", "kind", "where"),
    [
        (HEADER + GOOD + "VIN3,XX,Banyan,1,secret-x\n", UnknownVehicleModelError, "f.csv:4"),
        (HEADER + GOOD + "VIN1,et7,Banyan,1,secret-x\n", DuplicateVinError, "f.csv:4"),
        (HEADER + GOOD + "VIN3,et7,Banyan,-1,secret-x\n", InventoryRowError, "f.csv:4"),
        (HEADER + GOOD + "VIN3,et7,Banyan,1.5,secret-x\n", InventoryRowError, "f.csv:4"),
        (HEADER + GOOD + "VIN3,et7,Banyan,٣,secret-x\n", InventoryRowError, "f.csv:4"),
        (HEADER + GOOD + "VIN3,et7,Banyan,99999999999,secret-x\n", InventoryRowError, "f.csv:4"),
        (HEADER + GOOD + "VIN3,et7,Banyan\n", InventoryRowError, "f.csv:4"),
        (HEADER + GOOD + "VIN3,et7,,1,secret-x\n", InventoryRowError, "f.csv:4"),
        (HEADER + GOOD + "VIN3,et7,Banyan,1,short\n", InventoryRowError, "f.csv:4"),
        (HEADER + GOOD + "VIN3,et7,Banyan,1,\n", InventoryRowError, "f.csv:4"),
        (HEADER + GOOD + "../x,et7,Banyan,1,secret-x\n", InventoryRowError, "f.csv:4"),
        (HEADER + GOOD + '"VIN3,et7\n', InventoryRowError, "f.csv:4"),
        ("vin,model\n", InventoryRowError, "f.csv:1"),
        ("vin,vin,vehicle_model,baseline,sequence\n", InventoryRowError, "f.csv:1"),
        ("", InventoryRowError, "f.csv:1"),
    ],
)
def test_a_bad_line_is_named_and_nothing_changes(
    database: Database, tmp_path: Path, text: str, kind: type[NwmError], where: str
) -> None:
    with pytest.raises(kind) as refusal:
        bring(database, tmp_path / "f.csv", text)
    assert refusal.value.what.startswith(where)
    assert database.reader.all("SELECT * FROM vehicle") == []
    assert database.reader.all("SELECT * FROM fleet") == []
    assert database.reader.all("SELECT * FROM event") == []


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InventoryRowError, match="cannot be read"):
        list(read_inventory(tmp_path / "none.csv", house.catalogue()))
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"VIN\xe9,et7,Banyan,1,secret-x\n")
    with pytest.raises(InventoryRowError, match="UTF-8"):
        list(read_inventory(tmp_path / "latin.csv", house.catalogue()))


def test_a_fleet_keeps_its_kind_and_its_vehicles(database: Database, tmp_path: Path) -> None:
    bring(database, tmp_path / "f.csv", HEADER + GOOD)
    with pytest.raises(FleetKindError, match="virtual"):
        bring(database, tmp_path / "f.csv", HEADER + GOOD, virtual=False)
    with pytest.raises(DuplicateVinError, match="another fleet"):
        bring(database, tmp_path / "f.csv", HEADER + GOOD, fleet="g")


def test_tokens_may_come_from_outside(tmp_path: Path) -> None:
    path = house.write_inventory(tmp_path / "f.csv", house.vins(1))
    vehicles = list(read_inventory(path, house.catalogue(), house.token))
    assert [vehicle.token for vehicle in vehicles] == [house.token(vehicle.vin) for vehicle in vehicles]
