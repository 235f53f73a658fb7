"""A vehicle unpacks what lies packed in a bundle, and refuses what it cannot open before anything is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.packing import Compression, Packing, Part, part_name
from nwmctl.errors import (
    BundleContentsError,
    NwmError,
    PackedDataError,
    PackedSizeError,
    PayloadChangedError,
    PayloadKeyError,
)
from nwmctl.formats import cpio, documents, swu
from nwmctl.formats.packing import Cipher, packer
from nwmctl.vehicle.opening import OpenedBundle, open_bundle
from tests.vehicle.bundles import RECORD, contents, describe, sign, verify

KEY = bytes(range(32))
NAME = "quad.vmfb"


def packed(path: Path, parts: int, key: bytes | None, *, change: int = -1) -> dict[str, bytes]:
    """A bundle whose payload for this vehicle lies packed in it; ``change`` flips a bit of that part."""
    manifest, files = contents()
    everything = {"bundle.json": documents.encode(manifest), **files}
    members, described = dict(everything), []
    data = files[NAME]
    step = -(-len(data) // parts)
    for file in describe(manifest, everything).files:
        if file.filename != NAME:
            described.append(file)
            continue
        del members[NAME]
        made = []
        for index in range(parts):
            piece = data[index * step : (index + 1) * step]
            iv = bytes([index]) * 16 if key else b""
            codec = packer(Compression.ZSTD, len(piece), Cipher(key, iv) if key else None)
            body = bytes(codec.update(piece)) + codec.finish()
            name = part_name(NAME, index, parts)
            members[name] = body if index != change else bytes([body[0] ^ 1]) + body[1:]
            made.append(Part(name, digest_bytes(body), len(body), len(piece), iv.hex()))
        script = swu.Script("join.sh", digest_bytes(b"#!"), digest_bytes(b"")) if parts > 1 else None
        if script:
            members[script.filename] = b"#!"
        packing = Packing(Compression.ZSTD, tuple(made))
        described.append(swu.InstalledFile(NAME, digest_bytes(data), packing, (), script))
    description = replace(describe(manifest, everything), files=tuple(described))
    text = swu.render_description(description)
    order = {swu.DESCRIPTION_NAME: text, swu.SIGNATURE_NAME: sign(text)}
    order |= {name: members[name] for name, _ in description.members}
    path.write_bytes(b"".join(cpio.pack(cpio.Member(name, len(body), [body]) for name, body in order.items())))
    return files


def written(opened: OpenedBundle) -> dict[str, bytes]:
    """What would go into the slots, by name."""
    return {file.entry.name: b"".join(file.read()) for files in opened.files.values() for file in files}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("key", [None, KEY])
def test_the_slot_gets_plain_bytes(tmp_path: Path, parts: int, key: bytes | None) -> None:
    files = packed(tmp_path / "b.swu", parts, key)
    found = written(open_bundle(tmp_path / "b.swu", RECORD, 3, verify, key=key))
    assert found[NAME] == files[NAME]
    assert found["quad.json"] == files["quad.json"]


def test_without_its_key_a_vehicle_refuses_by_name(tmp_path: Path) -> None:
    packed(tmp_path / "b.swu", 2, KEY)
    with pytest.raises(PayloadKeyError, match="is encrypted"):
        open_bundle(tmp_path / "b.swu", RECORD, 3, verify)
    with pytest.raises((PackedDataError, PackedSizeError, BundleContentsError)):
        open_bundle(tmp_path / "b.swu", RECORD, 3, verify, key=bytes(32))


@pytest.mark.parametrize("parts", [1, 3])
def test_changed_packed_bytes_are_a_changed_file(tmp_path: Path, parts: int) -> None:
    packed(tmp_path / "b.swu", parts, None, change=parts - 1)
    with pytest.raises(NwmError) as caught:
        open_bundle(tmp_path / "b.swu", RECORD, 3, verify)
    assert type(caught.value) is PayloadChangedError
