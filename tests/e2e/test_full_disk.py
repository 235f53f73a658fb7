"""A disk that fills at any moment of `nwmctl publish`: a clear error, the earlier release served, and a way on.

The whole workspace is on a small file system with a mirror in it. Space is given back a little at a time; each attempt
goes on from what the one before it left, as a person's would, until one has enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nwmctl.app import session
from nwmctl.errors import BundleNotListedError
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.metadata import TIMESTAMP_PATH
from tests.disks import free_bytes, small_disk
from tests.e2e.command import Place, served
from tests.trust.conftest import real_now

CLASSES = {"DiskFullError", "MirrorWriteError", "DatabaseUnusableError", "BundleFileError"}


@pytest.fixture
def tight(_published: Place, tmp_path: Path) -> Iterator[Place]:
    """A release is published, the next one is ordered, and the disk can be filled."""
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        place = _published.copy(disk / "place")
        place.project.edit_release(lambda release: release.update(sequence=release["sequence"] + 10))
        yield place


def fill(place: Place, left: int) -> None:
    disk = place.folder.parent
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    if left >= 0:
        filler.write_bytes(bytes(max(0, free_bytes(disk) - left)))


def names(place: Place) -> set[str]:
    """Bundles that the mirror's metadata list, verified from the first root on."""
    mirror = place.workspace / "mirrors" / "local"

    def fetch(path: str) -> bytes | None:
        file = mirror / path
        return file.read_bytes() if file.exists() else None

    found = refresh(TrustedState((mirror / "metadata" / "1.root.json").read_bytes()), fetch, real_now().now_us())
    bundles = [path.name.split(".", 1)[1] for path in (mirror / "targets").glob("*.swu")]
    listed = set()
    for name in bundles:
        with suppress(BundleNotListedError):
            listed.add(found.resolve(name).name)
    return listed


@pytest.mark.long
@pytest.mark.timeout(900)
def test_publishing_on_a_disk_that_fills(tight: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_MIN_FREE", 0)  # a run on a disk with little left is refused before it begins
    timestamp = tight.workspace / "mirrors" / "local" / TIMESTAMP_PATH
    before, listed, rows = timestamp.read_bytes(), names(tight), served(tight)["rows"]
    assert len(listed) == 2
    refusals: set[str] = set()
    for left in range(0, 2 << 20, 24 << 10):
        fill(tight, left)
        ran = tight.run("publish", tight.project.release, "--json")
        if ran.code == 0:
            break
        refusals.add(ran.json["error"])
        # Between the timestamp and the database's transaction the release is listed, whole, and offered to nobody.
        done = timestamp.read_bytes() != before
        assert names(tight) > listed if done else names(tight) == listed, f"{left} bytes were left"
    assert {"DiskFullError"} < refusals <= CLASSES
    fill(tight, -1)
    assert listed < names(tight)
    assert rows != served(tight)["rows"]
