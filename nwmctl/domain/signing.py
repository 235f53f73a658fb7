"""What the signing process is asked, and what it answers. Paths are the caller's files; nothing in them is believed."""

from __future__ import annotations

from dataclasses import dataclass, field

from nwmctl.domain.digest import Digest
from nwmctl.domain.release import Tighten


@dataclass(frozen=True, slots=True)
class DeltaToProve:
    """Paths of what proves the delta of a file: the base that it starts from, and the delta itself."""

    filename: str
    base: str
    delta: str


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """Sign one bundle's description, if policy and evidence allow it.

    ``policy`` and ``policy_signature`` are the policy's YAML and its DSSE envelope; ``evidence`` and ``artifacts``
    the evidence packs and artifact manifests of the bundle's payloads; ``approvals`` DSSE envelopes of approvals;
    ``envelopes`` those of outside judges that the evidence names.
    ``safety_keys`` (``ed25519:<hex>``) may sign policies and, where there are no ``approver_keys``, approvals.
    ``at_us`` is the present; ``deltas`` has one entry for each file that the description brings as a delta.
    """

    policy: str
    policy_signature: str
    safety_keys: tuple[str, ...]
    virtual: bool
    tighten: Tighten
    evidence: tuple[str, ...]
    bundle: str
    artifacts: tuple[str, ...]
    description: str
    keys: str
    at_us: int
    approvals: tuple[str, ...] = ()
    passphrase: str | None = field(default=None, repr=False)
    envelopes: tuple[str, ...] = ()
    approver_keys: tuple[str, ...] = ()
    deltas: tuple[DeltaToProve, ...] = ()


@dataclass(frozen=True, slots=True)
class SigningResult:
    """A signature (hexadecimal DER) and exactly what it was given for."""

    signature: str
    description: Digest
    bundle: Digest
    policy: Digest
    policy_key: str
    approved_by: tuple[str, ...]
    virtual_only: bool
    development: bool
    """Whether the key that signed was made for trying out."""


@dataclass(frozen=True, slots=True)
class SigningRefusal:
    """Why nothing was signed: the name of an error class and its three sentences."""

    error: str
    what: str
    why: str
    next: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's yes to one bundle, by the digest of its manifest. Signed in a DSSE envelope."""

    bundle: Digest
    note: str = ""
