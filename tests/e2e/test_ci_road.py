"""Each platform built alone in a workspace of its own, and a last job that publishes the train, or refuses it.

Two platforms of the same kind stand for all: what matters here is that nothing but folders of bundles goes from one
job to the next.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from nwmctl.domain.work import StepName
from nwmctl.formats import canonical
from nwmctl.storage.resources import platforms_folder
from nwmctl.trust.payload_key import create_payload_key
from tests.e2e.command import Place, refused, tree
from tests.project import FACTORY_SEQUENCE, VINS

PLATFORMS = ("virtual", "second")


class Jobs:
    """One release folder, one key folder, and a workspace per job."""

    def __init__(self, root: Path, keys: Path) -> None:
        self.root = root
        self.base = Place.new(root, keys)
        files = self.base.project
        twin = (platforms_folder() / "virtual.yaml").read_text()
        twin = twin.replace("name: virtual", "name: second").replace("board: virtual", "board: second")
        cars = (platforms_folder() / "virtual-vehicles.yaml").read_text()
        cars = cars.replace("virtual-car", "second-car").replace("platform: virtual", "platform: second")
        files.edit_platforms("second.yaml", lambda _: twin)
        files.edit_platforms("second-vehicles.yaml", lambda _: cars)
        files.edit_release(lambda release: release.update(platforms=list(PLATFORMS)))
        lines = files.fleet.read_text() + f"SECOND-CAR-1,second-car,Bench,{FACTORY_SEQUENCE}\n"
        files.fleet.write_text(lines)

    def job(self, name: str) -> Place:
        """A place with the same release and a workspace of its own."""
        return replace(self.base, environment={"NWMCTL_WORKSPACE": str(self.workspace(name))})

    def workspace(self, name: str) -> Path:
        return self.root / "jobs" / name

    def run(self, job: str, command: str, *more: str | Path) -> Any:
        project = self.base.project
        return self.job(job).run(command, project.release, "--platforms", project.platforms, *more)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, development_keys: Path) -> Jobs:
    """Both platforms built apart, and the whole release deployed to *published* at once."""
    made = Jobs(tmp_path_factory.mktemp("ci") / "place", development_keys)
    for platform in PLATFORMS:
        out, report = made.root / "parts", made.root / f"{platform}.xml"
        made.run(platform, "bundle", "--platform", platform, "--out", out, "--junit", report).ok()
    made.run("whole", "publish").ok()
    return made


def bundles(mirror: Path) -> dict[str, str]:
    return {Path(name).name: digest for name, digest in tree(mirror).items() if name.endswith(".swu")}


def listed(mirror: Path) -> Any:
    """What the newest targets metadata lists."""
    newest = max((mirror / "metadata").glob("*.targets.json"), key=lambda path: int(path.name.split(".")[0]))
    return json.loads(newest.read_bytes())["signed"]["targets"]


def publish(jobs: Jobs, job: str, *folders: Path, json_: bool = False) -> Any:
    options = [word for folder in folders for word in ("--from", folder)]
    return jobs.run(job, "publish", *options, *(["--json"] if json_ else []))


def test_a_jobs_workspace_has_nothing_of_the_other_platform(jobs: Jobs) -> None:
    story = jobs.job("second").run("runs", "show", "--json").ok().json
    steps = {event["step"] for event in story["events"] if event["event"] == "StepFinished"}
    assert steps
    assert not [step for step in steps if "/virtual" in step]
    assert not (jobs.workspace("second") / "mirrors").exists()


def test_a_collected_train_is_the_same_bytes_as_a_single_deployment(jobs: Jobs) -> None:
    publish(jobs, "collect", jobs.root / "parts").ok()
    apart = jobs.workspace("collect") / "mirrors" / "local"
    whole = jobs.workspace("whole") / "mirrors" / "local"
    assert bundles(apart) == bundles(whole)
    assert len(bundles(whole)) == 2 * len(PLATFORMS)
    assert listed(apart) == listed(whole)


def test_publishing_a_train_compiles_nothing(jobs: Jobs) -> None:
    publish(jobs, "quick", *(jobs.root / "parts" / platform for platform in PLATFORMS)).ok()
    story = jobs.job("quick").run("runs", "show", "--json").ok().json
    done = {event["step"] for event in story["events"] if event["event"] == "StepFinished"}
    assert done == {StepName.CERTIFY, StepName.STAGE, StepName.PUBLISH}


def test_repeating_the_last_job_changes_nothing(jobs: Jobs) -> None:
    publish(jobs, "twice", jobs.root / "parts").ok()
    before = tree(jobs.workspace("twice") / "mirrors")
    publish(jobs, "twice", jobs.root / "parts").ok()
    assert tree(jobs.workspace("twice") / "mirrors") == before


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_junit_report_is_well_formed_and_complete(jobs: Jobs, platform: str) -> None:
    root = ElementTree.parse(jobs.root / f"{platform}.xml").getroot()
    assert root.tag == "testsuites"
    suites = list(root)
    assert [suite.get("name") for suite in suites] == [f"{platform}/host/host"] * 2, "the release and the way back"
    for suite in suites:
        cases = suite.findall("testcase")
        assert len(cases) == int(suite.attrib["tests"]) >= 5
        assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
        assert len(suite.findall("testcase/skipped")) == int(suite.attrib["skipped"])


def only_private(keys: Path, folder: Path, *roles: str) -> Path:
    """A copy of a key folder without the private keys of other roles."""
    shutil.copytree(keys, folder)
    for path in folder.glob("*.pem"):
        if re.sub(r"-\d+$", "", path.stem) not in roles:
            path.unlink()
    return folder


METADATA = ("root", "targets", "snapshot", "timestamp")


def test_a_host_that_certifies_needs_the_release_key(jobs: Jobs, tmp_path: Path) -> None:
    """Only there is the release whole: who certifies it judges every bundle of it again."""
    keys = only_private(jobs.base.keys, tmp_path / "without", *METADATA)
    ran = jobs.run("metadata", "publish", "--from", jobs.root / "parts", "--keys", keys, "--json")
    told = refused(ran, "KeyRingError", 3)
    assert "release.pem" in told["what"]
    assert not (jobs.workspace("metadata") / "mirrors").exists()
    keys = only_private(jobs.base.keys, tmp_path / "with", *METADATA, "release")
    jobs.run("metadata", "publish", "--from", jobs.root / "parts", "--keys", keys).ok()
    assert listed(jobs.workspace("metadata") / "mirrors" / "local")


# --- certified in a job of its own: the publishing host has no release key ----------------------------------------


@pytest.fixture(scope="module")
def dossier(jobs: Jobs) -> Path:
    """What a job leaves that has the release key and no other."""
    keys = only_private(jobs.base.keys, jobs.root / "certifying-keys", "release")
    out = jobs.root / "certified"
    jobs.run("certifying", "certify", "--from", jobs.root / "parts", "--out", out, "--keys", keys).ok()
    assert not (jobs.workspace("certifying") / "mirrors").exists()
    assert [path.name for path in out.iterdir()] == ["tiny-2-20.dossier.json"]
    return out / "tiny-2-20.dossier.json"


@pytest.fixture(scope="module")
def metadata_keys(jobs: Jobs) -> Path:
    """The keys of a publishing host: those of the metadata."""
    return only_private(jobs.base.keys, jobs.root / "publishing-keys", *METADATA)


def publish_certified(jobs: Jobs, job: str, dossier: Path, keys: Path, parts: Path | None = None) -> Any:
    parts = parts or jobs.root / "parts"
    return jobs.run(job, "publish", "--from", parts, "--dossier", dossier, "--keys", keys, "--json")


def test_with_a_dossier_the_release_key_is_not_needed(jobs: Jobs, dossier: Path, metadata_keys: Path) -> None:
    assert not (metadata_keys / "release.pem").exists()
    told = publish_certified(jobs, "certified", dossier.parent, metadata_keys).ok().json
    apart = jobs.workspace("certified") / "mirrors" / "local"
    whole = jobs.workspace("whole") / "mirrors" / "local"
    assert listed(apart) == listed(whole)
    same = tree(apart / "targets") == tree(whole / "targets")
    assert same, "bundles and dossier are the same bytes as of a single host"
    assert told["run"]["steps"] == 3
    certificate = told["certificate"]
    assert (certificate["development"], certificate["unopened"], certificate["statements"]) == (True, 0, 8)
    assert Path(certificate["dossier"]).read_bytes() == dossier.read_bytes()
    before = tree(jobs.workspace("certified") / "mirrors")
    page = jobs.run(
        "certified", "publish", "--from", jobs.root / "parts", "--dossier", dossier, "--keys", metadata_keys
    )
    assert f"root {certificate['root'].removeprefix('sha256:')[:12]}" in page.ok().out
    assert "development keys that protect nothing" in page.out
    assert f"nwmctl verify {jobs.base.project.release}" in page.out
    assert tree(jobs.workspace("certified") / "mirrors") == before, "repeating it changes nothing"


def _missing(dossier: Path, jobs: Jobs) -> None:
    dossier.unlink()


def _cut(dossier: Path, jobs: Jobs) -> None:
    dossier.write_bytes(dossier.read_bytes()[:-100])


def _bit(dossier: Path, jobs: Jobs) -> None:
    """A digit of a leaf's digest."""
    data = bytearray(dossier.read_bytes())
    place = data.index(b'"kind":"bundle"') - 30
    data[place] = ord("0") if data[place] != ord("0") else ord("1")
    dossier.write_bytes(data)


