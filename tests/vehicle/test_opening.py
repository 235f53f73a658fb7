"""What a vehicle accepts as a bundle for itself, and why it refuses the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.fleet import SlotName
from nwmctl.domain.platform import Role
from nwmctl.errors import (
    BundleContentsError,
    NotForThisVehicleError,
    NwmError,
    RuntimeLackingError,
    SequenceTooLowError,
    WrongHardwareError,
    WrongPlatformError,
)
from nwmctl.formats import cpio, documents
from nwmctl.vehicle.opening import open_bundle
from nwmctl.vehicle.slots import Slots
from tests.vehicle.bundles import RECORD, NotSigned, contents, describe, other, verify, write_swu


def test_only_the_vehicles_own_files_go_into_the_slot(tmp_path: Path) -> None:
    manifest, files = contents()
    opened = open_bundle(write_swu(tmp_path / "b.swu", manifest, files), RECORD, 3, verify)
    assert opened.manifest == manifest
    assert {file.entry.name for file in opened.files[Role.MAIN]} == {
        "bundle.json",
        "quad.vmfb",
        "quad.json",
        "chassis-et5.json",
    }
    slots = Slots.create(tmp_path, 3, [])
    assert slots.install(4, opened.files[Role.MAIN]) is SlotName.B
    assert (tmp_path / "slot-b" / "quad.vmfb").read_bytes() == files["quad.vmfb"]
    assert len(slots.prove(SlotName.B)) == 4


def test_a_payload_without_its_runtime_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    asked: list[str] = []

    def lacks(manifest: ArtifactManifest) -> str:
        asked.append(manifest.needs.runtime)
        return "the IREE runtime is not installed: pip install it"

    with pytest.raises(RuntimeLackingError, match="this vehicle cannot execute") as caught:
        open_bundle(write_swu(tmp_path / "b.swu", *contents()), RECORD, 3, verify, lacks)
    assert caught.value.why == "it needs iree 3: the IREE runtime is not installed: pip install it"
    assert "install iree on the vehicle" in caught.value.next
    assert asked == ["iree"], "only this vehicle's own payloads count"


def test_the_same_sequence_is_not_lower(tmp_path: Path) -> None:
    open_bundle(write_swu(tmp_path / "b.swu", *contents(4)), RECORD, 4, verify)


def test_a_lower_sequence(tmp_path: Path) -> None:
    with pytest.raises(SequenceTooLowError, match="has release sequence 4"):
        open_bundle(write_swu(tmp_path / "b.swu", *contents(4)), RECORD, 5, verify)


@pytest.mark.parametrize("changes", [{"board": "nt3-board"}, {"revision": "r9"}])
def test_another_board_or_revision(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(WrongHardwareError, match="the bundle is for nt2-board r1, r2"):
        open_bundle(write_swu(tmp_path / "b.swu", *contents()), other(**changes), 3, verify)


def test_another_platform_on_the_same_board(tmp_path: Path) -> None:
    with pytest.raises(WrongPlatformError):
        open_bundle(write_swu(tmp_path / "b.swu", *contents()), other(platform="nt3.0"), 3, verify)


@pytest.mark.parametrize(
    ("changes", "what"), [({"variant": "dual"}, "compute variant"), ({"vehicle_model": "ec6"}, "vehicle model")]
)
def test_nothing_for_this_vehicle(tmp_path: Path, changes: dict[str, str], what: str) -> None:
    with pytest.raises(NotForThisVehicleError, match=what):
        open_bundle(write_swu(tmp_path / "b.swu", *contents()), other(**changes), 3, verify)


def test_a_wrong_signature_is_seen_before_anything_else(tmp_path: Path) -> None:
    path = write_swu(tmp_path / "b.swu", *contents(), sign=lambda data: b"forged")
    with pytest.raises(NotSigned):
        open_bundle(path, other(board="nt3-board"), 99, verify)


def contradictions() -> dict[str, tuple[dict[str, bytes], dict[str, object]]]:
    manifest, files = contents()
    described = describe(manifest, {"bundle.json": b"", **files})
    return {
        "a file is missing": ({name: data for name, data in files.items() if name != "quad.vmfb"}, {}),
        "an artifact manifest is missing": ({name: data for name, data in files.items() if name != "quad.json"}, {}),
        "a file is another than listed": ({**files, "quad.vmfb": b"other"}, {}),
        "a file is not in the description": (files, {"description": replace(described, files=described.files[:2])}),
        "the description has another sequence": (files, {"description": replace(described, sequence=5)}),
    }


@pytest.mark.parametrize("name", contradictions())
def test_a_bundle_that_contradicts_itself(tmp_path: Path, name: str) -> None:
    files, changes = contradictions()[name]
    with pytest.raises(BundleContentsError):
        open_bundle(write_swu(tmp_path / "b.swu", contents()[0], files, **changes), RECORD, 3, verify)  # type: ignore[arg-type]


def test_the_description_and_the_manifest_must_say_the_same(tmp_path: Path) -> None:
    manifest, files = contents()
    lying = replace(manifest, sequence=5)
    everything = {"bundle.json": documents.encode(lying), **files}
    with pytest.raises(BundleContentsError) as caught:
        open_bundle(
            write_swu(tmp_path / "b.swu", lying, files, description=describe(manifest, everything)), RECORD, 3, verify
        )
    assert "sw-description says" in caught.value.why


def test_the_description_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "b.swu"
    path.write_bytes(b"".join(cpio.pack([cpio.Member("bundle.json", 2, [b"{}"])])))
    with pytest.raises(BundleContentsError) as caught:
        open_bundle(path, RECORD, 3, verify)
    assert "in front of all files" in caught.value.why


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data())
def test_mutated_bytes_are_refused_and_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    path = write_swu(tmp_path / "b.swu", *contents())
    body = bytearray(path.read_bytes())
    before = {file.entry for file in open_bundle(path, RECORD, 3, verify).files[Role.MAIN]}
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(body))))
    path.write_bytes(bytes(body[:cut]))
    try:
        opened = open_bundle(path, RECORD, 3, verify)
    except NwmError:
        return
    assert {file.entry for file in opened.files[Role.MAIN]} == before, "changed bytes were accepted"
    for file in opened.files[Role.MAIN]:
        assert digest_bytes(b"".join(file.read())) == file.entry.digest
