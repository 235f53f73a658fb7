"""A vehicle that gets a payload as a delta: made from what it runs, proven like any other file, refused otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.bundling.delta_encode import encode_delta
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.fleet import AssignmentState as S
from nwmctl.domain.fleet import SlotName
from nwmctl.domain.packing import Base, Compression, Packing, Part
from nwmctl.domain.platform import Role
from nwmctl.errors import (
    BundleContentsError,
    DeltaBaseError,
    DeltaBaseLackingError,
    DeltaLimitError,
    NwmError,
    PayloadChangedError,
)
from nwmctl.fleet.consequences import blames_delta
from nwmctl.formats import cpio, ddi, documents, swu
from nwmctl.vehicle.opening import OldFile, OpenedBundle, open_bundle
from nwmctl.vehicle.pending import Ending
from nwmctl.vehicle.reporting import closing, outcome_of
from nwmctl.vehicle.slots import Slots
from tests.vehicle.bundles import RECORD, contents, describe, sign, verify, write_swu
from tests.vehicle.test_client import world
from tests.vehicle.world import World, signed

__all__ = ["world"]

NAME = "quad.vmfb"
SCRIPT = b"#!/bin/sh\n"
OLD = contents(3)[1][NAME]
MANIFEST, FILES = contents(4)
NEW = FILES[NAME]


def delta(folder: Path, old: bytes, new: bytes) -> bytes:
    for name, data in (("old", old), ("new", new)):
        (folder / name).write_bytes(data)
    encode_delta(folder / "old", folder / "new", folder / "change")
    return (folder / "change").read_bytes()


def bundle(path: Path, change: bytes, signer: Callable[[bytes], bytes] = sign) -> Path:
    """The bundle of sequence 4, whose payload for RECORD comes as a delta from sequence 3's."""
    everything = {"bundle.json": documents.encode(MANIFEST), **FILES}
    part = Part(f"{NAME}.delta", digest_bytes(change), len(change), len(NEW))
    packing = Packing(Compression.NONE, (part,), Base(NAME, digest_bytes(OLD)))
    script = swu.Script("apply.sh", digest_bytes(SCRIPT), digest_bytes(b"template"))
    plain = describe(MANIFEST, everything)
    files = (replace(file, packing=packing, join=script) if file.filename == NAME else file for file in plain.files)
    description = replace(plain, files=tuple(files))
    data = swu.render_description(description)
    body = {**everything, part.name: change, script.filename: SCRIPT}
    members = [(swu.DESCRIPTION_NAME, data), (swu.SIGNATURE_NAME, signer(data))]
    members += [(name, body[name]) for name, _ in description.members]
    path.write_bytes(b"".join(cpio.pack(cpio.Member(name, len(each), [each]) for name, each in members)))
    return path


@pytest.fixture
def old(tmp_path: Path) -> OldFile:
    place = tmp_path / "running"
    place.write_bytes(OLD)
    return lambda name: place if name == NAME else None


def opened(path: Path, old: OldFile) -> OpenedBundle:
    return open_bundle(path, RECORD, 3, verify, old=old)


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith((".delta", ".made", ".partial"))]


def test_a_delta_becomes_the_file_that_was_signed(tmp_path: Path, old: OldFile) -> None:
    change = delta(tmp_path, OLD, NEW)
    assert len(change) < len(NEW) / 10
    found = opened(bundle(tmp_path / "delta.swu", change), old)
    full = open_bundle(write_swu(tmp_path / "full.swu", MANIFEST, FILES), RECORD, 3, verify)
    assert [file.entry for file in found.files[Role.MAIN]] == [file.entry for file in full.files[Role.MAIN]]
    slots = Slots.create(tmp_path, 3, [])
    slots.install(4, found.files[Role.MAIN])
    assert (slots.folder_of(SlotName.B) / NAME).read_bytes() == NEW
    assert len(slots.prove(SlotName.B)) == 4
    assert left_over(tmp_path) == []


