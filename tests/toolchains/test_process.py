"""Real processes that fail in every way that compilers were seen to fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nwmctl.errors import (
    CompileFailedError,
    DiskFullError,
    ErrorSaidError,
    RunawayOutputError,
    ScratchOverflowError,
    ToolchainMissingError,
    ToolchainTimeoutError,
    ToolMemoryError,
)
from nwmctl.toolchains import endings, surroundings
from nwmctl.toolchains.process import Command, Limits, clean_environment, own_path, run_tool, stated_environment


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
    with pytest.raises(ErrorSaidError, match=r"exited 0 and yet said 'x\.mlir:1:1: error: no such pass'"):
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
    with pytest.raises(RunawayOutputError, match="printed more than 100000 bytes"):
        run_tool(shell("yes", tmp_path, output_bytes=100_000))


def python(code: str, cwd: Path, **limits: float) -> Command:
    return Command("tool", (sys.executable, "-c", code), cwd, Limits(**{"timeout_s": 20.0, **limits}))  # type: ignore[arg-type]


def test_memory_of_one_process_is_limited(tmp_path: Path) -> None:
    with pytest.raises(ToolMemoryError, match="512 MiB are allowed") as caught:
        run_tool(python("x = bytearray(1 << 30); print(len(x))", tmp_path, memory_bytes=512 << 20))
    assert caught.value.why == "MemoryError", "the last word of a stack is enough"


def test_memory_of_all_processes_together_is_limited(tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        x = bytearray(b'1') * (100 << 20)\n"
        "        time.sleep(60)\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(ToolMemoryError, match="needed more than 256 MiB of memory and was killed"):
        run_tool(python(code, tmp_path, memory_bytes=256 << 20))


def test_what_processes_share_counts_once(tmp_path: Path) -> None:
    """Four forks of a process of 150 MiB that write nothing have 150 MiB together."""
    code = (
        "import os, time\n"
        "x = bytearray(b'1') * (150 << 20)\n"
        "children = [os.fork() for _ in range(2)]\n"
        "time.sleep(0.6)\n"
    )
    with surroundings.metered() as meter:
        run_tool(python(code, tmp_path, memory_bytes=600 << 20))
    assert 150 << 20 < meter.peak_bytes < 280 << 20


def test_a_meter_tells_memory_and_processor_time_of_the_whole_tree(tmp_path: Path) -> None:
    work = "x = bytearray(b'1') * (80 << 20); sum(range(3_000_000))"
    with surroundings.metered() as outer:
        with surroundings.metered() as meter:
            run_tool(python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])", tmp_path))
        run_tool(shell("true", tmp_path))
    assert meter.tools == 1
    assert 80 << 20 < meter.peak_bytes < 200 << 20
    assert meter.cpu_s > 0.02
    assert (outer.tools, outer.peak_bytes) == (2, meter.peak_bytes)


FILL = (
    "import time\n"
    "with open('junk', 'wb') as f:\n"
    "    while True:\n"
    "        f.write(bytes(1 << 20)); f.flush(); time.sleep(.005)"
)


def test_a_tool_that_fills_its_folder_is_killed(tmp_path: Path) -> None:
    with pytest.raises(ScratchOverflowError, match="wrote more than its disk space") as caught:
        run_tool(python(FILL, tmp_path, scratch_bytes=20 << 20))
    assert "(allowed: 20 MiB)" in caught.value.why
    assert (tmp_path / "junk").stat().st_size < 200 << 20


@pytest.mark.parametrize(
    "code",
    [
        "open('junk', 'wb').write(bytes(3 << 20))",
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); open('junk', 'wb').write(bytes(3 << 20))",
    ],
    ids=["the tool is told", "the tool is killed"],
)
def test_a_file_that_is_too_large_is_the_tools_doing(tmp_path: Path, code: str) -> None:
    with pytest.raises(ScratchOverflowError):
        run_tool(python(code, tmp_path, file_bytes=1 << 20))


MIB = 1 << 20


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (endings.Seen(0, 0, 600 * MIB, 0, 1000 * MIB, "disk"), ScratchOverflowError),
        (endings.Seen(0, 0, 600 * MIB, 0, 1000 * MIB), ScratchOverflowError),
        (endings.Seen(0, 0, 10 * MIB, 0, 1000 * MIB, "disk"), DiskFullError),
        (endings.Seen(0, 0, 10 * MIB, 0, 1000 * MIB), DiskFullError),
    ],
)
def test_who_has_filled_the_disk_decides_the_refusal(tmp_path: Path, seen: endings.Seen, kind: type[Exception]) -> None:
    command = shell("true", tmp_path)
    said = "cc: cannot write model.o: No space left on device"
    problem = endings.refusal(command, 1, "", said, seen, late=False, overflowed=False)
    assert type(problem) is kind
    if kind is DiskFullError:
        assert "free at least 20 MiB" in str(problem)


def test_what_leaves_the_process_group_is_killed_too(tmp_path: Path) -> None:
    """A daemon: a session of its own, its parent gone."""
    daemon = "(setsid sh -c 'echo $$ > daemon; sleep 600' &)"
    run_tool(shell(f"{daemon}; while [ ! -s daemon ]; do sleep 0.01; done", tmp_path))
    assert gone(int((tmp_path / "daemon").read_text()))


def test_a_daemon_dies_with_a_tool_that_hangs(tmp_path: Path) -> None:
    with pytest.raises(ToolchainTimeoutError):
        run_tool(shell("setsid sh -c 'echo $$ > daemon; sleep 600' & sleep 600", tmp_path, timeout_s=1.0))
    assert gone(int((tmp_path / "daemon").read_text()))


def test_surroundings_reach_a_tool_and_are_not_stated(tmp_path: Path) -> None:
    script = "umask; echo $LC_ALL $TZ; : > made; stat -c %a made"
    usual = run_tool(shell(script, tmp_path)).stdout.split()
    (tmp_path / "made").unlink()
    with surroundings.elsewhere():
        other = run_tool(shell(script, tmp_path)).stdout.split()
    assert usual == ["0022", "C.UTF-8", "UTC", "644"]
    assert other == ["0077", "C", "Asia/Shanghai", "600"]


def test_the_stated_environment_names_folders_and_writes_none(tmp_path: Path) -> None:
    stated = stated_environment({**own_path(), "NWM_EXTRA": "1"})
    assert stated.keys() == clean_environment(tmp_path, {**own_path(), "NWM_EXTRA": "1"}).keys()
    assert list(stated) == sorted(stated)
    assert stated["HOME"] == stated["TMPDIR"] == "<scratch>"
    assert (stated["LC_ALL"], stated["NWM_EXTRA"]) == ("C.UTF-8", "1")
    assert not [value for value in stated.values() if "/" in value]


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
