"""Every way in which an artifact can execute here, and which not, with the reason.

The twin runs on this host: its figures are ``proxy``. Under QEMU they are ``emulated``. Only the ``virtual`` platform
*is* this host: there, and nowhere else, they are ``measured``. ``bench`` are figures from hardware that a driver
reaches and that has said, just now, that it is the build's chip. No artifact is opened in this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.platform import HOST_UNIT, Build, PlatformProfile
from nwmctl.errors import PlanError, RemoteError
from nwmctl.toolchains.protocol import Place, Session, Toolchain, WithBench
from nwmctl.validation.subject import Pace, Unreachable, Way


@dataclass(frozen=True, slots=True)
class Artifact:
    """A payload file with its manifest."""

    payload: Path
    manifest: ArtifactManifest
    toolchain: Toolchain

    def open(self, place: Place) -> Session:
        return self.toolchain.open(self.payload, self.manifest, place)

    def places(self) -> Mapping[Place, str]:
        return self.toolchain.places(self.manifest)


def build_at(profile: PlatformProfile, variant: str, name: str) -> Build:
    """The build that a work order is about. Raises PlanError where the profile has none."""
    build = profile.build(variant, name)
    if build is None:
        raise PlanError(
            f"profile {profile.name} has no build {variant}/{name}",
            why="the plan was made from another profile",
            next="start a new run",
        )
    return build


def ways_of(build: Build, main: Artifact, twin: Artifact | None) -> tuple[tuple[Way, ...], tuple[Unreachable, ...]]:
    """Possible and impossible ways of executing an artifact, or its twin, for a build."""
    ways: list[Way] = []
    unreachable: list[Unreachable] = []
    name = main.manifest.recipe.toolchain
    if build.unit == HOST_UNIT:
        ways.append(Way(Obtained.MEASURED, f"this host through {name}", Pace.BATCH, lambda: main.open(Place.HOST)))
        return tuple(ways), ()
    if twin is not None:
        reason = twin.places()[Place.HOST]
        label = f"host twin through {name}"
        if reason:
            unreachable.append(Unreachable(label, reason, "see `nwmctl doctor` for what to install"))
        else:
            ways.append(Way(Obtained.PROXY, label, Pace.ROWS, lambda: twin.open(Place.HOST)))
    reason = main.places()[Place.EMULATED]
    if reason:
        unreachable.append(Unreachable("emulation", reason, "see `nwmctl doctor` for what can be emulated here"))
    else:
        ways.append(Way(Obtained.EMULATED, "under QEMU", Pace.CRAWL, lambda: main.open(Place.EMULATED)))
    reach = _bench(main, build.chip)
    if isinstance(reach, Way):
        ways.append(reach)
    else:
        unreachable.append(reach)
    return tuple(ways), tuple(unreachable)


def _bench(main: Artifact, chip: str) -> Way | Unreachable:
    """The way over a bench that carries ``chip``. Raises HostKeyError where another host answers in its place."""
    label, driver = f"a bench with {chip}", main.toolchain
    if not isinstance(driver, WithBench):
        next = f"run the checks on a bench that carries {chip}"
        return Unreachable(label, f"no {chip} is within reach of this machine", next)
    try:
        reach = driver.bench(main.manifest, chip)
    except RemoteError as problem:
        return Unreachable(label, f"{problem.what}: {problem.why}", problem.next, passing=True)
    if reach.reason:
        return Unreachable(label, reach.reason, reach.next)
    pace = Pace.ROWS if reach.quick else Pace.CRAWL
    return Way(
        Obtained.BENCH,
        label,
        pace,
        lambda: driver.open_bench(main.payload, main.manifest, chip),
        lambda inputs, order: driver.measure_on_bench(main.payload, main.manifest, chip, inputs, order),
    )
