"""Roots signed by their holders on separate machines: thresholds of the old and the new root, nobody else's key."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.keys import KeyRole, KeyState, RootSignature
from nwmctl.errors import (
    KeyMissingError,
    KeyThresholdError,
    MetadataSignatureError,
    RootChainError,
    RootDraftError,
    UntrustedSignatureError,
)
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.keyfiles import keep_root
from nwmctl.trust.keyfolder import Wish, add_keys, revoke_key, rotate_keys
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.repository import add_targets, create_repository
from nwmctl.trust.roots import check_chain, draft_root, finish_root, sign_root, view_root
from tests.trust.conftest import FixedClock
from tests.trust.test_repository import DAY, START, Mirror, bundle

CLOCK = FixedClock(START)
ONLINE = [KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP]


@dataclass
class Office:
    """A ring without root keys, and the holders who have one each."""

    ring: KeyRing
    holders: list[KeyRing]
    stranger: KeyRing

    def signed(self, draft: bytes, *who: int, previous: bytes | None = None) -> list[RootSignature]:
        return [sign_root(draft, self.holders[one].signer(KeyRole.ROOT), previous) for one in who]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    names = ("ada", "ben", "cleo", "dan", "stranger")
    people = [init_keys(tmp_path / name, CLOCK, [Wish(KeyRole.ROOT)], development=True) for name in names]
    held = tuple(one.public(KeyRole.ROOT) for one in people[:3])
    wishes: list[KeyRole | Wish] = [Wish(KeyRole.ROOT, count=0, held=held, threshold=2), *ONLINE]
    ring = init_keys(tmp_path / "office", CLOCK, wishes, development=True)
    return Office(ring, people[:4], people[4])


def test_two_of_three_holders_make_the_first_root(office: Office) -> None:
    assert office.ring.roots() == ()
    with pytest.raises(KeyThresholdError, match="needs signatures by 2"):
        create_repository(office.ring, CLOCK)
    draft = draft_root(office.ring.document, None, START)
    assert json.loads(draft)["signatures"] == []
    with pytest.raises(KeyThresholdError, match="1 of 2"):
        finish_root(draft, office.signed(draft, 0))
    with pytest.raises(KeyThresholdError, match="1 of 2"):
        finish_root(draft, office.signed(draft, 1) * 2)
    root = finish_root(draft, office.signed(draft, 2, 0))
    assert root == finish_root(draft, office.signed(draft, 0, 2)), "the order of the holders says nothing"
    check_chain([root])
    keep_root(office.ring, root, 1)
    first = create_repository(office.ring, CLOCK)
    mirror = Mirror()
    mirror.publish(add_targets(first.state, [bundle()], office.ring, CLOCK))
    assert refresh(TrustedState(root), mirror.fetch, START).resolve(bundle().name) == bundle()


def test_nobody_else_can_sign_and_nothing_else_is_signed(office: Office) -> None:
    draft = draft_root(office.ring.document, None, START)
    other = draft_root(office.ring.document, None, START + DAY)
    with pytest.raises(UntrustedSignatureError, match="no root key"):
        sign_root(draft, office.stranger.signer(KeyRole.ROOT))
    with pytest.raises(RootDraftError, match="another draft"):
        finish_root(draft, office.signed(other, 0, 1))
    good = office.signed(draft, 0, 1)
    lies = [
        replace(good[0], key=office.stranger.public(KeyRole.ROOT)),
        replace(good[0], key=good[1].key),
        replace(good[0], signature="00" * 64),
    ]
    for lie in lies:
        with pytest.raises(UntrustedSignatureError):
            finish_root(draft, [lie, good[1]])
    with pytest.raises(RootDraftError, match="cannot be read"):
        finish_root(draft, [replace(good[0], signature="xyz"), good[1]])


def test_a_next_root_needs_the_thresholds_of_both(office: Office) -> None:
    draft = draft_root(office.ring.document, None, START)
    first = finish_root(draft, office.signed(draft, 0, 1))
    new = office.holders[3].public(KeyRole.ROOT)
    lost = revoke_key(office.ring, CLOCK, office.holders[0].public(KeyRole.ROOT), held=(new,))
    assert [e.state for e in lost.document.of(KeyRole.ROOT)] == [KeyState.REVOKED, *[KeyState.ACTIVE] * 3]
    second = draft_root(lost.document, first, START)
    assert view_root(second).version == 2
    with pytest.raises(UntrustedSignatureError, match="no root key"):
        sign_root(second, office.holders[0].signer(KeyRole.ROOT))
    with pytest.raises(KeyThresholdError, match="1 of 2 signatures by its previous"):
        finish_root(second, office.signed(second, 1, 3), first)
    with pytest.raises(KeyThresholdError, match="1 of 2 signatures by its new"):
        finish_root(second, office.signed(second, 0, 1, previous=first), first)
    done = finish_root(second, office.signed(second, 1, 2), first)
    check_chain([first, done])
    both = finish_root(second, office.signed(second, 0, 1, 3, previous=first), first)
    check_chain([first, both])
    with pytest.raises(RootChainError, match="1 is the next"):
        finish_root(second, office.signed(second, 1, 2))
    with pytest.raises(RootChainError):
        check_chain([done])
    foreign = draft_root(lost.document, first, START)
    alone = json.loads(foreign)
    alone["signatures"] = json.loads(done)["signatures"][:1]
    with pytest.raises(MetadataSignatureError):
        check_chain([first, json.dumps(alone).encode()])


def test_a_pending_rotation_leaves_the_old_keys_at_work(office: Office) -> None:
    """Until the holders have signed, the metadata in force name the old key, and it goes on signing."""
    draft = draft_root(office.ring.document, None, START)
    first = finish_root(draft, office.signed(draft, 0, 1))
    keep_root(office.ring, first, 1)
    mirror = Mirror()
    mirror.publish(create_repository(office.ring, CLOCK))
    rotated = rotate_keys(office.ring, CLOCK, Wish(KeyRole.TIMESTAMP))
    state = create_repository(office.ring, CLOCK).state
    between = add_targets(state, [bundle()], rotated, CLOCK)
    mirror.publish(between)
    car = refresh(TrustedState(first), mirror.fetch, START)
    assert car.resolve(bundle().name)

    second = draft_root(rotated.document, first, START)
    keep_root(rotated, finish_root(second, office.signed(second, 1, 2), first), 2)
    after = add_targets(between.state, [], rotated, CLOCK)
    assert len(after.state.roots) == 2
    mirror.publish(after)
    for known in (TrustedState(first), car.state):
        found = refresh(known, mirror.fetch, START)
        assert found.resolve(bundle().name) == bundle()
        assert found.state.root == after.state.roots[1]


def test_a_draft_names_what_is_missing(tmp_path: Path) -> None:
    ring = init_keys(tmp_path / "k", CLOCK, [KeyRole.ROOT, KeyRole.TARGETS], development=True)
    with pytest.raises(KeyMissingError, match="'snapshot'"):
        draft_root(ring.document, None, START)
    whole = add_keys(ring, CLOCK, [Wish(KeyRole.SNAPSHOT), Wish(KeyRole.TIMESTAMP)])
    view = view_root(draft_root(whole.document, None, START))
    assert {role.name: (role.threshold, len(role.keys)) for role in view.roles} == {
        "root": (2, 3),
        "targets": (1, 1),
        "snapshot": (1, 1),
        "timestamp": (1, 1),
    }
    assert view.digest == digest_bytes(_signed_bytes(draft_root(whole.document, None, START)))


def _signed_bytes(draft: bytes) -> bytes:
    from tuf.api.metadata import Metadata

    return Metadata.from_bytes(draft).signed_bytes


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2000), st.integers(0, 255))
def test_damaged_drafts_raise_only_our_errors(junk: bytes, at: int, value: int) -> None:
    good = bytearray(_GOOD)
    good[at % len(good)] = value
    for data in (junk, bytes(good), _GOOD[: at % len(_GOOD)]):
        with suppress(RootDraftError):
            view_root(data)


_GOOD = (
    b'{"signatures":[],"signed":{"_type":"root","consistent_snapshot":true,"expires":"2030-01-01T00:00:00Z","keys":{},'
    b'"roles":{"root":{"keyids":[],"threshold":1},"snapshot":{"keyids":[],"threshold":1},"targets":{"keyids":[],'
    b'"threshold":1},"timestamp":{"keyids":[],"threshold":1}},"spec_version":"1.0.31","version":1}}'
)