def _part_of_it(dossier: Path, jobs: Jobs) -> None:
    """As good as its leaves for whoever holds one bundle, and too little to publish by."""
    table = json.loads(dossier.read_bytes())
    table["leaves"] = table["leaves"][1:]
    dossier.write_bytes(canonical.encode(table))


def _certified_otherwise(dossier: Path, jobs: Jobs, **changes: Any) -> Path:
    """The dossier of another release, made where the second platform was built; only what differs is made anew."""
    project = jobs.base.project
    plain = yaml.safe_load(project.release.read_text()) | changes
    release = project.release.with_name(f"{dossier.parent.name}.yaml")
    release.write_text(yaml.safe_dump(plain))
    out = dossier.parent / "out"
    jobs.job("second").run("certify", release, "--platforms", project.platforms, "--out", out).ok()
    return next(out.iterdir())


def _other_train(dossier: Path, jobs: Jobs) -> None:
    """Rightly certified, for the same release and sequence, and with one platform only."""
    _certified_otherwise(dossier, jobs, platforms=["second"]).replace(dossier)


def _other_sequence(dossier: Path, jobs: Jobs) -> None:
    """Rightly certified, and under another name than its own."""
    _certified_otherwise(dossier, jobs, platforms=["second"], sequence=30).replace(dossier)


