"""The certificate of a release, judged from bytes and drawn up.

``judge_bundle`` lays one signed bundle and its papers through everything that its signing asked, and through what ties
it to its model; ``draw_up`` puts the statements, the bill of materials and all digests of the judged bundles under one
sealed root. Pure but for the bundle's bytes, which come through a ``read`` function. Reading is done in ``dossier``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BundleKind, BundleManifest
from nwmctl.domain.certificate import (
    DRAFT,
    BundlePapers,
    Certificate,
    CertificationRequest,
    Dossier,
    Leaf,
    LeafKind,
    prove,
)
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.evidence import Evidence
from nwmctl.domain.model import ModelCard, ModelOrigin
from nwmctl.domain.platform import PlatformProfile
from nwmctl.domain.release import RETURN_OFFSET
from nwmctl.errors import CertificationRefusedError, OtherReleaseError
from nwmctl.formats import canonical, cpio, documents
from nwmctl.formats.bundle_names import bundle_filename, change_of
from nwmctl.formats.codec import to_plain
from nwmctl.formats.members import found_files, leading
from nwmctl.formats.swu import SwDescription, parse_description
from nwmctl.trust.bill import BilledArtifact, BilledModel, bill_of_materials
from nwmctl.trust.cms import verify_cms
from nwmctl.trust.model_signature import verify_model_signature
from nwmctl.trust.permission import Papers, Permission, permit
from nwmctl.trust.seal import CERTIFICATE_TYPE, STATEMENT_TYPE, Seal
from nwmctl.trust.statements import Compiled, checks, provenance


@dataclass(frozen=True, slots=True)
class Judged:
    """A bundle that deserves its signature, with its papers, read. ``evidence`` and ``artifacts`` by their digests."""

    papers: BundlePapers
    permission: Permission
    manifest: BundleManifest
    card: ModelCard
    origin: ModelOrigin
    artifacts: Mapping[Digest, ArtifactManifest]
    evidence: Mapping[Digest, Evidence]
    swu: Digest
    sealed: tuple[str, ...]
    """Encrypted files that no key was here for: what they unpack to is the signed description's word alone."""
    description: SwDescription

    @property
    def change(self) -> str:
        """What names its deltas; '' for a full bundle."""
        return change_of(self.description)


def judge_bundle(
    papers: BundlePapers, read: Callable[[int], bytes], request: CertificationRequest, ca_pem: bytes
) -> Judged:
    """Judge one bundle again; ``read(n)`` gives up to ``n`` of its bytes.

    Raises CertificationRefusedError and what ``found_files``, ``permit``, ``verify_cms``, ``verify_model_signature``
    and the readers raise.
    """
    description, swu, sealed = _read_swu(read, ca_pem, request)
    if description != papers.description.encode():
        raise _refuse("a bundle and its papers do not belong together", "they hold different sw-descriptions")
    permission = permit(
        _as_bytes(papers),
        request.safety_keys,
        request.tighten,
        virtual=request.virtual,
        approver_keys=request.approver_keys,
    )
    manifest = documents.decode(BundleManifest, papers.bundle.encode(), "bundle.json")
    _check_place(manifest, request)
    _check_profile(manifest, papers.profile.encode())
    card_bytes = papers.card.encode()
    if digest_bytes(card_bytes) != manifest.model:
        raise _refuse(f"the bundle for '{manifest.platform}' has another model's card", f"not {manifest.model}")
    origin = verify_model_signature(card_bytes, papers.card_signature.encode(), request.model_keys)
    if documents.encode(origin) != papers.origin.encode():
        raise _refuse("the model was signed by somebody else than its origin says", f"{origin.method} {origin.signer}")
    card = documents.decode(ModelCard, card_bytes, "model card")
    artifacts = {digest_bytes(text.encode()): text.encode() for text in papers.artifacts}
    evidence = {digest_bytes(text.encode()): text.encode() for text in papers.evidence}
    return Judged(
        papers, permission, manifest, card, origin,
        {digest: documents.decode(ArtifactManifest, data, "artifact") for digest, data in artifacts.items()},
        {digest: documents.decode(Evidence, data, "evidence") for digest, data in evidence.items()},
        swu, sealed, parse_description(description),
    )  # fmt: skip


def unopened(judged: Sequence[Judged]) -> tuple[str, ...]:
    """All encrypted files (``K/P/file``) that nobody opened while the bundles were judged."""
    return tuple(sorted(f"{one.manifest.kind}/{one.manifest.platform}/{name}" for one in judged for name in one.sealed))


