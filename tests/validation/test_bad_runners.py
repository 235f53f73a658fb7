"""Artifacts that misbehave in their runner: each a failed check with a reason, and nothing of them stays.

The processes are real: the worker's own main, with a runtime that crashes, hangs, leaks or talks. Beside the suite's
results the process table is watched, for what an artifact started must not outlive it.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.artifact import Port
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import TensorSpec
from nwmctl.toolchains.process import Command, Limits, MemoryLimit, own_path
from nwmctl.toolchains.protocol import Session
from nwmctl.toolchains.rows import RowSession
from nwmctl.toolchains.sessions import WorkerSession
from nwmctl.validation.suite import Pace, Settings, Way, validate_artifact
from tests.validation import plant

FEW = Settings(plant.RULES, seed=3, scenarios=2, row_scenarios=2, random_inputs=2)
EXECUTING = (Check.CONTRACT, Check.NEGATIVE_CONTROL, Check.PARITY, Check.CONTROL_ENVELOPE, Check.CLOSED_LOOP)
SHAPES = {"control": [10, 2], "outlook": [2]}
WORKER = """
import ctypes, json, os, subprocess, sys, time
import numpy as np
import nwmctl.toolchains.worker as worker
from pathlib import Path
asked, kept = [], []
SHAPES = {shapes}
def answer(inputs):
    rows = len(inputs["ego"])
    speed = inputs["ego"][:, -1, 0].astype(np.float32)
    return {{name: np.broadcast_to(speed.reshape(-1, *[1] * len(shape)) * np.float32(0.001), (rows, *shape)).copy()
            for name, shape in SHAPES.items()}}
def load(order):
    {loading}
    def run(inputs):
        asked.append(1)
        {running}
        return answer(inputs)
    return lambda inputs: (run(inputs), [])