DOSSIERS: list[tuple[Callable[[Path, Jobs], None], str, int]] = [
    (_missing, "DossierMissingError", 3),
    (_cut, "DossierFormatError", 4),
    (_bit, "LeafUnprovenError", 4),
    (_part_of_it, "DossierMismatchError", 4),
    (_other_train, "DossierMismatchError", 4),
    (_other_sequence, "OtherReleaseError", 4),
]


@pytest.mark.parametrize(("spoil", "error", "code"), DOSSIERS, ids=[each[0].__name__[1:] for each in DOSSIERS])
def test_a_bad_dossier_is_refused_and_nothing_changes(
    jobs: Jobs,
    dossier: Path,
    metadata_keys: Path,
    tmp_path: Path,
    spoil: Callable[[Path, Jobs], None],
    error: str,
    code: int,
) -> None:
    copy = tmp_path / dossier.name
    shutil.copy(dossier, copy)
    spoil(copy, jobs)
    told = refused(publish_certified(jobs, tmp_path.name, tmp_path, metadata_keys), error, code)
    assert "certif" in told["next"] or "dossier" in told["next"]
    nothing_was_published(jobs, tmp_path.name)


def test_a_dossier_of_another_authority_is_refused(jobs: Jobs, dossier: Path, tmp_path: Path) -> None:
    """Sealed by a release key that this host's authority never certified."""
    foreign = tmp_path / "keys"
    jobs.base.run("keys", "init", foreign, "--development").ok()
    ran = publish_certified(jobs, tmp_path.name, dossier, foreign)
    refused(ran, "CertificateUntrustedError", 4)
    nothing_was_published(jobs, tmp_path.name)


