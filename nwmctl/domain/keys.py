"""Which keys exist, what each may sign, and the document that lists a key folder. Holds no key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nwmctl.domain.digest import Digest


class KeyRole(StrEnum):
    """What a key signs. One key never has two roles."""

    ROOT = "root"
    """TUF root metadata: which keys the other three roles have. Belongs offline, in several hands."""
    TARGETS = "targets"
    """TUF list of bundles, and which keys list those of one platform; with a platform: that platform's list."""
    SNAPSHOT = "snapshot"
    """TUF versions of all lists."""
    TIMESTAMP = "timestamp"
    """TUF freshness: the file that makes a release exist."""
    DIRECTOR_ROOT = "director-root"
    """Uptane: which keys the director has. Belongs offline, as root."""
    DIRECTOR = "director"
    """Uptane: what each vehicle should install."""
    SAFETY = "safety"
    """Policies; approvals too, where a release names no approvers."""
    APPROVER = "approver"
    """Approvals of bundles: one key is one person."""
    RELEASE = "release"
    """Bundles: an RSA-3072 leaf certificate under an own small authority."""
    MODEL = "model"
    """Model cards."""


OFFLINE_KEYS = 3
OFFLINE_THRESHOLD = 2
"""Two of three holders: one may lose a key, or have it stolen, and nothing follows from it."""

OFFLINE = frozenset({KeyRole.ROOT, KeyRole.DIRECTOR_ROOT})


class KeyState(StrEnum):
    """What has become of a key."""

    ACTIVE = "active"
    RETIRED = "retired"
    """Rotated out: it signs until the metadata that name its successor are in force."""
    REVOKED = "revoked"
    """Lost or stolen: it signs nothing any more."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key. ``uri`` says how to reach the private part (``file:`` is relative to the key folder); it is empty for
    a key that another person holds.

    ``public`` is ``ed25519:<hex>``, ``ecdsa-p256:<hex of the compressed point>`` or, for the release key,
    ``rsa3072:<sha256 of the public key's DER>``; ``certificate`` and ``authority`` are file names of PEM certificates
    and empty for keys that have none. ``platform`` narrows a targets key to the list of one platform.
    """

    role: KeyRole
    uri: str
    public: str
    certificate: str = ""
    authority: str = ""
    platform: str = ""
    state: KeyState = KeyState.ACTIVE

    def __post_init__(self) -> None:
        if self.platform and self.role is not KeyRole.TARGETS:
            raise ValueError(f"only targets keys belong to a platform, not '{self.role}'")

    @property
    def label(self) -> str:
        """The role as people read it: ``targets``, or ``targets/<platform>``."""
        return f"{self.role}/{self.platform}" if self.platform else str(self.role)


@dataclass(frozen=True, slots=True)
class RoleThreshold:
    """How many of a role's keys must sign. Roles that are not listed need one."""

    role: KeyRole
    threshold: int
    platform: str = ""

    def __post_init__(self) -> None:
        if self.threshold < 1:
            raise ValueError(f"the threshold of '{self.role}' is {self.threshold}; it is at least 1")


@dataclass(frozen=True, slots=True)
class KeyRingDocument:
    """``keyring.json``. ``development`` marks keys that were made for trying out and protect nothing."""

    development: bool
    created_us: int
    keys: tuple[KeyEntry, ...]
    thresholds: tuple[RoleThreshold, ...] = ()

    def __post_init__(self) -> None:
        publics = [entry.public for entry in self.keys]
        for entry in self.keys:
            if publics.count(entry.public) > 1:
                roles = sorted({other.label for other in self.keys if other.public == entry.public})
                raise ValueError(f"one key stands there twice, as {' and '.join(roles)}; a key has one role")
        named = [(one.role, one.platform) for one in self.thresholds]
        if len(set(named)) != len(named):
            raise ValueError("a role has two thresholds")

    def active(self, role: KeyRole, platform: str = "") -> tuple[KeyEntry, ...]:
        """The keys that a role has now."""
        return tuple(entry for entry in self.of(role, platform) if entry.state is KeyState.ACTIVE)

    def of(self, role: KeyRole, platform: str = "") -> tuple[KeyEntry, ...]:
        """Every key that a role ever had here."""
        return tuple(entry for entry in self.keys if (entry.role, entry.platform) == (role, platform))

    def threshold(self, role: KeyRole, platform: str = "") -> int:
        """How many keys of the role must sign."""
        found = (one.threshold for one in self.thresholds if (one.role, one.platform) == (role, platform))
        return next(found, 1)

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platforms whose list has keys of its own."""
        active = (entry.platform for entry in self.keys if entry.platform and entry.state is KeyState.ACTIVE)
        return tuple(dict.fromkeys(active))


@dataclass(frozen=True, slots=True)
class RootSignature:
    """One holder's signature (hexadecimal) over the root draft whose signed part has the digest ``root``.

    ``reference`` is the one over the same root in the reference dialect, empty for a key that it does not know.
    """

    root: Digest
    key: str
    signature: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class RootSignatures:
    """What a holder of root keys gives out after signing: a signature for each key in the holder's hands."""

    signatures: tuple[RootSignature, ...]
