from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nwmctl.domain.release import Mirror
from nwmctl.publishing.mirrors import MirrorSession, open_mirror
from tests.sshd import Sshd, running_sshd

Open = Callable[[str, Path], MirrorSession]
"""Opens a mirror with a name on a folder."""


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def open_local() -> Open:
    return lambda name, folder: open_mirror(Mirror(name, f"file:{folder}"), Path("/"))


@pytest.fixture
def open_sftp(sshd: Sshd) -> Iterator[Open]:
    opened: list[MirrorSession] = []

    def open_(name: str, folder: Path) -> MirrorSession:
        mirror = Mirror(name, sshd.uri(folder), sshd.host_key, str(sshd.identity))
        opened.append(open_mirror(mirror, Path("/")))
        return opened[-1]

    yield open_
    for session in opened:
        session.close()


@pytest.fixture(params=["local", "sftp"])
def open_any(request: pytest.FixtureRequest) -> Open:
    """Both kinds of mirror: every test that uses this is part of the contract suite."""
    opener: Open = request.getfixturevalue(f"open_{request.param}")
    return opener
