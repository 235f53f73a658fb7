"""What deltas are planned by, which were built, and the bundles that bring them.

A census is taken once for a release and is an input like any other: the same census and the same bundles lead to the
same deltas. A version is a set of artifacts; a platform's vehicles report it under the sequences of the bundles that
brought it (a release, a return bundle, what a virtual vehicle left its factory with).
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.digest import Digest
from nwmctl.domain.packing import Base
from nwmctl.domain.traffic import LinkClass


@dataclass(frozen=True, slots=True)
class Counted:
    """So many vehicles of a platform run a sequence and were last heard on this kind of link."""

    platform: str
    sequence: int
    link: LinkClass
    vehicles: int


@dataclass(frozen=True, slots=True)
class BundleAtHand:
    """A published bundle whose bytes are here."""

    platform: str
    sequence: int
    bundle: Digest


@dataclass(frozen=True, slots=True)
class FleetCensus:
    """Which versions a fleet has. ``reported`` is false where the inventory was counted, since no vehicle has been
    imported yet; ``bundles`` are those that brought what is counted, as far as they are at hand."""

    fleet: str
    reported: bool
    rows: tuple[Counted, ...]
    bundles: tuple[BundleAtHand, ...]


@dataclass(frozen=True, slots=True)
class BuiltDelta:
    """The delta that brings one file of a bundle: what it starts from, its own digest and bytes, and those of the
    file."""

    filename: str
    base: Base
    digest: Digest
    size: int
    plain_size: int


@dataclass(frozen=True, slots=True)
class VersionDeltas:
    """What leads from one version of a platform, installed as one of ``sequences``, to the release."""

    platform: str
    version: str
    sequences: tuple[int, ...]
    files: tuple[BuiltDelta, ...]


@dataclass(frozen=True, slots=True)
class DeltaSet:
    """All deltas of a release."""

    deltas: tuple[VersionDeltas, ...]


@dataclass(frozen=True, slots=True)
class DeltaBundle:
    """A signed bundle with deltas: whom it serves, its file, and the papers that it was judged by."""

    serves: VersionDeltas
    filename: str
    swu: Digest
    papers: Digest
    size: int


@dataclass(frozen=True, slots=True)
class DeltaBundles:
    """All delta bundles of a release."""

    bundles: tuple[DeltaBundle, ...]
