"""What a bundle needs of a vehicle, what vehicles say that they have, and what is missing between the two.

Asked twice with the same law: by the fleet, before a bundle is offered, of what the vehicle last reported; by the
vehicle, before a byte is written, of what it has. What was never reported counts as missing. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.digest import Digest

_VERSION = re.compile(r"[0-9][A-Za-z0-9.+_-]{0,63}\Z")
_COMPONENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_PARTS = re.compile(r"[0-9]+|[a-z]+")
_BEFORE = frozenset({"dev", "a", "alpha", "b", "beta", "c", "rc", "pre", "preview"})
_EARLIER, _END, _LATER, _NUMBER = range(4)


class RuntimeWay(StrEnum):
    """How a release sees to it that a vehicle can execute its artifacts."""

    REQUIRE = "require"
    """The vehicle has reported a runtime in the range that the bundle names."""
    CARRY = "carry"
    """The bundle holds the runtime."""


@dataclass(frozen=True, slots=True)
class VersionRange:
    """From ``least`` to ``most``, both included; an empty ``most`` is no bound. Versions are numbers with dots; words
    such as ``rc`` come before the version that they announce. A range of one version may be any word: it is compared
    as it is written."""

    least: str
    most: str = ""

    def __post_init__(self) -> None:
        if not self.least.strip() or len(self.least) > 80 or not self.least.isprintable():
            raise ValueError("a range of versions has a least one, of up to 80 characters")
        if self.least == self.most:
            return
        for text in (self.least, self.most):
            if text and not _VERSION.match(text):
                raise ValueError(f"'{text[:80]}' is not a version: it begins with a digit, e.g. 3.12.0")
        if self.most and version_key(self.most) < version_key(self.least):
            raise ValueError(f"no version lies between {self.least} and {self.most}")

    @classmethod
    def only(cls, version: str) -> VersionRange:
        """This version and no other."""
        return cls(version, version)

    def holds(self, version: str) -> bool:
        """Whether ``version`` lies in the range; what is no version does not."""
        if self.least == self.most == version:
            return True
        if not _VERSION.match(version) or not _VERSION.match(self.least):
            return False
        key = version_key(version)
        return version_key(self.least) <= key and (not self.most or key <= version_key(self.most))

    def __str__(self) -> str:
        if self.least == self.most:
            return self.least
        return f"{self.least} to {self.most}" if self.most else f"{self.least} or later"


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions: number by number, ``1.2rc1`` before ``1.2``, ``1.2`` like ``1.2.0``."""
    parts: list[tuple[int, int, str]] = []
    for part in _PARTS.findall(version.lower()):
        if part.isdigit():
            parts.append((_NUMBER, int(part), ""))
            continue
        while parts and parts[-1] == (_NUMBER, 0, ""):
            parts.pop()
        rank = -1 if part == "dev" else 0
        parts.append((_EARLIER if part in _BEFORE else _LATER, rank, part))
    while parts and parts[-1] == (_NUMBER, 0, ""):
        parts.pop()
    return (*parts, (_END, 0, ""))


def is_component(text: str) -> bool:
    """Whether this is how a component is called."""
    return bool(_COMPONENT.match(text))


@dataclass(frozen=True, slots=True)
class RuntimeRequirement:
    """The compute variants ``variants`` execute payloads with this runtime."""

    name: str
    versions: VersionRange
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Requires:
    """What a vehicle must have. ``baselines``: by name; empty means any baseline. ``chassis_interface``: the version
    of the universal control interface that the adaptations speak; 0 asks for none. ``components``: by name, what else
    the vehicle has that has a version of its own, such as the driver of its GPUs."""

    runtimes: tuple[RuntimeRequirement, ...] = ()
    baselines: dict[str, VersionRange] = field(default_factory=dict)
    chassis_interface: int = 0
    components: dict[str, VersionRange] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReleaseRequires:
    """What a person asks for in the release file. ``runtimes`` widens the range of a runtime, which is otherwise the
    one version that the artifacts were proven with; the others as in ``Requires``."""

    runtimes: dict[str, VersionRange] = field(default_factory=dict)
    baselines: dict[str, VersionRange] = field(default_factory=dict)
    components: dict[str, VersionRange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.components:
            if not is_component(name):
                raise ValueError(
                    f"'{name[:80]}' is not a component's name: lower-case letters, digits, '.', '-' and '_'"
                )


@dataclass(frozen=True, slots=True)
class RuntimeFile:
    """A runtime that a release carries: a wheel or library (``file``, relative to the release), pinned by digest.

    ``licence`` is its SPDX expression. ``platforms``: whose processors it is built for; empty means all."""

    name: str
    version: str
    file: str
    digest: Digest
    licence: str
    platforms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        VersionRange.only(self.version)
        for name in ("name", "file", "licence"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty")


@dataclass(frozen=True, slots=True)
class Reported:
    """What a vehicle says that it has."""

    runtimes: dict[str, str] = field(default_factory=dict)
    """name -> version"""
    baseline: str = ""
    baseline_version: str = ""
    chassis_interfaces: tuple[int, ...] = ()
    components: dict[str, str] = field(default_factory=dict)
    """name -> version"""


def unmet(requires: Requires, variant: str, reported: Reported) -> tuple[str, ...]:
    """What a vehicle of this compute variant lacks, in sentences; empty if nothing."""
    lacks = []
    for runtime in requires.runtimes:
        if variant in runtime.variants:
            lacks += _unmet_version(
                f"runtime {runtime.name}", runtime.versions, reported.runtimes.get(runtime.name, "")
            )
    if requires.baselines:
        versions = requires.baselines.get(reported.baseline)
        if versions is None:
            wanted = ", ".join(f"{name} {span}" for name, span in sorted(requires.baselines.items()))
            lacks.append(f"needs baseline {wanted}, has reported {reported.baseline or 'none'}")
        else:
            lacks += _unmet_version(f"baseline {reported.baseline}", versions, reported.baseline_version)
    wanted_interface = requires.chassis_interface
    if wanted_interface and wanted_interface not in reported.chassis_interfaces:
        speaks = ", ".join(str(each) for each in reported.chassis_interfaces) or "none"
        lacks.append(f"needs chassis interface {wanted_interface}, has reported {speaks}")
    for name, span in sorted(requires.components.items()):
        lacks += _unmet_version(name, span, reported.components.get(name, ""))
    return tuple(lacks)


def _unmet_version(what: str, versions: VersionRange, has: str) -> list[str]:
    return [] if versions.holds(has) else [f"needs {what} {versions}, has reported {has or 'none'}"]
