"""The policy: which evidence, margins and approvals a fleet demands. Signed by the safety role.

``judge`` is the only place that decides whether evidence is enough. The signing process calls it again on bytes it
read itself. A release may tighten the policy and never loosen it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Figure, Obtained
from nwmctl.errors import PolicyLoosenedError

ANY_PLATFORM = "*"
BRAKING = "braking_limit"
"""The figure (m/s2) that says how hard a drive let the network brake."""
_DRIVEN = (Check.CLOSED_LOOP, Check.TRAP_SUITE)
FINISHED_IN_VEHICLE = (Check.PARITY, Check.LATENCY)
"""What a bench must show of an artifact that a driver in the vehicle compiles further, whatever a policy accepts."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one check must show. ``margins`` are upper limits by name; smaller is stricter.

    ``required: false`` lets the check be ``not_run`` (it is then listed as open); a failed or inconclusive result
    never passes. ``judges`` are outside judges each of whom must have passed it, whatever others say. ``emulated``
    stand in for margins of the same name where a figure was obtained under emulation: the few scenarios that can be
    driven there say less, and the safety role says how much less is enough.
    """

    weakest: Obtained
    required: bool = True
    margins: dict[str, float] = field(default_factory=dict)
    judges: tuple[str, ...] = ()
    emulated: dict[str, float] = field(default_factory=dict)

    def limits(self, obtained: Obtained) -> dict[str, float]:
        """The margins that hold for figures obtained in one way."""
        return {**self.margins, **self.emulated} if obtained is Obtained.EMULATED else self.margins

    def __post_init__(self) -> None:
        if self.required and self.weakest is Obtained.NOT_RUN:
            raise ValueError("a required check cannot accept 'not_run'")


RuleTable = dict[str, dict[str, Rule]]
"""Platform name (or ``*``) -> check name -> rule. A platform's own rule replaces the one of ``*``."""


@dataclass(frozen=True, slots=True)
class FleetRules:
    """The rules for one kind of fleet. ``approvals``: how many persons must approve before signing; ``braking``: the
    hardest braking (m/s2, positive) that a network may command, in drives of the simulator and in vehicles alike."""

    platforms: RuleTable
    approvals: int = 0
    braking: Figure | None = None

    def __post_init__(self) -> None:
        limit = self.braking
        if limit is not None and (limit.unit != "m/s2" or limit.value is None or not 0 < limit.value <= 15):
            raise ValueError(f"braking is {limit.value} {limit.unit}, it must be known, above 0 and up to 15 m/s2")
        for table in self.platforms.values():
            for name in table:
                if name not in set(Check):
                    raise ValueError(f"'{name}' is not a check; known are {', '.join(Check)}")

    def rule(self, platform: str, check: Check) -> Rule | None:
        """The rule that holds for a check on a platform."""
        own = self.platforms.get(platform, {}).get(check)
        return own or self.platforms.get(ANY_PLATFORM, {}).get(check)


@dataclass(frozen=True, slots=True)
class TrustedJudge:
    """Somebody else whose signed evidence counts: who, with which key, for which checks, and at most as what.

    ``key`` is ``ed25519:<hex>``. A judge's word about how a figure was obtained is believed up to ``strongest``.
    """

    name: str
    key: str
    checks: tuple[Check, ...]
    strongest: Obtained

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a judge needs a name: the empty one is nwmctl itself")
        if not self.checks:
            raise ValueError(f"judge '{self.name}' is trusted for no check; name at least one under 'checks'")
        if self.strongest is Obtained.NOT_RUN:
            raise ValueError(f"judge '{self.name}' cannot be trusted with 'not_run'; remove it instead")