def draw_up(
    judged: Sequence[Judged],
    request: CertificationRequest,
    seal: Seal,
    *,
    development: bool,
    unopened: tuple[str, ...] = (),
) -> Dossier:
    """The dossier of a release whose bundles are all judged. Raises CertificationRefusedError where one is missing,
    there twice, or of another model, policy or release than the others."""
    models = _check_whole(judged, request)
    leaves: dict[tuple[LeafKind, str], Leaf] = {}
    papers: dict[str, str] = {}

    def add(kind: LeafKind, name: str, digest: Digest, text: str | None = None) -> None:
        leaf = Leaf(kind, name, digest)
        if leaves.setdefault((kind, name), leaf) != leaf:
            raise _refuse(f"the bundles disagree about '{kind}' {name}", f"{leaves[kind, name].digest} and {digest}")
        if text is not None:
            papers[str(digest)] = text

    for one in judged:
        # A bundle with deltas is about the same artifacts as the full one: leaf for leaf, or ``add`` refuses.
        statements = () if one.change else _statements(one, seal)
        for kind, name, digest, text in (*_leaves(one), *statements):
            add(kind, name, digest, text)
    virtual_only = any(one.manifest.virtual_only for one in judged)
    bill = _bill(judged, models, request, virtual_only=virtual_only)
    add(LeafKind.BILL, "release", digest_bytes(bill), bill.decode())
    root, proven = prove(leaves.values())
    certificate = Certificate(
        release=request.release,
        sequence=request.sequence,
        model=models[BundleKind.RELEASE].manifest.model,
        previous=models[BundleKind.RETURN].manifest.model,
        policy=judged[0].manifest.policy,
        root=root,
        leaves=len(proven),
        virtual=request.virtual,
        virtual_only=virtual_only,
        development=development,
        status=DRAFT,
        tighten=request.tighten,
        unopened=unopened,
    )
    sealed = seal(documents.encode(certificate), CERTIFICATE_TYPE)
    return Dossier(sealed.decode(), proven, dict(sorted(papers.items())))


def _read_swu(
    read: Callable[[int], bytes], ca_pem: bytes, request: CertificationRequest
) -> tuple[bytes, Digest, tuple[str, ...]]:
    """The description of a bundle whose signature holds and whose files are all the ones that it lists, as they lie in
    the archive and unpacked; the bundle's digest; and what could not be unpacked for want of a key."""
    whole = hashlib.sha256()

    def counted(most: int) -> bytes:
        data = read(most)
        whole.update(data)
        return data

    entries = cpio.unpack(counted)
    description, signature = leading(entries)
    verify_cms(description, signature, ca_pem, request.at_us)
    key = None if request.payload_key is None else bytes.fromhex(request.payload_key)
    # Using up the files proves them: each raises behind its last byte if it is not what was signed.
    sealed = [
        found.file.filename
        for found in found_files(entries, parse_description(description), key)
        if found.sealed and not (found.file.packing and found.file.packing.base)
    ]
    return description, Digest(whole.hexdigest()), tuple(sealed)


def _as_bytes(papers: BundlePapers) -> Papers:
    return Papers(
        policy=papers.policy.encode(),
        policy_signature=papers.policy_signature.encode(),
        bundle=papers.bundle.encode(),
        description=papers.description.encode(),
        evidence=tuple(text.encode() for text in papers.evidence),
        artifacts=tuple(text.encode() for text in papers.artifacts),
        approvals=tuple(text.encode() for text in papers.approvals),
        envelopes=tuple(text.encode() for text in papers.envelopes),
    )


def _check_place(manifest: BundleManifest, request: CertificationRequest) -> None:
    offset = RETURN_OFFSET if manifest.kind is BundleKind.RETURN else 0
    found = (manifest.release, manifest.sequence)
    if found != (request.release, request.sequence + offset) or manifest.platform not in request.platforms:
        raise OtherReleaseError(
            f"a bundle belongs to release {manifest.release}, sequence {manifest.sequence}, '{manifest.platform}'",
            why=f"certified is release {request.release}, sequence {request.sequence}, {', '.join(request.platforms)}",
            next="build every bundle from this very release file",
        )


def _check_profile(manifest: BundleManifest, data: bytes) -> None:
    """The bundle has just the builds of this profile, for its board."""
    profile = documents.decode(PlatformProfile, data, "profile")
    builds = {(variant.name, build.name) for variant in profile.variants for build in variant.builds}
    packed = {(payload.variant, payload.build) for payload in manifest.payloads}
    if (profile.name, profile.board, builds) != (manifest.platform, manifest.board, packed):
        raise _refuse(
            f"the bundle for '{manifest.platform}' was not packed by this profile",
            f"the profile is '{profile.name}' for board '{profile.board}' with {len(builds)} builds",
        )


