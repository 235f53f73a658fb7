"""The part of a plan that makes artifacts: search, compile, rebuild. Pure.

One artifact that several builds need is made once: builds with the same chip, unit, driver and recipes share a step.
Where a search is asked for, the compile step takes its recipes from the search, and falls back on the next ranked one;
builds whose recipes a person has pinned are not searched. A build of a rollback keeps the recipes that it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nwmctl.domain.amounts import Amounts
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check
from nwmctl.domain.platform import Build, PlatformProfile, Variant
from nwmctl.domain.policy import ANY_PLATFORM, FleetRules, Rule
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.domain.work import CompileWork, RebuildWork, SearchWork, StepName
from nwmctl.formats.codec import to_plain

_RANKS = 4
"""How many ranked recipes the agent may fall back on, the winner included."""
_PACKAGE = ("card", "weights", "weights_data", "calibration")
_ARTIFACT = ("payload", "manifest", "twin_payload", "twin_manifest")

Inputs = dict[str, Digest | OutputRef]


@dataclass(frozen=True, slots=True)
class SearchOrder:
    """What a person wants searched. ``most_s``: seconds per build after which no candidate is begun, 0 for no limit."""

    effort: str
    most_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Site:
    """A build in its place."""

    profile: PlatformProfile
    variant: Variant
    build: Build

    @property
    def name(self) -> str:
        """``platform/variant/build``."""
        return f"{self.profile.name}/{self.variant.name}/{self.build.name}"

    @property
    def driver(self) -> str:
        """The driver version that an artifact of this build is bound to."""
        return self.profile.runtime_driver if self.build.unit == "gpu" else ""


@dataclass(frozen=True, slots=True)
class Making:
    """What decides how artifacts are made. ``pinned`` are places (``Site.name``) whose recipes a person has chosen;
    ``search`` is None where nothing is searched."""

    rules: FleetRules
    profiles: Mapping[str, Digest]
    amounts: Amounts
    seed: int
    search: SearchOrder | None
    pinned: frozenset[str]


@dataclass(frozen=True, slots=True)
class Made:
    """The steps, and which of them makes a site's artifact; ``rebuilds`` where the site's policy asks for one."""

    steps: tuple[PlannedStep, ...]
    compiles: dict[str, str]
    rebuilds: dict[str, str]

    def inputs(self, site: Site) -> Inputs:
        """What a check of the site's artifact reads of these steps."""
        read: Inputs = {part: OutputRef(self.compiles[site.name], part) for part in _ARTIFACT}
        if site.name in self.rebuilds:
            read["rebuilt"] = OutputRef(self.rebuilds[site.name], "rebuilt")
        return read


def make_artifacts(kind: str, sites: Sequence[Site], pull: PlannedStep, making: Making) -> Made:
    """Steps for the artifacts of all sites. ``pull`` brings the model."""
    searches, found_by = _searches(kind, sites, pull, making)
    compiles: dict[str, PlannedStep] = {}
    compile_of: dict[str, str] = {}
    for site in sites:
        step = _compile(kind, site, pull, found_by.get(site.name), compiles)
        compiles[step.id] = step
        compile_of[site.name] = step.id
    rebuilt = [site for site in sites if Check.REBUILD in own_rules(making.rules, site.profile.name)]
    rebuilds = {compile_of[site.name]: _rebuild(site, compiles[compile_of[site.name]]) for site in rebuilt}
    return Made(
        (
            *(_for_users(step, found_by) for step in searches),
            *(_for_users(step, compile_of) for step in compiles.values()),
            *rebuilds.values(),
        ),
        compile_of,
        {site.name: rebuilds[compile_of[site.name]].id for site in rebuilt},
    )


def own_rules(rules: FleetRules, platform: str) -> dict[str, Rule]:
    """Only this platform's rules: another platform's must not make its steps run again."""
    return {**rules.platforms.get(ANY_PLATFORM, {}), **rules.platforms.get(platform, {})}


