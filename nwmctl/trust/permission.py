"""Whether a bundle may be signed: policy, evidence, approvals and the bundle's own statements, judged from bytes.

Pure. Believes nothing that it did not derive from the bytes it was given: the policy must be signed by the safety
role and be the one that the bundle names; every payload must have the evidence that it names, about this artifact and
this model; what evidence says of outside judges must be what these signed; the evidence must satisfy the policy with
the release's tightening, and for a real fleet be a bench's wherever a driver in the vehicle compiles an artifact
further; a bundle that does not call itself virtual must satisfy the rules of a real fleet. Names every shortfall at
once, each with what would settle it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BundleManifest, Payload
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.evidence import Check, Evidence
from nwmctl.domain.policy import FleetRules, Policy, Shortfall, judge, tightened
from nwmctl.domain.release import Tighten
from nwmctl.domain.signing import Approval
from nwmctl.errors import ApprovalNeededError, SigningInputError, SigningRefusedError
from nwmctl.formats import documents
from nwmctl.formats.swu import parse_description
from nwmctl.trust.coherence import check_coherence
from nwmctl.trust.dsse import APPROVAL_TYPE, POLICY_TYPE, verify_dsse
from nwmctl.trust.judgements import check_outside_results


@dataclass(frozen=True, slots=True)
class Papers:
    """The bytes that are judged."""

    policy: bytes
    policy_signature: bytes
    bundle: bytes
    description: bytes
    evidence: tuple[bytes, ...]
    artifacts: tuple[bytes, ...]
    approvals: tuple[bytes, ...] = ()
    envelopes: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Permission:
    """What was judged and found enough."""

    bundle: Digest
    description: Digest
    policy: Digest
    policy_key: str
    approved_by: tuple[str, ...]
    virtual_only: bool


def permit(
    papers: Papers,
    safety_keys: Sequence[str],
    tighten: Tighten,
    *,
    virtual: bool,
    approver_keys: Sequence[str] = (),
) -> Permission:
    """Return if the description may be signed for a fleet that is ``virtual`` or real. Approvals are those of
    ``approver_keys``, or of the safety role where a release names no approvers.

    Raises SigningRefusedError for every lack of evidence, ApprovalNeededError where nothing but approvals is missing,
    PolicyLoosenedError, SigningInputError and BundleContentsError where papers do not belong together, and what
    ``verify_dsse`` and the readers raise.
    """
    policy, policy_key = _read_policy(papers, safety_keys)
    manifest = documents.decode(BundleManifest, papers.bundle, "bundle.json")
    if manifest.policy != digest_bytes(papers.policy):
        raise _input("the bundle names another policy", f"{manifest.policy}, the policy here has another digest")
    bundle = digest_bytes(papers.bundle)
    artifacts = {digest_bytes(data): documents.decode(ArtifactManifest, data, "artifact") for data in papers.artifacts}
    check_coherence(parse_description(papers.description), manifest, bundle, artifacts)
    evidence = _read_evidence(papers.evidence, manifest)
    rules = tightened(policy.rules(virtual=virtual), tighten.platforms, tighten.approvals)
    _check_judges(papers.envelopes, evidence, policy, rules)
    approved_by = _approvals(papers.approvals, bundle, approver_keys or safety_keys)
    jit = frozenset(digest for digest, artifact in artifacts.items() if artifact.jit_in_vehicle)
    _judge(manifest, rules, policy, evidence, jit, approved_by, virtual=virtual)
    return Permission(
        bundle, digest_bytes(papers.description), manifest.policy, policy_key, approved_by, manifest.virtual_only
    )


def _read_policy(papers: Papers, safety_keys: Sequence[str]) -> tuple[Policy, str]:
    verified = verify_dsse(papers.policy_signature, POLICY_TYPE, safety_keys)
    if verified.payload != papers.policy:
        raise _input("the policy is not the one that was signed", "the file differs from the envelope's payload")
    return documents.decode_yaml(Policy, verified.payload, "policy.yaml"), verified.key


def _read_evidence(packs: tuple[bytes, ...], manifest: BundleManifest) -> tuple[Evidence, ...]:
    """One pack per payload, in the payloads' order, each about exactly this payload."""
    known = {digest_bytes(data): documents.decode(Evidence, data, "evidence") for data in packs}
    found = []
    for payload in manifest.payloads:
        pack = known.get(payload.evidence)
        if pack is None:
            raise _input(f"the evidence of {_where(payload)} is missing", f"no pack has the digest {payload.evidence}")
        _check_pack(pack, payload, manifest)
        found.append(pack)
    for digest in known.keys() - {payload.evidence for payload in manifest.payloads}:
        raise _input("there is evidence that no payload names", f"the pack {digest} belongs to another bundle")
    return tuple(found)


