"""What a bundle asks of a vehicle, and the runtimes that it brings: from the release's terms and the artifacts' needs.

Pure. An artifact was proven with one version of its runtime, so that one version is what is asked for unless the
release names a range; a range that leaves the proven version out is refused. A release that carries runtimes carries
every one that an artifact needs. Raises ValueError with the reason; who plans the bundle makes a refusal of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nwmctl.domain.artifact import RuntimeNeeds
from nwmctl.domain.bundle import BundleTerms, CarriedRuntime
from nwmctl.domain.chassis import CHASSIS_INTERFACE
from nwmctl.domain.requires import Requires, RuntimeRequirement, RuntimeWay, VersionRange

Needs = Iterable[tuple[str, RuntimeNeeds]]
"""(compute variant, what an artifact of it needs)."""


def required(terms: BundleTerms, needs: Needs) -> Requires:
    """What a vehicle must have reported. Raises ValueError."""
    runtimes: tuple[RuntimeRequirement, ...] = ()
    if terms.runtime is RuntimeWay.REQUIRE:
        runtimes = tuple(
            RuntimeRequirement(name, _range(terms, name, version), variants)
            for (name, version), variants in _by_runtime(needs).items()
        )
    wanted = terms.requires
    return Requires(runtimes, dict(wanted.baselines), CHASSIS_INTERFACE, dict(wanted.components))


def carried(terms: BundleTerms, needs: Needs, sizes: Mapping[str, int]) -> tuple[CarriedRuntime, ...]:
    """The runtimes in the bundle; ``sizes`` in bytes by name. Raises ValueError."""
    if terms.runtime is not RuntimeWay.CARRY:
        return ()
    found: dict[str, CarriedRuntime] = {}
    for (name, version), variants in _by_runtime(needs).items():
        files = [each for each in terms.runtimes if each.name == name]
        if len(files) != 1:
            raise ValueError(f"'runtime: carry' needs one file of {name} {version}, the release has {len(files)}")
        file = files[0]
        span = _range(terms, name, version)
        if not span.holds(file.version):
            raise ValueError(f"the release carries {name} {file.version}, the artifacts need {span}")
        both = tuple(sorted({*variants, *(found[name].variants if name in found else ())}))
        found[name] = CarriedRuntime(file.file, file.digest, sizes[name], file.name, file.version, file.licence, both)
    return tuple(found[name] for name in sorted(found))


def _by_runtime(needs: Needs) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], set[str]] = {}
    for variant, need in needs:
        found.setdefault((need.runtime, need.version), set()).add(variant)
    return {key: tuple(sorted(variants)) for key, variants in sorted(found.items())}


def _range(terms: BundleTerms, name: str, version: str) -> VersionRange:
    span = terms.requires.runtimes.get(name) or VersionRange.only(version)
    if not span.holds(version):
        raise ValueError(f"the release asks for {name} {span}, the artifacts were proven with {version}")
    return span
