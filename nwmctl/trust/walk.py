"""The walk from a bundle back to the trained weights, link by link, offline.

Bundle -> certificate -> artifacts -> evidence -> outside judges -> policy -> model -> weights -> lineage. Each link
says what was established by which key or digest, or what is missing to establish it; two things that contradict each
other are a refusal, for then nothing of the chain can be believed. A statement is the word of whoever sealed it; only
bytes that are here are established as such. Pure: bytes, keys and the time come in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BundleManifest, Payload
from nwmctl.domain.certificate import Certificate, Dossier, LeafKind, Link, LinkState, LinkTopic
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.evidence import Evidence, Verdict
from nwmctl.domain.model import ModelCard
from nwmctl.domain.policy import FleetRules, Policy, tightened
from nwmctl.errors import ChainBrokenError, LeafMissingError
from nwmctl.formats import canonical, documents
from nwmctl.formats.codec import to_plain
from nwmctl.trust.dossier import by_name, expect_leaf
from nwmctl.trust.judgements import check_outside_results
from nwmctl.trust.model_signature import verify_model_signature
from nwmctl.trust.permission import Papers, permit
from nwmctl.trust.seal import STATEMENT_TYPE, open_seal, told_by_seal
from nwmctl.trust.statements import CHECKS, PROVENANCE


@dataclass(frozen=True, slots=True)
class Anchors:
    """What is believed without proof: keys, and the time. Without keys of a role its signatures stay open.

    ``weights`` are digests of the trained model's files by their roles, of bytes that were read here.
    """

    ca_pem: bytes
    at_us: int
    safety_keys: tuple[str, ...] = ()
    model_keys: tuple[str, ...] = ()
    approver_keys: tuple[str, ...] = ()
    weights: dict[str, Digest] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Certified:
    """A dossier whose certificate and leaves were believed (``open_certificate``)."""

    dossier: Dossier
    certificate: Certificate
    leaves: dict[tuple[LeafKind, str], Digest]

    @classmethod
    def of(cls, dossier: Dossier, certificate: Certificate) -> Certified:
        """With its leaves by name."""
        return cls(dossier, certificate, by_name(dossier.leaves))

    @property
    def key(self) -> str:
        """The release key that sealed the certificate."""
        return told_by_seal(self.dossier.certificate.encode())[1]

    def digest(self, kind: LeafKind, name: str) -> Digest:
        """What was certified under this name. Raises LeafMissingError."""
        if (kind, name) not in self.leaves:
            raise LeafMissingError(
                f"the certificate says nothing about '{kind}' {name}",
                why="none of the dossier's leaves is about it",
                next="name the whole dossier that was published with this release",
            )
        return self.leaves[kind, name]

    def paper(self, kind: LeafKind, name: str) -> bytes:
        """The text that was certified under this name. Raises LeafMissingError."""
        digest = self.digest(kind, name)
        text = self.dossier.papers.get(str(digest))
        if text is None:
            raise LeafMissingError(
                f"the dossier lacks the text of '{kind}' {name}",
                why=f"no paper of it has the digest {digest.short}",
                next="name the whole dossier that was published with this release",
            )
        return text.encode()

    def papers(self, kind: LeafKind, prefix: str) -> tuple[bytes, ...]:
        """All texts of a kind under names that begin so."""
        return tuple(self.paper(each, name) for each, name in self.leaves if each is kind and name.startswith(prefix))

    @property
    def manifests(self) -> dict[str, BundleManifest]:
        """What each bundle says that it holds, by ``kind/platform``."""
        names = sorted(name for kind, name in self.leaves if kind is LeafKind.BUNDLE_MANIFEST)
        return {
            name: documents.decode(BundleManifest, self.paper(LeafKind.BUNDLE_MANIFEST, name), f"manifest of {name}")
            for name in names
        }


def walk(manifest: BundleManifest, certified: Certified, anchors: Anchors) -> Iterator[Link]:
    """Every link of one bundle behind its certificate.

    Raises ChainBrokenError, LeafMissingError, LeafUnprovenError, and what a signature or a document that does not hold
    raises.
    """
    place = f"{manifest.kind}/{manifest.platform}"
    data = certified.paper(LeafKind.BUNDLE_MANIFEST, place)
    if data != documents.encode(manifest):
        raise _broken(
            f"the certificate is about another bundle for {place}", f"{digest_bytes(data).short} was certified"
        )
    card_bytes = certified.paper(LeafKind.MODEL, str(manifest.kind))
    if digest_bytes(card_bytes) != manifest.model:
        raise _broken(f"the bundle for {place} carries another model", f"certified is {digest_bytes(card_bytes).short}")
    card = documents.decode(ModelCard, card_bytes, "model card")
    policy = documents.decode_yaml(Policy, certified.paper(LeafKind.POLICY, "policy"), "policy")
    yield from _certificate(manifest, certified)
    for payload in manifest.payloads:
        artifact = _artifact(manifest, payload, certified)
        yield from _compiled(manifest, payload, artifact, card, certified, anchors)
        yield from _checked(manifest, payload, policy, certified, anchors)
    yield from _policy(manifest, policy, certified, anchors)
    yield from _model(manifest, card, card_bytes, certified, anchors)
    yield from _fitness(manifest, certified)


def _certificate(manifest: BundleManifest, certified: Certified) -> Iterator[Link]:
    certificate = certified.certificate
    keys = f"the release key {_short(certified.key)}"
    if certificate.development:
        keys += " (development keys, which protect nothing)"
    shown = len(certified.leaves)
    whole = "all" if shown == certificate.leaves else f"{shown} of the"
    yield _known(
        LinkTopic.CERTIFICATE,
        f"release {certificate.release}, sequence {certificate.sequence}: root {certificate.root.short} over "
        f"{certificate.leaves} leaves, sealed with {keys}; {whole} leaves are here and lead to it",
    )
    leaf = certified.digest(LeafKind.BUNDLE, manifest.filename)
    yield _known(LinkTopic.CERTIFICATE, f"it names the bundle {manifest.filename}, {leaf.short}")


def _artifact(manifest: BundleManifest, payload: Payload, certified: Certified) -> ArtifactManifest:
    where = _where(manifest, payload)
    expect_leaf(certified.leaves, LeafKind.ARTIFACT, where, payload.manifest)
    expect_leaf(certified.leaves, LeafKind.PAYLOAD, where, payload.digest)
    artifact = documents.decode(ArtifactManifest, certified.paper(LeafKind.ARTIFACT, where), "artifact manifest")
    if (artifact.payload, artifact.model) != (payload.digest, manifest.model):
        raise _broken(f"the artifact manifest of {where} is about another payload or model", str(artifact.payload))
    return artifact


def _compiled(
    manifest: BundleManifest,
    payload: Payload,
    artifact: ArtifactManifest,
    card: ModelCard,
    certified: Certified,
    anchors: Anchors,
) -> Iterator[Link]:
    where = _where(manifest, payload)
    _statement(certified, LeafKind.PROVENANCE, where, PROVENANCE, (payload.digest, manifest.model), anchors)
    said = f"{where}: payload {payload.digest.short} by {artifact.toolchain_version}, {artifact.found_precision}"
    read = artifact.sources.get("weights")
    listed = card.files["weights"].digest if "weights" in card.files else None
    if read is None or listed is None:
        yield _open(LinkTopic.ARTIFACT, f"{said}; from which weights is not recorded in its manifest")
        return
    if read != listed:
        raise _broken(f"{where} was compiled from other weights", f"{read.short}, the model card lists {listed.short}")
    text = f"{said}, stated to be compiled from the weights {read.short}"
    yield _known(LinkTopic.ARTIFACT, f"{text} (its sealed provenance; `nwmctl compile --rebuild` would show it)")


def _checked(
    manifest: BundleManifest, payload: Payload, policy: Policy, certified: Certified, anchors: Anchors
) -> Iterator[Link]:
    where = _where(manifest, payload)
    expect_leaf(certified.leaves, LeafKind.EVIDENCE, where, payload.evidence)
    pack = documents.decode(Evidence, certified.paper(LeafKind.EVIDENCE, where), f"evidence about {where}")
    if (pack.artifact, pack.model, pack.platform) != (payload.manifest, manifest.model, manifest.platform):
        raise _broken(f"the evidence of {where} is about another artifact", str(pack.artifact))
    _statement(certified, LeafKind.CHECKS, where, CHECKS, (payload.digest, payload.evidence), anchors)
    counts = Counter(f"{one.verdict} as {one.obtained}" for one in pack.results if one.verdict is not Verdict.NOT_RUN)
    told = ", ".join(f"{count} {words}" for words, count in sorted(counts.items())) or "nothing ran"
    yield _known(LinkTopic.EVIDENCE, f"{where}: evidence {payload.evidence.short}: {told}")
    for result in pack.results:
        if result.verdict is Verdict.NOT_RUN:
            yield _open(LinkTopic.EVIDENCE, f"{where}: {result.check} was not run: {result.summary}")
    yield from _judges(where, pack, policy, manifest, certified)


def _judges(
    where: str, pack: Evidence, policy: Policy, manifest: BundleManifest, certified: Certified
) -> Iterator[Link]:
    place = f"{manifest.kind}/{manifest.platform}"
    envelopes = [certified.paper(LeafKind.JUDGE, f"{place}/{digest.hex}") for digest in pack.envelopes]
    check_outside_results(pack, envelopes, policy.judges, _rules(policy, certified.certificate))
    keys = {judge.name: judge.key for judge in policy.judges}
    for result in pack.results:
        if not result.judge:
            continue
        text = f"{where}: {result.check} {result.verdict}, {result.obtained}: {result.summary}"
        # An answer that never came, or was refused, is a failed result without an envelope of its own.
        if result.judge in keys and envelopes and result.verdict is Verdict.PASSED:
            yield _known(LinkTopic.JUDGE, f"'{result.judge}' ({_short(keys[result.judge])}) signed {text}")
        else:
            yield _open(LinkTopic.JUDGE, f"'{result.judge}': {text}")


def _rules(policy: Policy, certificate: Certificate) -> FleetRules:
    """The rules that the bundles were judged by."""
    tighten = certificate.tighten
    return tightened(policy.rules(virtual=certificate.virtual), tighten.platforms, tighten.approvals)


def _policy(manifest: BundleManifest, policy: Policy, certified: Certified, anchors: Anchors) -> Iterator[Link]:
    expect_leaf(certified.leaves, LeafKind.POLICY, "policy", manifest.policy)
    name = f"policy '{policy.name}' version {policy.version}, {manifest.policy.short}"
    if not anchors.safety_keys:
        yield _open(LinkTopic.POLICY, f"{name}: who signed it (no safety key given: --safety-key or --release)")
        return
    place = f"{manifest.kind}/{manifest.platform}"
    kind = "virtual" if certified.certificate.virtual else "real"
    permission = permit(
        Papers(
            policy=certified.paper(LeafKind.POLICY, "policy"),
            policy_signature=certified.paper(LeafKind.POLICY_SIGNATURE, "policy"),
            bundle=certified.paper(LeafKind.BUNDLE_MANIFEST, place),
            description=certified.paper(LeafKind.DESCRIPTION, place),
            evidence=_unique(certified.papers(LeafKind.EVIDENCE, f"{place}/")),
            artifacts=_unique(certified.papers(LeafKind.ARTIFACT, f"{place}/")),
            approvals=certified.papers(LeafKind.APPROVAL, f"{place}/"),
            envelopes=certified.papers(LeafKind.JUDGE, f"{place}/"),
        ),
        anchors.safety_keys,
        certified.certificate.tighten,
        virtual=certified.certificate.virtual,
        approver_keys=anchors.approver_keys,
    )
    yield _known(LinkTopic.POLICY, f"{name}: signed by {_short(permission.policy_key)}")
    approvals = f", {len(permission.approved_by)} approval(s)" if permission.approved_by else ""
    yield _known(
        LinkTopic.POLICY, f"{place}: judged again, its evidence satisfies the rules of {kind} fleets{approvals}"
    )


def _model(
    manifest: BundleManifest, card: ModelCard, card_bytes: bytes, certified: Certified, anchors: Anchors
) -> Iterator[Link]:
    kind = str(manifest.kind)
    name = f"{card.name} {card.version}, card {manifest.model.short}"
    if anchors.model_keys:
        signature = certified.paper(LeafKind.MODEL_SIGNATURE, kind)
        origin = verify_model_signature(card_bytes, signature, anchors.model_keys)
        if documents.encode(origin) != certified.paper(LeafKind.ORIGIN, kind):
            raise _broken(f"the {kind} model was signed by somebody else than its origin says", origin.signer)
        yield _known(LinkTopic.MODEL, f"{name}: signed by {_short(origin.signer)} ({origin.method})")
    else:
        yield _open(LinkTopic.MODEL, f"{name}: who signed it (no model key given: --model-key or --release)")
    for role, entry in sorted(card.files.items()):
        expect_leaf(certified.leaves, LeafKind.MODEL_FILE, f"{kind}/{role}", entry.digest)
        if not role.startswith("weights"):
            continue
        here = anchors.weights.get(f"{kind}/{role}")
        if here is None:
            text = f"{role} of the {kind} model, {entry.digest.short}, {entry.size} bytes: no bytes given (--model)"
            yield _open(LinkTopic.WEIGHTS, text)
        elif here == entry.digest:
            text = f"{role} of the {kind} model, {entry.digest.short}: the trained bytes are these"
            yield _known(LinkTopic.WEIGHTS, text)
        else:
            raise _broken(f"the {role} here are not those of the chain", f"{here.short}, not {entry.digest.short}")
    lineage = canonical.encode(to_plain(card.lineage))
    expect_leaf(certified.leaves, LeafKind.LINEAGE, kind, digest_bytes(lineage))
    stages = " -> ".join(stage.name for stage in card.lineage) or "no stage stated"
    yield _known(LinkTopic.LINEAGE, f"{kind} model trained as its card says: {stages}")


def _fitness(manifest: BundleManifest, certified: Certified) -> Iterator[Link]:
    yield _open(LinkTopic.FITNESS, f"status: {certified.certificate.status}; no conformity is claimed, a person judges")
    if manifest.virtual_only:
        text = "fit for a real fleet: NO. Its evidence satisfies the rules of virtual fleets only"
        yield _open(LinkTopic.FITNESS, text)


def _statement(
    certified: Certified, kind: LeafKind, where: str, predicate: str, needed: tuple[Digest, ...], anchors: Anchors
) -> None:
    """A sealed statement is of this kind and names these digests."""
    payload = open_seal(certified.paper(kind, where), STATEMENT_TYPE, anchors.ca_pem, anchors.at_us)
    statement = canonical.decode(payload, f"{kind} of {where}")
    found = statement.get("predicateType") if isinstance(statement, dict) else None
    if found != predicate:
        raise _broken(f"the statement '{kind}' of {where} is of another kind", str(found)[:100])
    named = set(_digests(statement))
    for digest in needed:
        if digest.hex not in named:
            raise _broken(
                f"the statement '{kind}' of {where} is about something else", f"it does not name {digest.short}"
            )


def _digests(plain: canonical.Plain) -> Iterator[str]:
    match plain:
        case dict():
            found = plain.get("sha256")
            if isinstance(found, str):
                yield found
            for value in plain.values():
                yield from _digests(value)
        case list():
            for value in plain:
                yield from _digests(value)
        case _:
            return


def _unique(texts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(texts))


def _where(manifest: BundleManifest, payload: Payload) -> str:
    return f"{manifest.kind}/{manifest.platform}/{payload.variant}/{payload.build}"


def _short(key: str) -> str:
    return f"{key[:20]}…"


def _known(topic: LinkTopic, text: str) -> Link:
    return Link(topic, LinkState.ESTABLISHED, text)


def _open(topic: LinkTopic, text: str) -> Link:
    return Link(topic, LinkState.OPEN, text)


def _broken(what: str, why: str) -> ChainBrokenError:
    return ChainBrokenError(
        what, why=why, next="do not install it; fetch bundle and dossier from where they were published"
    )