@dataclass(frozen=True, slots=True)
class Policy:
    """The signed document. ``virtual`` holds for fleets marked ``virtual: true``, ``real`` for all others.

    ``judges`` are the outside judges that the safety role trusts; a release can only choose among them.
    """

    name: str
    version: int
    virtual: FleetRules
    real: FleetRules
    judges: tuple[TrustedJudge, ...] = ()

    def __post_init__(self) -> None:
        names = [judge.name for judge in self.judges]
        if len(set(names)) != len(names):
            raise ValueError("two judges have the same name")
        for rules in (self.virtual, self.real):
            for table in rules.platforms.values():
                for check, rule in table.items():
                    for name in set(rule.judges):
                        if name not in names:
                            raise ValueError(f"a rule for {check} asks for '{name}', who is not among the 'judges'")

    @property
    def braking(self) -> Figure | None:
        """The hardest braking of a bundle's chassis adaptations: the least that any of the rules allows, since a bundle
        does not know which fleet it will go to. None: the policy names none."""
        named = [rules.braking for rules in (self.virtual, self.real) if rules.braking is not None]
        return min(named, key=lambda figure: figure.value or 0.0) if named else None

    def rules(self, *, virtual: bool) -> FleetRules:
        """The rules of one kind of fleet."""
        return self.virtual if virtual else self.real


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One reason why evidence is not enough, and what would settle it."""

    platform: str
    build: str
    check: Check
    reason: str
    settle: str


def tightened(rules: FleetRules, tighter: RuleTable, approvals: int) -> FleetRules:
    """The policy's rules with a release's own, stricter ones laid over. Raises PolicyLoosenedError."""
    if approvals < 0:
        raise _loosened("approvals", f"a negative number of approvals ({approvals})")
    table: RuleTable = {platform: dict(checks) for platform, checks in rules.platforms.items()}
    for platform, checks in tighter.items():
        for name, new in checks.items():
            # "*" tightens every platform: a platform's own rule would otherwise hide the stricter one.
            places = {platform, *table} if platform == ANY_PLATFORM else {platform}
            for place in places:
                old = rules.rule(place, Check(name))
                if place != platform and name not in table.get(place, {}):
                    continue
                table.setdefault(place, {})[name] = _tighten(f"{place}.{name}", old, new)
    return replace(rules, platforms=table, approvals=max(rules.approvals, approvals))


def _tighten(where: str, old: Rule | None, new: Rule) -> Rule:
    if old is None:
        return new
    if not new.weakest.satisfies(old.weakest):
        raise _loosened(where, f"it accepts '{new.weakest}', the policy demands '{old.weakest}'")
    if old.required and not new.required:
        raise _loosened(where, "it makes a required check optional")
    for name, limit in new.margins.items():
        if name in old.margins and limit > old.margins[name]:
            raise _loosened(where, f"margin {name} is {limit:g}, the policy allows {old.margins[name]:g}")
    under = old.limits(Obtained.EMULATED)
    for name, limit in new.emulated.items():
        if name in under and limit > under[name]:
            raise _loosened(where, f"margin {name} under emulation is {limit:g}, the policy allows {under[name]:g}")
    judges = tuple(dict.fromkeys((*old.judges, *new.judges)))
    margins, emulated = {**old.margins, **new.margins}, {**old.emulated, **new.emulated}
    return Rule(new.weakest, new.required, margins, judges, emulated)


def _loosened(where: str, why: str) -> PolicyLoosenedError:
    return PolicyLoosenedError(
        f"the release loosens the policy at {where}",
        why=why,
        next="remove the entry from the release's 'tighten:', or have the safety role sign another policy",
    )


def judge(rules: FleetRules, evidence: Iterable[Evidence], jit: Collection[Digest] = ()) -> tuple[Shortfall, ...]:
    """Every reason why this evidence is not enough; empty means that signing is allowed.

    ``jit``, for real fleets: the artifacts (manifest digests) that a driver in the vehicle compiles further. The code
    that drives is then one that nobody here has seen, and parity and latency count from a bench upwards alone.
    """
    found: list[Shortfall] = []
    for pack in evidence:
        for check in Check:
            rule = rules.rule(pack.platform, check)
            results = [result for result in pack.results if result.check is check]
            reason = _reason(rule, results)
            if reason is None and pack.artifact in jit and check in FINISHED_IN_VEHICLE:
                reason = _unseen(results)
            if reason is None and rules.braking is not None and check in _DRIVEN:
                reason = _braked(rules.braking, results)
            if reason:
                found.append(Shortfall(pack.platform, pack.build, check, *reason))
    return tuple(found)


def _reason(rule: Rule | None, results: list[CheckResult]) -> tuple[str, str] | None:
    for result in results:
        # A failure counts even where the policy does not ask for the check: nobody may ignore it.
        if result.verdict is Verdict.FAILED:
            return f"failed ({result.obtained}): {result.summary}", result.next or "repair the artifact or its recipe"
        if result.verdict is Verdict.INCONCLUSIVE:
            return f"inconclusive ({result.obtained}): {result.summary}", result.next or "order more scenarios"
    if rule is None:
        return None
    passed = [result for result in results if result.verdict is Verdict.PASSED]
    if not passed:
        if not rule.required:
            return None
        # Results of what could not run come in the order of their strength: a rule that only the hardware satisfies is
        # settled by the last of them.
        unrun = [result for result in results if result.verdict is Verdict.NOT_RUN]
        said = (unrun[-1] if rule.weakest.satisfies(Obtained.BENCH) else unrun[0]) if unrun else None
        if said is None:
            return "not_run: no result", "run the release again: this evidence is older than the check"
        return f"not_run: {said.summary}", said.next or _settle(rule.weakest)
    for name in rule.judges:
        own = [result for result in results if result.judge == name]
        if not any(result.verdict is Verdict.PASSED for result in own):
            said = own[0] if own else None
            reason = f"judge '{name}' has not passed it: {said.summary if said else 'it was not asked'}"
            return reason, (said.next if said else "") or f"ask '{name}' (the release's 'judges:')"
    best = max(passed, key=lambda result: result.obtained.strength)
    if not best.obtained.satisfies(rule.weakest):
        return f"obtained as '{best.obtained}', the policy demands '{rule.weakest}' or stronger", _settle(rule.weakest)
    return _margin(rule, passed)


def _unseen(results: list[CheckResult]) -> tuple[str, str] | None:
    passed = [result.obtained for result in results if result.verdict is Verdict.PASSED]
    best = max(passed, key=lambda obtained: obtained.strength, default=Obtained.NOT_RUN)
    if best.satisfies(Obtained.BENCH):
        return None
    reason = f"obtained as '{best}', and a driver in the vehicle compiles this artifact further: other code drives"
    settle = f"{_settle(Obtained.BENCH)} and the baseline's driver, or build machine code instead"
    return reason, settle


def _braked(limit: Figure, results: list[CheckResult]) -> tuple[str, str] | None:
    """Why drives of our own count for nothing under this limit: they braked harder than vehicles will."""
    most = limit.value or 0.0
    for result in results:
        if result.verdict is not Verdict.PASSED or result.judge:
            continue
        held = [figure.value for figure in result.figures if figure.name == BRAKING]
        if not held or max(held) > most:
            driven = f"at up to {max(held):g} m/s2" if held else "as hard as the simulated car can"
            reason = f"its drives braked {driven}, the policy holds vehicles to {most:g} m/s2"
            return reason, "run the release again: its drives are then held to the policy's braking"
    return None


def _margin(rule: Rule, passed: list[CheckResult]) -> tuple[str, str] | None:
    figures = [figure for result in passed for figure in result.figures]
    for name, limit in rule.margins.items():
        values = [figure for figure in figures if figure.name == name]
        if not values:
            return f"figure '{name}' is missing, the policy limits it to {limit:g}", "run the check again"
        for figure in values:
            allowed = rule.limits(figure.obtained).get(name, limit)
            # A check passes on whole intervals under the rules it ran with; these may be stricter ones.
            if not figure.most <= allowed:
                said = f"{name} is {figure.value:g} {figure.unit}".rstrip()
                if abs(figure.value) <= allowed:
                    reach = f"its interval reaches {figure.most:g}, the policy allows {allowed:g}"
                    return f"{said}: {reach}", "run the check under these rules: it then drives as much as they need"
                return f"{said}, the policy allows {allowed:g}", "repair the artifact"
    return None


def _settle(weakest: Obtained) -> str:
    match weakest:
        case Obtained.MEASURED | Obtained.BENCH:
            return "run this check on a bench that carries the platform's chip"
        case Obtained.EMULATED:
            return "install qemu-user-static and run the check under emulation"
        case _:
            return f"run the check so that it is obtained at least as '{weakest}'"
