"""Bundles whose certificate ends: one command publishes them again under a fresh one, and nothing is compiled."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nwmctl.app import doctor, renewal
from nwmctl.app.clock import SystemClock
from nwmctl.app.resign import prepare, published_expiry
from nwmctl.app.settings import load_settings
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import NotPublishedError, SchemaError
from nwmctl.storage.workspace import Workspace
from nwmctl.trust.authority import LEAF_DAYS
from nwmctl.trust.expiry import ExpiryState
from nwmctl.trust.keyfolder import renew_certificate
from nwmctl.trust.keys import load_keyring
from tests.e2e.command import Place, served, tree
from tests.trust.test_repository import DAY


@pytest.fixture
def own(published: Place, tmp_path: Path) -> Place:
    """A published release with a key folder that only this test changes."""
    keys = tmp_path / "xdg" / "nwmctl" / "development-keys"
    shutil.copytree(published.keys, keys)
    return replace(published, keys=keys)


def sequence(place: Place) -> int:
    found: int = yaml.safe_load(place.project.release.read_text())["sequence"]
    return found


def bundles(place: Place) -> set[str]:
    return {name for name in tree(place.workspace / "mirrors" / "local" / "targets") if name.endswith(".swu")}


def test_a_release_is_published_again_under_a_fresh_certificate(own: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before, old, text = sequence(own), bundles(own), own.project.release.read_text()
    own.project.release.write_text("# our release\n" + text)
    said = own.run("keys", "resign", own.project.release, "--json").ok().json
    assert (said["needed"], said["sequence"]) == (False, before)
    assert "# our release" in own.project.release.read_text()

    # Four and a half years later.
    late = SystemClock().now_us() + (LEAF_DAYS - 100) * DAY
    expiry = published_expiry(Workspace.open(own.workspace))
    assert expiry is not None
    assert expiry.state(late) is ExpiryState.SOON
    assert "keys resign" in expiry.next

    ring = load_keyring(own.keys)
    done = own.run("keys", "resign", own.project.release, "--force", "--json").ok()
    assert sequence(own) == before + 2, "the return bundle has the one between"
    assert own.project.release.read_text().startswith("# our release\n"), "the rest of the file stays"
    summary = json.loads(done.out)
    assert summary["run"]["found_in_store"] > 0
    fresh = load_keyring(own.keys)
    assert fresh.public(KeyRole.RELEASE) == ring.public(KeyRole.RELEASE)
    assert fresh.certificate_pem() != ring.certificate_pem()
    assert fresh.ca_pem() == ring.ca_pem(), "vehicles carry it"
    assert old < bundles(own), "what was published stays"
    assert len(bundles(own)) == 2 * len(old)
    rows = served(own)["rows"]
    assert isinstance(rows, dict)
    assert {row[0] for row in rows["bundle"]} == {before, before + 2}
    listed = own.run("verify", own.project.release, "--json").ok().json
    assert listed

    # Doctor watches what vehicles are offered, not only the key folder.
    settings = load_settings(own.workspace, keys=own.keys, environment={"HOME": str(own.folder)})
    lines = {line.name: line for line in doctor._expiries(settings)}
    assert lines[f"published bundles, sequence {before + 2}"].health is doctor.Health.OK
    monkeypatch.setattr(SystemClock, "now_us", lambda self: late + 300 * DAY)
    (watched,) = [one for one in renewal.watched_database(settings) if "published" in one.expiry.name]
    assert watched.state is ExpiryState.EXPIRED


def test_an_interrupted_resigning_goes_on_with_its_sequence(own: Place) -> None:
    settings = load_settings(own.workspace, environment=own.environ)
    before = sequence(own)
    first = prepare(settings, own.project.release, force=True)
    assert (first.before, first.sequence, first.renewed) == (before, before + 2, True)
    again = prepare(settings, own.project.release)
    assert (again.needed, again.before, again.sequence, again.renewed) == (True, before + 2, before + 2, False)


def test_what_cannot_be_raised_is_left_alone(own: Place, place: Place) -> None:
    settings = load_settings(place.workspace, environment=place.environ)
    with pytest.raises(NotPublishedError):
        prepare(settings, place.project.release)
    settings = load_settings(own.workspace, environment=own.environ)
    text = own.project.release.read_text()
    own.project.release.write_text(text.replace("sequence: 20", '"sequence": 20'))
    odd = own.project.release.read_bytes()
    with pytest.raises(SchemaError, match="cannot be raised"):
        prepare(settings, own.project.release, force=True)
    assert own.project.release.read_bytes() == odd
    assert not list(own.project.folder.glob(".*"))


def test_a_certificate_needs_its_authority(own: Place) -> None:
    """The authority's key may lie elsewhere: then the folder is as it was, and the refusal names the file."""
    (own.keys / "release-ca.pem").unlink()
    ring = load_keyring(own.keys)
    names = {path.name for path in own.keys.iterdir()}
    with pytest.raises(Exception, match=r"release-ca\.pem"):
        renew_certificate(ring, SystemClock())
    assert {path.name for path in own.keys.iterdir()} == names
