"""kill -9 at any moment, then --resume: nothing that was finished is done again, and the result is the same.

The kernel takes down whatever the killed command had started: gateway, vehicles, compilers, the signing process.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nwmctl.agent.journal import list_runs, read_journal
from nwmctl.domain.event import Event, RunResumed, StepFinished, StepStarted
from nwmctl.domain.step import StepState
from nwmctl.errors import NwmError
from tests.e2e.command import Place, tree
from tests.e2e.test_bad_world import vendor_recipe
from tests.project import SEQUENCE, VINS

_PATIENCE_S = 90.0


class TooLate(Exception):
    """The command ended before it could be killed."""


def events(place: Place) -> list[Event]:
    """The journal of the latest run, empty where none has begun."""
    runs = place.workspace / "runs"
    try:
        return read_journal(runs, list_runs(runs)[-1])
    except (NwmError, IndexError):
        return []


def finished(found: list[Event]) -> set[str]:
    return {event.step for event in found if isinstance(event, StepFinished)}


def wait_for(condition: Callable[[], object], process_alive: Callable[[], bool], seconds: float = _PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if not process_alive():
            raise TooLate
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def left_behind(place: Place) -> dict[int, str]:
    """Processes that name this place on their command line or work in it."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            folder = os.readlink(entry / "cwd")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(place.folder) in words + " " + folder and state != "Z":
            found[int(entry.name)] = words
    return found


def kill_deploy(place: Place, when: Callable[[], object], *options: str, group: bool = False) -> None:
    """Start a deployment, kill it when ``when()`` says so, and see everything that it had started end."""
    arguments = ["deploy", place.project.release, *options]
    with place.spawn(*arguments) as process:
        wait_for(when, lambda: process.poll() is None)
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        deadline = time.monotonic() + 15
        while left := left_behind(place):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)


def go_on(place: Place) -> None:
    """Resume the latest run, or start one where the kill came before it."""
    before = events(place)
    done = finished(before)
    if before:
        place.run("deploy", "--resume", list_runs(place.workspace / "runs")[-1]).ok()
    else:
        place.deploy().ok()
    after = events(place)[len(before) :]
    assert not before or any(isinstance(event, RunResumed) for event in after)
    again = {event.step for event in after if isinstance(event, StepStarted)} & done
    assert not again, f"done again: {again}"
    assert {e.state for e in after if isinstance(e, StepFinished) and e.step in done} <= {StepState.CACHED}
    assert place.run("rollout", "status", "--json").ok().json["state"] == "completed"
    (row,) = place.run("fleet", "status", "--json").ok().json["vehicles"]
    assert (row["sequence"], row["vehicles"]) == (SEQUENCE, len(VINS))
    assert not tree(place.workspace / "content" / "tmp"), "something unfinished stayed in the store"


def bundles(place: Place) -> frozenset[str]:
    """Names of the published files; their digests are in the names."""
    return frozenset(tree(place.workspace / "mirrors" / "local" / "targets"))


@pytest.mark.long
def test_killed_while_it_builds(place: Place, undisturbed: frozenset[str]) -> None:
    kill_deploy(place, lambda: len(finished(events(place))) >= 3)
    done = finished(events(place))
    assert len(done) < 15
    go_on(place)
    assert bundles(place) == undisturbed


def test_killed_while_vehicles_install(published: Place, undisturbed: frozenset[str]) -> None:
    vehicles = published.workspace / "vehicles" / VINS[0]
    kill_deploy(published, vehicles.exists)
    go_on(published)
    assert bundles(published) == undisturbed


def test_a_compiler_does_not_outlive_a_killed_command(place: Place) -> None:
    platforms = vendor_recipe(place, "hang")
    compiling = "tinycc --model"
    kill_deploy(
        place,
        lambda: any(compiling in words for words in left_behind(place).values()),
        "--platforms",
        str(platforms),
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_killed_three_times_at_random_moments(place: Place, undisturbed: frozenset[str], seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(3):
        moment = time.monotonic() + dice.uniform(0.2, 8.0)
        options = ("--resume", list_runs(place.workspace / "runs")[-1]) if events(place) else ()
        with contextlib.suppress(TooLate):
            kill_deploy(place, lambda moment=moment: time.monotonic() > moment, *options, group=dice.random() < 0.5)
    go_on(place)
    assert bundles(place) == undisturbed
