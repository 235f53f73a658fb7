"""A Merkle tree over leaves, as RFC 6962 (Certificate Transparency) builds it.

A leaf is hashed behind one zero byte and a node behind a one, so no leaf can be passed off as a node; a tree that is
not full is split at the largest power of two below its size, so there is one tree per list of leaves and no leaf is
ever doubled to fill it up. Order matters: whoever wants the same root puts the leaves into one order first. Pure; does
not know what a leaf says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from nwmctl.domain.digest import Digest

MAX_LEAVES = 1 << 20
"""Bounds the work that a proof from elsewhere can ask for."""

_LEAF, _NODE = b"\0", b"\1"


def leaf_hash(data: bytes) -> Digest:
    """The hash of one leaf's bytes."""
    return Digest(hashlib.sha256(_LEAF + data).hexdigest())


def root_of(leaves: Sequence[Digest]) -> Digest:
    """The root over leaf hashes, in their order. Of no leaves it is the hash of nothing."""
    if not leaves:
        return Digest(hashlib.sha256(b"").hexdigest())
    return _root(leaves, 0, len(leaves))


def proof_of(leaves: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """What joins leaf ``index`` to the root: the hashes beside its way up, the lowest first. Raises IndexError."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"there is no leaf {index} among {len(leaves)}")
    path: list[Digest] = []
    start, end = 0, len(leaves)
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_root(leaves, middle, end))
            end = middle
        else:
            path.append(_root(leaves, start, middle))
            start = middle
    return tuple(reversed(path))


def root_by_proof(leaf: Digest, index: int, size: int, path: Sequence[Digest]) -> Digest | None:
    """The root of a tree of ``size`` leaves whose leaf ``index`` is ``leaf``; None where the path has a wrong length.

    Whoever trusts a root compares it with this one; index and size are part of the claim.
    """
    if not 0 <= index < size <= MAX_LEAVES:
        return None
    sides: list[bool] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        left = index < middle
        sides.append(left)
        start, end = (start, middle) if left else (middle, end)
    if len(sides) != len(path):
        return None
    found = leaf
    for beside, left in zip(path, reversed(sides), strict=True):
        found = _node(found, beside) if left else _node(beside, found)
    return found


def _root(leaves: Sequence[Digest], start: int, end: int) -> Digest:
    if end - start == 1:
        return leaves[start]
    middle = start + _split(end - start)
    return _node(_root(leaves, start, middle), _root(leaves, middle, end))


def _split(size: int) -> int:
    """The largest power of two below ``size``, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _node(left: Digest, right: Digest) -> Digest:
    return Digest(hashlib.sha256(_NODE + bytes.fromhex(left.hex) + bytes.fromhex(right.hex)).hexdigest())
