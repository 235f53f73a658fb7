"""The road with `deltas:`: built, signed, certified, published, chosen for who has the base, installed by real clients.

The virtual vehicles of the first release run what their factory put in, so that they take its deltas already.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from nwmctl.bundling.read import read_bundle
from nwmctl.formats.bundle_names import delta_files
from nwmctl.storage.content import ContentStore
from nwmctl.trust.keys import KeyRing, load_keyring
from tests.bundling.test_swupdate import Run, swupdate
from tests.e2e.command import ROOT, Place, refused, tree
from tests.project import VINS, Network

__all__ = ["swupdate"]

WIDE = 512
LINKS = dict(zip(VINS, ("wifi", "cellular", "LTE"), strict=True))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, development_keys: Path) -> Place:
    """A release with deltas, rolled out to one vehicle on a wireless network and two that pay by the byte."""
    made = Place.new(tmp_path_factory.mktemp("delta-road") / "place", development_keys)
    prepare(made)
    done = made.deploy("--json", *profiles(made)).ok()
    (made.folder / "summary.json").write_text(done.out)
    return made


def profiles(place: Place) -> tuple[str, Path]:
    return "--platforms", place.project.platforms


def prepare(place: Place) -> None:
    project = place.project
    project.put_model("previous", Network(seed=1, width=WIDE))
    project.put_model("model", Network(seed=1, width=WIDE, tuned=1e-4))
    project.edit_release(lambda release: release.update(deltas={}, bytes={}))
    lines = [f"{vin},virtual-car,Bench,10,{link}" for vin, link in LINKS.items()]
    project.fleet.write_text("\n".join(["vin,vehicle_model,baseline,sequence,link", *lines, ""]))
    # Where the real client finds its slots; virtual vehicles have their own.
    car = place.folder / "car"
    slots = f"slots: {{a: {car}/a, b: {car}/b}}"
    project.edit_platforms(
        "virtual.yaml", lambda text: text.replace("slots: {a: /var/lib/nwm/slot-a, b: /var/lib/nwm/slot-b}", slots)
    )


@pytest.fixture
def road(walked: Place, tmp_path: Path) -> Place:
    return walked.copy(tmp_path / "road")


@pytest.fixture
def keyring(development_keys: Path) -> KeyRing:
    return load_keyring(development_keys)


def summary(place: Place) -> Any:
    return json.loads((place.folder / "summary.json").read_text())


def targets(place: Place) -> Path:
    return place.workspace / "mirrors" / "local" / "targets"


def swu(place: Place, mark: str) -> Path:
    (found,) = [path for path in targets(place).glob("*.swu") if mark in path.name]
    return found


def table(place: Place, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{place.workspace / 'fleet.db'}?mode=ro", uri=True) as connection:
        return connection.execute(sql).fetchall()


def installed(place: Place, vin: str) -> dict[str, str]:
    """What a vehicle's running slot holds, by name."""
    folder = place.workspace / "vehicles" / vin
    slot = folder / f"slot-{json.loads((folder / 'boot.json').read_text())['active']}"
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in slot.iterdir()}


def promised(path: Path) -> dict[str, str]:
    """What a bundle puts into a slot, by name: digests of the plain files."""
    contents = read_bundle(path, lambda description, signature: None)
    return {file.filename: file.digest.hex for file in contents.description.files}


def test_every_vehicle_takes_the_delta_and_ends_bit_identical(walked: Place) -> None:
    said, full = summary(walked), swu(walked, "virtual-20.swu")
    size = swu(walked, "-delta-").stat().st_size
    assert size < 0.7 * full.stat().st_size
    assert said["campaign"]["state"] == "completed"
    assert said["campaign"]["ways"] == {"delta_offers": 3, "delta_bytes": 3 * size, "full_offers": 0, "full_bytes": 0}
    assert said["campaign"]["traffic"]["spent"] == {"cellular": 2 * size, "total": 3 * size}
    for vin in VINS:
        found = installed(walked, vin)
        assert found.items() >= {(name, digest) for name, digest in promised(full).items()}
        assert not [name for name in found if "delta" in name or name.endswith(".sh")]


def test_the_page_and_the_story_say_delta(road: Place) -> None:
    size = swu(road, "-delta-").stat().st_size
    told = road.run("fleet", "status", VINS[0]).ok().out
    assert f"bytes {size}, delta_from 10" in told
    assert "3 by delta" in road.run("rollout", "status").ok().out
    assert [row["way"] for row in summary(road)["bundles"]].count("delta") == 1


