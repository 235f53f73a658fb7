"""The wheel: what it carries, and that nwmctl works from it, away from the repository.

No network: the wheel is unpacked into a folder of its own, and the packages that it depends on are those of the
environment that runs the tests (without the repository, which an editable installation would put first).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import nwmctl

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; gives its bin folder."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=False)
    inside = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv" if "venv" in sysconfig.get_scheme_names() else None, inside))
    install = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # A path file, so that packages are found and path files beside them (the editable nwmctl) are not read.
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(installed: Path, away: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NWMCTL_", "PYTHON"))}
    environment |= {"NWMCTL_WORKSPACE": str(away / "workspace"), "XDG_DATA_HOME": str(away / "xdg")}
    away.mkdir(exist_ok=True)
    done = subprocess.run(
        [str(installed / "nwmctl"), *arguments], cwd=away, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_carries_data_and_examples_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"nwmctl/data/{path.relative_to(ROOT)}"
        for folder in ("platforms", "templates", "examples/nwm-2.0", "examples/nwm-2.5")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    assert len(expected) > 15
    assert expected <= names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "nwmctl").rglob("*.py")}
    assert modules <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "examples"))]
    assert not [name for name in names if name.endswith((".pem", ".pyc", ".db", ".onnx.data"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_names_its_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
    assert f"Version: {nwmctl.__version__}" in text
    assert {f"Provides-Extra: {name}" for name in ("iree", "train")} <= set(text.splitlines())


def test_it_is_the_wheels_code_that_runs(installed: Path, tmp_path: Path) -> None:
    code = "import nwmctl, sys; print(nwmctl.__file__)"
    done = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert Path(done.stdout.strip()).is_relative_to(installed.parent), done.stdout + done.stderr


def test_the_embedded_example_is_planned_from_anywhere(installed: Path, tmp_path: Path) -> None:
    plan = json.loads(run(installed, tmp_path / "away", "deploy", "--dry-run", "--json"))["plan"]
    steps = {row["step"] for row in plan}
    assert {"pull/release", "sign/release/nt2.0", "sign/return/virtual", "stage", "publish", "rollout"} <= steps


def test_the_embedded_model_is_pulled_and_proven(installed: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    example = installed.parent / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    release = example / "nwmctl" / "data" / "examples" / "nwm-2.5" / "release.yaml"
    assert json.loads(run(installed, away, "pull", str(release), "--json"))["run"]["state"] == "done"


def test_platforms_and_toolchains_travel_along(installed: Path, tmp_path: Path) -> None:
    listed = json.loads(run(installed, tmp_path / "away", "platforms", "list", "--json"))["platforms"]
    assert [row["platform"] for row in listed] == ["nt2.0", "nt2.5", "nt3.0", "virtual"]
    found = json.loads(run(installed, tmp_path / "away", "doctor", "--json"))["findings"]
    external = next(row for row in found if row["name"] == "external")
    assert "example-npu" in external["detail"]
