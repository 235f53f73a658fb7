"""Requirements, markets, and the answer to `why`: nothing is offered to a vehicle that lacks something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.domain.fleet import AssignmentState
from nwmctl.domain.homologation import MarketApproval
from nwmctl.domain.release import FleetReference
from nwmctl.domain.requires import (
    ReleaseRequires,
    Reported,
    Requires,
    RuntimeRequirement,
    VersionRange,
    unmet,
    version_key,
)
from nwmctl.errors import InventoryRowError, MarketNotApprovedError, UnknownVehicleError
from nwmctl.fleet import campaigns
from nwmctl.fleet.inventory import import_inventory, read_inventory
from nwmctl.fleet.offers import Act, Idle, open_action, standing
from nwmctl.fleet.releases import enable_release, enabled_bundles
from nwmctl.fleet.reports import record_attributes
from nwmctl.fleet.schema import MIGRATIONS
from nwmctl.fleet.status import status, story
from nwmctl.fleet.why import why
from nwmctl.formats.ddi import reported, reported_attributes
from nwmctl.storage.database import Database
from nwmctl.storage.sqlite import open_sqlite
from tests.fleet import house
from tests.fleet.house import T0

REQUIRES = Requires(
    (RuntimeRequirement("iree-base-runtime", VersionRange("3.12", "3.13"), ("base",)),),
    {"Banyan": VersionRange("2.6")},
    1,
    {"gpu-driver": VersionRange("535", "550")},
)
HAS = Reported({"iree-base-runtime": "3.12.0"}, "Banyan", "2.7", (1,), {"gpu-driver": "535.104"})
VIN = "VINet700000"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = house.release(platforms=("nt2.0",))
    found = open_sqlite(tmp_path / "fleet.db")
    found.migrate(MIGRATIONS)
    inventory = house.write_inventory(tmp_path / "fleet.csv", house.vins(1))
    import_inventory(found, inventory, house.catalogue(), fleet="test", virtual=True, now_us=T0, token_for=house.token)
    bundles = [replace(bundle, requires=REQUIRES) for bundle in house.bundles(made)]
    enable_release(found, made, house.CONTENT, bundles, T0)
    enable_release(found, made, house.CONTENT, bundles, T0)
    campaigns.create_campaign(found, made, T0)
    campaigns.start(found, "test-10", T0)
    return found


def poll(database: Database, vin: str = VIN) -> object:
    with database.transaction() as tx:
        return open_action(tx, vin, T0)


def tell(database: Database, has: Reported, vin: str = VIN) -> None:
    with database.transaction() as tx:
        record_attributes(tx, vin, reported_attributes(has), None, T0)


def test_the_requirements_are_kept_with_the_bundle(database: Database) -> None:
    assert all(bundle.requires == REQUIRES for bundle in enabled_bundles(database.reader, 10))


@pytest.mark.parametrize(
    ("has", "said"),
    [
        (Reported(), "needs runtime iree-base-runtime 3.12 to 3.13, has reported none; needs baseline Banyan 2.6"),
        (replace(HAS, runtimes={"iree-base-runtime": "3.11.9"}), "has reported 3.11.9"),
        (replace(HAS, runtimes={"iree-base-runtime": "3.13.1"}), "has reported 3.13.1"),
        (replace(HAS, runtimes={"onnxruntime": "3.12.0"}), "has reported none"),
        (replace(HAS, baseline_version="2.5.9"), "needs baseline Banyan 2.6 or later, has reported 2.5.9"),
        (replace(HAS, baseline="Cedar"), "needs baseline Banyan 2.6 or later, has reported Cedar"),
        (replace(HAS, chassis_interfaces=(2, 3)), "needs chassis interface 1, has reported 2, 3"),
        (replace(HAS, components={}), "needs gpu-driver 535 to 550, has reported none"),
        (replace(HAS, components={"gpu-driver": "470.82"}), "needs gpu-driver 535 to 550, has reported 470.82"),
    ],
)
def test_a_vehicle_that_lacks_something_is_not_offered_the_bundle(database: Database, has: Reported, said: str) -> None:
    tell(database, has)
    assert poll(database) == Idle()
    assert standing(database.reader, VIN) == Idle()
    before = len(story(database, VIN))
    assert poll(database) == Idle()
    assert len(story(database, VIN)) == before, "that it is deferred is written once"
    found = why(database, VIN)
    assert (found.offered, found.state) == (False, AssignmentState.DEFERRED)
    assert said in found.reasons[0]
    assert said in str(story(database, VIN)[-1].data["reason"])
    assert status(database, "test-10", T0).states[AssignmentState.DEFERRED] == 1


def test_it_is_offered_as_soon_as_it_reports_what_it_lacked(database: Database) -> None:
    assert poll(database) == Idle()
    tell(database, HAS)
    assert why(database, VIN).offered
    found = poll(database)
    assert isinstance(found, Act)
    assert why(database, VIN).reasons == ("it is offered this now: the full bundle, 6 bytes",)


def test_what_a_vehicle_reports_survives_the_wire() -> None:
    assert reported(reported_attributes(HAS)) == HAS
    assert reported({"nwm.chassis_interface": "one 2 99999999"}).chassis_interfaces == (2,)


def test_another_variants_runtime_is_not_asked_for() -> None:
    assert unmet(replace(REQUIRES, baselines={}, components={}), "other", Reported(chassis_interfaces=(1,))) == ()


def test_components_are_named_in_the_inventory_and_in_the_release(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    head = "vin,vehicle_model,baseline,sequence,components\n"
    path.write_text(f"{head}VIN1,et7,Banyan,1,gpu-driver=535.104 rig=7\nVIN2,et7,Banyan,1,\n")
    one, two = read_inventory(path, house.catalogue(), house.token)
    assert (one.components, two.components) == ({"gpu-driver": "535.104", "rig": "7"}, {})
    for wrong in ("gpu-driver", "=1", "Driver=1", "a=1 a=2", "a="):
        path.write_text(f"{head}VIN1,et7,Banyan,1,{wrong}\n")
        with pytest.raises(InventoryRowError):
            list(read_inventory(path, house.catalogue(), house.token))
    with pytest.raises(ValueError, match="not a component's name"):
        ReleaseRequires(components={"GPU driver": VersionRange("1")})


def test_why_for_everything_else(database: Database) -> None:
    with pytest.raises(UnknownVehicleError):
        why(database, "NOBODY")
    with pytest.raises(UnknownVehicleError):
        why(database, "\0")
    assert why(database, "VINet900000").reasons == ("no campaign has assigned anything to it",)
    campaigns.pause(database, "test-10", "a person said so", T0)
    assert why(database, VIN).reasons == ("the campaign is paused: a person said so",)
    campaigns.abort(database, "test-10", "over", T0)
    assert why(database, VIN).reasons == ("its part of campaign 'test-10' has ended: cancelled",)


# --- versions -----------------------------------------------------------------------------------------------------


def test_versions_are_ordered_as_people_write_them() -> None:
    order = ["1.2.dev1", "1.2a1", "1.2rc1", "1.2", "1.2.1", "1.10", "3.13.0rc20260101", "3.13", "2025.3.0"]
    assert sorted(order, key=version_key) == order
    assert version_key("1.2") == version_key("1.2.0")


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4), st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_plain_versions_compare_as_their_numbers(one: list[int], other: list[int]) -> None:
    wide = [numbers + [0] * (4 - len(numbers)) for numbers in (one, other)]
    keys = [version_key(".".join(map(str, numbers))) for numbers in (one, other)]
    assert (keys[0] < keys[1]) == (wide[0] < wide[1])


@pytest.mark.parametrize(("least", "most"), [("", ""), ("two", ""), ("2", "1"), ("1", "x"), ("x" * 81, "x" * 81)])
def test_ranges_that_hold_nothing(least: str, most: str) -> None:
    with pytest.raises(ValueError):
        VersionRange(least, most)


def test_a_range_of_one_word_is_compared_as_written() -> None:
    assert VersionRange.only("build-7").holds("build-7")
    assert not VersionRange.only("build-7").holds("8")
    assert not VersionRange("1", "2").holds("latest")


# --- markets ------------------------------------------------------------------------------------------------------


def fleet(folder: Path, lines: str, virtual: bool = True) -> Database:
    made = house.release()
    found = open_sqlite(folder / "fleet.db")
    found.migrate(MIGRATIONS)
    (folder / "f.csv").write_text(lines)
    import_inventory(
        found, folder / "f.csv", house.catalogue(), fleet="test", virtual=virtual, now_us=T0, token_for=house.token
    )
    enable_release(found, made, house.CONTENT, house.bundles(made, virtual_only=False), T0)
    return found


LINES = "vin,vehicle_model,baseline,sequence,market\nVIN1,et7,Banyan,1,CN\nVIN2,et7,Banyan,1,DE\n"
CN = MarketApproval("CN", "R157 NWM 2.5", "CN-2026-0001")
DE = MarketApproval("DE", "R157 NWM 2.5", "E1*157R01*0001")


def test_a_market_without_an_approval_stops_the_campaign_before_anything_is_offered(tmp_path: Path) -> None:
    database = fleet(tmp_path, LINES)
    with pytest.raises(MarketNotApprovedError) as refused:
        campaigns.create_campaign(database, house.release(markets=(CN,)), T0)
    assert "has no approval for DE" in refused.value.what
    assert "DE (1 vehicles); the release names CN" in refused.value.why
    assert database.reader.one("SELECT count(*) FROM assignment") == (0,)
    assert campaigns.create_campaign(database, house.release(markets=(CN, DE)), T0).vehicles == 2


def test_a_release_without_markets_goes_to_no_market(tmp_path: Path) -> None:
    with pytest.raises(MarketNotApprovedError, match="CN, DE"):
        campaigns.create_campaign(fleet(tmp_path, LINES), house.release(), T0)


def test_a_real_fleet_names_its_markets(tmp_path: Path) -> None:
    lines = LINES.replace(",market", "").replace(",CN", "").replace(",DE", "")
    real = FleetReference("test", "fleet.csv", virtual=False)
    with pytest.raises(MarketNotApprovedError, match="unknown market"):
        campaigns.create_campaign(fleet(tmp_path, lines, virtual=False), house.release(markets=(CN,), fleet=real), T0)


def test_a_vehicle_that_has_the_release_already_is_of_no_concern(tmp_path: Path) -> None:
    database = fleet(tmp_path, LINES.replace("Banyan,1,DE", "Banyan,10,DE"))
    assert campaigns.create_campaign(database, house.release(markets=(CN,)), T0).vehicles == 1


def test_a_market_is_two_capital_letters(tmp_path: Path) -> None:
    with pytest.raises(InventoryRowError, match=r"f\.csv:2") as refused:
        fleet(tmp_path, LINES.replace("CN", "China"))
    assert "two capital letters" in refused.value.why


@pytest.mark.parametrize(
    ("market", "rxswin", "approval"),
    [("de", "R157 a", "x"), ("DE", "157 a", "x"), ("DE", "R157", "x"), ("DE", "R157 a", " "), ("DE", "R157 a", "x\n")],
)
def test_approvals_that_cannot_be_said(market: str, rxswin: str, approval: str) -> None:
    with pytest.raises(ValueError):
        MarketApproval(market, rxswin, approval)


def test_a_release_names_an_approval_once() -> None:
    with pytest.raises(ValueError, match="listed twice"):
        house.release(markets=(CN, CN))
