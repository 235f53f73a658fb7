"""The image repository's metadata once more, in the reference client's dialect, under the same keys.

Made from a publication in python-tuf's dialect: same versions, same expiries, same keys and thresholds, the hardware
ids of each bundle in place of our own description. That dialect has no hash bins, so a platform's bins are put back
into its one list, whose version is the sum of theirs. Every file has its version in its name: which of them count is
said by the other dialect's timestamp, so that one file makes a release exist in both.

Roots were signed by people who may be far away, in both dialects at once: the key folder keeps both. One that lacks the
second needs their keys here. Where that, or an ed25519 key, is missing, there are no files and a reason. Pure but for
the key folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nwmctl.errors import KeyElsewhereError, KeyRevokedError, KeyThresholdError
from nwmctl.formats.uptane import Dialect, RoleKeys, expiry_text, key_id, sealed
from nwmctl.formats.uptane_image import Delegation, ImageFile, ImageList, image_text, snapshot_text, timestamp_text
from nwmctl.trust.delegations import BIN_PREFIX, PREFIX, platform_of
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import Fetch, listed, translated
from nwmctl.trust.reference_root import reference_text, role_keys
from nwmctl.trust.repository import MetadataSet
from nwmctl.trust.tuf_signer import key_text
from nwmctl.trust.uptane_client import hardware_ids

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root, Targets

FOLDER = "uptane"
_DIALECT = Dialect.REFERENCE


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """Files by repository path, in the order of writing; ``why_not`` says why there are none."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class _Maker:
    ring: KeyRing
    passphrase: bytes | None

    def seal(self, text: str, keys: RoleKeys, label: str, *more: RoleKeys) -> bytes:
        signers = {}
        for role in (keys, *more):
            for signer in self.ring.signers_of(role.keys, role.threshold, label, self.passphrase):
                signers[signer.public] = signer
        data = text.encode()
        rows = [(key_id(_DIALECT, public), one.sign(data)) for public, one in signers.items()]
        return sealed(_DIALECT, text, rows).encode()


def reference_image(state: MetadataSet, ring: KeyRing, kept: Fetch, passphrase: bytes | None = None) -> ReferenceImage:
    """The files for a state that was just signed. ``kept`` gives files of this dialect that were made before.

    Raises MetadataFormatError and key errors.
    """
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

    with translated():
        roots = [Metadata[Root].from_bytes(data) for data in state.roots]
        top = Metadata[Targets].from_bytes(state.targets)
        lists = {name: Metadata[Targets].from_bytes(data) for name, data in state.delegated.items()}
        snapshot = Metadata[Snapshot].from_bytes(state.snapshot).signed
        timestamp = Metadata[Timestamp].from_bytes(state.timestamp).signed
    signers: list[Metadata[Any]] = [*roots, top]
    strangers = {key.keytype for one in signers for key in _keys(one).values()} - {"ed25519"}
    if strangers:
        return ReferenceImage(why_not=f"that dialect knows ed25519 keys only, and there are {', '.join(strangers)}")
    maker = _Maker(ring, passphrase)
    try:
        files = _roots(state.roots, maker, kept)
    except (KeyThresholdError, KeyElsewhereError, KeyRevokedError) as problem:
        return ReferenceImage(why_not=f"its root needs signatures by the root keys: {problem.what}")
    newest = roots[-1].signed
    versions: dict[str, int] = {}
    for name, value, keys in _lists(top, lists, newest):
        files[_path(value.version, name)] = maker.seal(image_text(value), keys, name)
        versions[f"{name}.json"] = value.version
    text = snapshot_text(snapshot.version, _expiry(snapshot), versions)
    data = maker.seal(text, role_keys(newest, "snapshot"), "snapshot")
    files[_path(snapshot.version, "snapshot")] = data
    text = timestamp_text(timestamp.version, _expiry(timestamp), snapshot.version, data)
    files[_path(timestamp.version, "timestamp")] = maker.seal(text, role_keys(newest, "timestamp"), "timestamp")
    return ReferenceImage(files)


def _roots(roots: Sequence[bytes], maker: _Maker, kept: Fetch) -> dict[str, bytes]:
    from tuf.api.metadata import Metadata, Root

    files: dict[str, bytes] = {}
    before: RoleKeys | None = None
    signed = maker.ring.roots()
    for raw in roots:
        with translated():
            root = Metadata[Root].from_bytes(raw).signed
        path, keys = _path(root.version, "root"), role_keys(root, "root")
        data = kept(path)
        if data is None and signed[root.version - 1 : root.version] == (raw,):
            data = maker.ring.reference_root(root.version)
        if not data:
            text = reference_text(root)
            assert text is not None  # all keys are of the one kind
            data = maker.seal(text, keys, "root", *([before] if before else []))
        files[path], before = data, keys
    return files


def _lists(
    top: Metadata[Targets], lists: Mapping[str, Metadata[Targets]], root: Root
) -> list[tuple[str, ImageList, RoleKeys]]:
    """Every list of this dialect with its keys: the platforms' first, since the top one names them."""
    delegations: list[Delegation] = []
    made: list[tuple[str, ImageList, RoleKeys]] = []
    above = top.signed.delegations
    for name, role in ((above.roles or {}) if above else {}).items():
        keys = RoleKeys(tuple(key_text(above.keys[keyid]) for keyid in role.keyids), role.threshold)  # type: ignore[union-attr]
        delegations.append(Delegation(name, keys, tuple(role.paths or ()), role.terminating))
        bins = f"{BIN_PREFIX}{name.removeprefix(PREFIX)}-"
        parts = [one.signed for other, one in lists.items() if other == name or _is_bin(other, bins)]
        files = tuple(file for part in parts for file in _files(part))
        value = ImageList(sum(part.version for part in parts), min(_expiry(part) for part in parts), files)
        made.append((name, value, keys))
    value = ImageList(top.signed.version, _expiry(top.signed), _files(top.signed), tuple(delegations))
    return [*made, ("targets", value, role_keys(root, "targets"))]


def _is_bin(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and f"{BIN_PREFIX}{platform_of(name)}-" == prefix


def _files(targets: Targets) -> tuple[ImageFile, ...]:
    made = []
    for name, file in targets.targets.items():
        about = listed(name, file.length, file.hashes, file.unrecognized_fields.get("custom")).about
        made.append(ImageFile(name, file.length, file.hashes["sha256"], hardware_ids(about), about.sequence))
    return tuple(made)


def _keys(metadata: Metadata[Any]) -> Mapping[str, Any]:
    signed = metadata.signed
    found: Mapping[str, Any] = signed.keys if hasattr(signed, "keys") else getattr(signed.delegations, "keys", {})
    return found


def _expiry(signed: Any) -> str:
    return expiry_text(round(signed.expires.timestamp() * 1_000_000))


def _path(version: int, name: str) -> str:
    return f"{FOLDER}/{version}.{name}.json"
