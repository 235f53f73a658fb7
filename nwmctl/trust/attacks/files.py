"""Changes to metadata files: with the keys that an attacker has, or without any. Works on files as they are served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from nwmctl.domain.keys import KeyRole
from nwmctl.trust.attacks.scene import Body
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import TIMESTAMP_PATH, versioned
from nwmctl.trust.repository import Publication
from nwmctl.trust.tuf_signer import tuf_signer


def forged(data: bytes, old: bytes, new: bytes) -> bytes:
    """The file with ``old`` replaced once; its signatures stay and no longer fit."""
    assert old in data
    return data.replace(old, new, 1)


def signed_again(data: bytes, role: KeyRole, ring: KeyRing, change: Callable[[Any], None]) -> bytes:
    """The file changed and signed with the role's key: what its thief can do."""
    from tuf.api.metadata import Metadata

    metadata: Metadata[Any] = Metadata.from_bytes(data)
    change(metadata.signed)
    metadata.sign(tuf_signer(ring.signer(role)))
    return metadata.to_bytes()


def prolonged(publication: Publication, ring: KeyRing, until: datetime) -> Mapping[str, Body]:
    """Snapshot and timestamp of a publication, renewed until then, whatever the rest is: same versions."""
    from tuf.api.metadata import Metadata, Timestamp

    def prolong(signed: Any) -> None:
        signed.expires = until

    version = Metadata[Timestamp].from_bytes(publication.timestamp).signed.snapshot_meta.version
    path = versioned("snapshot", version)
    return {
        path: signed_again(publication.state.snapshot, KeyRole.SNAPSHOT, ring, prolong),
        TIMESTAMP_PATH: signed_again(publication.timestamp, KeyRole.TIMESTAMP, ring, prolong),
    }


def older_lists(old: Publication, new: Publication) -> Mapping[str, Body]:
    """For each list of bundles that ``new`` has anew: the path of the new one with the genuine bytes of the old."""
    found: dict[str, Body] = {}
    for path in set(new.files) - set(old.files):
        number, _, role = path.removeprefix("metadata/").removesuffix(".json").partition(".")
        if role in ("root", "snapshot", "timestamp"):
            continue
        before = versioned(role, int(number) - 1)
        if before in old.files:
            found[path] = old.files[before]
    assert found, "the two publications have the same lists"
    return found
