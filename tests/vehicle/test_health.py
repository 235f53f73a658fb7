"""The health check: everything that it claims to prove can fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest, Port, Precision
from nwmctl.domain.bundle import BundleManifest
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.figure import Obtained
from nwmctl.domain.fleet import SlotName
from nwmctl.domain.platform import Role
from nwmctl.errors import CompileFailedError, HealthCheckFailedError, UnknownToolchainError
from nwmctl.formats import documents
from nwmctl.toolchains.protocol import Place, Toolchain
from nwmctl.vehicle.health import check_health
from nwmctl.vehicle.inference import inference, neutral_inputs
from nwmctl.vehicle.record import VehicleRecord
from nwmctl.vehicle.slots import Slots
from tests.vehicle.bundles import RECORD, artifact, chassis_file, contents, other
from tests.vehicle.helpers import slot_file


def installed(
    folder: Path, manifest: BundleManifest, files: Mapping[str, bytes], *, sequence: int = 4, without: str = ""
) -> Slots:
    everything = {"bundle.json": documents.encode(manifest), **files}
    slots = Slots.create(folder, 3, [])
    slots.install(sequence, [slot_file(name, data) for name, data in everything.items() if name != without])
    return slots


def sick(slots: Slots, who: VehicleRecord = RECORD) -> str:
    with pytest.raises(HealthCheckFailedError) as caught:
        check_health(slots, SlotName.B, who, Role.MAIN, None)
    return caught.value.why


def test_what_a_vehicle_without_its_chip_can_prove(tmp_path: Path) -> None:
    manifest, files = contents()
    health = check_health(installed(tmp_path, manifest, files), SlotName.B, RECORD, Role.MAIN, None)
    assert health.inference is Obtained.NOT_RUN
    assert health.proofs[0].startswith("slot b: 4 files, ")
    assert "0.02 rad at the road wheels is 0.29 rad at the steering wheel" in health.proofs[1]
    assert health.proofs[-1] == "inference: not_run, no such chip here"


def test_an_inference_that_could_run_is_not_run_for_another_platform(tmp_path: Path) -> None:
    def infer(payload: Path, found: ArtifactManifest) -> str:
        raise AssertionError("there is no such chip here")

    health = check_health(installed(tmp_path, *contents()), SlotName.B, RECORD, Role.MAIN, infer)
    assert health.inference is Obtained.NOT_RUN


def test_rotten_bytes(tmp_path: Path) -> None:
    slots = installed(tmp_path, *contents())
    (tmp_path / "slot-b" / "quad.vmfb").write_bytes(b"rotten")
    assert "slot b is not what was installed" in sick(slots)


def test_another_sequence_than_the_boot_state_says(tmp_path: Path) -> None:
    assert "has sequence 4, the boot state says 5" in sick(installed(tmp_path, *contents(4), sequence=5))


def test_a_bundle_for_another_platform(tmp_path: Path) -> None:
    assert "is for nt2.0" in sick(installed(tmp_path, *contents()), other(platform="nt3.0"))


@pytest.mark.parametrize("name", ["bundle.json", "quad.vmfb", "quad.json", "chassis-et5.json"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    assert sick(installed(tmp_path, *contents(), without=name))


def changed(name: str, data: bytes) -> tuple[BundleManifest, dict[str, bytes]]:
    """A bundle whose manifest goes along with another content of one file."""
    manifest, files = contents()
    digest = digest_bytes(data)
    chassis = tuple(
        replace(file, digest=digest, size=len(data)) if file.filename == name else file for file in manifest.chassis
    )
    payloads = tuple(replace(file, manifest=digest) if name == "quad.json" else file for file in manifest.payloads)
    return replace(manifest, chassis=chassis, payloads=payloads), {**files, name: data}


def test_a_chassis_file_of_another_vehicle_model(tmp_path: Path) -> None:
    found = sick(installed(tmp_path, *changed("chassis-et5.json", chassis_file("es8"))))
    assert "adapts to es8" in found


def test_a_chassis_file_whose_examples_come_out_differently(tmp_path: Path) -> None:
    data = chassis_file("et5").replace(b'"value":14.0', b'"value":15.0')
    assert data != chassis_file("et5")
    assert "the probe at steer" in sick(installed(tmp_path, *changed("chassis-et5.json", data)))


def test_an_artifact_manifest_of_another_payload(tmp_path: Path) -> None:
    assert "not the artifact manifest of 'quad.vmfb'" in sick(
        installed(tmp_path, *changed("quad.json", artifact(b"another payload")))
    )


# --- inference, where the chip is this machine --------------------------------------------------------------------


def virtual(manifest: BundleManifest, files: dict[str, bytes]) -> tuple[BundleManifest, dict[str, bytes]]:
    data = files["chassis-et5.json"].replace(b'"platform":"nt2.0"', b'"platform":"virtual"')
    chassis = tuple(
        replace(file, digest=digest_bytes(data), size=len(data)) if file.vehicle_model == "et5" else file
        for file in manifest.chassis
    )
    return replace(manifest, platform="virtual", chassis=chassis), {**files, "chassis-et5.json": data}


def test_on_the_virtual_platform_inference_is_measured(tmp_path: Path) -> None:
    asked = []

    def infer(payload: Path, found: ArtifactManifest) -> str:
        asked.append((payload.name, found.format))
        return "one call"

    slots = installed(tmp_path, *virtual(*contents()))
    health = check_health(slots, SlotName.B, other(platform="virtual"), Role.MAIN, infer)
    assert health.inference is Obtained.MEASURED
    assert health.proofs[-1] == "inference: measured, one call"
    assert asked == [("quad.vmfb", "vmfb")]


def test_on_the_virtual_platform_without_its_runtime(tmp_path: Path) -> None:
    health = check_health(
        installed(tmp_path, *virtual(*contents())), SlotName.B, other(platform="virtual"), Role.MAIN, None
    )
    assert health.inference is Obtained.NOT_RUN
    assert health.proofs[-1] == "inference: not_run, its runtime is not installed here"


def test_an_inference_that_fails(tmp_path: Path) -> None:
    def infer(payload: Path, found: ArtifactManifest) -> str:
        raise CompileFailedError("it crashed", why="test", next="test")

    slots = installed(tmp_path, *virtual(*contents()))
    with pytest.raises(HealthCheckFailedError) as caught:
        check_health(slots, SlotName.B, other(platform="virtual"), Role.MAIN, infer)
    assert "it crashed" in caught.value.why


class FakeSession:
    """Gives what it was told; remembers what it got."""

    def __init__(self, outputs: dict[str, NDArray[np.generic]]) -> None:
        self.outputs = outputs
        self.inputs: dict[str, NDArray[np.generic]] = {}

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        self.inputs = dict(inputs)
        return self.outputs

    @property
    def seconds(self) -> tuple[float, ...]:
        return ()

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FakeToolchain:
    """Opens its one session."""

    name = "iree"

    def __init__(self, session: FakeSession) -> None:
        self.session = session

    def open(self, *arguments: object) -> FakeSession:
        return self.session

    def places(self, manifest: ArtifactManifest) -> dict[Place, str]:
        return {Place.HOST: ""}

    def find(self, name: str) -> Toolchain:
        """As the registry does it."""
        if name != self.name:
            raise UnknownToolchainError(f"there is no toolchain '{name}'", why=f"known are {self.name}", next="")
        return self  # type: ignore[return-value]


FOUND = replace(
    documents.decode(ArtifactManifest, artifact(b"payload"), "artifact"),
    inputs=(Port("ego", "float32", ("B", 4, 6)), Port("route", "float32", ("B", 15, 2))),
)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite(tmp_path: Path, value: float) -> None:
    session = FakeSession({"control": np.array([[0.0, value]])})
    with pytest.raises(HealthCheckFailedError, match="does not run") as caught:
        inference(FakeToolchain(session).find)(tmp_path / "m.onnx", FOUND)
    assert "'control' is not finite" in caught.value.why


def test_one_neutral_row_goes_in(tmp_path: Path) -> None:
    session = FakeSession({"control": np.zeros((1, 2))})
    said = inference(FakeToolchain(session).find)(tmp_path / "m.onnx", FOUND)
    assert said == "one call, 1 finite outputs"
    assert session.inputs["ego"].shape == (1, 4, 6)
    assert session.inputs["ego"].dtype == np.float32


@pytest.mark.parametrize("ports", [(), (Port("ego", "no such type", ("B",)),), (Port("ego", "float32", ("B", -1)),)])
def test_an_artifact_manifest_that_names_no_possible_input(ports: tuple[Port, ...]) -> None:
    with pytest.raises(HealthCheckFailedError):
        neutral_inputs(replace(FOUND, inputs=ports))


def test_a_payload_of_another_toolchain(tmp_path: Path) -> None:
    found = replace(FOUND, recipe=replace(FOUND.recipe, toolchain="other", precision=Precision.FP32))
    with pytest.raises(HealthCheckFailedError) as caught:
        inference(FakeToolchain(FakeSession({})).find)(tmp_path / "m.onnx", found)
    assert "needs iree 3, which this vehicle has not: there is no toolchain 'other'" in caught.value.why
