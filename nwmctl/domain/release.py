"""A release: one model to all platforms, at one sequence, to one fleet, in waves.

Release sequence, model version, bundle digest and campaign generation are four different things. All
anti-downgrade logic uses the sequence: the return bundle is the previous payload under ``sequence + 1``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType

from nwmctl.domain.amounts import Validation
from nwmctl.domain.homologation import MarketApproval
from nwmctl.domain.judge import JudgeSource
from nwmctl.domain.model import ModelReference
from nwmctl.domain.policy import RuleTable
from nwmctl.domain.requires import ReleaseRequires, RuntimeFile, RuntimeWay
from nwmctl.domain.traffic import ByteBudget, DeltaOrder

ReleaseSequence = NewType("ReleaseSequence", int)
MAX_SEQUENCE = 2**31 - 2
RETURN_OFFSET = 1
"""The return bundle's sequence is the release's plus this; the next release must be higher still."""


@dataclass(frozen=True, slots=True)
class Gate:
    """When the next wave may open. Shares are of the wave's vehicles (0..1); ``soak_s`` seconds of quiet first.

    ``min_committed``: share that must have committed; ``max_failed``: share of failures that pauses the campaign;
    ``abort_failed``: share that aborts it.
    """

    min_committed: float
    max_failed: float
    abort_failed: float = 1.0
    soak_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("min_committed", "max_failed", "abort_failed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}, a share lies between 0 and 1")
        if self.soak_s < 0:
            raise ValueError(f"soak_s is {self.soak_s:g}, it cannot be negative")


@dataclass(frozen=True, slots=True)
class WaveSpec:
    """One wave as the release asks for it: either ``per_model`` vehicles of each vehicle model, or a ``share`` of
    the vehicles that are left (1.0: all the rest)."""

    name: str
    gate: Gate
    per_model: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if (self.per_model is None) == (self.share is None):
            raise ValueError("a wave has either 'per_model' or 'share'")
        if self.per_model is not None and self.per_model < 1:
            raise ValueError(f"per_model is {self.per_model}, it must be at least 1")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share:g}, it lies above 0 and up to 1")


@dataclass(frozen=True, slots=True)
class FleetReference:
    """The fleet's inventory file (CSV, relative to the release) and what kind of fleet it is.

    ``factory_sequence``: a virtual vehicle of this sequence leaves its factory with the previous model installed, so
    that it has a slot to return to; 0 delivers empty slots.
    """

    name: str
    inventory: str
    virtual: bool = False
    factory_sequence: int = 0

    def __post_init__(self) -> None:
        if self.factory_sequence and not self.virtual:
            raise ValueError("factory_sequence is for virtual fleets; real vehicles have left their factory")
        if not 0 <= self.factory_sequence <= MAX_SEQUENCE:
            raise ValueError(f"factory_sequence is {self.factory_sequence}, it lies between 0 and {MAX_SEQUENCE}")


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where bundles are staged: ``file:`` path (relative to the workspace) or ``sftp://user@host:port/path``.

    ``host_key`` (``ssh-ed25519 AAAA...``) is required for SFTP; ``identity`` is the private key's path.
    """

    name: str
    uri: str
    host_key: str = ""
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """Public keys (``ed25519:<hex>``) that this release trusts: for models and for the policy.

    ``approver_keys`` are the persons whose approvals count; where none is named, the safety role's do.
    """

    model_keys: tuple[str, ...]
    safety_keys: tuple[str, ...]
    approver_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in self.approver_keys:
            if key in (*self.model_keys, *self.safety_keys):
                raise ValueError(f"the approver's key {key} has another role too; one key has one role")


@dataclass(frozen=True, slots=True)
class Tighten:
    """Stricter rules than the policy's; see ``policy.tightened``."""

    platforms: RuleTable = field(default_factory=dict)
    approvals: int = 0


@dataclass(frozen=True, slots=True)
class Release:
    """The file a person writes. Paths are relative to it."""

    name: str
    sequence: int
    model: ModelReference
    previous: ModelReference
    """The model that a rollback brings back."""
    platforms: tuple[str, ...]
    policy: str
    trust: Trust
    fleet: FleetReference
    waves: tuple[WaveSpec, ...]
    mirrors: tuple[Mirror, ...]
    tighten: Tighten = field(default_factory=Tighten)
    max_attempts: int = 3
    """Install attempts per vehicle before it counts as failed."""
    poll_s: float = 300.0
    """How often vehicles of this fleet ask, in seconds."""
    judges: tuple[JudgeSource, ...] = ()
    """Outside judges to ask, by the names under which the policy trusts them."""
    validation: Validation = field(default_factory=Validation)
    """How much is driven; what must come out of it is for the policy."""
    recipes: str = ""
    """A file of pinned recipes; they stand in place of the profiles', and nothing is searched for these builds."""
    bytes: ByteBudget | None = None
    """What the campaign's downloads may take; without it nobody is deferred for the sake of bytes."""
    deltas: DeltaOrder | None = None
    """Which deltas are built, signed and published with the bundles; without it vehicles get full bundles."""
    runtime: RuntimeWay = RuntimeWay.REQUIRE
    """Whether vehicles must have the inference runtimes, or the bundles carry them (``runtimes``)."""
    runtimes: tuple[RuntimeFile, ...] = ()
    requires: ReleaseRequires = field(default_factory=ReleaseRequires)
    """What vehicles must have beside what the artifacts need by themselves."""
    markets: tuple[MarketApproval, ...] = ()
    """Where the release is approved. A campaign with a vehicle of another market is refused."""

    def __post_init__(self) -> None:
        if not 1 <= self.sequence <= MAX_SEQUENCE:
            raise ValueError(f"sequence is {self.sequence}, it lies between 1 and {MAX_SEQUENCE}")
        if self.fleet.factory_sequence >= self.sequence:
            raise ValueError(f"factory_sequence is {self.fleet.factory_sequence}, the release must be higher")
        if not self.platforms:
            raise ValueError("a release names at least one platform")
        if not self.waves:
            raise ValueError("a release has at least one wave")
        if not self.mirrors:
            raise ValueError("a release has at least one mirror")
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}, it must be at least 1")
        if self.poll_s <= 0:
            raise ValueError(f"poll_s is {self.poll_s:g}, it must be positive")
        for what, names in [
            ("platform", list(self.platforms)),
            ("wave", [wave.name for wave in self.waves]),
            ("mirror", [mirror.name for mirror in self.mirrors]),
            ("judge", [judge.name for judge in self.judges]),
            ("approval", [f"{each.market} {each.rxswin}" for each in self.markets]),
        ]:
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"the {what} '{name}' is listed twice")
        if (self.runtime is RuntimeWay.CARRY) != bool(self.runtimes):
            raise ValueError("'runtime: carry' and 'runtimes:' belong together: one says that, the other which")

    @property
    def return_sequence(self) -> int:
        """The sequence of the return bundle."""
        return self.sequence + RETURN_OFFSET
