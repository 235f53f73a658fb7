"""Small bundles for tests of the vehicle, put together from the formats alone; the signature is a plain word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe, RuntimeNeeds
from nwmctl.domain.bundle import BUNDLE_MANIFEST_NAME, BundleKind, BundleManifest, ChassisFile, Payload
from nwmctl.domain.chassis import Chassis, adaptation, own_limits
from nwmctl.domain.computers import Computer
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.figure import Confidence, Figure
from nwmctl.domain.platform import Role
from nwmctl.errors import VerificationError
from nwmctl.formats import cpio, documents, swu
from nwmctl.vehicle.record import VehicleRecord

SIGNATURE = b"signed"
RECORD = VehicleRecord("LTESTVIN000000001", "et5", "nt2.0", "quad", "nt2-board", "r1", "secret", 3)


class NotSigned(VerificationError):
    """The test's signature is wrong."""


def sign(description: bytes) -> bytes:
    return SIGNATURE + digest_bytes(description).hex.encode()


def verify(description: bytes, signature: bytes) -> None:
    if signature != sign(description):
        raise NotSigned("not signed", why="test", next="test")


def artifact(payload: bytes) -> bytes:
    return documents.encode(
        ArtifactManifest(
            model=digest_bytes(b"model"),
            recipe=Recipe("iree", Precision.FP16),
            payload=digest_bytes(payload),
            size=len(payload),
            format="vmfb",
            argv=("iree-compile",),
            toolchain_version="3",
            instruction_set="sm_87",
            found={"hmma": 3},
            found_precision=Precision.FP16,
            needs=RuntimeNeeds("iree", "3"),
        )
    )


def chassis_file(vehicle_model: str, ratio: float = 14.0) -> bytes:
    def figure(value: float, unit: str) -> Figure:
        return Figure(value, unit, "test", Confidence.ASSUMED)

    chassis = Chassis(
        figure(2.9, "m"), figure(ratio, ""), figure(0.5, "rad"), figure(3, "m/s2"), figure(6, "m/s2"), figure(0.1, "s")
    )
    return documents.encode(adaptation(vehicle_model, "nt2.0", chassis, own_limits(chassis)))


QUAD = tuple(
    Computer(f"{role}-{number}", role)
    for role, count in ((Role.MAIN, 2), (Role.BACKUP, 1), (Role.FLEET_LEARNING, 1))
    for number in range(1, count + 1)
)


def contents(sequence: int = 4, *, size: int = 5000, cpu: bool = False) -> tuple[BundleManifest, dict[str, bytes]]:
    """A manifest for the variants quad and solo and the vehicle models et5 and es8, and the files it lists; with
    ``cpu`` the variant quad has a payload for its backup too."""
    files: dict[str, bytes] = {}
    payloads, adaptations = [], []
    for variant in ("quad", "solo"):
        data = f"payload of {variant} {sequence} ".encode() * size
        files[f"{variant}.vmfb"], files[f"{variant}.json"] = data, artifact(data)
        payloads.append(
            Payload(
                f"{variant}.vmfb", digest_bytes(data), len(data), variant, "gpu",
                digest_bytes(files[f"{variant}.json"]), digest_bytes(b"evidence"),
            )
        )  # fmt: skip
    if cpu:
        data = f"payload of quad's backup {sequence} ".encode() * size
        files["cpu.vmfb"], files["cpu.json"] = data, artifact(data)
        payloads[0] = replace(payloads[0], roles=(Role.MAIN, Role.FLEET_LEARNING))
        payloads.append(
            replace(
                payloads[0], filename="cpu.vmfb", digest=digest_bytes(data), size=len(data), build="cpu",
                manifest=digest_bytes(files["cpu.json"]), roles=(Role.BACKUP,),
            )
        )  # fmt: skip
    for model in ("et5", "es8"):
        name, data = f"chassis-{model}.json", chassis_file(model)
        files[name] = data
        adaptations.append(ChassisFile(name, digest_bytes(data), len(data), model))
    manifest = BundleManifest(
        "nwm-2.5", BundleKind.RELEASE, sequence, "nt2.0", "nt2-board", ("r1", "r2"), digest_bytes(b"model"), "2.5",
        digest_bytes(b"policy"), tuple(payloads), tuple(adaptations), True,
    )  # fmt: skip
    return manifest, files


def describe(manifest: BundleManifest, files: dict[str, bytes]) -> swu.SwDescription:
    return swu.SwDescription(
        manifest.release, manifest.sequence, manifest.board, manifest.revisions, "/slot-a", "/slot-b",
        tuple(swu.InstalledFile(name, digest_bytes(data)) for name, data in files.items()),
    )  # fmt: skip


def write_swu(
    path: Path,
    manifest: BundleManifest,
    files: dict[str, bytes],
    *,
    description: swu.SwDescription | None = None,
    sign: Callable[[bytes], bytes] = sign,
) -> Path:
    """Write a bundle; what is given instead of the right thing is taken as it is."""
    everything = {BUNDLE_MANIFEST_NAME: documents.encode(manifest), **files}
    data = swu.render_description(description or describe(manifest, everything))
    members = {
        swu.DESCRIPTION_NAME: data,
        swu.SIGNATURE_NAME: sign(data),
        **everything,
    }
    path.write_bytes(b"".join(cpio.pack(cpio.Member(name, len(body), [body]) for name, body in members.items())))
    return path


def other(record: VehicleRecord = RECORD, **changes: object) -> VehicleRecord:
    return replace(record, **changes)  # type: ignore[arg-type]
