"""From a release to a graph of steps, each with its reason. Pure: the same request gives the same plan.

One artifact that several builds need is compiled once: builds with the same unit, driver and recipes share a step.
Knows steps by name and work order only; what a toolchain or a check is, it never asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from nwmctl.agent.building import Made, Making, SearchOrder, Site, make_artifacts, own_rules
from nwmctl.agent.graph import upstream
from nwmctl.agent.judging import ask_judges, envelope_inputs, validation_inputs
from nwmctl.domain.bundle import BundleKind, BundleTerms
from nwmctl.domain.digest import Digest
from nwmctl.domain.model import ModelReference
from nwmctl.domain.platform import PlatformProfile
from nwmctl.domain.policy import FleetRules, TrustedJudge
from nwmctl.domain.release import Release
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.domain.work import (
    BundleWork,
    CertifyWork,
    DeltasWork,
    FleetRulesWork,
    PublishWork,
    PullWork,
    RolloutWork,
    SignDeltasWork,
    SignWork,
    StageWork,
    StepName,
    ValidateWork,
)
from nwmctl.errors import PlanError
from nwmctl.formats.codec import to_plain

SEED = 20_260_000
"""First scenario seed; the training used others."""

FACTORY = "factory"
"""Names the bundles that virtual vehicles were delivered with: needed by their rollout, part of no release."""

_KINDS = (BundleKind.RELEASE, BundleKind.RETURN)
_MAKING = (StepName.SEARCH, StepName.COMPILE, StepName.REBUILD)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Everything a plan is made from. ``profiles`` are those of the release's platforms; ``rules`` are the policy's,
    tightened; the digests name documents in the content store."""

    release: Release
    profiles: dict[str, PlatformProfile]
    rules: FleetRules
    profile_digests: dict[str, Digest]
    catalogue_digests: dict[str, Digest]
    chassis_template: Digest
    policy: Digest
    policy_signature: Digest
    judges: tuple[TrustedJudge, ...] = ()
    """Those of the policy."""
    search: SearchOrder | None = None
    """How much to search for recipes; None takes the profiles'."""
    census: Digest | None = None
    """Which versions the fleet has, where the release asks for deltas."""
    pinned: frozenset[str] = frozenset()
    """Builds (``platform/variant/build``) whose recipes a person has pinned; nothing is searched for them."""


def build_plan(request: PlanRequest) -> tuple[PlannedStep, ...]:
    """The whole road, pull to rollout."""
    release = request.release
    # Both models first: what vehicles drive with today is also what the new model is compared with.
    pulls = {
        BundleKind.RELEASE: _pull(BundleKind.RELEASE, release.model, release.trust.model_keys),
        BundleKind.RETURN: _pull(BundleKind.RETURN, release.previous, release.trust.model_keys),
    }
    plan: list[PlannedStep] = list(pulls.values())
    for kind in _KINDS:
        plan += _build_part(request, kind, pulls[kind])
    plan += _release_part(request)
    return tuple(plan)


def restrict(
    plan: Sequence[PlannedStep], until: StepName, platforms: Iterable[str] = (), kinds: Iterable[BundleKind] = _KINDS
) -> tuple[PlannedStep, ...]:
    """The part of a plan that ends with the steps ``until``, for some platforms only (none named: all)."""
    chosen = set(platforms)
    unknown = chosen - {step.platform for step in plan}
    if unknown:
        raise _nothing(until, ", ".join(sorted(unknown)), _UNNAMED)
    others = {str(kind) for kind in (*_KINDS, FACTORY)} - {str(kind) for kind in kinds}
    # What makes artifacts is shared between platforms and names none: the checks tell who needs it.
    last = StepName.VALIDATE if chosen and until in _MAKING else until
    wanted = [
        step.id
        for step in plan
        if step.step == last
        and (not chosen or not step.platform or step.platform in chosen)
        and not others & set(step.id.split("/")[1:2])
    ]
    if last is not until:
        wanted = [step.id for step in upstream(plan, wanted) if step.step == until]
    if not wanted:
        raise _nothing(until, "this release", _ABSENT.get(until, _UNNAMED))
    return upstream(plan, wanted)


def _nothing(until: StepName, where: str, why: str) -> PlanError:
    return PlanError(
        f"there is no '{until}' step for {where}",
        why=why,
        next="see the release's 'platforms:' and `nwmctl deploy --dry-run`",
    )


_UNNAMED = "the release does not name that platform"
_ABSENT = {
    StepName.SEARCH: "the recipes of its builds are pinned",
    StepName.REBUILD: "the policy has no rule for the check 'rebuild' there",
}