def _check_whole(judged: Sequence[Judged], request: CertificationRequest) -> dict[BundleKind, Judged]:
    """One full bundle of each kind for each platform; one model per kind and one policy. Gives one bundle per kind."""
    places = [(one.manifest.kind, one.manifest.platform) for one in judged if not one.change]
    wanted = {(kind, platform) for kind in BundleKind for platform in request.platforms}
    missing = sorted(f"{kind}/{platform}" for kind, platform in wanted - set(places))
    if missing or len(places) != len(wanted):
        why = f"missing: {', '.join(missing)}" if missing else "one bundle is there twice"
        raise _refuse(f"release {request.release} is not whole", why)
    models: dict[BundleKind, Judged] = {}
    for one in judged:
        first = models.setdefault(one.manifest.kind, one)
        if first.manifest.model != one.manifest.model:
            raise _refuse("the bundles carry different models", f"{first.manifest.model} and {one.manifest.model}")
        if judged[0].manifest.policy != one.manifest.policy:
            raise _refuse("the bundles were judged by different policies", f"see '{one.manifest.platform}'")
    return models


Entry = tuple[LeafKind, str, Digest, str | None]


def _leaves(one: Judged) -> Iterator[Entry]:
    papers, manifest, kind = one.papers, one.manifest, str(one.manifest.kind)
    place = f"{kind}/{manifest.platform}"
    lineage = canonical.encode(to_plain(one.card.lineage)).decode()
    yield _paper(LeafKind.MODEL, kind, papers.card)
    yield _paper(LeafKind.MODEL_SIGNATURE, kind, papers.card_signature)
    yield _paper(LeafKind.LINEAGE, kind, lineage)
    yield _paper(LeafKind.ORIGIN, kind, papers.origin)
    for role, entry in sorted(one.card.files.items()):
        yield LeafKind.MODEL_FILE, f"{kind}/{role}", entry.digest, None
    yield _paper(LeafKind.POLICY, "policy", papers.policy)
    yield _paper(LeafKind.POLICY_SIGNATURE, "policy", papers.policy_signature)
    yield _paper(LeafKind.PROFILE, manifest.platform, papers.profile)
    yield _paper(LeafKind.BUNDLE_MANIFEST, place, papers.bundle)
    yield _paper(LeafKind.DESCRIPTION, f"{place}/{one.change}" if one.change else place, papers.description)
    yield LeafKind.BUNDLE, bundle_filename(manifest, one.description), one.swu, None
    for leaf_kind, texts in ((LeafKind.JUDGE, papers.envelopes), (LeafKind.APPROVAL, papers.approvals)):
        for text in dict.fromkeys(texts):
            yield _paper(leaf_kind, f"{place}/{digest_bytes(text.encode()).hex}", text)
    by_digest = {digest_bytes(text.encode()): text for text in (*papers.artifacts, *papers.evidence)}
    for payload in manifest.payloads:
        where = f"{place}/{payload.variant}/{payload.build}"
        yield LeafKind.ARTIFACT, where, payload.manifest, by_digest[payload.manifest]
        yield LeafKind.PAYLOAD, where, payload.digest, None
        yield LeafKind.EVIDENCE, where, payload.evidence, by_digest[payload.evidence]


def _statements(one: Judged, seal: Seal) -> Iterator[Entry]:
    for made, evidence in _compiled(one):
        where = f"{one.manifest.kind}/{one.manifest.platform}/{made.place}"
        yield _paper(LeafKind.PROVENANCE, where, seal(provenance(made), STATEMENT_TYPE).decode())
        yield _paper(LeafKind.CHECKS, where, seal(checks(made, evidence), STATEMENT_TYPE).decode())


def _compiled(one: Judged) -> Iterator[tuple[Compiled, Evidence]]:
    for payload in one.manifest.payloads:
        made = Compiled(one.manifest, payload, one.artifacts[payload.manifest], one.card)
        yield made, one.evidence[payload.evidence]


def _bill(
    judged: Sequence[Judged], models: Mapping[BundleKind, Judged], request: CertificationRequest, *, virtual_only: bool
) -> bytes:
    billed = [
        BilledModel(kind, one.card, one.manifest.model, f"{one.origin.method} {one.origin.signer}")
        for kind, one in sorted(models.items())
    ]
    artifacts = [
        BilledArtifact(made, evidence) for one in judged if not one.change for made, evidence in _compiled(one)
    ]
    ordered = sorted(artifacts, key=lambda each: each.reference)
    return bill_of_materials(request.release, request.sequence, billed, ordered, virtual_only=virtual_only)


def _paper(kind: LeafKind, name: str, text: str) -> Entry:
    return kind, name, digest_bytes(text.encode()), text


def _refuse(what: str, why: str) -> CertificationRefusedError:
    next = "run the release again from `validate`, so that all bundles and papers are its own"
    return CertificationRefusedError(what, why=why, next=next)