def test_the_virtual_vehicle_installs_tries_and_commits_a_delta(world: World, tmp_path: Path) -> None:
    made = bundle(tmp_path / "delta.swu", delta(tmp_path, OLD, NEW), lambda data: signed(data, world.keyring))
    assert made.stat().st_size < world.swu(4).stat().st_size
    world.gateway.offer_bundle(7, 4, made.read_bytes())
    world.drive()
    assert world.gateway.stages == [S.DOWNLOADING, S.INSTALLED, S.TRIAL, S.COMMITTED]
    (closing,) = world.gateway.closings
    assert closing.finished is ddi.Finished.SUCCESS
    assert (world.slots.folder_of(SlotName.B) / NAME).read_bytes() == NEW
    assert left_over(world.folder) == []


def test_a_vehicle_that_runs_something_else_refuses_and_stays_as_it_is(world: World, tmp_path: Path) -> None:
    """It has committed sequence 4 by a full bundle, so the delta's base is no longer what it runs."""
    world.gateway.offer_bundle(7, 4, world.swu(4).read_bytes())
    world.drive()
    made = bundle(
        tmp_path / "delta.swu", delta(tmp_path, OLD + b" and more", NEW), lambda data: signed(data, world.keyring)
    )
    world.gateway.offer_bundle(8, 4, made.read_bytes())
    world.drive()
    assert world.gateway.closings[-1].finished is ddi.Finished.FAILURE
    assert (world.slots.folder_of(world.state.active) / NAME).read_bytes() == NEW
    assert left_over(world.folder) == []


def test_a_vehicle_without_the_base_refuses_before_anything_is_written(tmp_path: Path) -> None:
    path = bundle(tmp_path / "delta.swu", delta(tmp_path, OLD, NEW))
    with pytest.raises(DeltaBaseLackingError, match="starts from another version"):
        opened(path, lambda name: None)


def test_a_base_with_other_bytes_is_refused(tmp_path: Path, old: OldFile) -> None:
    """What the delta takes from the base has to be there; the new file's digest counts, so the base is read once."""
    found = opened(bundle(tmp_path / "delta.swu", delta(tmp_path, OLD, NEW)), old)
    (tmp_path / "running").write_bytes(bytes(len(OLD)))
    slots = Slots.create(tmp_path, 3, [])
    with pytest.raises(DeltaBaseError):
        slots.install(4, found.files[Role.MAIN])
    assert left_over(tmp_path) == []


def test_a_tampered_delta_is_refused_before_it_is_applied(tmp_path: Path, old: OldFile) -> None:
    change = delta(tmp_path, OLD, NEW)
    path = bundle(tmp_path / "delta.swu", change)
    path.write_bytes(path.read_bytes().replace(change, change[:-1] + bytes([change[-1] ^ 1])))
    with pytest.raises(PayloadChangedError):
        opened(path, old)


def test_a_delta_to_other_bytes_than_the_signed_ones_is_refused(tmp_path: Path, old: OldFile) -> None:
    """Whoever built the bundle packed the delta to another payload under this one's name."""
    found = opened(bundle(tmp_path / "delta.swu", delta(tmp_path, OLD, NEW.replace(b"payload", b"malware"))), old)
    slots = Slots.create(tmp_path, 3, [])
    with pytest.raises(BundleContentsError, match="contradicts itself"):
        slots.install(4, found.files[Role.MAIN])
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("problem", [DeltaBaseLackingError, DeltaBaseError, DeltaLimitError])
def test_a_delta_that_does_not_fit_is_no_final_answer(problem: type[NwmError]) -> None:
    """The full bundle may do, so the vehicle has to be asked again; the reason's name tells the campaign."""
    outcome = outcome_of(problem("the bundle brings it as a delta", why="it runs another", next="offer another"))
    assert outcome.ending is Ending.FAILED
    assert blames_delta(closing(7, outcome).details, 1)