def test_who_held_the_payload_key_is_told(jobs: Jobs, metadata_keys: Path, tmp_path: Path) -> None:
    """Encrypted payloads: what nobody could open is named, by the certificate and by who verifies, and no more."""
    project, second = jobs.base.project, jobs.job("second")
    key, other = tmp_path / "payload.key", tmp_path / "other.key"
    create_payload_key(key)
    create_payload_key(other)
    release = project.release.with_name("encrypted.yaml")
    release.write_text(yaml.safe_dump(yaml.safe_load(project.release.read_text()) | {"platforms": ["second"]}))
    options = (release, "--platforms", project.platforms)
    parts, known, unknown = tmp_path / "parts", tmp_path / "known", tmp_path / "unknown"
    second.run("bundle", *options, "--out", parts, "--aes-key", f"file:{key}").ok()
    blind = jobs.job("blind")
    blind.run("certify", *options, "--from", parts, "--out", known, "--aes-key", f"file:{key}").ok()
    blind.run("certify", *options, "--from", parts, "--out", unknown).ok()
    wrong = blind.run("certify", *options, "--from", parts, "--aes-key", f"file:{other}", "--json")
    refused(wrong, "PackedDataError", 4, "not open with this key")

    bundle = next(path for path in parts.glob("second/*.swu") if "return" not in path.name)
    dossiers = {name: next(folder.iterdir()) for name, folder in (("known", known), ("unknown", unknown))}
    assert digest_of(dossiers["known"]) != digest_of(dossiers["unknown"])

    marks = ("no key was given", "whoever certified it could not open")
    cases: list[tuple[str, tuple[str, ...], set[str]]] = [
        ("known", (), {marks[0]}), ("unknown", (), set(marks)), ("unknown", ("--aes-key", f"file:{key}"), set()),
    ]  # fmt: skip
    for name, more, left in cases:
        told = blind.run("verify", bundle, "--dossier", dossiers[name], *more, "--json").ok().json
        assert {mark for mark in marks if any(mark in line for line in told["open"])} == left
        assert any("unpack with the key" in line for line in told["established"]) == bool(more)
    refused(blind.run("verify", bundle, "--aes-key", f"file:{other}", "--json"), "PackedDataError", 4, "this key")
    # The publishing host has neither the release key nor the payload key.
    for name, path in dossiers.items():
        place = jobs.job(f"encrypted-{name}")
        place.run("publish", *options, "--from", parts, "--dossier", path, "--keys", metadata_keys).ok()


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def nothing_was_published(jobs: Jobs, job: str) -> None:
    left = jobs.workspace(job)
    assert not (left / "mirrors").exists()
    assert not (left / "repository").exists()
    assert jobs.job(job).run("fleet", "status", "--json").ok().json == {"vehicles": []}


# --- a set with a hole or a mismatch: refused, and nothing has changed --------------------------------------------


def _hole(jobs: Jobs, parts: Path) -> None:
    shutil.rmtree(parts / "second")


def _no_result(jobs: Jobs, parts: Path) -> None:
    (parts / "second" / "bundle-result.json").unlink()


def _no_return_bundle(jobs: Jobs, parts: Path) -> None:
    next((parts / "second").glob("*-return.swu")).unlink()