def _check_pack(pack: Evidence, payload: Payload, manifest: BundleManifest) -> None:
    for what, said, needed in [
        ("artifact", str(pack.artifact), str(payload.manifest)),
        ("model", str(pack.model), str(manifest.model)),
        ("platform", pack.platform, manifest.platform),
    ]:
        if said != needed:
            raise _input(f"the evidence of {_where(payload)} is about another {what}", f"{said}, not {needed}")
    if pack.build not in (payload.build, _where(payload)):
        raise _input(f"the evidence of {_where(payload)} is about another build", pack.build)


def _check_judges(
    envelopes: tuple[bytes, ...], evidence: tuple[Evidence, ...], policy: Policy, rules: FleetRules
) -> None:
    known = {digest_bytes(data): data for data in envelopes}
    for pack in evidence:
        missing = [digest for digest in pack.envelopes if digest not in known]
        if missing:
            raise _input(f"an outside judge's answer about {pack.build} is missing", f"no envelope is {missing[0]}")
        check_outside_results(pack, [known[digest] for digest in pack.envelopes], policy.judges, rules)


def _approvals(envelopes: tuple[bytes, ...], bundle: Digest, approvers: Sequence[str]) -> tuple[str, ...]:
    keys: set[str] = set()
    for envelope in envelopes:
        verified = verify_dsse(envelope, APPROVAL_TYPE, approvers)
        approval = documents.decode(Approval, verified.payload, "approval")
        if approval.bundle == bundle:  # a release has several bundles; each counts its own approvals
            keys.update(verified.keys)
    return tuple(sorted(keys))


def _judge(
    manifest: BundleManifest,
    rules: FleetRules,
    policy: Policy,
    evidence: tuple[Evidence, ...],
    jit: frozenset[Digest],
    approved_by: tuple[str, ...],
    *,
    virtual: bool,
) -> None:
    found = _lacks(manifest.platform, rules, evidence, frozenset() if virtual else jit)
    approvals = rules.approvals
    # A bundle that hides that it is for virtual fleets only would be taken by a real one.
    if virtual and not manifest.virtual_only:
        found += _lacks(manifest.platform, policy.real, evidence, jit)
        approvals = max(approvals, policy.real.approvals)
    if not virtual and manifest.virtual_only and not found:
        reason = "the bundle says that its evidence is enough for virtual fleets only"
        found.append((reason, "put the bundle together again for this fleet"))
    if found:
        reasons = dict.fromkeys(reason for reason, _ in found)
        remedies = dict.fromkeys(settle for _, settle in found)
        kind = "virtual" if virtual else "real"
        raise SigningRefusedError(
            f"the bundle for '{manifest.platform}' is not signed: {len(reasons)} shortfall(s) for a {kind} fleet",
            why="\n        ".join(reasons),
            next="\n        ".join(remedies),
        )
    if len(approved_by) < approvals:
        bundle = digest_bytes(documents.encode(manifest))
        raise ApprovalNeededError(
            f"the bundle for '{manifest.platform}' waits for approvals: {len(approved_by)} of {approvals}",
            why=f"its evidence is enough; the policy wants {approvals} persons to approve {bundle}",
            next=f"each: `nwmctl keys approve {bundle} --keys FOLDER --out FILE`; then resume with --approval FILE",
        )


def _lacks(
    platform: str, rules: FleetRules, evidence: tuple[Evidence, ...], jit: frozenset[Digest]
) -> list[tuple[str, str]]:
    """Each reason, with what would settle it."""
    short = judge(rules, evidence, jit)
    found = [(_reason(shortfall), f"{shortfall.check}: {shortfall.settle}") for shortfall in short]
    if all(rules.rule(platform, check) is None for check in Check):
        found.append(
            (f"the policy says nothing about '{platform}'", "have the safety role write rules for this platform")
        )
    return found


def _reason(shortfall: Shortfall) -> str:
    return f"{shortfall.platform} {shortfall.build} {shortfall.check}: {shortfall.reason}"


def _where(payload: Payload) -> str:
    return f"{payload.variant}/{payload.build}"


def _input(what: str, why: str) -> SigningInputError:
    next = "run the release again from `validate`, so that all papers are its own"
    return SigningInputError(what, why=why, next=next)
