"""A list per platform with keys of its own, and hash bins where it is long: written, followed, and kept in bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import (
    BundleNotListedError,
    DelegationScopeError,
    MetadataFormatError,
    MetadataMixedError,
    MetadataSignatureError,
    NwmError,
)
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.current import as_publication, needs_renewal
from nwmctl.trust.delegations import platform_of
from nwmctl.trust.keyfolder import Wish, add_keys, rotate_keys
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.metadata import custom_of
from nwmctl.trust.repository import (
    Publication,
    add_targets,
    create_repository,
    is_behind,
    listed_bundles,
    read_state,
)
from nwmctl.trust.tuf_signer import tuf_signer
from tests.trust.conftest import FixedClock
from tests.trust.test_repository import DAY, ROLES, START, Mirror, bundle

CLOCK = FixedClock(START)
ONE = bundle("nt2.0")
TWO = bundle("nt3.0")


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return init_keys(tmp_path / "ring", CLOCK, ROLES, development=True, platforms=["nt2.0", "nt3.0"])


def published(ring: KeyRing) -> tuple[Mirror, Publication, TrustedState]:
    first = create_repository(ring, CLOCK)
    second = add_targets(first.state, [ONE, TWO, bundle("nt9")], ring, CLOCK)
    mirror = Mirror()
    mirror.publish(second)
    return mirror, second, TrustedState(first.state.roots[0])


def names(data: bytes) -> list[str]:
    return sorted(json.loads(data)["signed"]["targets"])


def test_each_platform_has_a_list_of_its_own_and_others_stay_at_the_top(ring: KeyRing) -> None:
    mirror, state, pinned = published(ring)
    assert names(state.state.targets) == [bundle("nt9").name]
    assert names(state.state.delegated["platform-nt2.0"]) == [ONE.name]
    assert names(state.state.delegated["platform-nt3.0"]) == [TWO.name]
    keys = {json.loads(data)["signatures"][0]["keyid"] for data in state.state.delegated.values()}
    assert len(keys) == 2, "each with a key of its own"
    found = refresh(pinned, mirror.fetch, START)
    for one in (ONE, TWO, bundle("nt9")):
        assert found.resolve(one.name) == one
    with pytest.raises(BundleNotListedError):
        found.resolve("nwm-2.5-nt2.0-8.swu")
    assert read_state(mirror.fetch) == state.state
    assert as_publication(state.state).files == state.files
    assert listed_bundles(state.state, ring) == tuple(sorted((ONE, TWO, bundle("nt9")), key=lambda one: one.name))


def test_a_vehicle_fetches_its_own_list_and_keeps_it(ring: KeyRing) -> None:
    mirror, _, pinned = published(ring)
    asked: list[str] = []

    def fetch(path: str) -> bytes | None:
        asked.append(path)
        return mirror.fetch(path)

    found = refresh(pinned, fetch, START)
    found.resolve(TWO.name)
    assert set(found.state.delegated) == {"platform-nt3.0"}
    kept = TrustedState.from_bytes(found.state.to_bytes())
    assert kept == found.state
    asked.clear()
    again = refresh(kept, fetch, START)
    assert again.resolve(TWO.name) == TWO
    assert asked == ["metadata/2.root.json", "metadata/timestamp.json"], "nothing is fetched twice"
    damaged = replace(kept, delegated={"platform-nt3.0": b"{}"})
    assert refresh(damaged, fetch, START).resolve(TWO.name) == TWO


def test_only_what_changed_is_signed_again(ring: KeyRing) -> None:
    mirror, state, pinned = published(ring)
    seen = refresh(pinned, mirror.fetch, START)
    seen.resolve(ONE.name)
    third = add_targets(state.state, [bundle("nt2.0", 9)], ring, CLOCK)
    assert third.state.delegated["platform-nt3.0"] == state.state.delegated["platform-nt3.0"]
    mirror.publish(third)
    found = refresh(seen.state, mirror.fetch, START)
    assert found.resolve(bundle("nt2.0", 9).name).about.sequence == 9
    assert found.resolve(ONE.name) == ONE
    late = FixedClock(START + 200 * DAY)
    assert needs_renewal(third.state, late.us)
    renewed = add_targets(third.state, [], ring, late)
    assert all(renewed.state.delegated[name] != data for name, data in third.state.delegated.items())
    assert not needs_renewal(renewed.state, late.us)


def test_a_long_list_is_kept_in_bins_and_a_vehicle_fetches_one(ring: KeyRing) -> None:
    mirror, state, pinned = published(ring)
    many = [bundle("nt2.0", number) for number in range(10, 50)]
    more = add_targets(state.state, many, ring, CLOCK, bins_from=20)
    assert names(more.state.delegated["platform-nt2.0"]) == []
    bins = sorted(name for name in more.state.delegated if name.startswith("bin-nt2.0-"))
    assert len(bins) == 16
    assert sum(len(names(more.state.delegated[name])) for name in bins) == 41
    mirror.publish(more)
    found = refresh(pinned, mirror.fetch, START)
    for one in (ONE, TWO, many[17]):
        assert found.resolve(one.name) == one
    assert len(found.state.delegated) <= 4
    last = add_targets(more.state, [bundle("nt2.0", 99)], ring, CLOCK, bins_from=20)
    changed = [name for name, data in last.state.delegated.items() if more.state.delegated[name] != data]
    assert len(changed) == 1, "one bin is signed again"
    mirror.publish(last)
    assert refresh(found.state, mirror.fetch, START).resolve(bundle("nt2.0", 99).name)
    assert len(listed_bundles(last.state, ring)) == 44


def test_rotated_keys_of_a_platform_take_effect_with_the_next_publication(ring: KeyRing) -> None:
    mirror, state, pinned = published(ring)
    many = add_targets(state.state, [bundle("nt2.0", n) for n in range(20, 30)], ring, CLOCK, bins_from=5)
    after = rotate_keys(ring, CLOCK, Wish(KeyRole.TARGETS, "nt2.0", count=3, threshold=2))
    assert is_behind(many.state, after)
    assert not is_behind(many.state, ring)
    new = add_targets(many.state, [], after, CLOCK)
    assert not is_behind(new.state, after)
    for name, data in new.state.delegated.items():
        assert len(json.loads(data)["signatures"]) == (2 if platform_of(name) == "nt2.0" else 1), name
    mirror.publish(new)
    assert refresh(pinned, mirror.fetch, START).resolve(bundle("nt2.0", 25).name)


def test_a_ring_without_a_platforms_key_publishes_nothing(ring: KeyRing, tmp_path: Path) -> None:
    _, state, _ = published(ring)
    poorer = KeyRing(
        ring.folder,
        replace(ring.document, keys=tuple(one for one in ring.document.keys if one.platform != "nt3.0")),
    )
    with pytest.raises(MetadataSignatureError, match=r"no key for the list of 'nt3\.0'"):
        add_targets(state.state, [], poorer, CLOCK)
    more = add_keys(ring, CLOCK, [Wish(KeyRole.TARGETS, "nt9")])
    after = add_targets(state.state, [bundle("nt9", 8)], more, CLOCK)
    assert names(after.state.targets) == [bundle("nt9").name], "what was listed once stays where it is"
    assert names(after.state.delegated["platform-nt9"]) == [bundle("nt9", 8).name]


def resigned(ring: KeyRing, role: str, mirror: Mirror, change: dict[str, object]) -> None:
    """Exchange a platform's list as a thief of its keys would, without raising its version."""
    from tuf.api.metadata import Metadata

    path = next(path for path in mirror.files if path.endswith(f".{role}.json"))
    table = json.loads(mirror.files[path])
    table["signed"]["targets"].update(change)
    metadata = Metadata.from_dict(table)
    metadata.sign(tuf_signer(ring.signer(KeyRole.TARGETS, platform=platform_of(role) or "")))
    mirror.files[path] = metadata.to_bytes()


