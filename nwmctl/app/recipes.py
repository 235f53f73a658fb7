"""Pinned recipes: the file that a search writes, a person reviews, and a release names.

Reads and writes the file and puts its recipes in the place of the profiles'; chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.domain.platform import PlatformProfile
from nwmctl.domain.release import Release
from nwmctl.domain.search import Ranked, RecipeFile
from nwmctl.errors import OutputUnwritableError, SchemaError
from nwmctl.formats import documents

HEADER = """\
# Recipes that a search found, one list per build: the winner first, then what the agent falls back on.
# Name this file in a release (`recipes: {name}`) to build by exactly these; `nwmctl search` writes it anew.
"""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Profiles with the pinned recipes in them, and the places that have some."""

    profiles: dict[str, PlatformProfile]
    places: frozenset[str]


def pin(data: bytes, name: str, release: Release, profiles: Mapping[str, PlatformProfile]) -> Pinned:
    """Put the recipes of a file into the profiles of a release. Raises SchemaError, also for a place that the profiles
    lack."""
    recipes, source = documents.decode_yaml_with_places(RecipeFile, data, name)
    pinned = dict(profiles)
    for place, ranked in recipes.builds.items():
        platform, _, rest = place.partition("/")
        if platform in release.platforms:
            found = _pinned_into(pinned[platform], rest, ranked)
            if found is not None:
                pinned[platform] = found
                continue
        elif platform:
            continue  # the file may serve releases to other platforms too
        raise SchemaError(
            f"{source.at(('builds', place))}: there is no build '{place}'",
            why=f"builds are {', '.join(_places(profiles))}",
            next="correct the name, or write the file anew with `nwmctl search`",
        )
    return Pinned(pinned, frozenset(place for place in recipes.builds if place.partition("/")[0] in release.platforms))


def _pinned_into(profile: PlatformProfile, place: str, ranked: Ranked) -> PlatformProfile | None:
    """The profile with one build's recipes replaced; None where it has no such build on that chip."""
    variant_name, _, build_name = place.partition("/")
    found = False
    variants = []
    for variant in profile.variants:
        builds = []
        for build in variant.builds:
            here = (variant.name, build.name, build.chip, build.unit)
            if here == (variant_name, build_name, ranked.chip, ranked.unit):
                build, found = replace(build, recipes=ranked.recipes), True
            builds.append(build)
        variants.append(replace(variant, builds=tuple(builds)))
    return replace(profile, variants=tuple(variants)) if found else None


def _places(profiles: Mapping[str, PlatformProfile]) -> list[str]:
    return [
        f"{profile.name}/{variant.name}/{build.name} ({build.chip}, {build.unit})"
        for profile in profiles.values()
        for variant in profile.variants
        for build in variant.builds
    ]


def write_recipes(path: Path, recipes: RecipeFile) -> None:
    """Write the file that a person reviews, whole or not at all. Raises OutputUnwritableError."""
    from nwmctl.storage.content import write_atomically

    try:
        write_atomically(path, render(recipes, path.name))
    except OSError as problem:
        raise OutputUnwritableError(
            f"the recipes cannot be written to '{path}'",
            why=problem.strerror or str(problem),
            next="name another place with --out",
        ) from problem


def render(recipes: RecipeFile, name: str) -> bytes:
    """The file's bytes: YAML with a word of explanation."""
    import yaml

    from nwmctl.formats.codec import to_plain

    plain = to_plain(recipes)
    assert isinstance(plain, dict)
    tagged = {"schema": documents.SCHEMAS[RecipeFile].tag, **plain}
    text = yaml.safe_dump(tagged, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return (HEADER.format(name=name) + text).encode()