def test_the_delta_bundle_says_the_same_as_the_full_one(walked: Place) -> None:
    full, delta = (
        read_bundle(swu(walked, mark), lambda description, signature: None) for mark in ("virtual-20.swu", "-delta-")
    )
    assert delta.manifest == full.manifest
    assert promised(swu(walked, "-delta-")) == promised(swu(walked, "virtual-20.swu"))
    assert [file.filename for file in delta_files(delta.description)] == [full.manifest.payloads[0].filename]
    assert table(walked, "SELECT base_sequence, platform FROM delta_bundle") == [(10, "virtual")]


def test_verify_walks_from_a_delta_bundle_to_the_weights(road: Place) -> None:
    delta = swu(road, "-delta-")
    found = road.run("verify", delta, "--release", road.project.release, "--json").ok().json
    assert any("delta" in line and "starts from" in line for line in found["open"]), found["open"]
    assert not any("encrypted" in line for line in found["open"])
    assert any("signed by" in line for line in found["established"])
    road.run("verify", road.project.release, "--json").ok()
    delta.write_bytes(delta.read_bytes().replace(b"nwm", b"nvm", 1))
    assert road.run("verify", delta, "--release", road.project.release).code == 4


def test_repeating_the_road_gives_the_same_files(road: Place) -> None:
    """The vehicles have the release now; the census that it was planned by stays the one that it was staged with."""
    before = tree(road.workspace / "mirrors")
    again = road.run("publish", road.project.release, "--json", *profiles(road)).ok().json
    assert tree(road.workspace / "mirrors") == before
    assert again["run"]["found_in_store"] == again["run"]["steps"] - 2


def test_the_real_swupdate_installs_the_published_delta(
    road: Place, swupdate: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "nwmctl-apply-delta"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nwmctl.vehicle.delta "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    delta = swu(road, "-delta-")
    contents = read_bundle(delta, lambda description, signature: None)
    car = Path(contents.description.slot_a).parent
    (file,) = delta_files(contents.description)
    assert file.packing is not None
    assert file.packing.base is not None
    base = ContentStore(road.workspace / "content").path(file.packing.base.digest)
    try:
        (car / "b").mkdir(parents=True)
        shutil.copyfile(base, car / "b" / file.packing.base.name)
        said = swupdate(delta, board="virtual:host", check=False)
        assert said.succeeded(), said.log
        slot = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (car / "a").iterdir()}
        assert slot == promised(delta)
    finally:
        shutil.rmtree(car, ignore_errors=True)


def test_encrypted_payloads_have_no_deltas(place: Place, tmp_path: Path) -> None:
    prepare(place)
    key = tmp_path / "payload.key"
    place.run("keys", "payload", key).ok()
    said = place.run("deploy", place.project.release, "--aes-key", f"file:{key}", "--json")
    refused(said, "DeltasSealedError", 5, "aes-key")
    assert not (place.workspace / "runs").exists() or not list((place.workspace / "runs").iterdir())


@pytest.mark.long
def test_parts_built_elsewhere_get_their_deltas_where_they_are_published(road: Place, tmp_path: Path) -> None:
    """The publishing host has never seen an artifact: bases and artifacts come out of the bundles."""
    parts = tmp_path / "parts"
    road.run("bundle", road.project.release, "--out", parts, *profiles(road)).ok()
    before = {path.name for path in targets(road).glob("*.swu")}
    shutil.rmtree(road.workspace)
    road.run("publish", road.project.release, "--from", parts, *profiles(road)).ok()
    assert {path.name for path in targets(road).glob("*.swu")} == before
    elsewhere = road.run(
        "publish", road.project.release, "--from", parts, "--dossier", targets(road), "--json", *profiles(road)
    )
    refused(elsewhere, "DeltasElsewhereError", 5, "drawn up elsewhere")


@pytest.mark.long
def test_a_second_release_goes_out_by_deltas_and_comes_back(road: Place) -> None:
    """Release 30 after release 20: deltas from what vehicles report, the budget of exactly two of them, the way back
    untouched."""
    project = road.project
    project.put_model("previous", Network(seed=1, width=WIDE, tuned=1e-4))
    project.put_model("model", Network(seed=1, width=WIDE, tuned=2e-4))
    project.edit_release(lambda release: release.update(name="tiny-3", sequence=30))
    done = road.deploy("--json", *profiles(road)).ok().json
    size = swu(road, "30-delta-").stat().st_size
    assert size < 0.7 * swu(road, "virtual-30.swu").stat().st_size
    assert done["campaign"]["traffic"]["spent"] == {"cellular": 2 * size, "total": 3 * size}
    assert table(road, "SELECT base_sequence FROM delta_bundle WHERE release_sequence = 30") == [(20,)]
    for vin in VINS:
        assert installed(road, vin).items() >= promised(swu(road, "virtual-30.swu")).items()
    back = road.run("rollback", "--reason", "a test", "--json").ok().json
    assert back["state"] == "rolled_back"
    for vin in VINS:
        assert installed(road, vin).items() >= promised(swu(road, "virtual-20.swu")).items()