def test_stolen_keys_of_one_platform_reach_no_other(ring: KeyRing) -> None:
    """A thief lists another platform's bundle: under its own name nobody looks there, under theirs it is refused."""
    mirror, _, pinned = published(ring)
    evil = replace(bundle("nt2.0", 66), about=replace(TWO.about, sequence=66))
    entry = {"length": 1, "hashes": {"sha256": evil.digest.hex}, "custom": custom_of(evil.about)}
    resigned(ring, "platform-nt2.0", mirror, {evil.name: entry, "nwm-2.5-nt3.0-66.swu": dict(entry)})
    found = refresh(pinned, mirror.fetch, START)
    with pytest.raises(DelegationScopeError, match=r"lists a bundle of 'nt3\.0'"):
        found.resolve(evil.name)
    with pytest.raises(BundleNotListedError):
        found.resolve("nwm-2.5-nt3.0-66.swu")
    state = read_state(mirror.fetch)
    assert state is not None
    with pytest.raises(MetadataFormatError, match="lists a bundle of"):
        listed_bundles(state, ring)


def test_damaged_and_missing_lists_are_refused(ring: KeyRing) -> None:
    mirror, state, pinned = published(ring)
    path = next(path for path in mirror.files if path.endswith("platform-nt2.0.json"))
    good = mirror.files.pop(path)
    with pytest.raises(MetadataFormatError, match="cannot be used"):
        refresh(pinned, mirror.fetch, START).resolve(ONE.name)
    with pytest.raises(MetadataFormatError):
        read_state(mirror.fetch)
    mirror.files[path] = good.replace(b'"length":3', b'"length":4')
    assert mirror.files[path] != good
    with pytest.raises(MetadataSignatureError):
        refresh(pinned, mirror.fetch, START).resolve(ONE.name)
    forged = replace(state.state, delegated={**state.state.delegated, "platform-nt2.0": mirror.files[path]})
    with pytest.raises(MetadataSignatureError):
        add_targets(forged, [], ring, CLOCK)
    third = add_targets(state.state, [bundle("nt2.0", 9)], ring, CLOCK)
    mirror.publish(third)
    mirror.files[path.replace("2.platform", "3.platform")] = good
    with pytest.raises(MetadataMixedError):
        refresh(pinned, mirror.fetch, START).resolve(ONE.name)
    stray = replace(state.state, delegated={**state.state.delegated, "platform-x": good})
    with pytest.raises(NwmError):
        add_targets(stray, [], ring, CLOCK)
