"""The import contracts hold, and would notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [str(program), "--no-cache", "--config", str(folder / ".importlinter")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "nwmctl", folder / "nwmctl", ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


PLANTED = [
    ("domain/digest.py", "from nwmctl.storage import content"),
    ("compiler/__init__.py", "from nwmctl.validation import parity"),
    ("vehicle/__init__.py", "from nwmctl.fleet import waves"),
    ("agent/policy.py", "from nwmctl.trust import keys"),
]


def test_the_contracts_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(("file", "line"), PLANTED)
def test_a_planted_violation_breaks_them(copy: Path, file: str, line: str) -> None:
    path = copy / "nwmctl" / file
    before = path.read_text()
    try:
        path.write_text(before + f"\n{line}\n")
        done = lint(copy)
    finally:
        path.write_text(before)
    assert done.returncode != 0
    assert "BROKEN" in done.stdout
