"""Plans of the example release for tests: built from the embedded files, without running anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from nwmctl.app.project import Project, load_project
from nwmctl.domain.digest import Digest
from nwmctl.domain.platform import Build, Catalogue, PlatformProfile
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.formats import canonical
from nwmctl.formats.codec import to_plain
from nwmctl.storage.content import ContentStore
from nwmctl.storage.resources import example_release, platforms_folder


@cache
def example() -> Project:
    """The example release, read once."""
    return load_project(example_release(), platforms_folder())


def plan_of(project: Project, folder: Path) -> tuple[PlannedStep, ...]:
    """The whole plan of a project."""
    return project.plan(ContentStore(folder / "content"))


def changed_profile(project: Project, name: str, change: Callable[[PlatformProfile], PlatformProfile]) -> Project:
    """The project with one profile changed."""
    return replace(project, profiles={**project.profiles, name: change(project.profiles[name])})


def changed_build(profile: PlatformProfile, name: str, change: Callable[[Build], Build]) -> PlatformProfile:
    """The profile with the builds of one name changed, in every variant."""
    variants = tuple(
        replace(variant, builds=tuple(change(build) if build.name == name else build for build in variant.builds))
        for variant in profile.variants
    )
    return replace(profile, variants=variants)


def without(project: Project, vehicle: str) -> Project:
    """The project with one vehicle model taken out of the catalogue."""
    left = tuple(model for model in project.catalogue.vehicles if model.code != vehicle)
    return replace(project, catalogue=Catalogue(left))


def meaning(plan: Sequence[PlannedStep]) -> dict[str, str]:
    """For each step a hash of all that decides its result, the steps before it included; names of steps play no part.

    Two steps with the same meaning have the same key, whatever they are called.
    """
    by_id = {step.id: step for step in plan}
    found: dict[str, str] = {}

    def of(name: str) -> str:
        if name not in found:
            step = by_id[name]
            inputs = {key: _source(source, of) for key, source in step.inputs.items()}
            told = {
                "step": step.step,
                "parameters": to_plain(step.parameters),
                "inputs": inputs,
                "adjustable": to_plain(step.adjustable),
            }
            found[name] = hashlib.sha256(canonical.encode(told)).hexdigest()  # type: ignore[arg-type]
        return found[name]

    return {step.id: of(step.id) for step in plan}


def _source(source: Digest | OutputRef, of: Callable[[str], str]) -> str:
    return f"{of(source.step)}:{source.output}" if isinstance(source, OutputRef) else str(source)
