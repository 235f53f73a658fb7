"""Completes a bundle's description once its payloads are packed: how each lies in the archive, and who gets it.

A payload goes to the hardware revisions whose compute variants execute it and to no other. A payload in parts gets
the script that joins them in the vehicle, rendered from a template whose digest stands beside the script's own. Pure:
a plan in, a plan out; the same packings give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nwmctl.bundling.bundle import BundlePlan
from nwmctl.domain.packing import Packing
from nwmctl.domain.platform import PlatformProfile
from nwmctl.errors import BundlePlanError
from nwmctl.formats.scripts import JOIN_TEMPLATE_NAME, script_of
from nwmctl.formats.swu import InstalledFile


def settle(
    plan: BundlePlan, profile: PlatformProfile, packings: Mapping[str, Packing], join_template: str
) -> BundlePlan:
    """The plan whose description SWUpdate can follow; ``packings`` by file name, files without one stay as they are.

    Raises BundlePlanError, ScriptTemplateError.
    """
    scripts: dict[str, bytes] = {}
    files = []
    slots, templates = (plan.description.slot_a, plan.description.slot_b), {JOIN_TEMPLATE_NAME: join_template}
    for file in plan.description.files:
        packing, revisions = packings.get(file.filename), _revisions(plan, profile, file.filename)
        settled = InstalledFile(file.filename, file.digest, packing, revisions)
        if joined := script_of(settled, slots, templates):
            settled = replace(settled, join=joined[0])
            scripts[joined[0].filename] = joined[1]
        files.append(settled)
    common = [file for file in files if not file.revisions]
    restricted = sorted((file for file in files if file.revisions), key=lambda file: file.filename)
    try:
        description = replace(plan.description, files=(*common, *restricted))
    except ValueError as problem:
        raise BundlePlanError(
            f"the bundle of '{profile.name}' cannot be put together",
            why=str(problem),
            next="give each payload a name of its own, and the platform's slots plain folders",
        ) from problem
    return replace(plan, description=description, documents={**plan.documents, **scripts})


def _revisions(plan: BundlePlan, profile: PlatformProfile, filename: str) -> tuple[str, ...]:
    """The revisions that execute a payload, none meaning all: then nobody needs to be kept from it."""
    variants = {payload.variant for payload in plan.manifest.payloads if payload.filename == filename}
    variants |= {variant for file in plan.manifest.runtimes if file.filename == filename for variant in file.variants}
    revisions = {variant.revision for variant in profile.variants if variant.name in variants}
    found = tuple(revision for revision in plan.manifest.revisions if revision in revisions)
    return () if found == plan.manifest.revisions else found
