"""Files that are wrong: named with file, line and key, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nwmctl.storage.workspace import Workspace
from tests.e2e.command import Place, refused, served, traces
from tests.project import VINS


def untouched(place: Place, ran_before: object) -> None:
    assert traces(place) == ran_before


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("virtual.yaml", lambda text: text + "speed: 3\n", ("virtual.yaml:", "unknown key 'speed'")),
        (
            "virtual.yaml",
            lambda text: text.replace("memory_bandwidth: {value: 10.0", "memory_bandwidth: {value: -10.0"),
            ("memory_bandwidth of host is -10", "virtual.yaml:"),
        ),
        (
            "more-vehicles.yaml",
            lambda text: (Path("platforms") / "virtual-vehicles.yaml").read_text() + "# again\n",
            ("'virtual-car' is listed twice", "virtual-vehicles.yaml:"),
        ),
        ("virtual.yaml", lambda text: text.replace("chips:", "chips: {"), ("virtual.yaml:", "not valid YAML")),
        ("virtual.yaml", lambda text: "", ("virtual.yaml",)),
    ],
    ids=["unknown key", "negative bandwidth", "vehicle model twice", "wrong YAML", "empty"],
)
def test_a_bad_profile_is_refused(
    place: Place, name: str, change: Callable[[str], str], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.e2e.command import ROOT

    monkeypatch.chdir(ROOT)
    folder = place.project.edit_platforms(name, change)
    refused(place.deploy("--platforms", folder, "--json"), "SchemaError", 3, *words)
    refused(place.run("platforms", "check", folder, "--json"), "SchemaError", 3, *words)
    assert not place.workspace.exists()


def _unknown_platform(place: Place) -> None:
    place.project.edit_release(lambda release: release.update(platforms=["virtual", "nt9"]))


def _unknown_key(place: Place) -> None:
    place.project.edit_release(lambda release: release.update(wave=[]))


def _share_above_one(place: Place) -> None:
    place.project.edit_release(lambda release: release["waves"][1].update(share=1.5))


def _loosened(place: Place) -> None:
    rule = {"weakest": "estimated"}
    place.project.edit_release(lambda release: release.update(tighten={"platforms": {"virtual": {"parity": rule}}}))


def _loosened_margin(place: Place) -> None:
    rule = {"weakest": "proxy", "margins": {"steer.max_abs": 0.5}}
    place.project.edit_release(lambda release: release.update(tighten={"platforms": {"*": {"parity": rule}}}))


def _policy_edited(place: Place) -> None:
    place.project.edit_policy(lambda policy: policy["virtual"]["platforms"]["*"].pop("parity"), sign=False)


def _policy_of_a_stranger(place: Place) -> None:
    from tests.project import STRANGER

    place.project.edit_release(lambda release: release["trust"].update(safety_keys=[STRANGER.public]))


def _release_gone(place: Place) -> None:
    place.project.release.unlink()


def _release_is_a_folder(place: Place) -> None:
    place.project.release.unlink()
    place.project.release.mkdir()


def _release_is_not_text(place: Place) -> None:
    place.project.release.write_bytes(b"\xff\xfe\x00schema")


def _release_is_wrong_yaml(place: Place) -> None:
    place.project.release.write_text("schema: nwmctl.release/1\nname: [oops\n")


def _release_of_tomorrow(place: Place) -> None:
    text = place.project.release.read_text()
    place.project.release.write_text(text.replace("nwmctl.release/1", "nwmctl.release/9"))


def _policy_gone(place: Place) -> None:
    place.project.policy.unlink()


def _signature_gone(place: Place) -> None:
    place.project.policy.with_name("policy.yaml.sig").unlink()


def _signature_is_noise(place: Place) -> None:
    place.project.policy.with_name("policy.yaml.sig").write_bytes(b"\x00noise")


def _no_mirrors(place: Place) -> None:
    place.project.edit_release(lambda release: release.update(mirrors=[]))


FILES: list[tuple[Callable[[Place], None], str, int, tuple[str, ...]]] = [
    (_unknown_platform, "SchemaError", 3, ("release.yaml:", "there is no platform 'nt9'")),
    (_unknown_key, "SchemaError", 3, ("release.yaml:", "unknown key 'wave'")),
    (_share_above_one, "SchemaError", 3, ("release.yaml:", "share is 1.5")),
    (_loosened, "PolicyLoosenedError", 5, ("virtual.parity", "estimated", "proxy")),
    (_loosened_margin, "PolicyLoosenedError", 5, ("margin steer.max_abs is 0.5",)),
    (_policy_edited, "PolicySignatureError", 4, ("is not what the safety role signed",)),
    (_policy_of_a_stranger, "PolicySignatureError", 4, ("signature of 'policy.yaml' does not hold",)),
    (_release_gone, "FileUnreadableError", 3, ("No such file",)),
    (_release_is_a_folder, "FileUnreadableError", 3, ("Is a directory",)),
    (_release_is_not_text, "SchemaError", 3, ("not valid YAML",)),
    (_release_is_wrong_yaml, "SchemaError", 3, ("release.yaml:", "not valid YAML")),
    (_release_of_tomorrow, "SchemaVersionError", 3, ("nwmctl.release/9",)),
    (_policy_gone, "FileUnreadableError", 3, ("policy",)),
    (_signature_gone, "FileUnreadableError", 3, ("policy.yaml.sig",)),
    (_signature_is_noise, "PolicySignatureError", 4, ("policy.yaml",)),
    (_no_mirrors, "SchemaError", 3, ("at least one mirror",)),
]


@pytest.mark.parametrize(("harm", "error", "code", "words"), FILES, ids=[row[0].__name__[1:] for row in FILES])
def test_a_bad_release_folder_is_refused(
    place: Place, harm: Callable[[Place], None], error: str, code: int, words: tuple[str, ...]
) -> None:
    harm(place)
    refused(place.deploy("--json"), error, code, *words)
    assert not place.workspace.exists()


def test_every_command_refuses_a_bad_release_alike(place: Place) -> None:
    _unknown_platform(place)
    for command in ("deploy", "pull", "compile", "validate", "bundle", "stage", "publish"):
        refused(place.run(command, place.project.release, "--json"), "SchemaError", 3, "nt9")
    refused(place.run("rollout", "start", place.project.release, "--json"), "SchemaError", 3, "nt9")
    refused(place.deploy("--dry-run", "--json"), "SchemaError", 3, "nt9")
    assert not place.workspace.exists()


BAD_LINES = {
    "unknown vehicle model": (f"{VINS[0]},et99,Bench,10", "UnknownVehicleModelError"),
    "listed twice": (f"{VINS[1]},virtual-car,Bench,10\n{VINS[1]},virtual-car,Bench,10", "DuplicateVinError"),
    "no number": (f"{VINS[0]},virtual-car,Bench,ten", "InventoryRowError"),
    "too few cells": (f"{VINS[0]},virtual-car", "InventoryRowError"),
    "odd vin": ("../../etc,virtual-car,Bench,10", "InventoryRowError"),
}


@pytest.mark.parametrize(("line", "error"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_inventory_is_refused_before_the_first_step(place: Place, line: str, error: str) -> None:
    place.project.fleet.write_text(f"vin,vehicle_model,baseline,sequence\n{line}\n")
    refused(place.deploy("--json"), error, 3, "fleet.csv:")
    assert place.run("runs", "list", "--json").json == {"runs": []}
    assert not any(served(place)[part] for part in ("mirrors", "repository", "vehicles", "rows"))
    refused(place.run("fleet", "import", place.project.fleet, "--fleet", "yard", "--virtual", "--json"), error, 3)
    assert not served(place)["rows"]


def test_a_missing_inventory_is_refused_before_the_first_step(place: Place) -> None:
    place.project.fleet.unlink()
    refused(place.deploy("--json"), "InventoryRowError", 3, "fleet.csv", "No such file")
    assert place.run("runs", "list", "--json").json == {"runs": []}


def test_a_workspace_in_use_is_refused_and_says_by_whom(place: Place) -> None:
    with Workspace.open(place.workspace).locked("nwmctl deploy other.yaml"):
        before = traces(place)
        refused(place.deploy("--json"), "WorkspaceLockedError", 8, "nwmctl deploy other.yaml")
        assert traces(place) == before


def test_a_workspace_that_is_a_file_is_refused(place: Place) -> None:
    place.workspace.write_text("mine")
    refused(place.deploy("--json"), "InputError", 3, str(place.workspace))
    assert place.workspace.read_text() == "mine"


def test_wrong_use_of_the_command_line_is_2(place: Place) -> None:
    assert place.run("deploy", "--no-such-option").code == 2
    assert place.run("no-such-command").code == 2
    ran = place.run("runs", "show", "--nonsense", "--json")
    assert ran.code == 2
    assert ran.json["exit_code"] == 2
    assert not place.workspace.exists()


def test_questions_about_nothing_are_answered(place: Place) -> None:
    refused(place.run("runs", "show", "--json"), "RunUnknownError", 3)
    refused(place.run("runs", "show", "../../etc", "--json"), "RunUnknownError", 3)
    refused(place.run("deploy", "--resume", "nowhere", "--json"), "RunUnknownError", 3)
    refused(place.run("rollout", "status", "--json"), "NoCampaignError", 3)
    refused(place.run("rollout", "pause", "ghost", "--json"), "UnknownCampaignError", 7)
    refused(place.run("rollback", "--json"), "NoCampaignError", 3)
    refused(place.run("fleet", "status", "GHOST-001", "--json"), "UnknownVehicleError", 7)
    refused(place.run("platforms", "show", "nt9", "--json"), "PlanError", 3)
    refused(place.run("platforms", "check", place.folder, "--json"), "FileUnreadableError", 3)


def test_a_platform_that_the_release_lacks_cannot_be_built_alone(place: Place) -> None:
    refused(place.run("bundle", place.project.release, "--platform", "nt2.0", "--json"), "PlanError", 3, "nt2.0")
    assert not any(served(place)[part] for part in ("mirrors", "repository", "vehicles", "rows"))
