"""`nwmctl drive` as a person types it: pictures and tables from the example models, and clear refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from nwmctl.app.artifacts import find
from nwmctl.app.drives import choices, drive, pair_up
from nwmctl.app.settings import load_settings
from nwmctl.cli.app import app
from nwmctl.domain.figure import Obtained
from nwmctl.driving.scenarios import Family, Trap
from nwmctl.errors import ArtifactUnknownError, ContractBrokenError, ExitCode, NotDrivableError, NwmError

ROOT = Path(__file__).parents[2]
OLD, NEW = (str(ROOT / "examples" / name / "model") for name in ("nwm-2.0", "nwm-2.5"))


def nwmctl(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "nwmctl", "drive", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=cwd)


def told(*arguments: str, cwd: Path, code: int = 0) -> Any:
    done = nwmctl(*arguments, "--json", cwd=cwd)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_replay_is_a_picture_and_a_summary_of_both(tmp_path: Path) -> None:
    found = told("replay", "merge:6100003", "-a", OLD, "-r", NEW, "-o", "seen.svg", "--guard", cwd=tmp_path)
    picture = (tmp_path / "seen.svg").read_bytes()
    ElementTree.fromstring(picture)
    assert found["bytes"] == len(picture) < 200_000
    assert found["scenario"] == "merge:6100003"
    assert (found["reference"]["name"], found["candidate"]["name"]) == ("nwm 2.5", "nwm 2.0")
    assert {found[who]["obtained"] for who in ("reference", "candidate")} == {"measured"}
    assert found["guard"] is True
    assert found["candidate"]["interventions"] > 0
    assert found["reference"]["interventions"] == 0
    assert 0.0 < found["reference"]["score"] <= 1.0
    assert list(tmp_path.iterdir()) == [tmp_path / "seen.svg"], "nothing else is left, no workspace either"


def test_a_table_for_people_has_every_family_and_says_what_it_is_not(tmp_path: Path) -> None:
    done = nwmctl("run", "-a", NEW, "-n", "5", "--seed", "7", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(family in done.stdout for family in Family)
    assert "not a real road" in done.stdout
    assert "measured" in done.stdout


def test_the_same_model_against_itself_differs_in_nothing(tmp_path: Path) -> None:
    found = told("run", "-a", NEW, "-r", NEW, "-n", "5", "--seed", "7", cwd=tmp_path)
    assert found["only_reference_failed"] == found["only_candidate_failed"] == 0
    assert found["interventions"] is None
    assert [row["name"] for row in found["rows"]] == [*Family, "all"]
    assert all(row["reference"] == row["candidate"] for row in found["rows"])
    assert found["rows"][-1]["reference"]["scenarios"] == 5


def test_the_trap_suite_is_told_by_trap_with_recovery() -> None:
    pairing = pair_up(NEW, NEW, True, load_settings(None))
    rows = drive(pairing, len(Trap), 3, trapped=True).rows
    assert [row.name for row in rows] == [*Trap, "all"]
    assert all(row.reference_recovered in (0.0, 1.0) for row in rows[:-1])
    assert all(row.interventions_per_km is not None for row in rows)


def test_the_list_has_all_families_and_traps(tmp_path: Path) -> None:
    found = told("list", cwd=tmp_path)
    assert found == json.loads(json.dumps(choices()))
    assert [row["name"] for row in found["families"]] == list(Family)
    assert [row["name"] for row in found["traps"]] == list(Trap)
    assert all(row["what"] for kind in found.values() for row in kind)
    shown = nwmctl("list", cwd=tmp_path).stdout
    assert all(name in shown for name in (*Family, *Trap))


def test_a_scenario_file_can_be_watched(tmp_path: Path) -> None:
    lines = "schema: nwmctl.scenario/1\nname: mine\ndrawn:\n  family: curvy\n  seed: 12\n  trap: stalled\n"
    (tmp_path / "mine.yaml").write_text(lines)
    found = told("replay", "mine.yaml", "-a", NEW, cwd=tmp_path)
    assert found["scenario"] == "curvy:12:stalled"
    assert "curvy:12" in (tmp_path / "replay.svg").read_text()


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        (["replay", "moon:1", "-a", NEW], "ScenarioNameError", "families:"),
        (["replay", "merge:-1", "-a", NEW], "ScenarioNameError", "seed from 0 up"),
        (["replay", "merge:1:flood", "-a", NEW], "ScenarioNameError", "traps:"),
        (["replay", "merge:1:too_fast", "-a", NEW], "ScenarioNameError", "not laid on"),
        (["replay", "gone.yaml", "-a", NEW], "ScenarioNameError", "no scenario file"),
        (["replay", "merge:1", "-a", "gone.onnx"], "ArtifactUnknownError", "no such file"),
        (["replay", "merge:1", "-a", "virtual/host/host"], "ArtifactUnknownError", "no workspace"),
        (["replay", "merge:1", "-a", str(ROOT / "tests")], "ArtifactUnknownError", "model-card.json"),
        (["run", "-a", str(ROOT / "README.md"), "-n", "5"], "ContractBrokenError", "ONNX"),
        (["replay", "merge:1", "-a", NEW, "-o", "no/such/folder.svg"], "OutputUnwritableError", "cannot be written"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_wrong_input_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], error: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    problem = CliRunner().invoke(app, ["drive", *line]).exception
    assert isinstance(problem, NwmError)
    assert type(problem).__name__ == error
    assert problem.exit_code is ExitCode.INPUT
    assert says in str(problem)
    assert not list(tmp_path.iterdir())


def test_a_refusal_is_one_json_document(tmp_path: Path) -> None:
    found = told("replay", "moon:1", "-a", NEW, cwd=tmp_path, code=ExitCode.INPUT)
    assert (found["error"], found["exit_code"]) == ("ScenarioNameError", 3)


@pytest.mark.parametrize("line", [["-n", "0"], ["-n", "x"], ["--seed", "-1"]])
def test_a_wrong_amount_is_a_wrong_line(line: list[str]) -> None:
    assert CliRunner().invoke(app, ["drive", "run", "-a", NEW, *line]).exit_code == ExitCode.USAGE


def test_an_onnx_file_keeps_the_references_contract(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(f"{NEW}/model.onnx")
    onnx.save(model, tmp_path / "same.onnx")
    settings = load_settings(tmp_path / "none")
    assert find(str(tmp_path / "same.onnx"), settings).obtained is Obtained.MEASURED
    model.graph.input[0].name = "speed"
    for node in model.graph.node:
        node.input[:] = ["speed" if name == "ego" else name for name in node.input]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ContractBrokenError, match=r"speed|ego"):
        find(str(tmp_path / "other.onnx"), settings)


def test_a_model_that_wants_to_see_something_else_cannot_be_driven(tmp_path: Path) -> None:
    shutil.copytree(NEW, tmp_path / "model")
    card = tmp_path / "model" / "model-card.json"
    card.write_bytes(card.read_bytes().replace(b'"name":"route"', b'"name":"camera"'))
    with pytest.raises(NotDrivableError, match="camera"):
        find(str(tmp_path / "model"), load_settings(tmp_path / "none"))


def test_a_workspace_without_that_artifact_says_so(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    with pytest.raises(ArtifactUnknownError, match="virtual/host/host"):
        find("virtual/host/host", load_settings(tmp_path / "w"))


@pytest.mark.long
def test_what_a_run_compiled_can_be_watched_by_place_run_and_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # development keys belong there
    release = str(ROOT / "examples" / "nwm-2.5" / "release.yaml")
    line = [sys.executable, "-m", "nwmctl", "validate", release, "-p", "virtual", "-w", "w", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    run, digest = summary["run"]["name"], summary["artifacts"][0]["manifest"]["payload"]
    for name in ("virtual/host/host", "virtual/host", f"{run}/virtual/host/host", digest, digest[7:19]):
        found = told("replay", "merge:7", "-a", name, "-w", "w", cwd=tmp_path)
        assert (found["candidate"]["obtained"], found["reference"]["name"]) == ("measured", "nwm 2.5")
    settings = load_settings(tmp_path / "w")
    with pytest.raises(ArtifactUnknownError, match="nosuch"):
        find("nosuch/host", settings)


def test_the_example_scenario_file_is_driven(tmp_path: Path) -> None:
    file = ROOT / "examples" / "scenarios" / "lorry-behind-the-bend.yaml"
    found = told("replay", str(file), "-a", NEW, "-r", OLD, "-o", "bend.svg", cwd=tmp_path)
    assert "lorry-behind-the-bend.yaml" in (tmp_path / "bend.svg").read_text()
    assert found["candidate"]["name"] == "nwm 2.5"
