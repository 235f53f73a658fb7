"""Deltas between artifacts, kept in the content store: made once for each pair, found again by everybody.

Like the drives of ``shelf``, a delta stands under a key of its own (both artifacts, the codec's version): whoever
plans, builds or bundles shares it. Pure: the same two artifacts always give the same delta.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.bundling.delta_encode import encode_delta
from nwmctl.domain.digest import Digest, step_key
from nwmctl.domain.step import Outcome
from nwmctl.formats import delta as wire
from nwmctl.steps.base import load_outcome, save_outcome
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.files import versions

VERSION = 2
_DELTA = "delta"


@dataclass(frozen=True, slots=True)
class KeptDelta:
    """A delta in the store; ``size`` in bytes."""

    digest: Digest
    size: int


def kept_delta(store: ContentStore, old: Digest, new: Digest) -> KeptDelta | None:
    """The delta between two artifacts, if it was made before."""
    found = load_outcome(store, _key(old, new))
    if found is None:
        return None
    digest = found.outputs[_DELTA]
    return KeptDelta(digest, store.path(digest).stat().st_size)


def made_delta(store: ContentStore, old: Digest, new: Digest) -> KeptDelta:
    """The delta between two artifacts of the store, made if need be. Raises what ``encode_delta`` raises, and
    ContentMissingError."""
    known = kept_delta(store, old, new)
    if known is not None:
        return known
    with store.scratch() as folder:
        report = encode_delta(store.path(old), store.path(new), folder / "delta")
        digest = store.put_file(folder / "delta")
    save_outcome(store, _key(old, new), Outcome({_DELTA: digest}))
    return KeptDelta(digest, report.delta_size)


def _key(old: Digest, new: Digest) -> Digest:
    # zstd's own version is part of what decides the bytes.
    return step_key(
        "delta", VERSION, b"", {"old": old, "new": new}, f"{wire.VERSION}, {versions('numpy', 'zstandard')}"
    )
