"""The image repository in the reference client's dialect: values to the text that is signed.

python-tuf writes the other dialect itself. Here a list may delegate to others by path patterns; a snapshot names the
version of every list; the timestamp names length and hash of the snapshot, which that client checks. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from nwmctl.formats import canonical
from nwmctl.formats.canonical import Plain
from nwmctl.formats.uptane import HARDWARE_IDS, RELEASE_SEQUENCE, Dialect, RoleKeys, key_id, key_value, plain_name

_DIALECT = Dialect.REFERENCE


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A listed file: for which hardware ids (``board:revision``) it is, and its release sequence."""

    name: str
    length: int
    sha256: str
    hardware: tuple[str, ...]
    sequence: int


@dataclass(frozen=True, slots=True)
class Delegation:
    """Another role that may list files whose names match one of ``paths``."""

    name: str
    keys: RoleKeys
    paths: tuple[str, ...]
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class ImageList:
    """Targets metadata of the top role or of a delegated one."""

    version: int
    expires: str
    files: tuple[ImageFile, ...]
    delegations: tuple[Delegation, ...] = field(default=())


def image_text(value: ImageList) -> str:
    """Targets metadata."""
    table: dict[str, Plain] = {
        "_type": "Targets",
        "expires": value.expires,
        "targets": {plain_name(file.name, "a file name"): _file(file) for file in value.files},
        "version": value.version,
    }
    if value.delegations:
        publics = dict.fromkeys(public for one in value.delegations for public in one.keys.keys)
        keys: dict[str, Plain] = {key_id(_DIALECT, public): key_value(_DIALECT, public) for public in publics}
        table["delegations"] = {"keys": keys, "roles": [_delegation(one) for one in value.delegations]}
    return canonical.encode(table).decode()


def snapshot_text(version: int, expires: str, versions: Mapping[str, int]) -> str:
    """Snapshot metadata. ``versions`` by file name, ``targets.json`` among them."""
    meta: dict[str, Plain] = {name: {"version": number} for name, number in versions.items()}
    return canonical.encode({"_type": "Snapshot", "expires": expires, "meta": meta, "version": version}).decode()


def timestamp_text(version: int, expires: str, snapshot_version: int, snapshot: bytes) -> str:
    """Timestamp metadata over the snapshot file ``snapshot``."""
    about: dict[str, Plain] = {
        "hashes": {"sha256": hashlib.sha256(snapshot).hexdigest()},
        "length": len(snapshot),
        "version": snapshot_version,
    }
    value: dict[str, Plain] = {
        "_type": "Timestamp",
        "expires": expires,
        "meta": {"snapshot.json": about},
        "version": version,
    }
    return canonical.encode(value).decode()


def _file(file: ImageFile) -> Plain:
    hardware: list[Plain] = [plain_name(one, "a hardware id") for one in file.hardware]
    custom: dict[str, Plain] = {HARDWARE_IDS: hardware, RELEASE_SEQUENCE: file.sequence}
    return {"custom": custom, "hashes": {"sha256": file.sha256}, "length": file.length}


def _delegation(one: Delegation) -> Plain:
    ids: list[Plain] = [key_id(_DIALECT, public) for public in one.keys.keys]
    return {
        "keyids": ids,
        "name": one.name,
        "paths": list(one.paths),
        "terminating": one.terminating,
        "threshold": one.keys.threshold,
    }
