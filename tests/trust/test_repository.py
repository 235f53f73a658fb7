"""Repository metadata, written by us and believed by us: and every attack on the way refused by its own class."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.bundle import BundleKind, BundleTarget
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import (
    BundleNotListedError,
    MetadataFormatError,
    MetadataFrozenError,
    MetadataHashError,
    MetadataMixedError,
    MetadataRollbackError,
    MetadataSignatureError,
    MetadataTooLongError,
    NwmError,
    RemoteError,
    SequenceTakenError,
)
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.metadata import TIMESTAMP_PATH, ListedBundle
from nwmctl.trust.repository import (
    LIFETIME,
    Publication,
    add_targets,
    create_repository,
    listed_bundles,
    read_state,
    rotate_keys,
)
from tests.trust.conftest import FixedClock

START = 1_800_000_000_000_000
DAY = 86_400_000_000
ROLES = [KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP]


def bundle(platform: str = "nt2.0", sequence: int = 7, content: bytes = b"swu") -> ListedBundle:
    about = BundleTarget("nwm-2.5", BundleKind.RELEASE, sequence, platform, "nt20", ("r1",), True)
    return ListedBundle(f"nwm-2.5-{platform}-{sequence}.swu", len(content), digest_bytes(content), about)


@dataclass
class Mirror:
    """A mirror in memory; ``publish`` writes as publishing does, the timestamp last."""

    files: dict[str, bytes] = field(default_factory=dict)

    def publish(self, publication: Publication) -> None:
        self.files.update(publication.files)
        self.files[publication.timestamp_path] = publication.timestamp

    def fetch(self, path: str) -> bytes | None:
        return self.files.get(path)


@dataclass
class House:
    """A repository with two publications and a vehicle that has seen them."""

    ring: KeyRing
    clock: FixedClock
    mirror: Mirror
    first: Publication
    second: Publication
    pinned: TrustedState

    def seen(self, at: int = START) -> TrustedState:
        return refresh(self.pinned, self.mirror.fetch, at).state


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyRing, KeyRing]:
    folder: Path = tmp_path_factory.mktemp("rings")
    one, two = (init_keys(folder / name, FixedClock(START), ROLES, development=True) for name in ("one", "two"))
    return one, two


@pytest.fixture
def house(rings: tuple[KeyRing, KeyRing]) -> House:
    clock = FixedClock(START)
    mirror = Mirror()
    first = create_repository(rings[0], clock)
    mirror.publish(first)
    second = add_targets(first.state, [bundle(), bundle("nt3.0")], rings[0], clock)
    mirror.publish(second)
    return House(rings[0], clock, mirror, first, second, TrustedState(first.state.roots[0]))


def test_a_new_vehicle_finds_what_was_listed(house: House) -> None:
    found = refresh(house.pinned, house.mirror.fetch, START)
    assert found.resolve(bundle().name) == bundle()
    assert bundle().path == f"targets/{bundle().digest.hex}.{bundle().name}"
    found.resolve(bundle().name).check(bundle().digest, bundle().length)
    with pytest.raises(MetadataHashError):
        found.resolve(bundle().name).check(digest_bytes(b"other"), bundle().length)
    with pytest.raises(BundleNotListedError):
        found.resolve("other.swu")


def test_the_release_exists_for_all_platforms_or_for_none(house: House) -> None:
    third = add_targets(house.second.state, [bundle(sequence=9), bundle("nt3.0", 9)], house.ring, house.clock)
    house.mirror.files.update(third.files)
    before = refresh(house.pinned, house.mirror.fetch, START)
    for platform in ("nt2.0", "nt3.0"):
        with pytest.raises(BundleNotListedError):
            before.resolve(bundle(platform, 9).name)
    house.mirror.publish(third)
    after = refresh(before.state, house.mirror.fetch, START)
    assert all(after.resolve(bundle(platform, 9).name) for platform in ("nt2.0", "nt3.0"))


def test_the_state_survives_its_bytes_and_needs_only_the_timestamp(house: House) -> None:
    state = house.seen()
    assert TrustedState.from_bytes(state.to_bytes()) == state
    asked: list[str] = []

    def fetch(path: str) -> bytes | None:
        asked.append(path)
        return house.mirror.fetch(path)

    assert refresh(state, fetch, START).state == state
    assert asked == ["metadata/2.root.json", TIMESTAMP_PATH]


def test_versions_rise_and_the_same_inputs_give_the_same_bytes(house: House) -> None:
    again = add_targets(house.first.state, [bundle(), bundle("nt3.0")], house.ring, house.clock)
    assert again == house.second
    renewed = add_targets(house.second.state, [], house.ring, FixedClock(START + DAY))
    versions = [json.loads(p.timestamp)["signed"]["version"] for p in (house.first, house.second, renewed)]
    assert versions == [1, 2, 3]
    assert listed_bundles(renewed.state, house.ring) == (bundle(), bundle("nt3.0"))
    assert list(house.second.files) == ["metadata/1.root.json", "metadata/2.targets.json", "metadata/2.snapshot.json"]


def test_one_sequence_has_one_content(house: House) -> None:
    assert add_targets(house.second.state, [bundle()], house.ring, house.clock), "the same content again is fine"
    other_name = replace(bundle(content=b"more"), name="other.swu")
    for wrong in (bundle(content=b"other"), other_name):
        with pytest.raises(SequenceTakenError, match="already stands"):
            add_targets(house.second.state, [wrong], house.ring, house.clock)


def test_a_frozen_mirror_is_noticed(house: House) -> None:
    state = house.seen()
    late = START + int(LIFETIME[KeyRole.TIMESTAMP].total_seconds() * 1e6) + DAY
    for known in (house.pinned, state):
        with pytest.raises(MetadataFrozenError):
            refresh(known, house.mirror.fetch, late)
    house.mirror.publish(add_targets(house.second.state, [], house.ring, FixedClock(late)))
    assert refresh(state, house.mirror.fetch, late).resolve(bundle().name)


def test_an_older_mirror_is_refused(house: House) -> None:
    state = house.seen()
    old = Mirror()
    old.publish(house.first)
    with pytest.raises(MetadataRollbackError):
        refresh(state, old.fetch, START)


def test_a_mix_of_old_and_new_files_is_refused(house: House) -> None:
    files = house.mirror.files
    files["metadata/2.targets.json"] = house.first.files["metadata/1.targets.json"]
    with pytest.raises(MetadataMixedError, match="'targets' is not of the same moment"):
        refresh(house.pinned, house.mirror.fetch, START)
    files["metadata/2.snapshot.json"] = house.first.files["metadata/1.snapshot.json"]
    with pytest.raises(MetadataMixedError, match="'snapshot' is not of the same moment"):
        refresh(house.pinned, house.mirror.fetch, START)


def test_a_missing_file_and_a_huge_one_are_refused(house: House) -> None:
    for path in (TIMESTAMP_PATH, "metadata/2.snapshot.json", "metadata/2.targets.json"):
        kept = house.mirror.files.pop(path)
        with pytest.raises(MetadataFormatError, match="cannot be used"):
            refresh(house.pinned, house.mirror.fetch, START)
        house.mirror.files[path] = kept + b" " * 6_000_000
        with pytest.raises(MetadataTooLongError):
            refresh(house.pinned, house.mirror.fetch, START)
        house.mirror.files[path] = kept


def test_another_owners_repository_is_refused(house: House, rings: tuple[KeyRing, KeyRing]) -> None:
    other = Mirror()
    stranger = create_repository(rings[1], house.clock)
    other.publish(add_targets(stranger.state, [bundle(content=b"evil")], rings[1], house.clock))
    with pytest.raises(MetadataSignatureError):
        refresh(house.pinned, other.fetch, START)
    with pytest.raises(MetadataSignatureError):
        add_targets(stranger.state, [], house.ring, house.clock)


def _forged(data: bytes, change: Callable[[dict[str, object]], None]) -> bytes:
    table = json.loads(data)
    change(table["signed"])
    return json.dumps(table).encode()


def test_a_forged_state_is_not_signed_on_top_of(house: House) -> None:
    def add(signed: dict[str, object]) -> None:
        signed["targets"] = {"evil.swu": {"length": 1, "hashes": {"sha256": "0" * 64}}}

    forged = replace(house.second.state, targets=_forged(house.second.state.targets, add))
    with pytest.raises(MetadataSignatureError):
        add_targets(forged, [], house.ring, house.clock)
    mixed = replace(house.second.state, targets=house.first.state.targets)
    with pytest.raises(MetadataFormatError):
        add_targets(mixed, [], house.ring, house.clock)


def test_vehicles_follow_a_rotation_and_refuse_a_forged_one(house: House, rings: tuple[KeyRing, KeyRing]) -> None:
    state = house.seen()
    rotated = rotate_keys(house.second.state, rings[0], rings[1], house.clock)
    house.mirror.publish(rotated)
    found = refresh(state, house.mirror.fetch, START)
    assert found.resolve(bundle().name) == bundle()
    assert found.state.root == rotated.state.roots[1] != house.pinned.root
    assert refresh(house.pinned, house.mirror.fetch, START).state.root == found.state.root
    more = add_targets(rotated.state, [bundle(sequence=8)], rings[1], house.clock)
    house.mirror.publish(more)
    assert refresh(found.state, house.mirror.fetch, START).resolve(bundle(sequence=8).name)
    with pytest.raises(MetadataSignatureError):
        add_targets(rotated.state, [], rings[0], house.clock)
    house.mirror.files["metadata/3.root.json"] = create_repository(rings[1], house.clock).state.roots[0]
    with pytest.raises((MetadataSignatureError, MetadataRollbackError)):
        refresh(house.pinned, house.mirror.fetch, START)


def test_a_state_is_read_back_from_a_mirror(house: House) -> None:
    assert read_state(house.mirror.fetch) == house.second.state
    assert read_state(lambda path: None) is None
    del house.mirror.files["metadata/2.targets.json"]
    with pytest.raises(MetadataFormatError):
        read_state(house.mirror.fetch)
    house.mirror.files[TIMESTAMP_PATH] = b"{}"
    with pytest.raises(MetadataFormatError):
        read_state(house.mirror.fetch)


def test_a_later_kind_of_entry_does_not_stop_an_older_vehicle(house: House) -> None:
    from tuf.api.metadata import TargetFile

    state = house.seen()
    found = refresh(state, house.mirror.fetch, START)
    later = TargetFile(1, {"sha256": "0" * 64}, "later", {"custom": {"schema": "nwmctl.bundle-target/9"}})
    mixed = replace(found, files={**found.files, "later": later})
    assert mixed.resolve(bundle().name) == bundle()
    with pytest.raises(MetadataFormatError):
        mixed.resolve("later")


@pytest.mark.parametrize("data", [b"", b"{}", b'{"schema":"nwmctl.trusted-metadata/1"}', b"\xff"])
def test_a_damaged_kept_state_is_refused(data: bytes) -> None:
    with pytest.raises(MetadataFormatError):
        TrustedState.from_bytes(data)


def test_what_fetch_raises_comes_through(house: House) -> None:
    def broken(path: str) -> bytes | None:
        raise RemoteError("no route", why="w", next="n")

    with pytest.raises(RemoteError, match="no route"):
        refresh(house.pinned, broken, START)


@settings(max_examples=250, deadline=None)
@given(
    which=st.integers(0, 3),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
    cut=st.one_of(st.none(), st.floats(0, 1, exclude_max=True)),
    known=st.booleans(),
)
def test_mutated_metadata_raise_only_our_errors(
    rings: tuple[KeyRing, KeyRing],
    which: int,
    changes: list[tuple[float, int]],
    cut: float | None,
    known: bool,
) -> None:
    files, pinned, old, new = _published(rings)
    path = [TIMESTAMP_PATH, "metadata/3.snapshot.json", "metadata/3.targets.json", "metadata/2.root.json"][which]
    data = bytearray(files[path])
    for position, value in changes:
        data[int(position * len(data))] = value
    if cut is not None:
        del data[int(cut * len(data)) :]
    mirror = Mirror({**files, path: bytes(data)})
    try:
        found = refresh(old if known else pinned, mirror.fetch, START)
    except NwmError:
        return
    assert found.resolve(bundle().name) == new


_CACHE: list[tuple[dict[str, bytes], TrustedState, TrustedState, ListedBundle]] = []


def _published(
    rings: tuple[KeyRing, KeyRing],
) -> tuple[dict[str, bytes], TrustedState, TrustedState, ListedBundle]:
    """A published rotation, and vehicles before and after the publication before it. Built once: signing is slow."""
    if not _CACHE:
        clock = FixedClock(START)
        mirror = Mirror()
        first = create_repository(rings[0], clock)
        mirror.publish(first)
        pinned = TrustedState(first.state.roots[0])
        old = refresh(pinned, mirror.fetch, START).state
        mirror.publish(add_targets(rotate_keys(first.state, *rings, clock).state, [bundle()], rings[1], clock))
        _CACHE.append((mirror.files, pinned, old, bundle()))
    return _CACHE[0]
