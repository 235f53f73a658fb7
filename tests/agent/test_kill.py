"""kill -9 in the middle of a run costs the running step and nothing else."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
from pathlib import Path
from nwmctl.agent.journal import Journal
from nwmctl.agent.policy import Guard, Playbook
from nwmctl.agent.runner import Runner
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.storage.content import ContentStore
from tests.fakes import FakeClock, FakeStep, Silent, StoreResults, echo

root = Path(sys.argv[1])
store = ContentStore(root / "content")
answer = echo(store)

def work(parameters, inputs):
    with (root / "ran.log").open("a") as log:
        log.write(f"{parameters['n']}\\n")
    time.sleep(0.03)
    return answer(parameters, inputs)

steps = {"pure": FakeStep("pure", work), "stage": FakeStep("stage", work, pure=False)}
plan = [PlannedStep("s0", "pure", {"n": "s0"}, {}, "")]
for i in range(1, 12):
    kind = "stage" if i % 3 == 2 else "pure"
    plan.append(PlannedStep(f"s{i}", kind, {"n": f"s{i}"}, {"x": OutputRef(f"s{i - 1}", "out")}, ""))
clock = FakeClock()
journal = Journal(root / "run")
runner = Runner(steps, StoreResults(store), journal, Guard(Playbook()), clock, time.sleep, Silent(), 2)
result = runner.run(plan, {})
print(result.state, result.outcomes["s11"].outputs["out"])
"""


def _finished(root: Path) -> set[str]:
    from nwmctl.agent.journal import fold, read_journal

    if not (root / "run" / "journal.log").exists():
        return set()
    return set(fold(read_journal(root, "run")).finished)


def _start(root: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root)], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = _start(whole).communicate(timeout=60)[0]
    assert expected.startswith("done ")
    root = tmp_path / "killed"
    root.mkdir()
    dice = random.Random(seed)
    for _ in range(4):
        before = _finished(root)
        ran = (root / "ran.log").read_text().split() if (root / "ran.log").exists() else []
        process = _start(root)
        time.sleep(dice.uniform(0.3, 0.7))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        new = (root / "ran.log").read_text().split()[len(ran) :] if (root / "ran.log").exists() else []
        assert not before & set(new), "a finished step ran again"
    assert _start(root).communicate(timeout=60)[0] == expected
