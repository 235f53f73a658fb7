"""What the director says to whom, how it is kept, what vehicles report, and a database that came from a backup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import (
    AuditBrokenError,
    DirectorNotReadyError,
    EcusNotRegisteredError,
    EcusTakenError,
    ReportImplausibleError,
    ReportReplayedError,
    ReportUntrustedError,
)
from nwmctl.fleet import director, manifests
from nwmctl.fleet.campaigns import abort, create_campaign, pause, resume, rollback, start
from nwmctl.fleet.director_schema import OWNER as DIRECTOR
from nwmctl.fleet.events import verify_chain
from nwmctl.fleet.schema import MIGRATIONS
from nwmctl.formats.uptane import Dialect, Directed, Ecu, UseSlot
from nwmctl.formats.uptane_reports import Installed, Registration, decode_events, decode_report
from nwmctl.storage.database import Database
from nwmctl.trust.director import LIFETIME_US, DirectorKeys, DirectorPool, DirectorSigner
from nwmctl.trust.director_root import next_root
from nwmctl.trust.keys import Ed25519Signer, KeyRing, init_keys
from nwmctl.trust.uptane_client import DirectorState, refresh_director
from nwmctl.trust.vehicle_report import sign_report
from tests.fakes import FakeClock
from tests.fleet import house
from tests.postgres import Stores, tables

T0, HOUR = house.T0, 3_600 * house.SECOND
NAME = "test-10"
RUNS = Installed("old.swu", 5, "aa" * 32)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    roles = [KeyRole.DIRECTOR_ROOT, KeyRole.DIRECTOR]
    return init_keys(tmp_path_factory.mktemp("keys") / "ring", FakeClock(), roles, development=True)


@pytest.fixture(scope="module")
def signer(ring: KeyRing) -> DirectorSigner:
    return DirectorKeys(ring.folder).open()


@pytest.fixture
def database(tmp_path: Path, stores: Stores) -> Database:
    return prepared(tmp_path, stores.open())


def prepared(folder: Path, empty: Database) -> Database:
    """A fleet whose vehicles have registered, with a running campaign."""
    database = house.fleet_database(folder, database=empty)
    create_campaign(database, house.release(), T0)
    start(database, NAME, T0)
    with database.transaction() as tx:
        for (vin,) in tx.all("SELECT vin FROM vehicle ORDER BY vin"):
            assert manifests.register(tx, vin, registration(vin), T0)
    return database


def key(vin: str, computer: str = "main-1") -> Ed25519Signer:
    seed = f"{vin}/{computer}".encode().ljust(32, b".")[-32:]
    return Ed25519Signer(Ed25519PrivateKey.from_private_bytes(seed))


def registration(vin: str, hardware: str = "board:A", dialect: Dialect = Dialect.TUF) -> Registration:
    ecus = tuple(Ecu(f"{vin}/{name}", hardware, key(vin, name).public) for name in ("main-1", "backup-1"))
    return Registration(f"{vin}/main-1", ecus, dialect)


def serve(database: Database, vin: str, signer: DirectorSigner, now_us: int = T0) -> dict[str, object]:
    with database.transaction() as tx:
        signed: dict[str, object] = json.loads(director.sign_one(tx, vin, signer, now_us))["signed"]
    return signed


def report(database: Database, vin: str, counter: int, now_us: int = T0, **versions: dict[str, int]) -> None:
    backup = (key(vin, "backup-1"), f"{vin}/backup-1", 1, RUNS)
    body = sign_report(key(vin), f"{vin}/main-1", counter, RUNS, metadata=dict(versions), others=(backup,))  # type: ignore[arg-type]
    with database.transaction() as tx:
        manifests.record_manifest(tx, vin, decode_report(body), body, now_us)


def test_the_director_says_what_a_poll_would_offer(database: Database) -> None:
    canary, later = house.wave_vins(database, 1)[0], house.wave_vins(database, 2)[0]
    bundle = {one.platform: one for one in house.bundles(house.release())[:2]}["nt3.0" if "et9" in canary else "nt2.0"]
    expected = Directed(bundle.tuf_name, bundle.size, bundle.sha256, 10)
    assert director.wanted(database.reader, canary).direction == expected
    assert director.wanted(database.reader, later).direction is None
    pause(database, NAME, "wait", T0)
    assert director.wanted(database.reader, canary).direction is None
    resume(database, NAME, "go on", T0)
    house.finish(database, canary)
    assert director.wanted(database.reader, canary).direction is None
    with pytest.raises(EcusNotRegisteredError):
        director.wanted(database.reader, "NOBODY")


def test_who_returns_by_a_slot_is_told_its_sequence(database: Database) -> None:
    vin = house.wave_vins(database, 1)[0]
    house.finish(database, vin)
    house.slots(database, vin, active=10, inactive=1)
    rollback(database, NAME, "back", T0)
    assert isinstance(director.wanted(database.reader, vin).direction, UseSlot)


def test_a_withdrawn_action_is_no_direction(database: Database) -> None:
    vin = house.wave_vins(database, 1)[0]
    house.act(database, vin)
    abort(database, NAME, "no", T0)
    assert director.wanted(database.reader, vin).direction is None
    assert all(one.direction is None for page in director.wanted_pages(database.reader, 2) for one in page)


def test_pages_say_what_single_questions_say(database: Database) -> None:
    paged = [one for page in director.wanted_pages(database.reader, 2) for one in page]
    assert paged == [director.wanted(database.reader, one.vin) for one in paged]
    assert len(paged) == 9
    assert any(one.direction for one in paged)


def test_a_file_is_signed_once_and_again_when_something_changes(database: Database, signer: DirectorSigner) -> None:
    vin = house.wave_vins(database, 1)[0]
    first = serve(database, vin, signer)
    assert serve(database, vin, signer, T0 + HOUR) == first
    renewed = serve(database, vin, signer, T0 + LIFETIME_US * 3 // 4)
    assert renewed["targets"] == first["targets"]
    assert renewed["expires"] != first["expires"]
    # A clock that ran ahead has signed for next year; once it is right, that is no reason to wait until then.
    ahead = serve(database, vin, signer, T0 + 50 * LIFETIME_US)
    right = serve(database, vin, signer, T0 + LIFETIME_US * 3 // 4)
    assert right["expires"] == renewed["expires"] != ahead["expires"]
    assert int(str(right["version"])) > int(str(ahead["version"]))
    house.finish(database, vin)
    after = serve(database, vin, signer, T0 + LIFETIME_US * 3 // 4)
    assert after["targets"] == {}
    versions = [one["version"] for one in (first, renewed, after)]
    assert versions == sorted(set(versions))  # type: ignore[type-var]


def test_the_whole_fleet_is_signed_and_then_only_what_changed(
    database: Database, ring: KeyRing, signer: DirectorSigner
) -> None:
    told: list[tuple[int, int]] = []
    with DirectorPool(DirectorKeys(ring.folder), 1) as pool:

        def sign(now_us: int) -> int:
            return director.sign_due(database, pool, signer.fingerprint, now_us, lambda *seen: told.append(seen))

        assert sign(T0) == 9
        assert told[-1] == (9, 9)
        assert sign(T0 + HOUR) == 0
        changed = house.wave_vins(database, 1)[0]
        before = director.kept_body(database.reader, changed)
        house.finish(database, changed)
        assert sign(T0 + HOUR) == 1
        assert director.kept_body(database.reader, changed) != before
    root = next_root(ring, None, T0)
    for (vin,) in database.reader.all("SELECT vin FROM vehicle"):
        files = {"targets.json": director.kept_body(database.reader, vin).encode()}
        assert refresh_director(DirectorState(root.tuf), files.get, T0).version > 0


def test_a_lower_version_is_never_kept(database: Database) -> None:
    vin = house.wave_vins(database, 1)[0]
    with database.transaction() as tx:
        director.keep(tx, [director.Kept(vin, 9, "new", T0, "{}")])
        director.keep(tx, [director.Kept(vin, 8, "old", T0, "[]")])
    assert director.kept_body(database.reader, vin) == "{}"
    with pytest.raises(DirectorNotReadyError):
        director.kept_body(database.reader, "NOBODY")


def test_computers_are_registered_once(database: Database) -> None:
    vin = house.wave_vins(database, 1)[0]
    with database.transaction() as tx:
        assert not manifests.register(tx, vin, registration(vin), T0)
        with tx.savepoint(), pytest.raises(EcusTakenError):
            manifests.register(tx, vin, registration(vin, "board:B"), T0)
        manifests.forget(tx, vin, "computer replaced", T0)
        assert manifests.register(tx, vin, registration(vin, "board:B"), T0)
    assert '"board:B"' in director.wanted(database.reader, vin).ecus


def test_reports_are_verified_stored_and_never_replayed(database: Database) -> None:
    vin, other = house.wave_vins(database, 1)[:2]
    report(database, vin, 1)
    stored = manifests.last_report(database.reader, vin)
    assert stored is not None
    assert decode_report(stored).ecus[0].installed == RUNS
    for counter in (1, 0):
        with pytest.raises(ReportReplayedError):
            report(database, vin, counter)
    report(database, vin, 5)
    assert manifests.last_report(database.reader, vin) != stored
    body = sign_report(key(vin), f"{vin}/main-1", 6, RUNS)
    forged = sign_report(key(other), f"{vin}/main-1", 6, RUNS)
    for target, data in (
        (other, body),
        (vin, forged),
        (vin, body.replace(b'"report_counter":6', b'"report_counter":7')),
    ):
        with database.transaction() as tx, pytest.raises(ReportUntrustedError):
            manifests.record_manifest(tx, target, decode_report(data), data, T0)
    kinds = [row[0] for row in database.reader.all("SELECT kind FROM event WHERE vin = :vin ORDER BY number", vin=vin)]
    assert kinds.count("report_verified") == 1
    assert verify_chain(database.reader).number > 0


def test_an_altered_registration_breaks_the_audit_chain(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute("UPDATE event SET data = '{}' WHERE kind = 'ecus_registered'")
    with pytest.raises(AuditBrokenError):
        verify_chain(database.reader)


def test_versions_that_nobody_can_have_seen_are_refused(database: Database) -> None:
    vin = house.wave_vins(database, 1)[0]
    with pytest.raises(ReportImplausibleError):
        report(database, vin, 1, director={"targets": 2**40})
    with pytest.raises(ReportImplausibleError):
        report(database, vin, 1, image={"timestamp": 2**31})
    report(database, vin, 1, image={"timestamp": 40, "root": 1})
    report(database, vin, 2, image={"timestamp": 30})
    assert manifests.highest_reported(database.reader) == {"timestamp": 40, "root": 1}


def test_after_a_restored_backup_versions_exceed_what_vehicles_have_seen(
    tmp_path: Path, stores: Stores, signer: DirectorSigner
) -> None:
    backup, lost = prepared(tmp_path, stores.open("backup")), prepared(tmp_path, stores.open("lost"))
    vin = house.wave_vins(lost, 1)[0]
    serve(backup, vin, signer)
    # The clock of the lost machine ran ahead, so the minutes alone do not help.
    seen = serve(lost, vin, signer, T0 + 30 * 24 * HOUR)["version"]
    assert isinstance(seen, int)
    before = serve(backup, vin, signer)["version"]
    assert isinstance(before, int)
    assert before < seen
    report(backup, vin, 1, director={"root": 0, "targets": seen}, image={"timestamp": 8})
    after = serve(backup, vin, signer)["version"]
    assert isinstance(after, int)
    assert after > seen
    assert serve(backup, vin, signer)["version"] == after
    assert manifests.highest_reported(backup.reader) == {"timestamp": 8}


def test_a_client_that_reports_no_versions_is_passed_by_the_minute(database: Database, signer: DirectorSigner) -> None:
    vin = house.wave_vins(database, 1)[0]
    lost = serve(database, vin, signer, T0)["version"]
    with database.transaction() as tx:
        tx.execute("DELETE FROM director_file")
    again = serve(database, vin, signer, T0 + HOUR)["version"]
    assert isinstance(lost, int)
    assert isinstance(again, int)
    assert again > lost


def test_events_are_stored_once_and_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_EVENTS", 3)
    vin = house.wave_vins(database, 1)[0]
    body = json.dumps([{"id": f"e{n}", "eventType": {"id": "Download", "version": 1}} for n in range(5)]).encode()
    with database.transaction() as tx:
        manifests.record_events(tx, vin, decode_events(body), T0)
        manifests.record_events(tx, vin, decode_events(body)[-1:], T0)
        manifests.record_note(tx, vin, "config", "a", T0)
        manifests.record_note(tx, vin, "config", "b", T0)
    rows = database.reader.all("SELECT event_id FROM vehicle_event WHERE vin = :vin ORDER BY id", vin=vin)
    assert [row[0] for row in rows] == ["e2", "e3", "e4"]
    assert database.reader.all("SELECT body FROM vehicle_note") == [("b",)]


def test_every_released_version_of_the_tables_migrates_to_the_fresh_ones(stores: Stores) -> None:
    fresh = stores.open("fresh")
    fresh.migrate(MIGRATIONS)
    fleet = [one for one in MIGRATIONS if one.owner != DIRECTOR]
    for version in range(1, len(MIGRATIONS) - len(fleet) + 1):
        old = stores.open(f"from_{version}")
        old.migrate(fleet)
        text = (Path(__file__).parent / "golden" / f"director-{stores.kind}-{version}.sql").read_text()
        with old.transaction() as tx:
            for statement in text.split(";"):
                if statement.strip():
                    tx.execute(statement)
            tx.execute("INSERT INTO schema_version VALUES (:owner, :version)", owner=DIRECTOR, version=version)
        old.migrate(MIGRATIONS)
        assert tables(old) == tables(fresh)
