"""A bundle: the signed container for one platform, and the manifest inside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.digest import Digest
from nwmctl.domain.homologation import MarketApproval
from nwmctl.domain.platform import Role
from nwmctl.domain.requires import ReleaseRequires, Requires, RuntimeFile, RuntimeWay

BUNDLE_MANIFEST_NAME = "bundle.json"


class BundleKind(StrEnum):
    """What a bundle is for."""

    RELEASE = "release"
    RETURN = "return"
    """The previous payload under a higher sequence."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A file in the bundle. ``build`` names the build whose artifact it is; ``manifest`` is the artifact's.

    ``roles``: the computers of which roles execute it. A vehicle's computer takes what its role names.
    """

    filename: str
    digest: Digest
    size: int
    variant: str
    build: str
    manifest: Digest
    evidence: Digest
    roles: tuple[Role, ...] = (Role.MAIN,)


@dataclass(frozen=True, slots=True)
class CarriedRuntime:
    """An inference runtime that travels in the bundle: a pinned wheel or library, for the compute variants named."""

    filename: str
    digest: Digest
    size: int
    name: str
    version: str
    licence: str
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChassisFile:
    """The chassis adaptation of one vehicle model."""

    filename: str
    digest: Digest
    size: int
    vehicle_model: str


@dataclass(frozen=True, slots=True)
class BundleManifest:
    """What a bundle holds. ``virtual_only`` says that its evidence is enough for a virtual fleet and no other;
    ``requires`` what a vehicle must have before it is offered the bundle; ``markets`` where it is approved."""

    release: str
    kind: BundleKind
    sequence: int
    platform: str
    board: str
    revisions: tuple[str, ...]
    model: Digest
    model_version: str
    policy: Digest
    payloads: tuple[Payload, ...]
    chassis: tuple[ChassisFile, ...]
    virtual_only: bool
    requires: Requires = field(default_factory=Requires, hash=False)
    runtimes: tuple[CarriedRuntime, ...] = ()
    markets: tuple[MarketApproval, ...] = ()

    @property
    def filename(self) -> str:
        """The signed bundle's file name."""
        suffix = "-return" if self.kind is BundleKind.RETURN else ""
        return f"{self.release}-{self.platform}-{self.sequence}{suffix}.swu"


@dataclass(frozen=True, slots=True)
class BundleTerms:
    """What the release file says about its bundles beside the artifacts. ``runtimes`` are pinned by digest; the paths
    in them are names only."""

    runtime: RuntimeWay = RuntimeWay.REQUIRE
    runtimes: tuple[RuntimeFile, ...] = ()
    requires: ReleaseRequires = field(default_factory=ReleaseRequires)
    markets: tuple[MarketApproval, ...] = ()


@dataclass(frozen=True, slots=True)
class BundleTarget:
    """What the repository's metadata says about a bundle beside its length and hash, so that a vehicle can refuse
    one before it downloads it. ``requires`` is the manifest's; its own counts where the two differ."""

    release: str
    kind: BundleKind
    sequence: int
    platform: str
    board: str
    revisions: tuple[str, ...]
    virtual_only: bool
    requires: Requires = field(default_factory=Requires, hash=False)
    change: str = ""
    """Of a bundle with deltas: what names them. '' for the full bundle."""

    @classmethod
    def of(cls, manifest: BundleManifest, change: str = "") -> BundleTarget:
        """The statement about a bundle with this manifest."""
        return cls(
            manifest.release,
            manifest.kind,
            manifest.sequence,
            manifest.platform,
            manifest.board,
            manifest.revisions,
            manifest.virtual_only,
            manifest.requires,
            change,
        )
