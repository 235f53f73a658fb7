"""Real processes that fail in every way that compilers were seen to fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nwmctl.errors import CompileFailedError, ToolchainMissingError, ToolchainTimeoutError
from nwmctl.toolchains.process import Command, Limits, own_path, run_tool


def shell(script: str, cwd: Path, **limits: float) -> Command:
    return Command("tool", ("/bin/sh", "-c", script), cwd, Limits(**{"timeout_s": 20.0, **limits}))  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # nobody may be there to reap an orphan; a zombie runs no more


def gone(pid: int, within: float = 5.0) -> bool:
    for _ in range(int(within / 0.02)):
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


def test_a_tool_that_works_gives_its_words(tmp_path: Path) -> None:
    finished = run_tool(shell("echo out; echo talk >&2; pwd", tmp_path))
    assert finished.stdout == f"out\n{tmp_path}\n"
    assert finished.stderr == "talk\n"


def test_exit_status_is_a_failure_with_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(CompileFailedError, match="failed with exit status 3") as caught:
        run_tool(shell("for i in 1 2 3; do echo line $i >&2; done; exit 3", tmp_path))
    assert "line 1 | line 2 | line 3" in caught.value.why


def test_an_error_on_stderr_is_a_failure_although_the_tool_exits_0(tmp_path: Path) -> None:
    with pytest.raises(CompileFailedError, match=r"exited 0 and yet said 'x\.mlir:1:1: error: no such pass'"):
        run_tool(shell("echo 'x.mlir:1:1: error: no such pass' >&2", tmp_path))


@pytest.mark.parametrize("harmless", ["0 errors", "built with -Werror", "terror"])
def test_words_that_only_contain_error_are_no_failure(tmp_path: Path, harmless: str) -> None:
    run_tool(shell(f"echo '{harmless}' >&2", tmp_path))


def test_a_tool_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    with pytest.raises(ToolchainTimeoutError, match=r"did not end within 0\.5 s"):
        run_tool(shell("sleep 600 & echo $! > child; echo $$ > self; sleep 600", tmp_path, timeout_s=0.5))
    assert gone(int((tmp_path / "child").read_text()))
    assert gone(int((tmp_path / "self").read_text()))


def test_what_a_tool_leaves_running_is_killed_when_it_ends(tmp_path: Path) -> None:
    run_tool(shell("sleep 600 & echo $! > child", tmp_path))
    assert gone(int((tmp_path / "child").read_text()))


def test_a_crash_names_the_signal(tmp_path: Path) -> None:
    with pytest.raises(CompileFailedError, match="was ended by SIGSEGV"):
        run_tool(shell("kill -SEGV $$", tmp_path))


def test_output_without_end_is_cut_and_the_tool_killed(tmp_path: Path) -> None:
    with pytest.raises(CompileFailedError, match="printed more than 100000 bytes"):
        run_tool(shell("yes", tmp_path, output_bytes=100_000))


def test_memory_is_limited(tmp_path: Path) -> None:
    limits = Limits(20.0, memory_bytes=512 << 20)
    code = "x = bytearray(1 << 30); print(len(x))"
    with pytest.raises(CompileFailedError) as caught:
        run_tool(Command("tool", (sys.executable, "-c", code), tmp_path, limits))
    assert "MemoryError" in caught.value.why


def test_nothing_of_the_users_shell_reaches_a_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "1")
    names = {line.partition("=")[0] for line in run_tool(shell("env", tmp_path)).stdout.splitlines()}
    assert "SECRET_OF_THE_SHELL" not in names
    assert {"PATH", "LC_ALL", "TZ", "HOME", "PYTHONHASHSEED"} <= names


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolchainMissingError, match="tool is not there"):
        run_tool(Command("tool", ("/nowhere/compiler",), tmp_path, Limits()))


def test_a_tool_dies_with_us_even_if_we_are_killed(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from nwmctl.toolchains.process import *\n"
        "run_tool(Command('t', ('/bin/sh', '-c', 'sleep 600 & echo $! > child; echo $$ > self; wait'),"
        f" Path({str(tmp_path)!r}), Limits()))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **own_path()})
    try:
        for _ in range(500):
            if (tmp_path / "self").exists() and (tmp_path / "self").read_text().endswith("\n"):
                break
            time.sleep(0.02)
        pids = [int((tmp_path / name).read_text()) for name in ("self", "child")]
        assert all(alive(pid) for pid in pids)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert all(gone(pid) for pid in pids)
