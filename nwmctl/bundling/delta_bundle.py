"""A bundle that brings some of its payloads as deltas.

It is the same bundle otherwise: the same manifest, evidence and digests, another way of bringing the bytes. In the
vehicle a script, rendered from a template, makes each file out of the delta and the file in the other slot; SWUpdate
installs the delta and runs the script, and an installation whose base is missing fails. Pure: a settled plan in, a plan
out, whose description has to be signed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nwmctl.bundling.bundle import BundlePlan
from nwmctl.domain.digest import Digest
from nwmctl.domain.packing import Base, Compression, Packing, Part
from nwmctl.errors import BundlePlanError
from nwmctl.formats.scripts import APPLY_TEMPLATE_NAME, script_of
from nwmctl.formats.swu import InstalledFile, SwDescription


@dataclass(frozen=True, slots=True)
class DeltaFile:
    """The delta that brings a payload: what it starts from, its own digest and size, and the payload's plain size."""

    base: Base
    digest: Digest
    size: int
    plain_size: int


def with_deltas(plan: BundlePlan, deltas: Mapping[str, DeltaFile], template: str) -> BundlePlan:
    """The plan in which the files named in ``deltas`` are brought by them. Raises BundlePlanError for a file that the
    bundle does not hold, ScriptTemplateError."""
    unknown = deltas.keys() - {file.filename for file in plan.description.files}
    if unknown:
        raise BundlePlanError(
            f"the bundle holds no file '{min(unknown)}'",
            why="a delta brings a payload that the bundle's manifest lists",
            next="plan the deltas again for this release",
        )
    scripts: dict[str, bytes] = {}
    files = []
    for file in plan.description.files:
        delta = deltas.get(file.filename)
        files.append(file if delta is None else _brought(plan.description, file, delta, template, scripts))
    try:
        description = replace(plan.description, files=tuple(files))
    except ValueError as problem:
        raise BundlePlanError(
            f"the bundle of '{plan.manifest.platform}' cannot be put together",
            why=str(problem),
            next="plan the deltas again for this release",
        ) from problem
    left = {name: data for name, data in plan.documents.items() if not _joined(plan, name, deltas)}
    return replace(plan, description=description, documents={**left, **scripts})


def _joined(plan: BundlePlan, name: str, deltas: Mapping[str, DeltaFile]) -> bool:
    """Whether a document is the script of a file that a delta brings now."""
    return any(file.join and file.join.filename == name and file.filename in deltas for file in plan.description.files)


def _brought(
    description: SwDescription, file: InstalledFile, delta: DeltaFile, template: str, scripts: dict[str, bytes]
) -> InstalledFile:
    part = Part(f"{file.filename}.delta", delta.digest, delta.size, delta.plain_size)
    brought = replace(file, packing=Packing(Compression.NONE, (part,), delta.base), join=None)
    made = script_of(brought, (description.slot_a, description.slot_b), {APPLY_TEMPLATE_NAME: template})
    assert made is not None, "a file with a base needs a script"
    scripts[made[0].filename] = made[1]
    return replace(brought, join=made[0])
