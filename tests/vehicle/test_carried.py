"""A runtime that comes in the bundle: unpacked with care, and it is what executes, on a machine that has none."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nwmctl.domain.bundle import CarriedRuntime
from nwmctl.errors import CarriedRuntimeError, HealthCheckFailedError, NwmError, UnknownToolchainError
from nwmctl.formats import documents
from nwmctl.toolchains.protocol import Toolchain
from nwmctl.vehicle import carried
from nwmctl.vehicle.carried import carried_in, unpack_wheel
from nwmctl.vehicle.inference import inference, lacking
from tests.vehicle import wheels
from tests.vehicle.bundles import contents
from tests.vehicle.test_inference import compiled


def nothing(name: str) -> Toolchain:
    """A machine on which no runtime is installed."""
    raise UnknownToolchainError(f"there is no {name}", why="nothing is installed", next="install it")


def in_a_slot(folder: Path, **wheel: bool) -> Path:
    """A slot with one payload and the wheel of its runtime; gives the payload."""
    found = compiled(folder, "Tanh")
    slot = folder / "slot-a"
    slot.mkdir()
    payload = slot / "payload.onnx"
    payload.write_bytes(found.payload.read_bytes())
    digest = wheels.write_wheel(slot / "r.whl", **wheel)
    size = (slot / "r.whl").stat().st_size
    runtime = CarriedRuntime("r.whl", digest, size, wheels.RUNTIME, wheels.version(), "MIT", ("quad",))
    manifest = contents()[0]
    object.__setattr__(manifest, "runtimes", (runtime,))
    (slot / "bundle.json").write_bytes(documents.encode(manifest))
    (folder / "manifest.json").write_bytes(documents.encode(found.manifest))
    return payload


def run(payload: Path) -> str:
    from nwmctl.domain.artifact import ArtifactManifest

    manifest = documents.decode(ArtifactManifest, (payload.parents[1] / "manifest.json").read_bytes(), "manifest")
    assert lacking(nothing)(manifest), "this machine could not execute it by itself"
    return inference(nothing)(payload, manifest)


@pytest.mark.long
def test_the_carried_runtime_executes_the_payload_where_none_is_installed(tmp_path: Path) -> None:
    payload = in_a_slot(tmp_path)
    assert run(payload) == f"one call, 1 finite outputs, by the carried onnxruntime {wheels.version()}"
    (found,) = carried_in(payload.parent, "quad")
    assert (found.name, carried_in(payload.parent, "solo"), carried_in(tmp_path, "quad")) == ("onnxruntime", (), ())


@pytest.mark.long
def test_it_is_the_carried_one_and_not_this_machine_s(tmp_path: Path) -> None:
    with pytest.raises(NwmError, match="the carried one"):
        run(in_a_slot(tmp_path, spoiled=True))


def test_without_it_the_machine_s_own_is_asked_for(tmp_path: Path) -> None:
    found = compiled(tmp_path, "Tanh")
    with pytest.raises(HealthCheckFailedError, match="does not run"):
        inference(nothing)(found.payload, found.manifest)


def link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("onnxruntime/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


def write(name: str, data: bytes = b"x") -> Callable[[zipfile.ZipFile], None]:
    return lambda archive: archive.writestr(name, data)


@pytest.mark.parametrize(
    "spoil", [write("../outside"), write("/absolute"), write("a/../../b"), write("a\\..\\b"), link]
)
def test_a_wheel_reaches_nothing_outside_of_its_folder(
    tmp_path: Path, spoil: Callable[[zipfile.ZipFile], None]
) -> None:
    with zipfile.ZipFile(tmp_path / "r.whl", "w") as archive:
        spoil(archive)
    (tmp_path / "in").mkdir()
    with pytest.raises(CarriedRuntimeError, match="cannot be unpacked"):
        unpack_wheel(tmp_path / "r.whl", tmp_path / "in")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "r.whl"]


def test_a_wheel_has_a_limit_and_is_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "r.whl"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    monkeypatch.setattr(carried, "_MOST_BYTES", (1 << 20) - 1)
    with pytest.raises(CarriedRuntimeError, match="cannot be unpacked"):
        unpack_wheel(place, tmp_path)
    data = place.read_bytes()
    for broken in (b"", b"no wheel", data[: len(data) // 2], data[:40] + b"\xff" * 20 + data[60:]):
        place.write_bytes(broken)
        monkeypatch.setattr(carried, "_MOST_BYTES", 1 << 30)
        with pytest.raises(NwmError):
            unpack_wheel(place, tmp_path / f"at{len(broken)}")
