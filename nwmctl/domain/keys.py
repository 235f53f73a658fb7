"""Which keys exist, what each may sign, and the document that lists a key folder. Holds no key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class KeyRole(StrEnum):
    """What a key signs. One key never has two roles."""

    ROOT = "root"
    """TUF root metadata: which keys the other three roles have."""
    TARGETS = "targets"
    """TUF list of bundles."""
    SNAPSHOT = "snapshot"
    """TUF versions of all lists."""
    TIMESTAMP = "timestamp"
    """TUF freshness: the file that makes a release exist."""
    SAFETY = "safety"
    """Policies and approvals."""
    RELEASE = "release"
    """Bundles: an RSA-3072 leaf certificate under an own small authority."""
    MODEL = "model"
    """Model cards."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key. ``uri`` says how to reach the private part (``file:`` is relative to the key folder).

    ``public`` is ``ed25519:<hex>`` or, for the release key, ``rsa3072:<sha256 of the public key's DER>``;
    ``certificate`` and ``authority`` are file names of PEM certificates and empty for keys that have none.
    """

    role: KeyRole
    uri: str
    public: str
    certificate: str = ""
    authority: str = ""


@dataclass(frozen=True, slots=True)
class KeyRingDocument:
    """``keyring.json``. ``development`` marks keys that were made for trying out and protect nothing."""

    development: bool
    created_us: int
    keys: tuple[KeyEntry, ...]

    def __post_init__(self) -> None:
        roles = [entry.role for entry in self.keys]
        for role in roles:
            if roles.count(role) > 1:
                raise ValueError(f"the role '{role}' has two keys")