def _build_part(request: PlanRequest, kind: BundleKind, pull: PlannedStep) -> list[PlannedStep]:
    release = request.release
    sites = [
        Site(request.profiles[name], variant, build)
        for name in release.platforms
        for variant in request.profiles[name].variants
        for build in variant.builds
    ]
    # What a rollback brings back was chosen when it was released.
    search = request.search if kind is BundleKind.RELEASE else None
    amounts = release.validation.amounts()
    making = Making(request.rules, request.profile_digests, amounts, SEED, search, request.pinned)
    made = make_artifacts(kind, sites, pull, making)
    checks: list[PlannedStep] = []
    for site in sites:
        checks += _validate(request, kind, site, pull, made)
    packing: list[PlannedStep] = []
    for name in release.platforms:
        own = [(site, made.compiles[site.name]) for site in sites if site.profile.name == name]
        sequence = release.sequence if kind is BundleKind.RELEASE else release.return_sequence
        work = BundleWork(release.name, sequence, kind, name, _terms(release, kind, name))
        packing += _bundle_and_sign(request, kind, work, pull, own, checks)
        if kind is BundleKind.RETURN and release.fleet.factory_sequence:
            terms = _terms(release, kind, name)
            work = BundleWork(FACTORY, release.fleet.factory_sequence, BundleKind.RELEASE, name, terms)
            packing += _bundle_and_sign(request, kind, work, pull, own, checks)
    return [*made.steps, *checks, *packing]


def _terms(release: Release, kind: BundleKind, platform: str) -> BundleTerms:
    """What the release says about one bundle. Its approvals are for the new model; the old one has its own."""
    runtimes = tuple(
        replace(each, file=PurePosixPath(each.file).name, platforms=())
        for each in release.runtimes
        if not each.platforms or platform in each.platforms
    )
    markets = release.markets if kind is BundleKind.RELEASE else ()
    return BundleTerms(release.runtime, runtimes, release.requires, markets)


def _pull(kind: BundleKind, model: ModelReference, trusted: tuple[str, ...]) -> PlannedStep:
    reason = "the release deploys this model" if kind is BundleKind.RELEASE else "a rollback brings this model back"
    work = PullWork(model.uri, trusted)
    return PlannedStep(f"pull/{kind}", StepName.PULL, to_plain(work), {"model": model.digest}, reason)


def _validate(request: PlanRequest, kind: BundleKind, site: Site, pull: PlannedStep, made: Made) -> list[PlannedStep]:
    """The step that gathers the evidence, behind those that ask others."""
    platform = site.profile.name
    own = own_rules(request.rules, platform)
    artifact: dict[str, Digest | OutputRef] = {
        **{part: OutputRef(pull.id, part) for part in ("card", "weights", "weights_data", "golden")},
        **{part: source for part, source in made.inputs(site).items() if part != "rebuilt"},
    }
    sources, where = request.release.judges, f"{kind}/{site.name}"
    asked = ask_judges(sources, request.judges, where, site.build, own, SEED, artifact)
    judges = tuple(each.judge for each in asked if each.outside)
    amounts = request.release.validation.amounts()
    rules = FleetRules({platform: own}, braking=request.rules.braking)
    work = ValidateWork(platform, site.variant.name, site.build.name, rules, amounts, SEED, judges)
    step = PlannedStep(
        f"validate/{kind}/{site.name}",
        StepName.VALIDATE,
        to_plain(work),
        {
            "profile": request.profile_digests[platform],
            "catalogue": request.catalogue_digests[platform],
            **artifact,
            **{
                f"released_{part}": OutputRef(f"pull/{BundleKind.RETURN}", part)
                for part in ("card", "weights", "weights_data")
            },
            **{part: source for part, source in made.inputs(site).items() if part == "rebuilt"},
            **validation_inputs(asked),
        },
        "an artifact is signed only with evidence that satisfies the policy",
        platform=platform,
        raises=amounts.orders(),
        repair=made.compiles[site.name],
    )
    return [*(each.step for each in asked), step]


_WHY = {
    BundleKind.RELEASE: "vehicles of this platform install it",
    BundleKind.RETURN: "the way back, built in advance",
    FACTORY: "virtual vehicles leave their factory with it",
}


def _bundle_and_sign(
    request: PlanRequest,
    kind: BundleKind,
    work: BundleWork,
    pull: PlannedStep,
    sites: list[tuple[Site, str]],
    checks: list[PlannedStep],
) -> list[PlannedStep]:
    release, platform = request.release, work.platform
    name = FACTORY if work.release == FACTORY else kind
    inputs: dict[str, Digest | OutputRef] = {
        "profile": request.profile_digests[platform],
        "catalogue": request.catalogue_digests[platform],
        "chassis_template": request.chassis_template,
        "policy": request.policy,
        "card": OutputRef(pull.id, "card"),
        **{f"runtime:{each.name}": each.digest for each in work.terms.runtimes},
    }
    answers: dict[str, Digest | OutputRef] = {}
    for site, compile_id in sites:
        place = f"{site.variant.name}/{site.build.name}"
        inputs[f"payload:{place}"] = OutputRef(compile_id, "payload")
        inputs[f"manifest:{place}"] = OutputRef(compile_id, "manifest")
        inputs[f"evidence:{place}"] = OutputRef(f"validate/{kind}/{site.name}", "evidence")
        answers |= envelope_inputs(checks, f"{kind}/{site.name}", place)
    bundle = PlannedStep(
        f"bundle/{name}/{platform}", StepName.BUNDLE, to_plain(work), inputs, _WHY[name], platform=platform
    )
    rules = FleetRulesWork(release.fleet.virtual, release.tighten.platforms, release.tighten.approvals)
    signed: dict[str, Digest | OutputRef] = {
        **inputs,
        **answers,
        "policy_signature": request.policy_signature,
        "card_signature": OutputRef(pull.id, "signature"),
        "origin": OutputRef(pull.id, "origin"),
        "bundle": OutputRef(bundle.id, "bundle"),
        "description": OutputRef(bundle.id, "description"),
    }
    sign = PlannedStep(
        f"sign/{name}/{platform}",
        StepName.SIGN,
        to_plain(SignWork(rules, release.trust.safety_keys, work, release.trust.approver_keys)),
        signed,
        "a process of its own re-checks policy and evidence before it signs",
        platform=platform,
    )
    return [bundle, sign]


