"""A small made-up platform: two variants, three builds of which two share an artifact, two vehicle models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nwmctl.bundling.bundle import BuiltArtifact, BundleInputs
from nwmctl.bundling.chassis import TEMPLATE_NAME, render_chassis
from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe, RuntimeNeeds
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.chassis import Chassis
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.figure import Confidence, Figure
from nwmctl.domain.platform import Budget, Build, Chip, PlatformProfile, Role, Seat, Slots, Variant, VehicleModel
from nwmctl.formats import documents

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = (ROOT / "templates" / TEMPLATE_NAME).read_text()
MODEL = digest_bytes(b"model")
POLICY = digest_bytes(b"policy")
GPU, CPU = b"gpu payload" * 100, b"cpu payload" * 77
PAYLOADS = {digest_bytes(data): data for data in (GPU, CPU)}


def figure(value: float, unit: str) -> Figure:
    return Figure(value, unit, "made up for tests", Confidence.ASSUMED)


def vehicle(code: str, ratio: float = 14.5) -> VehicleModel:
    chassis = Chassis(
        wheelbase=figure(3.06, "m"),
        steering_ratio=figure(ratio, "rad/rad"),
        max_road_wheel_angle=figure(0.61, "rad"),
        max_acceleration=figure(4.5, "m/s2"),
        max_deceleration=figure(9, "m/s2"),
        actuation_delay=figure(0.15, "s"),
    )
    return VehicleModel(code, code.upper(), "Brand", "p1", "big", "First", chassis, "made up", Confidence.ASSUMED)


VEHICLES = (vehicle("v1"), vehicle("v2", 16))


def recipe(name: str) -> Recipe:
    return Recipe("iree", Precision.FP32, {"unit": name})


def profile(folder: str = "/opt/nwm", name: str = "p1") -> PlatformProfile:
    chip = Chip("chip", "a chip", figure(200, "GB/s"), figure(32, "GB"))
    gpu = Build("gpu", "chip", "gpu", (Role.MAIN,), (recipe("gpu"),))
    cpu = Build("cpu", "chip", "cpu", (Role.BACKUP,), (recipe("cpu"),))
    seat = Seat(Role.MAIN, "chip", 1, "made up", Confidence.ASSUMED)
    spare = replace(seat, role=Role.BACKUP)
    return PlatformProfile(
        name=name,
        title="A platform",
        board=name,
        description="for tests",
        chips=(chip,),
        variants=(
            Variant("big", "r1", (seat, spare), (gpu, cpu), "made up", Confidence.ASSUMED),
            Variant("small", "r2", (spare,), (cpu,), "made up", Confidence.ASSUMED),
        ),
        budget=Budget(figure(20, "ms"), figure(500, "MB"), figure(0.5, "1")),
        slots=Slots(f"{folder}/a", f"{folder}/b"),
    )


def manifest(data: bytes, unit: str) -> ArtifactManifest:
    return ArtifactManifest(
        model=MODEL,
        recipe=recipe(unit),
        payload=digest_bytes(data),
        size=len(data),
        format="vmfb",
        argv=("compile", unit),
        toolchain_version="1",
        instruction_set=unit,
        found={"fma": 3},
        found_precision=Precision.FP32,
        needs=RuntimeNeeds("runtime", "1"),
    )


def inputs(folder: str = "/opt/nwm", sequence: int = 7, name: str = "p1") -> BundleInputs:
    evidence = digest_bytes(b"evidence")
    vehicles = [replace(one, platform=name) for one in VEHICLES]
    return BundleInputs(
        release="nwm-2.5",
        kind=BundleKind.RELEASE,
        sequence=sequence,
        profile=profile(folder, name),
        model=MODEL,
        model_version="2.5.0",
        policy=POLICY,
        artifacts=(
            BuiltArtifact("big", "gpu", manifest(GPU, "gpu"), evidence),
            BuiltArtifact("big", "cpu", manifest(CPU, "cpu"), evidence),
            BuiltArtifact("small", "cpu", manifest(CPU, "cpu"), evidence),
        ),
        chassis={one.code: render_chassis(one, TEMPLATE, None) for one in vehicles},
        virtual_only=True,
    )


def manifest_digest(one: ArtifactManifest) -> Digest:
    return digest_bytes(documents.encode(one))


def payload_folder(folder: Path) -> Path:
    """Payload files under their digests."""
    folder.mkdir(parents=True, exist_ok=True)
    for digest, data in PAYLOADS.items():
        (folder / digest.hex).write_bytes(data)
    return folder