def _damaged(jobs: Jobs, parts: Path) -> None:
    bundle = next((parts / "second").glob("*-return.swu"))
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)


def _other_release(jobs: Jobs, parts: Path) -> None:
    """Built with a key folder in which only the private key for bundles is left, as docs/ci.md advises."""
    shutil.rmtree(parts / "second")
    other = Jobs(parts.parent / "other", jobs.base.keys)
    other.base.project.edit_release(lambda release: release.update(sequence=30))
    keys = only_private(jobs.base.keys, parts.parent / "build-keys", "release")
    other.run("second", "bundle", "--platform", "second", "--out", parts, "--keys", keys).ok()


def _renamed_part(jobs: Jobs, parts: Path) -> None:
    """The part of one platform claims to be the other's."""
    shutil.rmtree(parts / "second")
    shutil.copytree(parts / "virtual", parts / "second")
    result = parts / "second" / "bundle-result.json"
    result.write_bytes(result.read_bytes().replace(b'"platform":"virtual"', b'"platform":"second"'))


def _edited_result(jobs: Jobs, parts: Path) -> None:
    result = parts / "second" / "bundle-result.json"
    result.write_bytes(result.read_bytes().replace(b'"sequence":21', b'"sequence":99'))


SETS: list[tuple[Callable[[Jobs, Path], None], str]] = [
    (_hole, "TrainIncompleteError"),
    (_no_result, "TrainIncompleteError"),
    (_no_return_bundle, "TrainMismatchError"),
    (_damaged, "TrainMismatchError"),
    (_other_release, "TrainMismatchError"),
    (_renamed_part, "CertificationRefusedError"),
    (_edited_result, "TrainMismatchError"),
]


@pytest.mark.parametrize(("spoil", "error"), SETS, ids=[spoil.__name__[1:] for spoil, _ in SETS])
def test_a_bad_set_is_refused_and_nothing_changes(
    jobs: Jobs, tmp_path: Path, spoil: Callable[[Jobs, Path], None], error: str
) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(jobs.root / "parts", parts)
    spoil(jobs, parts)
    refused(publish(jobs, tmp_path.name, parts, json_=True), error, 5)
    nothing_was_published(jobs, tmp_path.name)


def test_bundles_signed_by_other_keys_are_refused(jobs: Jobs, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    jobs.base.run("keys", "init", keys, "--development").ok()
    ran = jobs.run(tmp_path.name, "publish", "--from", jobs.root / "parts", "--keys", keys, "--json")
    refused(ran, "CertificateUntrustedError", 4)
    assert not (jobs.workspace(tmp_path.name) / "mirrors").exists()


def test_a_folder_that_is_not_there_is_named(jobs: Jobs, tmp_path: Path) -> None:
    ran = publish(jobs, tmp_path.name, tmp_path / "nowhere", json_=True)
    told = refused(ran, "SourceUnavailableError", 9)
    assert "nowhere" in told["what"]


def test_a_bundle_folder_that_cannot_be_written_is_refused(jobs: Jobs, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("in the way")
    ran = jobs.run("second", "bundle", "--platform", "second", "--out", place, "--json")
    assert ran.code == 3, ran.err
    assert place.read_text() == "in the way"


def test_a_platform_that_the_release_lacks_is_refused(jobs: Jobs) -> None:
    refused(jobs.run("second", "bundle", "--platform", "nt9", "--json"), "PlanError", 3, "nt9")


@pytest.mark.long
def test_vehicles_take_a_train_that_was_built_apart(jobs: Jobs) -> None:
    publish(jobs, "fleet", jobs.root / "parts").ok()
    place, files = jobs.job("fleet"), jobs.base.project
    status = place.run("rollout", "start", files.release, "--platforms", files.platforms, "--json").ok().json
    assert status["state"] == "completed"
    assert sum(wave["counts"]["committed"] for wave in status["waves"]) == len(VINS) + 1