def _searches(
    kind: str, sites: Sequence[Site], pull: PlannedStep, making: Making
) -> tuple[list[PlannedStep], dict[str, str]]:
    """One search for all sites that may share its result, and which search each site is built by."""
    steps: dict[str, PlannedStep] = {}
    found_by: dict[str, str] = {}
    alike: dict[str, str] = {}
    wanted = [site for site in sites if site.name not in making.pinned] if making.search else []
    for site in sorted(wanted, key=lambda site: bool(site.build.unlike)):  # what others differ from comes first
        work, inputs = _search(site, pull, making, found_by)
        nameless = replace(work, platform="", variant="", build="")
        essentials = repr((site.profile.chip(site.build.chip), site.build.unit, nameless, inputs))
        if essentials not in alike:
            name = _free(f"search/{kind}/{site.build.chip}.{site.build.unit}", steps)
            inputs["profile"] = making.profiles[site.profile.name]
            steps[name] = PlannedStep(name, StepName.SEARCH, to_plain(work), inputs, "finds the best recipe for")
            alike[essentials] = name
        found_by[site.name] = alike[essentials]
    return list(steps.values()), found_by


def _search(site: Site, pull: PlannedStep, making: Making, found_by: Mapping[str, str]) -> tuple[SearchWork, Inputs]:
    """The work order for one site, and the inputs that it would share with others."""
    assert making.search is not None
    build = site.build
    inputs: Inputs = {part: OutputRef(pull.id, part) for part in (*_PACKAGE, "golden")}
    avoid: tuple[str, ...] = ()
    if build.unlike:
        other = next(each for each in site.variant.builds if each.name == build.unlike)
        place = f"{site.profile.name}/{site.variant.name}/{other.name}"
        if place in found_by:
            inputs["unlike"] = OutputRef(found_by[place], "recipes")
        else:
            avoid = (other.recipes[0].toolchain,)
    work = SearchWork(
        making.search.effort, site.profile.name, site.variant.name, build.name, site.driver,
        own_rules(making.rules, site.profile.name), making.amounts, making.seed, making.search.most_s, avoid,
    )  # fmt: skip
    return work, inputs


def _compile(
    kind: str, site: Site, pull: PlannedStep, search: str | None, known: Mapping[str, PlannedStep]
) -> PlannedStep:
    build = site.build
    inputs: Inputs = {part: OutputRef(pull.id, part) for part in _PACKAGE}
    if search is None:
        work = CompileWork(build.unit, build.recipes[0], site.driver)
        alternatives: dict[str, tuple[object, ...]] = {"recipe": tuple(to_plain(each) for each in build.recipes)}
    else:
        work = CompileWork(build.unit, None, site.driver)
        inputs["recipes"] = OutputRef(search, "recipes")
        alternatives = {"rank": tuple(range(_RANKS))}
    step = PlannedStep("", StepName.COMPILE, to_plain(work), inputs, "artifact for", adjustable=alternatives)
    base = f"compile/{kind}/{build.chip}.{build.unit}"
    for name, other in known.items():
        if replace(other, id="") == step and name.startswith(base):
            return other
    return replace(step, id=_free(base, known))


def _rebuild(site: Site, compile_step: PlannedStep) -> PlannedStep:
    inputs: Inputs = {
        **{name: source for name, source in compile_step.inputs.items() if name != "recipes"},
        **{part: OutputRef(compile_step.id, part) for part in _ARTIFACT},
    }
    return PlannedStep(
        compile_step.id.replace("compile/", "rebuild/", 1),
        StepName.REBUILD,
        to_plain(RebuildWork(site.build.unit, site.driver)),
        inputs,
        "the same inputs must give the same bytes in another folder",
    )


def _for_users(step: PlannedStep, used: Mapping[str, str]) -> PlannedStep:
    users = ", ".join(site for site, name in used.items() if name == step.id)
    return replace(step, reason=f"{step.reason} {users}")


def _free(base: str, taken: Mapping[str, PlannedStep]) -> str:
    return next(name for name in (base, *(f"{base}-{number}" for number in range(2, 1000))) if name not in taken)
