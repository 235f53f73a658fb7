"""How a command ends: Ctrl-C, a reader that left, a defect, and two first commands at once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nwmctl.app import history
from nwmctl.storage.content import ContentStore
from tests.e2e.command import Place, refused, served
from tests.e2e.test_kill import events, finished, go_on, left_behind, wait_for
from tests.project import VINS


def interrupt(place: Place, process: subprocess.Popen[bytes]) -> str:
    """Ctrl-C, as a terminal sends it: to the whole group. Gives what was said."""
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    said = (place.folder / "spawned.log").read_text()
    assert "Traceback" not in said, said
    wait_for(lambda: not left_behind(place), lambda: True, 15)
    return said


def test_ctrl_c_while_it_builds(place: Place) -> None:
    with place.spawn("deploy", place.project.release) as process:
        wait_for(lambda: len(finished(events(place))) >= 2, lambda: process.poll() is None)
        assert "interrupted" in interrupt(place, process)
    (row,) = place.run("runs", "list", "--json").ok().json["runs"]
    assert row["state"] == "interrupted"
    assert row["run"] in place.run("runs", "list").ok().out


@pytest.mark.long
def test_ctrl_c_while_vehicles_install(published: Place) -> None:
    vehicle = published.workspace / "vehicles" / VINS[0]
    with published.spawn("deploy", published.project.release) as process:
        wait_for(vehicle.exists, lambda: process.poll() is None)
        interrupt(published, process)
    assert not (published.workspace / "state" / "gateway-ready.json").exists()
    go_on(published)


def test_a_reader_that_leaves_early_is_no_error(place: Place) -> None:
    line = f"{sys.executable} -m nwmctl platforms show nt2.0 --json | head -c 20; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], env=place.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_defect_is_told_without_a_traceback(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("a planted defect")

    monkeypatch.setattr(history, "list_summaries", broken)
    ran = place.run("runs", "list", "--json")
    assert ran.code == 1
    assert ran.json["error"] == "InternalError"
    assert "a planted defect" in ran.json["what"]
    assert "test_ends.py" in ran.json["why"]
    assert "NWMCTL_DEBUG=1" in ran.err


_MAKE = """
from nwmctl.app.keys import deployment_keys
from nwmctl.app.settings import load_settings
print(deployment_keys(load_settings(), virtual=True).ca_pem().hex())
"""


def test_two_first_commands_make_one_set_of_keys(place: Place, tmp_path: Path) -> None:
    environment = {**place.environ, "XDG_DATA_HOME": str(tmp_path / "data")}
    running = [
        subprocess.Popen([sys.executable, "-c", _MAKE], env=environment, stdout=subprocess.PIPE) for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0] == said[1] != b""
    assert [path.name for path in (tmp_path / "data" / "nwmctl").iterdir()] == ["development-keys"]


@pytest.mark.parametrize("text", ["-1", "0", "soon", "inf", "nan"])
def test_an_odd_time_limit_is_refused(place: Place, text: str) -> None:
    place.environment["NWMCTL_COMPILE_TIMEOUT"] = text
    ran = place.run("runs", "list", "--json")
    assert ran.code == 3
    assert text in ran.json["what"]


def test_a_run_is_not_resumed_under_another_policy(place: Place) -> None:
    place.run("pull", place.project.release).ok()
    (row,) = place.run("runs", "list", "--json").ok().json["runs"]
    place.project.edit_policy(lambda policy: policy.update(version=2))
    before = served(place), events(place)
    refused(place.run("deploy", "--resume", row["run"], "--json"), "RunMismatchError", 8, "policy")
    assert (served(place), events(place)) == before


def test_a_disk_that_becomes_full_is_told_and_the_run_goes_on_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: object, data: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ContentStore, "put_file", full)
        refused(place.run("pull", place.project.release, "--json"), "DiskFullError", 7, "No space left on device")
    (row,) = place.run("runs", "list", "--json").ok().json["runs"]
    assert row["state"] == "failed"
    place.run("deploy", "--resume", row["run"], "--no-follow").ok()
    assert place.run("runs", "list", "--json").ok().json["runs"][0]["state"] == "done"
