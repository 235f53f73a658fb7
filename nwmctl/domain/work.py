"""The work orders of the steps: what each step is asked for, besides its input digests.

The plan writes them, the step reads them back, strictly; in between they are plain JSON that is hashed into the
step's key. So a field here decides a result, and a field that does not decide a result has no place here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.amounts import Amounts
from nwmctl.domain.artifact import Recipe
from nwmctl.domain.bundle import BundleKind, BundleTerms
from nwmctl.domain.judge import JudgeSource
from nwmctl.domain.policy import FleetRules, Rule, RuleTable, TrustedJudge
from nwmctl.domain.release import FleetReference, Mirror, WaveSpec
from nwmctl.domain.traffic import DeltaOrder


class StepName(StrEnum):
    """The steps, in the order of the road."""

    PULL = "pull"
    SEARCH = "search"
    COMPILE = "compile"
    REBUILD = "rebuild"
    JUDGE = "judge"
    LOG_REPLAY = "log_replay"
    VALIDATE = "validate"
    BUNDLE = "bundle"
    SIGN = "sign"
    DELTAS = "deltas"
    SIGN_DELTAS = "sign_deltas"
    CERTIFY = "certify"
    STAGE = "stage"
    PUBLISH = "publish"
    ROLLOUT = "rollout"


@dataclass(frozen=True, slots=True)
class PullWork:
    """Fetch a model package and check it. Input ``model``: the digest that it must have."""

    uri: str
    trusted_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CompileWork:
    """Compile one model for one unit of a chip. Inputs ``card``, ``weights``, ``calibration`` and, where they exist,
    ``weights_data`` and ``recipes``: a document ``Ranked``, of which the recipe at ``rank`` is taken where ``recipe``
    names none."""

    unit: str
    recipe: Recipe | None
    driver: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class SearchWork:
    """Find recipes for one build. Inputs ``card``, ``weights``, ``golden``, ``calibration``, ``profile`` and, where
    they exist, ``weights_data`` and ``unlike``: the ranked recipes of the build from whose toolchain this one keeps
    away; ``avoid`` names toolchains to keep away from where that build's recipes are known now. ``rules`` are the
    platform's. ``most_s``: seconds after which no further candidate is begun, 0 for no
    such limit."""

    effort: str
    platform: str
    variant: str
    build: str
    driver: str
    rules: dict[str, Rule]
    amounts: Amounts
    seed: int
    most_s: float = 0.0
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RebuildWork:
    """Compile once more in another folder and compare. Inputs as those of the compile step, and its outputs
    ``payload``, ``manifest`` and, where they exist, ``twin_payload``, ``twin_manifest``. The recipe is the manifest's:
    the agent may have chosen another than the first."""

    unit: str
    driver: str


@dataclass(frozen=True, slots=True)
class ValidateWork:
    """Check one artifact for one build. Inputs ``card``, ``weights``, ``golden``, ``profile``, ``catalogue``,
    ``payload``, ``manifest`` and, where they exist, ``twin_payload``, ``twin_manifest``; ``released_card`` and
    ``released_weights`` (the model that vehicles drive with today); ``envelope:J`` (the answer of the outside judge J),
    ``silence:J`` (why it gave none), ``replayed:L`` (what the drive log L showed). ``rules`` hold this platform's
    alone, ``judges`` whom of the policy's judges the release asks here. ``more_*`` say how often the agent has raised
    one of the amounts."""

    platform: str
    variant: str
    build: str
    rules: FleetRules
    amounts: Amounts
    seed: int
    judges: tuple[TrustedJudge, ...] = ()
    more_scenarios: int = 0
    more_traps: int = 0
    more_pairs: int = 0
    more_emulated: int = 0


@dataclass(frozen=True, slots=True)
class JudgeWork:
    """Ask an outside judge about one artifact. Inputs ``card``, ``weights``, ``payload``, ``manifest``.

    ``judge`` is what the policy trusts it with, narrowed down to what the release asks; ``rules`` are the platform's.
    """

    source: JudgeSource
    judge: TrustedJudge
    platform: str
    build: str
    rules: dict[str, Rule]
    seed: int


@dataclass(frozen=True, slots=True)
class LogReplayWork:
    """Replay a drive log open loop. Inputs ``card``, ``weights``, ``payload``, ``manifest`` and, where they exist,
    ``twin_payload``, ``twin_manifest``. ``here``: the artifact's chip is this machine's. Names no platform, so builds
    that share an artifact share the result."""

    source: JudgeSource
    judge: TrustedJudge
    rule: Rule | None
    here: bool


@dataclass(frozen=True, slots=True)
class FleetRulesWork:
    """Which rules of the policy hold and how the release tightens them."""

    virtual: bool
    tighten: RuleTable = field(default_factory=dict)
    approvals: int = 0


@dataclass(frozen=True, slots=True)
class BundleWork:
    """Assemble one platform's bundle. Inputs ``profile``, ``catalogue``, ``chassis_template``, ``card``, ``policy``;
    for each build ``payload:V/B``, ``manifest:V/B``, ``evidence:V/B`` (V the variant, B the build); ``runtime:N`` for
    each runtime N that the terms carry."""

    release: str
    sequence: int
    kind: BundleKind
    platform: str
    terms: BundleTerms = field(default_factory=BundleTerms)


@dataclass(frozen=True, slots=True)
class SignWork:
    """Have a bundle signed. Inputs as the bundle's, and ``bundle``, ``description``, ``policy_signature``,
    ``card_signature``, ``origin`` and ``envelope:V/B/J`` for each answer of an outside judge J."""

    rules: FleetRulesWork
    safety_keys: tuple[str, ...]
    bundle: BundleWork
    approver_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeltasWork:
    """Plan and build the deltas of a release. Inputs ``census``, and ``swu:K/P`` for each bundle kind K and platform P.
    ``factory_sequence``: the sequence under which virtual vehicles report what a return brings back; 0 where they left
    their factory empty."""

    sequence: int
    platforms: tuple[str, ...]
    factory_sequence: int
    order: DeltaOrder


@dataclass(frozen=True, slots=True)
class SignDeltasWork:
    """Have the delta bundles signed. Inputs ``deltas``, ``swu:K/P`` and ``papers:K/P`` as for ``CertifyWork``."""

    rules: FleetRulesWork
    safety_keys: tuple[str, ...]
    approver_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CertifyWork:
    """Have a whole release certified. Inputs ``swu:K/P`` and ``papers:K/P`` for each bundle kind K and platform P, and
    ``delta_bundles`` where there are any."""

    release: str
    sequence: int
    platforms: tuple[str, ...]
    rules: FleetRulesWork
    safety_keys: tuple[str, ...]
    model_keys: tuple[str, ...]
    approver_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StageWork:
    """Bring signed bundles, their dossier and versioned metadata to every mirror. Inputs ``policy``, ``dossier``,
    ``swu:K/P`` for each bundle kind K and platform P, and where there are deltas ``delta_bundles`` and ``census``."""

    release: str
    sequence: int
    platforms: tuple[str, ...]
    mirrors: tuple[Mirror, ...]


@dataclass(frozen=True, slots=True)
class PublishWork:
    """Write the timestamp, then enable the release in one transaction. Inputs ``staged``, ``timestamp``."""

    release: str
    sequence: int
    platforms: tuple[str, ...]
    mirrors: tuple[Mirror, ...]


@dataclass(frozen=True, slots=True)
class RolloutWork:
    """Open the campaign on a fleet. Input ``published``."""

    release: str
    sequence: int
    fleet: FleetReference
    waves: tuple[WaveSpec, ...]
    max_attempts: int
    poll_s: float
