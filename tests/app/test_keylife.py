"""A key folder's life through the commands: ceremony on separate machines, rotation, loss, renewal, and the watch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nwmctl.app import doctor, keychanges, renewal
from nwmctl.app.clock import SystemClock
from nwmctl.app.director import ensure_root
from nwmctl.app.fleets import fleet_database
from nwmctl.app.keys import Folder, make_keys
from nwmctl.app.session import open_session
from nwmctl.app.settings import Settings, load_settings
from nwmctl.cli.app import app
from nwmctl.domain.keys import KeyRole, KeyState
from nwmctl.errors import (
    ClockBehindError,
    KeyPassphraseError,
    KeyThresholdError,
    MetadataSignatureError,
    RepositoryEmptyError,
)
from nwmctl.steps.stage import load_repository, save_repository
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.expiry import Expiry, ExpiryState, repository_expiries
from nwmctl.trust.keyfolder import Wish
from nwmctl.trust.keys import KeyRing, init_keys, load_keyring
from nwmctl.trust.repository import add_targets, create_repository
from nwmctl.trust.roots import check_chain, view_root
from tests.project import ProjectFiles, write_project
from tests.trust.conftest import FixedClock, real_now
from tests.trust.test_repository import DAY, Mirror, bundle

TUF = [KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP]


def nwmctl(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.stdout


def people(folder: Path) -> list[Path]:
    """Three holders with a folder each; what they give away is a public key."""
    found = []
    for name in ("ada", "ben", "cleo"):
        make_keys(folder / name, development=True, content=Folder((KeyRole.ROOT,)))
        found.append(folder / name)
    return found


def office(folder: Path, holders: list[Path]) -> Path:
    held = tuple((one / "root.pub").read_text().strip() for one in holders)
    wishes: list[KeyRole | Wish] = [Wish(KeyRole.ROOT, count=0, held=held, threshold=2), *TUF[1:]]
    return init_keys(folder / "office", SystemClock(), wishes, development=True).folder


def test_a_ceremony_on_separate_machines(tmp_path: Path) -> None:
    holders = people(tmp_path)
    keys = office(tmp_path, holders)
    draft = tmp_path / "draft.json"
    said = json.loads(nwmctl("keys", "ceremony", "draft", "--keys", keys, "--out", draft, "--json"))
    assert said["roles"]["root"]["threshold"] == 2
    for holder in holders:
        out = tmp_path / f"{holder.name}.sig"
        seen = json.loads(nwmctl("keys", "ceremony", "sign", draft, "--keys", holder, "--out", out, "--json"))
        assert seen["digest"] == said["digest"], "everybody sees what all sign"
    with pytest.raises(KeyThresholdError):
        CliRunner().invoke(
            app,
            ["keys", "ceremony", "finish", str(draft), str(tmp_path / "ada.sig"), "--keys", str(keys)],
            catch_exceptions=False,
        )
    assert load_keyring(keys).roots() == ()
    nwmctl("keys", "ceremony", "finish", draft, tmp_path / "ada.sig", tmp_path / "cleo.sig", "--keys", keys)
    roots = load_keyring(keys).roots()
    check_chain(roots)
    assert len(roots) == 1
    assert create_repository(load_keyring(keys), SystemClock()).state.roots == roots

    # The timestamp key is replaced; the holders, asked again, sign the next root on top of the first.
    change = json.loads(nwmctl("keys", "rotate", "timestamp", "--keys", keys, "--json"))
    assert change["roots"] == {"root": {"version": 2, "finished": False, "path": str(keys / "2.root.draft.json")}}
    assert "holders sign" in change["todo"][0]
    assert json.loads(nwmctl("keys", "list", "--keys", keys, "--json"))["root_pending"]
    for holder in holders[:2]:
        nwmctl(
            "keys",
            "ceremony",
            "sign",
            keys / "2.root.draft.json",
            "--keys",
            holder,
            "--out",
            tmp_path / holder.name / "2.sig",
        )
    signed = [holder / "2.sig" for holder in holders[:2]]
    nwmctl("keys", "ceremony", "finish", keys / "2.root.draft.json", *signed, "--keys", keys)
    check_chain(load_keyring(keys).roots())
    shown = json.loads(nwmctl("keys", "list", "--keys", keys, "--json"))
    assert (shown["root"], shown["root_pending"]) == (2, False)
    assert {row["where"] for row in shown["keys"] if row["role"] == "root"} == {"elsewhere"}


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return init_keys(tmp_path / "ring", SystemClock(), TUF, development=True, platforms=["virtual"])


@pytest.mark.parametrize("role", TUF)
def test_a_rotation_is_followed_by_vehicles_with_an_older_root(ring: KeyRing, role: KeyRole) -> None:
    clock = real_now()
    first = create_repository(ring, clock)
    mirror = Mirror()
    mirror.publish(first)
    old = TrustedState(first.state.roots[0])
    seen = refresh(old, mirror.fetch, clock.us).state
    change = keychanges.rotate(ring.folder, role, "", keychanges.NewKeys())
    (root,) = change.roots
    assert root.finished
    assert root.view == view_root(load_keyring(ring.folder).roots()[1])
    assert len(change.new) == (3 if role is KeyRole.ROOT else 1)
    mirror.publish(add_targets(first.state, [bundle()], change.ring, clock))
    for known in (old, seen):
        assert refresh(known, mirror.fetch, clock.us).resolve(bundle().name) == bundle()


def test_a_lost_key_is_out_of_the_next_root(ring: KeyRing) -> None:
    lost = ring.public(KeyRole.TIMESTAMP)
    change = keychanges.revoke(ring.folder, lost)
    (root,) = change.roots
    assert root.finished
    assert lost not in root.view.role("timestamp").keys
    states = {entry.public: entry.state for entry in load_keyring(ring.folder).document.keys}
    assert states[lost] is KeyState.REVOKED


def test_a_platforms_key_needs_no_root(ring: KeyRing) -> None:
    change = keychanges.rotate(ring.folder, KeyRole.TARGETS, "virtual", keychanges.NewKeys(count=2, threshold=2))
    assert change.roots == ()
    assert [entry.label for entry in change.new] == ["targets/virtual"] * 2
    assert len(load_keyring(ring.folder).roots()) == 1


# --- renewal --------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> ProjectFiles:
    return write_project(tmp_path / "release")


@pytest.fixture
def settings(tmp_path: Path, ring: KeyRing) -> Settings:
    return load_settings(tmp_path / "w", keys=ring.folder, environment={"HOME": str(tmp_path / "home")})


def publish(settings: Settings, ring: KeyRing, at: FixedClock) -> None:
    """What the workspace would have after publishing at that time."""
    first = create_repository(ring, at)
    save_repository(settings.open().repository, add_targets(first.state, [bundle("virtual")], ring, at))


def version(path: Path) -> int:
    found: int = json.loads(path.read_bytes())["signed"]["version"]
    return found


def test_nothing_is_renewed_before_anything_was_published(settings: Settings, files: ProjectFiles) -> None:
    with pytest.raises(RepositoryEmptyError):
        renewal.refresh(settings, files.release)


def test_metadata_are_renewed_past_half_of_their_lives_and_published(
    settings: Settings, files: ProjectFiles, ring: KeyRing
) -> None:
    now = real_now()
    publish(settings, ring, FixedClock(now.us - 20 * DAY))
    done = renewal.refresh(settings, files.release)
    assert done.renewed
    assert done.mirrors == ("local",)
    served = settings.workspace / "mirrors" / "local"
    assert version(served / "metadata" / "timestamp.json") == 3
    again = renewal.refresh(settings, files.release)
    assert (again.renewed, again.mirrors) == (False, ())
    assert renewal.refresh(settings, files.release, force=True).renewed
    state = load_repository(settings.workspace / "repository")
    assert state is not None

    def fetch(path: str) -> bytes | None:
        place = served / path
        return place.read_bytes() if place.exists() else None

    found = refresh(TrustedState(state.state.roots[0]), fetch, now.us)
    assert found.resolve(bundle("virtual").name) == bundle("virtual")


def test_new_keys_are_taken_over_by_a_refresh(settings: Settings, files: ProjectFiles, ring: KeyRing) -> None:
    publish(settings, ring, real_now())
    assert not renewal.refresh(settings, files.release).renewed
    keychanges.rotate(ring.folder, KeyRole.TIMESTAMP, "", keychanges.NewKeys())
    assert renewal.refresh(settings, files.release).renewed
    assert (settings.workspace / "mirrors" / "local" / "metadata" / "2.root.json").exists()


def test_a_restored_backup_is_published_above_what_vehicles_have_seen(
    settings: Settings, files: ProjectFiles, ring: KeyRing
) -> None:
    """The workspace lost its last weeks; its vehicles have not, and say so in their reports."""
    publish(settings, ring, real_now())
    served = settings.workspace / "mirrors" / "local" / "metadata"
    assert not renewal.refresh(settings, files.release).renewed
    seen = {"timestamp": 41, "snapshot": 40, "targets": 39, "platform-virtual": 38}
    with fleet_database(settings.open()) as database, database.transaction() as tx:
        for role, number in seen.items():
            tx.execute("INSERT INTO reported_metadata (role, version) VALUES (:role, :n)", role=role, n=number)
    assert renewal.refresh(settings, files.release).renewed
    assert not renewal.refresh(settings, files.release).renewed, "once is enough"
    assert version(served / "timestamp.json") == 42
    assert version(served / "41.snapshot.json") == 41
    assert version(served / "40.targets.json") == 40
    assert version(served / "39.platform-virtual.json") == 39


@pytest.mark.parametrize("ahead", [3, 27_000])
def test_what_a_clock_signed_that_ran_ahead_is_signed_anew(
    settings: Settings, files: ProjectFiles, ring: KeyRing, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """Left alone, it would hold for years: nobody would notice who holds back what came after it."""
    publish(settings, ring, real_now())
    served = settings.workspace / "mirrors" / "local"
    with monkeypatch.context() as patch:
        later = real_now().us + ahead * DAY
        patch.setattr(SystemClock, "now_us", lambda self: later)
        assert renewal.refresh(settings, files.release, force=True).renewed
    wrong = version(served / "metadata" / "timestamp.json")
    assert renewal.refresh(settings, files.release).renewed
    assert not renewal.refresh(settings, files.release).renewed
    state = load_repository(settings.workspace / "repository")
    assert state is not None
    assert version(served / "metadata" / "timestamp.json") == wrong + 1
    for one in repository_expiries(state.state):
        years = 5 if "root" in one.name else 1
        assert one.expires_us <= real_now().us + years * 366 * DAY, one.name

    def fetch(path: str) -> bytes | None:
        place = served / path
        return place.read_bytes() if place.exists() else None

    found = refresh(TrustedState(state.state.roots[0]), fetch, real_now().us)
    assert found.resolve(bundle("virtual").name) == bundle("virtual")


def test_a_clock_before_the_keys_signs_nothing(
    settings: Settings, files: ProjectFiles, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(settings, ring, FixedClock(real_now().us - 20 * DAY))
    before = {path: path.read_bytes() for path in settings.workspace.rglob("*.json")}
    monkeypatch.setattr(SystemClock, "now_us", lambda self: 86_400_000_000)
    with pytest.raises(ClockBehindError, match="1970-01-02"):
        renewal.refresh(settings, files.release, force=True)
    assert {path: path.read_bytes() for path in settings.workspace.rglob("*.json")} == before


def test_roots_that_end_soon_are_renewed_where_their_keys_are(tmp_path: Path, files: ProjectFiles) -> None:
    then = FixedClock(real_now().us - 1700 * DAY)
    roles = [*TUF, KeyRole.DIRECTOR_ROOT, KeyRole.DIRECTOR]
    ring = init_keys(tmp_path / "ring", then, roles, development=True, platforms=["virtual"])
    settings = load_settings(tmp_path / "w", keys=ring.folder, environment={"HOME": str(tmp_path / "home")})
    ensure_root(settings.open(), ring, then)
    publish(settings, ring, FixedClock(real_now().us))
    done = renewal.refresh(settings, files.release)
    assert {root.view.holders: root.view.version for root in done.roots} == {
        KeyRole.ROOT: 2,
        KeyRole.DIRECTOR_ROOT: 2,
    }
    assert (settings.workspace / "mirrors" / "local" / "metadata" / "2.root.json").exists()
    assert ensure_root(settings.open(), load_keyring(ring.folder), SystemClock())[0].version == 2
    assert not renewal.refresh(settings, files.release).roots
    assert {str(watched.state) for watched in done.watched} == {str(ExpiryState.HOLDS)}


def test_another_ring_renews_nothing(settings: Settings, files: ProjectFiles, ring: KeyRing, tmp_path: Path) -> None:
    publish(settings, ring, real_now())
    other = init_keys(tmp_path / "other", SystemClock(), TUF, development=True)
    before = {path: path.read_bytes() for path in (settings.workspace / "repository").rglob("*.json")}
    with pytest.raises(MetadataSignatureError):
        renewal.refresh(replace(settings, keys=other.folder), files.release)
    assert {path: path.read_bytes() for path in (settings.workspace / "repository").rglob("*.json")} == before


@pytest.mark.parametrize("word", ["wrong", None])
def test_a_wrong_passphrase_is_told_before_anything_is_built_or_signed(
    settings: Settings, files: ProjectFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str | None
) -> None:
    locked = init_keys(tmp_path / "locked", SystemClock(), TUF, development=True, passphrase=b"right")
    settings = replace(settings, keys=locked.folder)
    save_repository(settings.open().repository, create_repository(locked, real_now(), b"right"))
    variable = None if word is None else "SECRET"
    monkeypatch.setenv("SECRET", word or "")
    before = {path: path.read_bytes() for path in settings.workspace.rglob("*") if path.suffix == ".json"}
    with (
        pytest.raises(KeyPassphraseError),
        open_session(settings, files.release, "test", passphrase_env=variable, ask=True),
    ):
        pass
    with pytest.raises(KeyPassphraseError):
        renewal.refresh(settings, files.release, force=True, passphrase_env=variable)
    assert {path: path.read_bytes() for path in settings.workspace.rglob("*") if path.suffix == ".json"} == before
    monkeypatch.setenv("SECRET", "right")
    with open_session(settings, files.release, "test", passphrase_env="SECRET", ask=True):
        pass


# --- the watch ------------------------------------------------------------------------------------------------------


def test_an_end_is_told_of_before_it_comes() -> None:
    expiry = Expiry("x", 100 * DAY, 10 * DAY, "do it")
    assert [expiry.state(at * DAY) for at in (89, 90, 99, 100)] == [
        ExpiryState.HOLDS,
        ExpiryState.SOON,
        ExpiryState.SOON,
        ExpiryState.EXPIRED,
    ]


@pytest.mark.parametrize(
    ("age", "health"), [(0, doctor.Health.OK), (25, doctor.Health.WARNING), (31, doctor.Health.PROBLEM)]
)
def test_doctor_warns_before_the_timestamp_expires(
    settings: Settings, ring: KeyRing, age: int, health: doctor.Health
) -> None:
    publish(settings, ring, FixedClock(real_now().us - age * DAY))
    lines = {line.name: line for line in doctor._expiries(settings)}
    assert lines["repository: timestamp"].health is health
    assert ("keys refresh" in lines["repository: timestamp"].install) == (age > 0)
    assert lines["repository: root"].health is doctor.Health.OK
    assert lines["repository: platform-virtual"].health is doctor.Health.OK
    assert lines["root, version 1"].health is doctor.Health.OK
