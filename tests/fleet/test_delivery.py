"""Who gets a delta bundle: offered, directed, counted and, where it does not install, replaced by the full one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.fleet import AssignmentState
from nwmctl.domain.release import Release
from nwmctl.domain.traffic import ByteBudget, Spent
from nwmctl.errors import BundleSetIncompleteError
from nwmctl.fleet.campaigns import create_campaign, rollback, start
from nwmctl.fleet.consequences import Heard, Report, blames_delta
from nwmctl.fleet.delivery import Ways
from nwmctl.fleet.offers import Act, Offer, offer, open_action, standing
from nwmctl.fleet.releases import EnabledBundle, delta_bundles, enable_release
from nwmctl.fleet.reports import record_report
from nwmctl.fleet.status import status, story
from nwmctl.fleet.traffic import account
from nwmctl.fleet.why import why
from nwmctl.storage.database import Database
from tests.fleet import house
from tests.fleet.house import T0, finish, state_of, wave_vins
from tests.fleet.test_traffic import NAME, ONE_WAVE, ask, hang_on
from tests.postgres import Stores

SIZE, SMALL = len(b"bundle"), 2


def delta(made: Release, platform: str = "nt2.0", base: int = 1, **changes: object) -> EnabledBundle:
    full = next(one for one in house.bundles(made) if one.platform == platform and one.kind is BundleKind.RELEASE)
    name = full.filename.replace(".swu", "-from-1.swu")
    own = {"filename": name, "tuf_name": name, "path": f"targets/{name}", "sha256": "d" * 64, "size": SMALL}
    return dataclasses.replace(full, **{**own, "base_sequence": base, **changes})  # type: ignore[arg-type]


def opened(stores: Stores, folder: Path, budget: ByteBudget | None, *deltas: EnabledBundle) -> Database:
    made = house.release(bytes=budget, waves=ONE_WAVE)
    database = house.fleet_database(folder, made=made, database=stores.open())
    enable_release(database, made, house.CONTENT, house.bundles(made), T0, deltas or (delta(made),))
    create_campaign(database, made, T0)
    start(database, NAME, T0)
    return database


def ours(database: Database) -> list[str]:
    """The vehicles of the platform that has a delta."""
    rows = database.reader.all("SELECT vin FROM vehicle WHERE platform = 'nt2.0' ORDER BY vin")
    return [row[0] for row in rows]


def shown(database: Database, vin: str) -> Offer:
    found = standing(database.reader, vin)
    assert isinstance(found, Act)
    return offer(database.reader, vin, found.action)


def fail(database: Database, vin: str, *details: str) -> None:
    found = ask(database, vin)
    assert isinstance(found, Act)
    with database.transaction() as tx:
        record_report(tx, vin, found.action, Report(Heard.FAILURE, None, details), T0)


def spent(database: Database) -> Spent:
    held = account(database.reader, 1)
    assert held is not None
    return held.spent


def test_whoever_runs_the_base_gets_the_delta_over_any_link(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, ByteBudget())
    cellular, wifi = ours(database)[:2]
    hang_on(database, wifi, "wifi")
    for vin in (cellular, wifi):
        assert why(database, vin).reasons == ("its next poll is offered it: a delta from sequence 1, 2 bytes",)
        assert isinstance(ask(database, vin), Act)
        bundle = shown(database, vin).bundle
        assert bundle is not None
        assert (bundle.base_sequence, bundle.size, bundle.sha256) == (1, SMALL, "d" * 64)
    assert spent(database) == Spent(SMALL, 2 * SMALL)
    assert why(database, wifi).reasons == ("it is offered this now: a delta from sequence 1, 2 bytes",)
    offered = next(line for line in story(database, wifi) if line.what == "offered")
    assert (offered.data["delta_from"], offered.data["bytes"]) == (1, SMALL)
    assert status(database, NAME, T0).ways == Ways(2, 2 * SMALL, 0, 0)
    finish(database, wifi)
    assert state_of(database, wifi) is AssignmentState.COMMITTED


def test_another_version_and_another_platform_get_the_full_bundle(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, ByteBudget(full_on_cellular=True))
    other = ours(database)[0]
    with database.transaction() as tx:
        tx.execute("UPDATE vehicle SET sequence = 2 WHERE vin = :vin", vin=other)
    platform = next(vin for vin in wave_vins(database, 1) if vin not in ours(database))
    for vin in (other, platform):
        assert isinstance(ask(database, vin), Act)
        bundle = shown(database, vin).bundle
        assert bundle is not None
        assert (bundle.base_sequence, bundle.size) == (None, SIZE)
    assert status(database, NAME, T0).ways == Ways(0, 0, 2, 2 * SIZE)


def test_an_answer_stays_the_same_while_a_vehicle_works_on_it(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, None)
    vin = ours(database)[0]
    ask(database, vin)
    before = shown(database, vin)
    with database.transaction() as tx:
        # It has begun its trial and reports what runs now.
        tx.execute("UPDATE vehicle SET sequence = 10 WHERE vin = :vin", vin=vin)
    assert shown(database, vin) == before


@pytest.mark.parametrize(
    ("details", "first", "second"),
    [
        (("nwm.stage=failed", "nwm.reason=DeltaBaseLackingError", "this vehicle does not run it"), True, True),
        (("payload.vmfb: the other slot does not hold the file that the delta starts from",), True, True),
        ((), True, True),
        (("nwm.stage=failed",), True, True),
        (("nwm.stage=failed", "nwm.reason=DownloadBrokenError", "the download stopped"), False, False),
        (("SWUpdate failed",), False, True),
    ],
)
def test_a_delta_is_blamed_for_what_it_did(details: tuple[str, ...], first: bool, second: bool) -> None:
    assert (blames_delta(details, 1), blames_delta(details, 2)) == (first, second)


def test_a_delta_that_does_not_install_is_followed_by_the_full_bundle(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, ByteBudget())
    vin = ours(database)[0]
    hang_on(database, vin, "wifi")
    fail(database, vin, "nwm.reason=DeltaBaseLackingError")
    assert isinstance(ask(database, vin), Act)
    bundle = shown(database, vin).bundle
    assert bundle is not None
    assert bundle.base_sequence is None
    assert spent(database) == Spent(0, SMALL + SIZE)
    (line,) = [line for line in story(database, vin) if line.what == "delta_failed"]
    assert (line.data["delta_from"], line.data["next"]) == (1, "the full bundle")


def test_over_a_cellular_link_it_waits_with_the_reason(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, ByteBudget())
    vin = ours(database)[0]
    fail(database, vin, "nwm.reason=DeltaBaseLackingError")
    ask(database, vin)
    assert state_of(database, vin) is AssignmentState.DEFERRED
    assert "could not be installed" in why(database, vin).reasons[0]
    assert spent(database) == Spent(SMALL, SMALL)
    hang_on(database, vin, "wifi")
    assert isinstance(ask(database, vin), Act)


def test_a_broken_download_is_tried_again_with_the_delta(stores: Stores, tmp_path: Path) -> None:
    database = opened(stores, tmp_path, ByteBudget())
    vin = ours(database)[0]
    fail(database, vin, "nwm.stage=failed", "nwm.reason=DownloadBrokenError")
    assert isinstance(ask(database, vin), Act)
    bundle = shown(database, vin).bundle
    assert bundle is not None
    assert bundle.base_sequence == 1
    assert spent(database) == Spent(2 * SMALL, 2 * SMALL)


def test_the_way_back_never_is_a_delta(stores: Stores, tmp_path: Path) -> None:
    made = house.release()
    database = opened(stores, tmp_path, None, delta(made), delta(made, base=10))
    vin = ours(database)[0]
    finish(database, vin)
    rollback(database, NAME, "test", T0)
    ask(database, vin)
    found = shown(database, vin)
    assert found.kind is BundleKind.RETURN
    assert found.bundle is not None
    assert found.bundle.base_sequence is None


def test_deltas_are_enabled_with_their_release_and_never_change(stores: Stores, tmp_path: Path) -> None:
    made = house.release()
    database = house.fleet_database(tmp_path, made=made, database=stores.open())
    for deltas in ([delta(made)], [delta(made, size=99), delta(made, base=2)]):
        enable_release(database, made, house.CONTENT, house.bundles(made), T0, deltas)
    found = {one.base_sequence: one.size for one in delta_bundles(database.reader, 10)}
    assert found == {1: SMALL, 2: SMALL}
    before = database.reader.all("SELECT count(*) FROM event")
    enable_release(database, made, house.CONTENT, house.bundles(made), T0, [delta(made)])
    assert database.reader.all("SELECT count(*) FROM event") == before


@pytest.mark.parametrize(
    "wrong", [{"sequence": 11}, {"kind": BundleKind.RETURN}, {"platform": "nt9"}, {"base_sequence": None}]
)
def test_a_foreign_delta_is_refused_and_nothing_is_enabled(tmp_path: Path, wrong: dict[str, object]) -> None:
    made = house.release(sequence=20)
    database = house.fleet_database(tmp_path)
    foreign = dataclasses.replace(delta(made), **wrong)  # type: ignore[arg-type]
    for deltas in ([foreign], [delta(made), delta(made)]):
        with pytest.raises(BundleSetIncompleteError, match="does not belong to release"):
            enable_release(database, made, house.CONTENT, house.bundles(made), T0, deltas)
    assert delta_bundles(database.reader, 20) == ()


def test_a_poll_of_somebody_else_does_not_matter(stores: Stores, tmp_path: Path) -> None:
    """A campaign of a release without deltas counts no ways and asks for none."""
    made = house.release(waves=ONE_WAVE)
    database = house.fleet_database(tmp_path, made=made, database=stores.open())
    create_campaign(database, made, T0)
    start(database, NAME, T0)
    with database.transaction() as tx:
        open_action(tx, ours(database)[0], T0)
    assert status(database, NAME, T0).ways is None
