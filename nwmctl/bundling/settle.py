"""Completes a bundle's description once its payloads are packed: how each lies in the archive, and who gets it.

A payload goes to the hardware revisions whose compute variants execute it and to no other. A payload in parts gets
the script that joins them in the vehicle, rendered from a template whose digest stands beside the script's own. Pure:
a plan in, a plan out; the same packings give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nwmctl.bundling.bundle import BundlePlan
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.packing import Packing
from nwmctl.domain.platform import PlatformProfile
from nwmctl.errors import BundlePlanError, ScriptTemplateError
from nwmctl.formats.swu import InstalledFile, Script

JOIN_TEMPLATE_NAME = "join.sh.j2"


def settle(
    plan: BundlePlan, profile: PlatformProfile, packings: Mapping[str, Packing], join_template: str
) -> BundlePlan:
    """The plan whose description SWUpdate can follow; ``packings`` by file name, files without one stay as they are.

    Raises BundlePlanError, ScriptTemplateError.
    """
    scripts: dict[str, bytes] = {}
    files = []
    for file in plan.description.files:
        packing, join = packings.get(file.filename), None
        if packing and packing.split:
            data = _render(file, packing, join_template)
            join = Script(f"join-{file.digest.hex[:16]}.sh", digest_bytes(data), digest_bytes(join_template.encode()))
            scripts[join.filename] = data
        files.append(InstalledFile(file.filename, file.digest, packing, _revisions(plan, profile, file.filename), join))
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


def _render(file: InstalledFile, packing: Packing, template: str) -> bytes:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    values = {
        "file": file.filename,
        "sha256": file.digest.hex,
        "first": packing.parts[0].name,
        "others": [part.name for part in packing.parts[1:]],
    }
    try:
        text = environment.from_string(template).render(values)
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as problem:
        line = getattr(problem, "lineno", None)
        raise _refuse(f"{f'line {line}: ' if line else ''}{problem}") from problem
    if not text.startswith("#!") or not all(word in text for word in (file.digest.hex, *values["others"])):
        raise _refuse("it does not name the parts and the digest of the file that it has to join")
    return text.encode()


def _refuse(why: str) -> ScriptTemplateError:
    return ScriptTemplateError(
        "the template of the joining script gives no script", why=why, next=f"correct templates/{JOIN_TEMPLATE_NAME}"
    )
