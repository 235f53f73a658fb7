"""kill -9 between any two writes of staging and publishing: the earlier release stays served until the timestamp.

A real process kills itself at a chosen write to the mirror, to the repository's own state or to the database. The next
one goes on from what is on the disk, as a person's would.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from nwmctl.trust.metadata import TIMESTAMP_PATH
from tests.e2e.command import Place, rows
from tests.e2e.test_full_disk import names

_PROGRAM = """
import os, signal, sys
word, left = sys.argv.pop(1), int(sys.argv.pop(1))
import nwmctl.steps.publish, nwmctl.steps.stage
from nwmctl.publishing.local import LocalFiles

def deadly(owner, name):
    work = getattr(owner, name)
    def instead(*arguments, **named):
        global left
        for done in (False, True):
            if word in f"{name} {arguments} {'done' if done else ''}":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            if not done:
                found = work(*arguments, **named)
        return found
    setattr(owner, name, instead)

for owner, name in (
    (LocalFiles, "write"), (LocalFiles, "rename"), (nwmctl.steps.stage, "write_atomically"),
    (nwmctl.steps.stage, "claim_sequence"), (nwmctl.steps.publish, "enable_release"),
):
    deadly(owner, name)
from nwmctl.cli.app import main
main()
"""


@pytest.fixture
def next_one(published: Place) -> Place:
    """A release is published, the next one is ordered."""
    published.project.edit_release(lambda release: release.update(sequence=release["sequence"] + 10))
    return published


def killed(place: Place, word: str, left: int) -> bool:
    """Publish until the ``left``-th write that ``word`` is in; false if the command ended by itself, and well."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, word, str(left), "publish", str(place.project.release), "--json"],
        env=place.environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


def enabled(place: Place) -> int:
    return len(rows(place.workspace / "fleet.db")["bundle"])


def timestamp(place: Place) -> bytes:
    data: bytes = (place.workspace / "mirrors" / "local" / TIMESTAMP_PATH).read_bytes()
    return data


@pytest.mark.long
def test_the_timestamp_is_where_a_release_begins(next_one: Place) -> None:
    before, listed = timestamp(next_one), names(next_one)
    assert killed(next_one, "timestamp.json", 4), "the timestamp lies there hidden, and has no name yet"
    assert (timestamp(next_one), names(next_one), enabled(next_one)) == (before, listed, 2)
    assert killed(next_one, "enable_release", 0), "it has its name; nobody is offered anything"
    assert timestamp(next_one) != before
    assert names(next_one) > listed
    assert enabled(next_one) == 2
    next_one.run("publish", next_one.project.release).ok()
    assert (len(names(next_one)), enabled(next_one)) == (4, 4)
    assert not list((next_one.workspace / "mirrors").rglob(".*")), "nothing hidden is left"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_at_every_few_writes(next_one: Place) -> None:
    seed = random.SystemRandom().randrange(10**6)
    said = f"seed {seed}"
    # The repository's own state is written as a whole, so an attempt must get beyond it to leave something behind.
    choice = random.Random(seed)
    before, listed, times = timestamp(next_one), names(next_one), 0
    while killed(next_one, "", choice.randrange(0, 60)):
        times += 1
        if timestamp(next_one) == before:
            assert (names(next_one), enabled(next_one)) == (listed, 2), said
        else:
            assert names(next_one) > listed, said
        assert enabled(next_one) in (2, 4), said
        assert times < 200, said
    assert times > 1, said
    assert (len(names(next_one)), enabled(next_one)) == (4, 4), said
    assert not list(Path(next_one.workspace / "mirrors").rglob(".*")), said