def _release_part(request: PlanRequest) -> list[PlannedStep]:
    release = request.release
    deltas = _deltas(request)
    certify = _certify(release, deltas)
    inputs: dict[str, Digest | OutputRef] = {"policy": request.policy, "dossier": OutputRef(certify.id, "dossier")}
    inputs |= {name: source for name, source in certify.inputs.items() if name.startswith(("swu:", "delta_bundles"))}
    if deltas:
        inputs["census"] = deltas[0].inputs["census"]
    train = (release.name, release.sequence, release.platforms, release.mirrors)
    why = "every mirror holds every byte before anyone may ask"
    stage = PlannedStep("stage", StepName.STAGE, to_plain(StageWork(*train)), inputs, why)
    published: dict[str, Digest | OutputRef] = {part: OutputRef("stage", part) for part in ("staged", "timestamp")}
    publish = PlannedStep(
        "publish",
        StepName.PUBLISH,
        to_plain(PublishWork(*train)),
        published,
        "the timestamp goes last: the release exists for all platforms or for none",
    )
    factory: dict[str, Digest | OutputRef] = (
        {f"factory:{name}": OutputRef(f"sign/{FACTORY}/{name}", "swu") for name in release.platforms}
        if release.fleet.factory_sequence
        else {}
    )
    rollout = PlannedStep(
        "rollout",
        StepName.ROLLOUT,
        to_plain(
            RolloutWork(
                release.name, release.sequence, release.fleet, release.waves, release.max_attempts, release.poll_s
            )
        ),
        {"published": OutputRef("publish", "published"), **factory},
        "opens the campaign; its waves run on their own clock",
    )
    return [*deltas, certify, stage, publish, rollout]


def _signed(release: Release, *parts: str) -> dict[str, Digest | OutputRef]:
    """What was signed: ``PART:K/P`` for each bundle kind and platform."""
    return {
        f"{part}:{kind}/{platform}": OutputRef(f"sign/{kind}/{platform}", part)
        for kind in _KINDS
        for platform in release.platforms
        for part in parts
    }


def _deltas(request: PlanRequest) -> list[PlannedStep]:
    """Build and sign what leads from the versions that vehicles have to the release; nothing where nobody asks."""
    release, census = request.release, request.census
    if release.deltas is None or census is None:
        return []
    work = DeltasWork(release.sequence, release.platforms, release.fleet.factory_sequence, release.deltas)
    build = PlannedStep(
        StepName.DELTAS,
        StepName.DELTAS,
        to_plain(work),
        {"census": census, **_signed(release, "swu")},
        "vehicles that have an earlier version download the difference",
    )
    rules = FleetRulesWork(release.fleet.virtual, release.tighten.platforms, release.tighten.approvals)
    sign = PlannedStep(
        StepName.SIGN_DELTAS,
        StepName.SIGN_DELTAS,
        to_plain(SignDeltasWork(rules, release.trust.safety_keys, release.trust.approver_keys)),
        {"deltas": OutputRef(build.id, "deltas"), **_signed(release, "swu", "papers")},
        "the signing process has each delta make its file, and judges the evidence about that file, before it signs",
    )
    return [build, sign]


def _certify(release: Release, deltas: Sequence[PlannedStep]) -> PlannedStep:
    inputs = _signed(release, "swu", "papers")
    if deltas:
        inputs["delta_bundles"] = OutputRef(StepName.SIGN_DELTAS, "bundles")
    rules = FleetRulesWork(release.fleet.virtual, release.tighten.platforms, release.tighten.approvals)
    trust = release.trust
    work = CertifyWork(
        release.name, release.sequence, release.platforms, rules, trust.safety_keys, trust.model_keys,
        trust.approver_keys,
    )  # fmt: skip
    why = "one certificate over everything that was compiled, checked, signed and packed, re-judged from bytes"
    return PlannedStep(StepName.CERTIFY, StepName.CERTIFY, to_plain(work), inputs, why)
