"""A disk that fills while a release is staged or published: what was served before goes on being served.

A real small file system behind both kinds of mirror, filled so that every file in turn is the one that does not fit.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import BundleNotListedError, MirrorWriteError, NwmError, RemoteFileError
from nwmctl.publishing.mirrors import MirrorSession
from nwmctl.publishing.stage import StagedFile, stage
from nwmctl.publishing.train import publish
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.repository import Publication, add_targets, create_repository
from tests.disks import free_bytes, small_disk
from tests.publishing.conftest import Open
from tests.trust.conftest import FixedClock, keyring
from tests.trust.test_repository import START, bundle

__all__ = ["keyring"]
PAGE = 4096
OLD, NEW = (bundle(sequence=number, content=bytes([number]) * 9 * PAGE) for number in (7, 8))
CONTENT = {OLD.path: bytes([7]) * 9 * PAGE, NEW.path: bytes([8]) * 9 * PAGE}


@dataclass(frozen=True)
class Releases:
    """Two publications, one after the other, and a vehicle's pinned root."""

    first: Publication
    second: Publication
    pinned: TrustedState


@pytest.fixture(scope="module")
def releases(keyring: KeyRing) -> Releases:
    clock = FixedClock(START)
    empty = create_repository(keyring, clock)
    first = add_targets(empty.state, [OLD], keyring, clock)
    second = add_targets(first.state, [NEW], keyring, clock)
    return Releases(first, second, TrustedState(empty.state.roots[0]))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 1 << 20) as place:
        yield place


def files(publication: Publication, *paths: str) -> list[StagedFile]:
    return [StagedFile.of_bytes(path, CONTENT[path]) for path in paths] + [
        StagedFile.of_bytes(path, data) for path, data in publication.files.items()
    ]


def fill(disk: Path, left: int) -> None:
    """Leave ``left`` bytes free."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    filler.write_bytes(bytes(free_bytes(disk) - left))


def offered(mirror: Path, pinned: TrustedState) -> set[str]:
    """The bundles that a new vehicle is told of there, and finds whole."""

    def fetch(path: str) -> bytes | None:
        place = mirror / path
        return place.read_bytes() if place.exists() else None

    found = refresh(pinned, fetch, START)
    names = set()
    for one in (OLD, NEW):
        try:
            listed = found.resolve(one.name)
        except BundleNotListedError:
            continue
        data = fetch(listed.path)
        assert data is not None
        listed.check(digest_bytes(data), len(data))
        names.add(one.name)
    return names


def visible(mirror: Path) -> dict[str, bytes]:
    """Files under names of their own."""
    found = [path for path in mirror.rglob("*") if path.is_file() and not path.name.startswith(".partial-")]
    return {str(path.relative_to(mirror)): path.read_bytes() for path in found}


def served_first(mirror: MirrorSession, releases: Releases) -> None:
    first = releases.first
    stage(files(first, OLD.path), [mirror])
    publish([mirror], first.timestamp, first.timestamp_path)


def test_a_disk_that_fills_while_staging(open_any: Open, disk: Path, releases: Releases) -> None:
    mirror, root = open_any("m", disk / "m"), disk / "m"
    served_first(mirror, releases)
    wanted = files(releases.second, NEW.path)
    whole = {**visible(root), **{file.name: CONTENT.get(file.name) or file.source for file in wanted}}
    refusals = 0
    for left in range(0, 1 << 20, 3 * PAGE):
        fill(disk, left)
        try:
            stage(wanted, [mirror])
        except (MirrorWriteError, RemoteFileError):
            refusals += 1
        else:
            break
        assert all(data == whole[name] for name, data in visible(root).items()), "half a file has a name"
        assert not list(root.rglob(".partial-*")), "what did not fit takes up what little space there is"
        assert offered(root, releases.pinned) == {OLD.name}
    assert refusals > 2
    publish([mirror], releases.second.timestamp, releases.second.timestamp_path)
    assert offered(root, releases.pinned) == {OLD.name, NEW.name}


def test_a_disk_that_is_full_when_it_is_published(
    open_any: Open, disk: Path, tmp_path: Path, releases: Releases
) -> None:
    """One mirror of two is full: the release begins to exist on neither, and on both once there is space."""
    roots = [tmp_path / "roomy", disk / "m"]
    mirrors = [open_any("roomy", roots[0]), open_any("full", roots[1])]
    for mirror in mirrors:
        served_first(mirror, releases)
    second = releases.second
    stage(files(second, NEW.path), mirrors)
    fill(disk, 0)
    for _ in range(2):
        with pytest.raises((MirrorWriteError, RemoteFileError)):
            publish(mirrors, second.timestamp, second.timestamp_path)
        assert [offered(root, releases.pinned) for root in roots] == [{OLD.name}, {OLD.name}]
    (disk / "filler").unlink()
    publish(mirrors, second.timestamp, second.timestamp_path)
    assert [offered(root, releases.pinned) for root in roots] == [{OLD.name, NEW.name}] * 2


def test_a_disk_with_no_more_names(open_local: Open, tmp_path: Path, releases: Releases) -> None:
    """Space is left, and no file can be made."""
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        mirror = open_local("m", disk / "m")
        served_first(mirror, releases)
        subprocess.run(["mount", "-o", f"remount,nr_inodes={_names(disk)}", str(disk)], check=True)
        with pytest.raises(NwmError, match="cannot be used") as caught:
            stage(files(releases.second, NEW.path), [mirror])
        assert caught.value.why == "No space left on device"
        assert offered(disk / "m", releases.pinned) == {OLD.name}


def _names(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_files - found.f_ffree
