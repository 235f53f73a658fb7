"""The road as it should go: deploy, look, deploy again, bring back; and every command that only asks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import Place, refused, served, traces, tree
from tests.project import FACTORY_SEQUENCE, SEQUENCE, VINS, Network


def sequences(place: Place) -> dict[int, int]:
    """Vehicles per release sequence."""
    counts: dict[int, int] = {}
    for row in place.run("fleet", "status", "--json").ok().json["vehicles"]:
        counts[row["sequence"]] = counts.get(row["sequence"], 0) + row["vehicles"]
    return counts


def bundle(place: Place, kind: str = "release") -> Path:
    """The signed bundle of one kind on the local mirror."""
    mark = "-return.swu" if kind == "return" else f"-{SEQUENCE}.swu"
    (found,) = (place.workspace / "mirrors" / "local" / "targets").glob(f"*{mark}")
    return found


def test_a_release_reaches_every_vehicle(deployed: Place) -> None:
    summary = json.loads((deployed.folder / "summary.json").read_text())
    assert summary["run"]["state"] == "done"
    assert summary["run"]["steps"] == 16
    assert 0 < summary["run"]["staged_s"] < 7200
    assert summary["campaign"]["state"] == "completed"
    assert [wave["state"] for wave in summary["campaign"]["waves"]] == ["done", "done"]
    (artifact,) = summary["artifacts"]
    said = {check["check"]: (check["verdict"], check["obtained"]) for check in artifact["checks"]}
    assert said["parity"] == ("passed", "measured")
    assert said["budget"] == ("passed", "estimated")
    assert said["latency"] == ("not_run", "not_run")
    assert {row["check"] for row in summary["not_enough_for_a_real_fleet"]} == {"closed_loop", "latency"}
    assert sequences(deployed) == {SEQUENCE: len(VINS)}
    assert "parity" in (deployed.folder / "checks.xml").read_text()
    assert not tree(deployed.workspace / "content" / "tmp")


def test_the_same_release_again_finds_every_build_step(deployed: Place) -> None:
    before = served(deployed)
    summary = deployed.deploy("--json").ok().json
    assert summary["campaign"]["state"] == "completed"
    events = deployed.run("runs", "show", "--json").ok().json["events"]
    ended = {event["step"]: event["state"] for event in events if event["event"] == "StepFinished"}
    build = {step: state for step, state in ended.items() if step.partition("/")[2] or step == "certify"}
    assert len(build) == 13
    assert set(build.values()) == {"cached"}
    assert summary["run"]["found_in_store"] == len(build)
    after = served(deployed)
    for part in ("mirrors", "repository", "vehicles"):
        assert after[part] == before[part]


def test_a_dry_run_says_what_would_run_and_changes_nothing(deployed: Place) -> None:
    before = traces(deployed)
    plan = deployed.deploy("--dry-run", "--json").ok().json["plan"]
    will = {row["step"]: row["will"] for row in plan}
    assert will["compile/release/host.host"] == "be found in the store"
    assert will["stage"] == "run"
    assert all(row["reason"] for row in plan)
    assert traces(deployed) == before


def test_vehicles_come_back_by_their_slot(deployed: Place) -> None:
    ran = deployed.run("rollback", "--reason", "a test", "--json").ok()
    assert f"{len(VINS)} vehicles return by their inactive slot, 0 by return bundle" in ran.err
    assert ran.json["state"] == "rolled_back"
    assert sequences(deployed) == {FACTORY_SEQUENCE: len(VINS)}
    story = deployed.run("fleet", "status", VINS[0], "--json").ok().json["story"]
    assert story
    refused(deployed.run("rollback", "--json"), "IllegalTransitionError", 8)


@pytest.mark.long
def test_after_a_rollback_the_next_release_takes_vehicles_forward(deployed: Place) -> None:
    deployed.run("rollback").ok()
    refused(deployed.deploy("--json"), "CampaignOverError", 8, "higher sequence")
    deployed.project.edit_release(lambda release: release.update(sequence=30, name="tiny-3"))
    deployed.deploy("--json").ok()
    assert sequences(deployed) == {30: len(VINS)}


def test_a_bundle_is_verified_offline(deployed: Place) -> None:
    for kind in ("release", "return"):
        found = deployed.run("verify", bundle(deployed, kind), "--json").ok().json
        assert found["kind"] == kind
        assert found["virtual_only"] is True
        assert any("NO" in line for line in found["open"])
    people = deployed.run("verify", bundle(deployed)).ok().out
    assert "the release authority signed its description" in people


@pytest.mark.parametrize("where", [0.02, 0.3, 0.5, 0.7, 0.95])
def test_a_tampered_bundle_is_refused(deployed: Place, where: float) -> None:
    data = bytearray(bundle(deployed).read_bytes())
    # Bytes of padding are nobody's; the nearest byte that is something is changed.
    place = int(len(data) * where)
    while not data[place]:
        place -= 1
    data[place] ^= 0x20
    changed = deployed.folder / "changed.swu"
    changed.write_bytes(data)
    ran = deployed.run("verify", changed, "--json")
    assert ran.code == 4, ran.out
    assert ran.json["exit_code"] == 4
    assert "signed" in ran.err or ran.json["what"]


def test_a_bundle_of_another_authority_is_refused(deployed: Place) -> None:
    deployed.run("keys", "init", deployed.folder / "others", "--development").ok()
    ran = deployed.run("verify", bundle(deployed), "--keys", deployed.folder / "others", "--json")
    refused(ran, "CertificateUntrustedError", 4)
    short = deployed.folder / "short.swu"
    short.write_bytes(bundle(deployed).read_bytes()[:5000])
    assert deployed.run("verify", short, "--json").code == 4
    assert deployed.run("verify", deployed.folder / "nowhere.swu", "--json").code == 3


def test_runs_tell_what_happened(deployed: Place) -> None:
    published, row = deployed.run("runs", "list", "--json").ok().json["runs"]
    assert published["command"] == "nwmctl publish release.yaml"
    assert row["state"] == "done"
    assert row["steps"] == row["finished"] == 16
    told = deployed.run("runs", "show", row["run"], "--json").ok().json
    assert told["run"] == row["run"]
    assert told["events"][0]["event"] == "RunStarted"
    assert told["events"][-1]["event"] == "RunEnded"
    people = deployed.run("runs", "show").ok().out
    assert "a process of its own re-checks policy and evidence" in people
    assert row["run"] in deployed.run("runs", "list").ok().out


def test_questions_change_nothing(deployed: Place) -> None:
    before = traces(deployed)
    asked: list[list[str]] = [
        ["rollout", "status"],
        ["fleet", "status"],
        ["fleet", "status", VINS[1]],
        ["runs", "list"],
        ["runs", "show"],
        ["platforms", "list"],
        ["platforms", "show", "virtual"],
        ["platforms", "show", "nt2.5"],
        ["platforms", "check"],
    ]
    for words in asked:
        assert isinstance(deployed.run(*words, "--json").ok().json, dict)
        assert deployed.run(*words).ok().out.strip()
    assert traces(deployed) == before


def test_platforms_say_what_they_know(place: Place) -> None:
    listed = place.run("platforms", "list", "--json").ok().json["platforms"]
    assert {row["platform"] for row in listed} == {"nt2.0", "nt2.5", "nt3.0", "virtual"}
    shown = place.run("platforms", "show", "nt2.0", "--json").ok().json
    assert all(chip["memory_bandwidth"]["source"] for chip in shown["chips"])
    counted = place.run("platforms", "check", "--json").ok().json
    assert counted["platforms"] == 4


def test_doctor_says_what_works(place: Place) -> None:
    ran = place.run("doctor", "--json")
    findings: list[dict[str, Any]] = ran.json["findings"]
    assert ran.code == (7 if ran.json["problems"] else 0)
    assert {"base", "toolchains", "real counterparties", "keys"} <= {row["group"] for row in findings}
    assert all(row["detail"] for row in findings)
    assert not place.workspace.exists()


def test_keys_are_made_once(place: Place) -> None:
    refused(place.run("keys", "init", place.folder / "mine", "--json"), "PassphraseNeededError", 3)
    assert not (place.folder / "mine").exists()
    made = place.run("keys", "init", place.folder / "mine", "--development", "--json").ok().json
    assert {"model", "safety", "release"} <= made["keys"].keys()
    private = list((place.folder / "mine").glob("*.pem"))
    assert private
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)
    before = tree(place.folder / "mine")
    refused(place.run("keys", "init", place.folder / "mine", "--development", "--json"), "KeyRingExistsError", 8)
    assert tree(place.folder / "mine") == before


def test_a_person_signs_a_policy(place: Place) -> None:
    place.run("keys", "init", place.folder / "mine", "--role", "safety", "--development").ok()
    place.project.edit_policy(lambda policy: policy.update(version=2), sign=False)
    refused(place.deploy("--dry-run", "--json"), "PolicySignatureError", 4)
    signed = place.run("keys", "sign", "policy", place.project.policy, "--keys", place.folder / "mine", "--json").ok()
    place.project.edit_release(lambda release: release["trust"].update(safety_keys=[signed.json["key"]]))
    place.deploy("--dry-run").ok()


@pytest.mark.long
def test_keys_with_a_passphrase_sign_everything(place: Place) -> None:
    place.environment["SECRET"] = "correct horse"
    keys = place.folder / "mine"
    place.run("keys", "init", keys, "--passphrase-env", "SECRET").ok()
    refused(place.run("publish", place.project.release, "--keys", keys, "--json"), "KeyPassphraseError", 3)
    assert not any(served(place).values())
    place.run("publish", place.project.release, "--keys", keys, "--passphrase-env", "SECRET").ok()
    journals = b"".join(path.read_bytes() for path in place.workspace.rglob("journal.log"))
    assert b"correct horse" not in journals
    unset = ["--passphrase-env", "NO_SUCH", "--json"]
    refused(place.run("publish", place.project.release, "--keys", keys, *unset), "InputError", 3, "NO_SUCH")


@pytest.mark.long
def test_bundles_built_apart_are_published_together(place: Place) -> None:
    out = place.folder / "parts"
    place.run("bundle", place.project.release, "--platform", "virtual", "--out", out).ok()
    result = json.loads((out / "virtual" / "bundle-result.json").read_text())
    assert {row["kind"] for row in result["bundles"]} == {"release", "return"}
    other = Place(place.folder / "collector", place.keys, place.project)
    other.folder.mkdir()
    refused(other.run("publish", place.project.release, "--from", place.folder, "--json"), "TrainIncompleteError", 5)
    other.run("publish", place.project.release, "--from", out).ok()
    names = {path.name.partition(".")[2] for path in (other.workspace / "mirrors/local/targets").glob("*.swu")}
    assert names == {row["filename"] for row in result["bundles"]}

    # A part of another release is refused, and what was published stays.
    before = served(other)
    place.project.put_model("model", Network(seed=5))
    ran = other.run("publish", place.project.release, "--from", out, "--json")
    refused(ran, "TrainMismatchError", 5, "virtual", "model")
    assert served(other) == before


@pytest.mark.long
def test_a_published_release_is_rolled_out_later(place: Place) -> None:
    place.run("publish", place.project.release).ok()
    assert sequences(place) == {}
    started = place.run("rollout", "start", place.project.release, "--no-follow", "--json").ok().json
    assert started["state"] == "running"
    name = started["name"]
    assert place.run("rollout", "pause", name, "--reason", "lunch", "--json").ok().json["state"] == "paused"
    assert place.run("rollout", "status", "--json").ok().json["reason"] == "lunch"
    refused(place.run("rollout", "pause", name, "--json"), "IllegalTransitionError", 8, "paused")
    resumed = place.run("rollout", "resume", name, "--json").ok().json
    assert resumed["state"] == "completed"
    assert sequences(place) == {SEQUENCE: len(VINS)}
    refused(place.run("rollout", "abort", name, "--json"), "IllegalTransitionError", 8)


@pytest.mark.long
def test_an_aborted_campaign_offers_nothing_more(place: Place) -> None:
    ran = place.deploy("--no-follow", "--json").ok().json
    assert ran["campaign"]["state"] == "running"
    name = ran["campaign"]["name"]
    assert place.run("rollout", "abort", name, "--reason", "wrong day", "--json").ok().json["state"] == "aborted"
    document = refused(place.run("rollout", "resume", name, "--json"), "IllegalTransitionError", 8)
    assert re.search("paused", document["why"])
    assert sequences(place) == {FACTORY_SEQUENCE: len(VINS)}
