"""The health check of a slot on trial: what a virtual vehicle can prove about itself, and what it cannot.

Proven: every byte of the slot against the list made at installation, and again against the bundle's manifest; the
artifact manifests belong to their payloads; the chassis file is this vehicle model's, its worked examples come out the
same here, and it adapts a command. Inference runs on the ``virtual`` platform alone, whose chip is this machine;
anywhere else it is ``not_run``, because there is no such chip here. Writes nothing and decides nothing about slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BUNDLE_MANIFEST_NAME, BundleManifest, Payload
from nwmctl.domain.chassis import ChassisAdaptation
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.figure import Obtained
from nwmctl.domain.fleet import SlotName
from nwmctl.domain.platform import Role
from nwmctl.errors import HealthCheckFailedError, NwmError
from nwmctl.formats import documents
from nwmctl.vehicle import disk
from nwmctl.vehicle.opening import own_files, own_payloads
from nwmctl.vehicle.record import VehicleRecord
from nwmctl.vehicle.slots import SlotEntry, Slots

VIRTUAL_PLATFORM = "virtual"
_STEER_RAD = 0.02
_ACCELERATION = -1.0

Infer = Callable[[Path, ArtifactManifest], str]
"""Runs one inference on a payload and says what came out; raises NwmError if that was not finite or did not run."""


@dataclass(frozen=True, slots=True)
class Health:
    """What was proven, in sentences, and how the inference's result was obtained."""

    proofs: tuple[str, ...]
    inference: Obtained


def check_health(slots: Slots, slot: SlotName, record: VehicleRecord, role: Role, infer: Infer | None) -> Health:
    """Prove the slot of a computer in ``role``. Raises HealthCheckFailedError with the first thing that is wrong."""
    try:
        return _check(slots, slot, record, role, infer)
    except HealthCheckFailedError:
        raise
    except NwmError as problem:
        raise _sick(f"{problem.what} ({problem.why})") from problem


def _check(slots: Slots, slot: SlotName, record: VehicleRecord, role: Role, infer: Infer | None) -> Health:
    present = {entry.name: entry for entry in slots.prove(slot)}
    folder = slots.folder_of(slot)
    if BUNDLE_MANIFEST_NAME not in present:
        raise _sick(f"{BUNDLE_MANIFEST_NAME} is missing")
    manifest = documents.decode(BundleManifest, disk.read_file(folder / BUNDLE_MANIFEST_NAME), BUNDLE_MANIFEST_NAME)
    sequence = slots.state().record(slot).sequence
    if manifest.sequence != sequence:
        raise _sick(f"the bundle in it has sequence {manifest.sequence}, the boot state says {sequence}")
    if (manifest.platform, manifest.board) != (record.platform, record.board):
        raise _sick(f"the bundle in it is for {manifest.platform} ({manifest.board})")
    own = own_files(manifest, record, role, present)
    proofs = [f"slot {slot}: {len(own)} files, {sum(entry.size for entry in own)} bytes as signed"]
    proofs.append(_check_chassis(folder, manifest, record))
    proofs += [
        f"runtime {each.name} {each.version}: carried, {each.size} bytes as signed, licence {each.licence}"
        for each in manifest.runtimes
        if record.variant in each.variants
    ]
    payloads = own_payloads(manifest, record, role)
    artifacts = [(payload, _artifact(folder, payload, present)) for payload in payloads]
    if record.platform != VIRTUAL_PLATFORM or infer is None:
        why = "no such chip here" if record.platform != VIRTUAL_PLATFORM else "its runtime is not installed here"
        proofs.append(f"inference: not_run, {why}")
        return Health(tuple(proofs), Obtained.NOT_RUN)
    proofs += [f"inference: measured, {infer(folder / payload.filename, found)}" for payload, found in artifacts]
    return Health(tuple(proofs), Obtained.MEASURED)


def _check_chassis(folder: Path, manifest: BundleManifest, record: VehicleRecord) -> str:
    file = next(file for file in manifest.chassis if file.vehicle_model == record.vehicle_model)
    data = disk.read_file(folder / file.filename)
    adaptation = documents.decode(ChassisAdaptation, data, file.filename)
    if (adaptation.vehicle_model, adaptation.platform) != (record.vehicle_model, record.platform):
        raise _sick(f"'{file.filename}' adapts to {adaptation.vehicle_model} on {adaptation.platform}")
    command = adaptation.command(_STEER_RAD, _ACCELERATION)
    return (
        f"chassis {record.vehicle_model}: {len(adaptation.probes)} probes right; {_STEER_RAD:g} rad at the road wheels"
        f" is {command.steering_wheel:.4g} rad at the steering wheel"
    )


def _artifact(folder: Path, payload: Payload, present: dict[str, SlotEntry]) -> ArtifactManifest:
    name = next(entry.name for entry in present.values() if entry.digest == payload.manifest)
    data = disk.read_file(folder / name)
    found = documents.decode(ArtifactManifest, data, name)
    if digest_bytes(data) != payload.manifest or (found.payload, found.size) != (payload.digest, payload.size):
        raise _sick(f"'{name}' is not the artifact manifest of '{payload.filename}'")
    return found


def _sick(why: str) -> HealthCheckFailedError:
    return HealthCheckFailedError(
        "the slot on trial did not prove itself", why=why, next="the vehicle falls back to its last good slot"
    )
