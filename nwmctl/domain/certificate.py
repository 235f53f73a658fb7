"""The certificate of a release: one root over everything that was compiled, checked, signed and packed for it.

A leaf names one thing (``kind`` and ``name``) and its digest. All leaves in canonical order make a Merkle tree; the
certificate holds its root and how many leaves it has, and is what is signed. A *dossier* carries the certificate, the
leaves with what joins each of them to the root, and the papers (the texts behind the digests), so that whoever holds
one bundle can walk from it back to the trained weights. Papers are found by their digests and are believed for that
reason alone. A certificate is a statement of who found what; it claims no conformity with any regulation (``status``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from nwmctl.domain.digest import Digest
from nwmctl.domain.merkle import MAX_LEAVES, leaf_hash, proof_of, root_by_proof, root_of
from nwmctl.domain.release import Tighten
from nwmctl.domain.signing import DeltaToProve

DRAFT = "draft"
"""What every certificate says of itself: a person has to judge what it is worth."""
_SEPARATOR = "\n"


class LeafKind(StrEnum):
    """What a leaf is about. Names in brackets; K is a bundle kind, P a platform, V a variant, B a build."""

    MODEL = "model"
    """A model card [K]."""
    MODEL_SIGNATURE = "model_signature"
    """The signature beside the card [K]."""
    MODEL_FILE = "model_file"
    """A file of the model package [K/role]: the weights, and data to calibrate and compare with."""
    LINEAGE = "lineage"
    """What the model was trained on, with which seeds [K]."""
    ORIGIN = "origin"
    """Who signed the model, as it was pulled [K]."""
    POLICY = "policy"
    """The policy [policy]."""
    POLICY_SIGNATURE = "policy_signature"
    """Its signature by the safety role [policy]."""
    PROFILE = "profile"
    """A platform's profile [P]."""
    ARTIFACT = "artifact"
    """An artifact manifest [K/P/V/B]."""
    PAYLOAD = "payload"
    """An artifact's own bytes [K/P/V/B]."""
    EVIDENCE = "evidence"
    """What the checks found [K/P/V/B]."""
    JUDGE = "judge"
    """An outside judge's signed answer [K/P/digest]."""
    APPROVAL = "approval"
    """A person's signed yes to a bundle [K/P/digest]."""
    BUNDLE_MANIFEST = "bundle_manifest"
    """What a bundle says that it holds [K/P]."""
    DESCRIPTION = "description"
    """What a bundle tells the installer, and what its signature is over [K/P, of one with deltas K/P/CHANGE]."""
    BUNDLE = "bundle"
    """A whole signed bundle [file name]."""
    PROVENANCE = "provenance"
    """The signed statement of how an artifact was compiled [K/P/V/B]."""
    CHECKS = "checks"
    """The signed statement of what the checks found about an artifact [K/P/V/B]."""
    BILL = "bill"
    """The bill of materials with the model card [release]."""


@dataclass(frozen=True, slots=True, order=True)
class Leaf:
    """One thing that a certificate is about."""

    kind: LeafKind
    name: str
    digest: Digest

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 400 or not self.name.isprintable():
            raise ValueError(f"a leaf is called {self.name[:80]!r}; a name is a short, printable text")

    @property
    def data(self) -> bytes:
        """The bytes that are hashed. Names are printable, so a line break separates without doubt."""
        return _SEPARATOR.join((self.kind, self.name, str(self.digest))).encode()

    @property
    def hash(self) -> Digest:
        """The leaf's hash in the tree."""
        return leaf_hash(self.data)


