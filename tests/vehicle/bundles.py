"""Small bundles for tests of the vehicle, put together from the formats alone; the signature is a plain word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe, RuntimeNeeds
from nwmctl.domain.bundle import BUNDLE_MANIFEST_NAME, BundleKind, BundleManifest, ChassisFile, Payload
from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import VerificationError
from nwmctl.formats import cpio, documents, swu
from nwmctl.vehicle.record import VehicleRecord

SIGNATURE = b"signed"
RECORD = VehicleRecord("LTESTVIN000000001", "ET5", "nt2.0", "quad", "nt2-board", "r1", "secret", 3)


class NotSigned(VerificationError):
    """The test's signature is wrong."""


def verify(description: bytes, signature: bytes) -> None:
    if signature != SIGNATURE + digest_bytes(description).hex.encode():
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


def contents(sequence: int = 4, chassis: bytes = b"{}") -> tuple[BundleManifest, dict[str, bytes]]:
    """A manifest for the variants quad and solo and the vehicle models ET5 and ES8, and the files it lists."""
    files: dict[str, bytes] = {}
    payloads, adaptations = [], []
    for variant in ("quad", "solo"):
        data = f"payload of {variant} {sequence} ".encode() * 5000
        files[f"{variant}.vmfb"], files[f"{variant}.json"] = data, artifact(data)
        payloads.append(
            Payload(
                f"{variant}.vmfb", digest_bytes(data), len(data), variant, "gpu",
                digest_bytes(files[f"{variant}.json"]), digest_bytes(b"evidence"),
            )
        )  # fmt: skip
    for model in ("ET5", "ES8"):
        name, data = f"chassis-{model}.json", chassis + b" " * (model == "ES8")
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
    signature: bytes = SIGNATURE,
) -> Path:
    """Write a bundle; what is given instead of the right thing is taken as it is."""
    everything = {BUNDLE_MANIFEST_NAME: documents.encode(manifest), **files}
    data = swu.render_description(description or describe(manifest, everything))
    members = {
        swu.DESCRIPTION_NAME: data,
        swu.SIGNATURE_NAME: signature + digest_bytes(data).hex.encode(),
        **everything,
    }
    path.write_bytes(b"".join(cpio.pack(cpio.Member(name, len(body), [body]) for name, body in members.items())))
    return path


def other(record: VehicleRecord = RECORD, **changes: object) -> VehicleRecord:
    return replace(record, **changes)  # type: ignore[arg-type]