worker.LOADERS = {{"onnxruntime": load}}
order = {{"runtime": "onnxruntime", "payload": "payload", "inputs": [], "outputs": [], "flags": []}}
sys.exit(worker.main([json.dumps(order)]))
"""


def ports(specs: tuple[TensorSpec, ...]) -> tuple[Port, ...]:
    return tuple(Port(spec.name, spec.dtype, spec.shape) for spec in specs)


INPUTS, OUTPUTS = ports(plant.CONTRACT.inputs), ports(plant.CONTRACT.outputs)


def worker(folder: Path, running: str, loading: str = "pass", timeout_s: float = 20.0, **limits: int) -> Session:
    """A session over the real worker with another runtime inside."""
    place = folder / "worker"
    place.mkdir()
    code = WORKER.format(shapes=json.dumps(SHAPES), loading=loading, running=running)
    # Threads of numpy's arithmetic reserve memory of their own: the environment of tools allows one.
    bounds = Limits(memory=MemoryLimit.DATA, **{"file_bytes": 1 << 20, **limits})
    command = Command("the runtime", (sys.executable, "-c", code), place, bounds, own_path())
    return WorkerSession(command, INPUTS, OUTPUTS, timeout_s)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    for _ in range(250):
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


def validated(folder: Path, way: Way) -> dict[Check, CheckResult]:
    whole = plant.subject(folder, plant.half_precision)
    results = validate_artifact(replace(whole, ways=(way,)), FEW, lambda what, share: None)
    return {result.check: result for result in results}


def judged(folder: Path, running: str, **options: int | float | str) -> dict[Check, CheckResult]:
    """All checks of an artifact whose runtime does ``running`` at every question; its process notes its number."""
    note = f"Path({str(folder / 'pids')!r}).open('a').write(f'{{os.getpid()}}\\n')"

    def opened() -> Session:
        return worker(folder, running, **{"loading": note, **options})  # type: ignore[arg-type]

    found = validated(folder, Way(Obtained.PROXY, "host twin", Pace.BATCH, opened))
    pids = (folder / "pids").read_text().split()
    assert len(pids) == 1, "an artifact that failed is not started again for the next check"
    assert all(gone(int(pid)) for pid in pids)
    assert not (folder / "worker").exists(), "the runner's folder is gone"
    return found


def failed(found: dict[Check, CheckResult], said: str) -> None:
    for check in EXECUTING:
        assert found[check].verdict is Verdict.FAILED, f"{check}: {found[check].summary}"
        assert said in found[check].summary, f"{check}: {found[check].summary}"
        assert found[check].next


def test_the_runner_itself_is_fine(tmp_path: Path) -> None:
    found = judged(tmp_path, "pass")
    assert found[Check.CONTRACT].verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("crash", "said"),
    [
        ("os.abort()", "was ended by SIGABRT"),
        ("ctypes.string_at(0)", "was ended by SIGSEGV"),
        pytest.param("os._exit(3)", "failed with exit status 3", marks=pytest.mark.long),
        pytest.param("len(asked) > 30 and os.kill(os.getpid(), 9)", "was ended by SIGKILL", marks=pytest.mark.long),
    ],
)
def test_a_crash_fails_every_check_with_the_signal(tmp_path: Path, crash: str, said: str) -> None:
    failed(judged(tmp_path, crash), said)


def test_an_exception_is_told_in_its_own_words(tmp_path: Path) -> None:
    failed(judged(tmp_path, "raise ValueError('tile 7 does not fit')"), "tile 7 does not fit")


def test_a_hang_ends_at_its_time_limit(tmp_path: Path) -> None:
    failed(judged(tmp_path, "time.sleep(600)", timeout_s=4.0), "did not answer within 4 s and was killed")


@pytest.mark.long
def test_a_hang_while_loading_ends_too(tmp_path: Path) -> None:
    note = f"Path({str(tmp_path / 'pids')!r}).open('a').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
    failed(judged(tmp_path, "pass", loading=note, timeout_s=5.0), "did not answer within 5 s")


@pytest.mark.long
def test_an_answer_that_drips_ends_at_its_time_limit(tmp_path: Path) -> None:
    drip = (
        "worker._answer = lambda answers, outputs, error='', seconds=(): "
        "[(answers.write(bytes([b])), answers.flush(), time.sleep(0.3)) for b in worker.pack(outputs, error)]"
    )
    # Each byte alone comes in time, the answer never does.
    failed(judged(tmp_path, drip, timeout_s=5.0), "did not answer within 5 s and was killed")


def test_a_leak_ends_at_the_memory_limit(tmp_path: Path) -> None:
    leak = "kept.append(bytearray(100 << 20))"
    failed(judged(tmp_path, leak, memory_bytes=600 << 20), "MemoryError")


def test_a_flood_of_words_is_cut_and_fills_no_disk(tmp_path: Path) -> None:
    sizes: list[int] = []
    flood = "os.write(2, b'w' * 100000)"
    note = f"Path({str(tmp_path / 'pids')!r}).open('a').write(f'{{os.getpid()}}\\n')"

    def opened() -> Session:
        return worker(tmp_path, flood, loading=note, file_bytes=1 << 20)

    class Watched:
        """The session, with an eye on what its process has written."""

        def __init__(self) -> None:
            self.session = opened()

        def run(self, inputs):  # type: ignore[no-untyped-def]
            try:
                return self.session.run(inputs)
            finally:
                log = tmp_path / "worker" / "stderr.txt"
                sizes.append(log.stat().st_size if log.exists() else 0)

        @property
        def seconds(self) -> tuple[float, ...]:
            return self.session.seconds

        def close(self) -> None:
            self.session.close()

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

    found = validated(tmp_path, Way(Obtained.PROXY, "host twin", Pace.BATCH, Watched))
    failed(found, "File too large")
    assert 100_000 < max(sizes) <= 1 << 20
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_words_on_stdout_are_no_answer(tmp_path: Path) -> None:
    found = judged(tmp_path, "print('fps: 20', flush=True) or os.write(1, b'done\\\\n')")
    assert found[Check.CONTRACT].verdict is Verdict.PASSED, "stdout belongs to the frames; words go elsewhere"


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("return {'control': np.zeros((len(inputs['ego']), 10, 2), np.float32)}", "tensors that the manifest does not"),
        ("return {n: v[:, :1] for n, v in answer(inputs).items()}", "the contract says"),
        ("return {n: np.zeros((1 << 16, 10, 2), np.float32) for n in SHAPES}", "more than"),
        pytest.param(
            "return {n: v.astype(np.complex64) for n, v in answer(inputs).items()}", "crashed", marks=pytest.mark.long
        ),
        pytest.param("return None", "crashed", marks=pytest.mark.long),
    ],
)
def test_answers_that_are_none_fail(tmp_path: Path, lie: str, said: str) -> None:
    failed(judged(tmp_path, lie), said)


@pytest.mark.long
def test_what_an_artifact_started_does_not_stay(tmp_path: Path) -> None:
    start = "asked[1:] or Path({!r}).write_text(str(subprocess.Popen(['sleep', '600']).pid))".format(
        str(tmp_path / "child")
    )
    judged(tmp_path, start)
    assert gone(int((tmp_path / "child").read_text()))
    (tmp_path / "second").mkdir()
    crash = start.replace(str(tmp_path / "child"), str(tmp_path / "other")) + "; os.abort()"
    judged(tmp_path / "second", crash)
    assert gone(int((tmp_path / "other").read_text()))


# --- a runtime that is a program of its own, one process per row ----------------------------------------------------

PROGRAM = """#!{python}
import os, sys, time
import numpy as np
{body}
for index, shape in enumerate([(1, 10, 2), (1, 2)]):
    np.save(f"out{{index}}.npy", np.zeros(shape, np.float32))
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os.abort()", "was ended by SIGABRT"),
        ("time.sleep(600)", "did not end within 3 s"),
        ("while True: print('x' * 1000)", "printed more than"),
        ("kept = bytearray(9 << 30)", "MemoryError"),
        ("np.save('out0.npy', np.zeros((1, 1000, 1000), np.float32)); sys.exit(0)", "no outputs that can be read"),
        pytest.param("open('out0.npy', 'wb').truncate(8 << 30)", "File too large", marks=pytest.mark.long),
        pytest.param("print('error: no such kernel', file=sys.stderr)", "no such kernel", marks=pytest.mark.long),
    ],
)
def test_a_program_that_misbehaves_fails_every_check(tmp_path: Path, body: str, said: str) -> None:
    program = tmp_path / "run"
    program.write_text(PROGRAM.format(python=sys.executable, body=body))
    program.chmod(0o755)
    made = plant.manifest(inputs=INPUTS, outputs=OUTPUTS)

    def opened() -> Session:
        return RowSession("the program", (str(program),), made, 3.0)

    found = validated(tmp_path, Way(Obtained.BENCH, "program", Pace.ROWS, opened))
    failed(found, said)