@dataclass(frozen=True, slots=True)
class ProvenLeaf:
    """A leaf, its place in the tree, and what joins it to the root (the lowest hash first)."""

    leaf: Leaf
    index: int
    path: tuple[Digest, ...]

    def root(self, size: int) -> Digest | None:
        """The root that this proof leads to in a tree of ``size`` leaves; None where it cannot be one."""
        return root_by_proof(self.leaf.hash, self.index, size, self.path)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is signed, once per release. ``leaves`` counts the tree's.

    ``model`` and ``previous`` are the digests of the model cards, ``policy`` that of the policy; ``virtual`` says which
    of its rules the bundles were judged by, ``tighten`` how the release made them stricter. ``virtual_only`` says that
    the evidence of at least one bundle is enough for virtual fleets and no others; ``development``, that keys signed
    it that were made for trying out. ``unopened`` are the encrypted files (``K/P/file``) that nobody held a key for
    when it was drawn up: their packed bytes are the signed ones, and what they unpack to nobody saw.
    """

    release: str
    sequence: int
    model: Digest
    previous: Digest
    policy: Digest
    root: Digest
    leaves: int
    virtual: bool
    virtual_only: bool
    development: bool
    status: str
    tighten: Tighten = field(default_factory=Tighten)
    unopened: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.status != DRAFT:
            raise ValueError(
                f"status is '{self.status[:40]}'; nwmctl knows '{DRAFT}' alone and certifies no conformity"
            )
        if not 1 <= self.leaves <= MAX_LEAVES:
            raise ValueError(f"a certificate has 1 to {MAX_LEAVES} leaves, not {self.leaves}")


@dataclass(frozen=True, slots=True)
class Dossier:
    """The certificate in its envelope, leaves with proofs, and papers by their digests (``sha256:<hex>``)."""

    certificate: str
    leaves: tuple[ProvenLeaf, ...]
    papers: dict[str, str]


@dataclass(frozen=True, slots=True)
class BundlePapers:
    """Every text that the signing of one bundle was judged by, and that of the model behind it. ``bundle`` is
    ``bundle.json``, ``description`` the ``sw-description``, ``origin`` who signed the model as it was pulled."""

    policy: str
    policy_signature: str
    card: str
    card_signature: str
    origin: str
    profile: str
    bundle: str
    description: str
    evidence: tuple[str, ...]
    artifacts: tuple[str, ...]
    envelopes: tuple[str, ...] = ()
    approvals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BundleToCertify:
    """Paths of a signed bundle and of its ``BundlePapers``; ``deltas`` prove the files that it brings as deltas."""

    swu: str
    papers: str
    deltas: tuple[DeltaToProve, ...] = ()


@dataclass(frozen=True, slots=True)
class CertificationRequest:
    """Certify one release, if each of its bundles still deserves its signature; the answer is a ``Dossier``.

    The keys as in ``SigningRequest``; ``model_keys`` may sign models. ``platforms`` are the release's: each has one
    bundle of either kind, and may have others with deltas. ``at_us`` is the present. ``payload_key`` (hexadecimal
    digits) opens encrypted payloads.
    """

    release: str
    sequence: int
    platforms: tuple[str, ...]
    virtual: bool
    safety_keys: tuple[str, ...]
    model_keys: tuple[str, ...]
    tighten: Tighten
    bundles: tuple[BundleToCertify, ...]
    keys: str
    at_us: int
    passphrase: str | None = field(default=None, repr=False)
    approver_keys: tuple[str, ...] = ()
    payload_key: str | None = field(default=None, repr=False)


class LinkState(StrEnum):
    """How a link of the chain from the car to the trained weights stands. A broken one is a refusal."""

    ESTABLISHED = "established"
    OPEN = "open"
    """It could not be looked at: a file or a key is missing, or nobody has run it."""


class LinkTopic(StrEnum):
    """The links, from the car inwards."""

    BUNDLE = "bundle"
    CERTIFICATE = "certificate"
    ARTIFACT = "artifact"
    EVIDENCE = "evidence"
    JUDGE = "judge"
    POLICY = "policy"
    MODEL = "model"
    WEIGHTS = "weights"
    LINEAGE = "lineage"
    FITNESS = "fitness"


@dataclass(frozen=True, slots=True)
class Link:
    """One line of a verification: what it is about, how it stands, and what exactly."""

    topic: LinkTopic
    state: LinkState
    text: str


def dossier_name(release: str, sequence: int) -> str:
    """The file name of a release's dossier, beside its bundles."""
    return f"{release}-{sequence}.dossier.json"


def prove(leaves: Iterable[Leaf]) -> tuple[Digest, tuple[ProvenLeaf, ...]]:
    """Root and proofs of a set of leaves, in canonical order. Raises ValueError where two leaves share kind and name,
    or there are none."""
    ordered = sorted(leaves)
    if not ordered:
        raise ValueError("a certificate is about something")
    for first, second in pairwise(ordered):
        if (first.kind, first.name) == (second.kind, second.name):
            raise ValueError(f"there are two leaves '{first.kind}' of the name '{first.name}'")
    hashes = [leaf.hash for leaf in ordered]
    proven = tuple(ProvenLeaf(leaf, index, proof_of(hashes, index)) for index, leaf in enumerate(ordered))
    return root_of(hashes), proven
