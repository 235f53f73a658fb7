"""The image repository in the reference dialect: from bins and platforms' lists, from offline roots, or not at all."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nwmctl.domain.keys import KeyEntry, KeyRole
from nwmctl.errors import MetadataRollbackError
from nwmctl.formats.uptane import HARDWARE_IDS
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.current import as_publication
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.metadata import ListedBundle
from nwmctl.trust.repository import MetadataSet, add_targets, create_repository, is_below
from nwmctl.trust.uptane_image import reference_image
from tests.formats.reference_client import _root, _verified
from tests.trust.conftest import FixedClock
from tests.trust.test_repository import ROLES, START, Mirror, bundle

CLOCK = FixedClock(START)
NOW = datetime.fromtimestamp(START / 1e6, UTC)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    folder = tmp_path_factory.mktemp("keys") / "ring"
    return init_keys(folder, CLOCK, ROLES, development=True, platforms=("nt2.0",))


def repository(ring: KeyRing, bundles: int, bins_from: int) -> MetadataSet:
    listed: list[ListedBundle] = [bundle(sequence=number) for number in range(1, bundles + 1)]
    first = create_repository(ring, CLOCK)
    return add_targets(first.state, [*listed, bundle("nt3.0")], ring, CLOCK, bins_from=bins_from).state


def test_bins_come_back_into_the_platforms_list(ring: KeyRing) -> None:
    flat, binned = repository(ring, 6, 100), repository(ring, 6, 2)
    assert len(binned.delegated) > len(flat.delegated) == 1
    read = []
    for state in (flat, binned):
        files = reference_image(state, ring, lambda _: None).files
        (path,) = [name for name in files if name.endswith(".platform-nt2.0.json")]
        (top,) = [data for name, data in files.items() if name.endswith(".targets.json")]
        delegations = json.loads(top)["signed"]["delegations"]
        signed = _verified(files[path], "Targets", delegations["keys"], delegations["roles"][0])
        assert path == f"uptane/{signed['version']}.platform-nt2.0.json"
        assert list(json.loads(top)["signed"]["targets"]) == ["nwm-2.5-nt3.0-7.swu"]
        read.append(signed)
    assert read[0]["targets"] == read[1]["targets"]
    assert len(read[0]["targets"]) == 6
    assert all(file["custom"][HARDWARE_IDS] == ["nt20:r1"] for file in read[0]["targets"].values())
    more = add_targets(binned, [bundle(sequence=9)], ring, CLOCK, bins_from=2).state
    (grown,) = [name for name in reference_image(more, ring, lambda _: None).files if ".platform-" in name]
    assert int(grown.split("/")[1].split(".")[0]) > read[1]["version"]


def test_the_same_state_gives_the_same_bytes(ring: KeyRing) -> None:
    state = repository(ring, 2, 100)
    assert reference_image(state, ring, lambda _: None) == reference_image(state, ring, lambda _: None)


def test_roots_that_were_signed_before_need_no_root_key(ring: KeyRing, tmp_path: Path) -> None:
    state = repository(ring, 1, 100)
    made = reference_image(state, ring, lambda _: None)
    online = KeyRing(ring.folder, _without_private(ring, KeyRole.ROOT))
    assert reference_image(state, online, made.files.get) == made
    # A ceremony's holders have signed the root in this dialect too, and the key folder keeps it.
    assert reference_image(state, online, lambda _: None) == made
    alone = tmp_path / "older"
    shutil.copytree(ring.folder, alone)
    (alone / "1.root.reference.json").unlink()
    online = KeyRing(alone, online.document)
    missing = reference_image(state, online, lambda _: None)
    assert not missing.files
    assert "root" in missing.why_not
    root = _root(lambda path: made.files.get(path.replace("repo/", "uptane/")), "repo")
    assert set(root["roles"]) == {"root", "snapshot", "targets", "timestamp"}


def _without_private(ring: KeyRing, role: KeyRole):  # type: ignore[no-untyped-def]
    import dataclasses

    keys: tuple[KeyEntry, ...] = tuple(
        dataclasses.replace(entry, uri="") if entry.role is role else entry for entry in ring.document.keys
    )
    return dataclasses.replace(ring.document, keys=keys)


def test_a_repository_out_of_a_backup_is_published_above_what_vehicles_have_seen(ring: KeyRing) -> None:
    """The backup is one publication old; a vehicle that has seen the lost one follows the next one again."""
    mirror, lost = Mirror(), Mirror()
    backup = repository(ring, 1, 100)
    for files in (mirror, lost):
        files.publish(as_publication(backup))
    newer = backup
    for number in range(2, 6):
        made = add_targets(newer, [bundle(sequence=number)], ring, CLOCK)
        lost.publish(made)
        newer = made.state
    seen = refresh(TrustedState(backup.roots[0]), lost.fetch, START)
    seen.resolve("nwm-2.5-nt2.0-5.swu")
    assert seen.state.snapshot is not None
    assert seen.state.timestamp is not None
    snapshot = json.loads(seen.state.snapshot)["signed"]
    reported = {name.removesuffix(".json"): about["version"] for name, about in snapshot["meta"].items()}
    reported |= {"snapshot": snapshot["version"], "timestamp": json.loads(seen.state.timestamp)["signed"]["version"]}
    assert is_below(backup, reported)
    unaware = add_targets(backup, [bundle(sequence=9)], ring, CLOCK)
    mirror.publish(unaware)
    with pytest.raises(MetadataRollbackError):
        refresh(seen.state, mirror.fetch, START)
    aware = add_targets(backup, [bundle(sequence=9)], ring, CLOCK, reported=reported)
    assert not is_below(aware.state, reported)
    mirror.publish(aware)
    assert refresh(seen.state, mirror.fetch, START).resolve("nwm-2.5-nt2.0-9.swu").about.sequence == 9
