"""How long the example deployment takes on this machine: cold, again, and with one platform's profile changed.

``python -m benchmarks.deploy`` prints a table and writes it into ``benchmarks/RESULTS.md``. Each run is a process of
its own with development keys of its own; times are wall-clock and CPU time of the process tree. The ratio of a second
run to the first is what the content store is for; the absolute times depend on the machine.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.results import write_section

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """One deployment: seconds of wall-clock and CPU time, and what it says about itself."""

    name: str
    wall_s: float
    cpu_s: float
    build_s: float
    staged_s: float
    cached: int
    steps: int


def deploy(name: str, workspace: Path, data: Path, *more: str) -> Run:
    """Run ``nwmctl deploy`` on the example."""
    environment = {**os.environ, "NWMCTL_WORKSPACE": str(workspace), "XDG_DATA_HOME": str(data)}
    command = [sys.executable, "-m", "nwmctl", "deploy", str(ROOT / "examples/nwm-2.5/release.yaml"), "--json", *more]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    run = json.loads(done.stdout)["run"]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(name, wall, cpu, run["build_s"], run["staged_s"], run["found_in_store"], run["steps"])


def changed_platforms(folder: Path) -> Path:
    """A copy of the profiles in which one platform's memory budget is another."""
    copy = folder / "platforms"
    shutil.copytree(ROOT / "platforms", copy)
    profile = copy / "nt2.5.yaml"
    text = profile.read_text()
    assert "value: 4096.0, unit: MB" in text
    profile.write_text(text.replace("value: 4096.0, unit: MB", "value: 4000.0, unit: MB"))
    return copy


def main() -> None:
    """Run, print, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold = deploy("cold, empty workspace", folder / "ws", folder / "keys")
        again = deploy("again", folder / "ws", folder / "keys")
        # The same store, but a sequence of its own: published content never changes under a sequence.
        shutil.copytree(folder / "ws" / "content", folder / "ws2" / "content")
        platforms = changed_platforms(folder)
        changed = deploy(
            "NT2.5's profile changed, new workspace, same store", folder / "ws2", folder / "keys",
            "--platforms", str(platforms),
        )  # fmt: skip
    lines = [
        "| run | wall s | CPU s | build part s | staged after s | steps found in the store |",
        "|---|---|---|---|---|---|",
    ]
    for run in (cold, again, changed):
        lines.append(
            f"| {run.name} | {run.wall_s:.1f} | {run.cpu_s:.1f} | {run.build_s:.1f} | {run.staged_s:.1f} "
            f"| {run.cached} of {run.steps} |"
        )
    lines.append("")
    lines.append(
        f"Build part of the second run: {again.build_s / cold.build_s:.4f} of the first. "
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"IREE {version('iree-base-compiler')}, onnxruntime {version('onnxruntime')}, "
        f"{datetime.now(UTC):%Y-%m-%d}; load average at the end {os.getloadavg()[0]:.1f}. "
        "CPU s counts the command and the children it waited for."
    )
    print("\n".join(lines))
    write_section("The example deployment", "python -m benchmarks.deploy", "\n".join(lines))


if __name__ == "__main__":
    main()
