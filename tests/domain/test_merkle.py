"""The tree over a certificate's leaves: RFC 6962's own figures, and its laws."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.certificate import Certificate, Leaf, LeafKind, ProvenLeaf, prove
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.merkle import MAX_LEAVES, leaf_hash, proof_of, root_by_proof, root_of

ENTRIES = tuple(
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
)
"""The entries that Certificate Transparency's own tests use, with the roots of the first one and of all eight."""
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
few = settings(max_examples=40, deadline=None)
hashes = st.lists(st.binary(max_size=8), min_size=1, max_size=40).map(lambda found: [leaf_hash(data) for data in found])


def mth(entries: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word by word: the independent reference."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + mth(entries[:split]) + mth(entries[split:])).digest()


@pytest.mark.parametrize(("size", "root"), ROOTS.items())
def test_the_roots_of_certificate_transparency(size: int, root: str) -> None:
    assert root_of([leaf_hash(data) for data in ENTRIES[:size]]).hex == root


@few
@given(st.lists(st.binary(max_size=8), max_size=70))
def test_every_root_is_that_of_the_specification(entries: list[bytes]) -> None:
    assert root_of([leaf_hash(data) for data in entries]).hex == mth(entries).hex()


@few
@given(hashes, st.data())
def test_every_leaf_is_proven(leaves: list[Digest], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = proof_of(leaves, index)
    assert root_by_proof(leaves[index], index, len(leaves), path) == root_of(leaves)


@few
@given(hashes, st.data())
def test_a_forged_proof_leads_elsewhere(leaves: list[Digest], data: st.DataObject) -> None:
    """Another leaf, another place, another size, a changed, lengthened or shortened path."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    size, root, path = len(leaves), root_of(leaves), list(proof_of(leaves, index))
    other = leaf_hash(b"some other leaf that is long enough")
    assert root_by_proof(other, index, size, path) != root
    elsewhere = data.draw(st.integers(0, size - 1))
    if leaves[elsewhere] != leaves[index]:
        assert root_by_proof(leaves[index], elsewhere, size, proof_of(leaves, elsewhere)) != root
    assert root_by_proof(leaves[index], index, size, [*path, other]) is None
    if path:
        assert root_by_proof(leaves[index], index, size, path[1:]) is None
        spoilt = data.draw(st.integers(0, len(path) - 1))
        path[spoilt] = other
        assert root_by_proof(leaves[index], index, size, path) != root


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0), (0, MAX_LEAVES + 1)])
def test_a_place_that_cannot_be(index: int, size: int) -> None:
    assert root_by_proof(leaf_hash(b""), index, size, ()) is None


def test_a_node_is_no_leaf() -> None:
    """The tree of two leaves has another root than the tree of the one leaf that is made of both."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert root_of([left, right]) != leaf_hash(bytes.fromhex(left.hex + right.hex))
    with pytest.raises(IndexError):
        proof_of([left, right], 2)


names = st.text(st.characters(categories=["L", "N"], include_characters="/.- "), min_size=1, max_size=12).filter(
    str.isprintable
)
leaf = st.builds(Leaf, st.sampled_from(LeafKind), names, st.binary(max_size=3).map(digest_bytes))
leaf_sets = st.lists(leaf, min_size=1, max_size=25, unique_by=lambda one: (one.kind, one.name))


@few
@given(leaf_sets, st.randoms())
def test_the_order_in_which_leaves_come_means_nothing(leaves: list[Leaf], dice: object) -> None:
    root, proven = prove(leaves)
    shuffled = list(leaves)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert prove(shuffled) == (root, proven)
    assert [one.leaf for one in proven] == sorted(leaves)
    assert {one.root(len(leaves)) for one in proven} == {root}


@few
@given(leaf_sets, leaf, st.data())
def test_any_change_of_the_set_is_another_root(leaves: list[Leaf], other: Leaf, data: st.DataObject) -> None:
    root, _ = prove(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    rest = leaves[:index] + leaves[index + 1 :]
    places = {(one.kind, one.name) for one in rest}
    if rest:
        assert prove(rest)[0] != root, "dropped"
    if (other.kind, other.name) not in places | {(leaves[index].kind, leaves[index].name)}:
        assert prove([*leaves, other])[0] != root, "added"
    if (other.kind, other.name) not in places and other != leaves[index]:
        assert prove([*rest, other])[0] != root, "changed"


@few
@given(leaf, leaf)
def test_two_leaves_never_share_their_bytes(first: Leaf, second: Leaf) -> None:
    assert (first.data == second.data) == (first == second)


def test_what_cannot_be_certified() -> None:
    digest = digest_bytes(b"x")
    with pytest.raises(ValueError, match="something"):
        prove([])
    with pytest.raises(ValueError, match="two leaves"):
        prove([Leaf(LeafKind.MODEL, "release", digest), Leaf(LeafKind.MODEL, "release", digest_bytes(b"y"))])
    for name in ("", "a\nb", "x" * 401):
        with pytest.raises(ValueError, match="short, printable"):
            Leaf(LeafKind.MODEL, name, digest)
    for leaves, status, said in ((0, "draft", "leaves"), (1, "compliant", "certifies no conformity")):
        with pytest.raises(ValueError, match=said):
            Certificate("r", 1, digest, digest, digest, digest, leaves, True, True, True, status)


def test_a_proof_is_of_its_own_leaf() -> None:
    leaves = [Leaf(LeafKind.PAYLOAD, str(number), digest_bytes(b"%d" % number)) for number in range(5)]
    root, proven = prove(leaves)
    for one in proven:
        for other in proven:
            moved = ProvenLeaf(other.leaf, one.index, one.path)
            assert (moved.root(5) == root) == (one == other)
