"""A repository's state as files: where each part lies, and whether it must be renewed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nwmctl.trust.metadata import TIMESTAMP_PATH, translated, versioned
from nwmctl.trust.repository import MetadataSet, Publication, is_due

if TYPE_CHECKING:
    from nwmctl.domain.keys import KeyRole


def as_publication(state: MetadataSet) -> Publication:
    """A state as it was published: versioned files by path, and its timestamp. Raises MetadataFormatError."""
    from tuf.api.metadata import Metadata, Snapshot, Timestamp

    with translated():
        snapshot = Metadata[Timestamp].from_bytes(state.timestamp).signed.snapshot_meta.version
        meta = Metadata[Snapshot].from_bytes(state.snapshot).signed.meta
        lists = {**state.delegated, "targets": state.targets}
        files: Mapping[str, bytes] = {
            **{versioned("root", number): data for number, data in enumerate(state.roots, start=1)},
            **{versioned(name, meta[f"{name}.json"].version): data for name, data in lists.items()},
            versioned("snapshot", snapshot): state.snapshot,
        }
    return Publication(files, state.timestamp, state)


def needs_renewal(state: MetadataSet, now_us: int) -> bool:
    """Whether a part is due, see ``is_due`` (root excepted: rotating it is a person's decision)."""
    from tuf.api.metadata import Metadata

    from nwmctl.domain.keys import KeyRole

    parts: tuple[tuple[KeyRole, bytes], ...] = (
        (KeyRole.TARGETS, state.targets),
        *((KeyRole.TARGETS, data) for data in state.delegated.values()),
        (KeyRole.SNAPSHOT, state.snapshot),
        (KeyRole.TIMESTAMP, state.timestamp),
    )
    with translated():
        return any(is_due(role, Metadata.from_bytes(data).signed.expires, now_us) for role, data in parts)


def state_files(publication: Publication) -> Mapping[str, bytes]:
    """Every file of a publication, the timestamp last."""
    return {**publication.files, TIMESTAMP_PATH: publication.timestamp}
