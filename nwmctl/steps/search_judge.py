"""How a search judges an artifact: contract and parity as validation checks them, and a short closed loop at the end.

The functions are validation's own; only the amounts are smaller, and fixed by the model's size alone, because what wins
is validated in full afterwards. An artifact that fails a check or leaves it open is rejected. Where nothing here can
execute it, that is said, and it is neither passed nor rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.model import ModelCard
from nwmctl.domain.platform import Build, PlatformProfile
from nwmctl.domain.policy import FleetRules, Rule
from nwmctl.errors import ContractBrokenError, MissingError
from nwmctl.steps.shelf import Trained, open_model
from nwmctl.steps.ways import Artifact, ways_of
from nwmctl.toolchains.protocol import Session
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.closed_loop import check_closed_loop
from nwmctl.validation.contract import check_contract, check_ports
from nwmctl.validation.drives import ModelDrives
from nwmctl.validation.inputs import Golden, read_golden
from nwmctl.validation.parity import check_parity
from nwmctl.validation.recording import RECORDINGS, Recording, drivable
from nwmctl.validation.subject import Pace, Settings, Subject, Way

SCENARIOS = 40
"""Driven by what is about to win."""
_LARGE = 5_000_000
"""Parameters from which on every row is counted: only golden rows and corners are asked then."""
_ROWS_PARAMETERS = 300_000_000
"""Rows times parameters that parity may ask."""
_RANDOM = 32
_ENDLESS = 1e9
"""Stands for a share that no margin allows."""


@dataclass(frozen=True, slots=True)
class Judged:
    """``passed`` is None where nothing here can execute the artifact. ``parity_share``: the worst parity figure as a
    share of its margin."""

    passed: bool | None
    words: str
    parity_share: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything about the model and the build that judging needs."""

    card: ModelCard
    model: Trained
    golden: Path
    profile: PlatformProfile
    build: Build
    rules: Mapping[Check, Rule]
    seed: int
    drives: ModelDrives

    @property
    def rows(self) -> int:
        """Golden rows that a candidate is asked."""
        return max(4, _ROWS_PARAMETERS // max(1, self.card.parameters))

    @property
    def large(self) -> bool:
        """Whether one execution is so slow that the number of rows matters."""
        return self.card.parameters >= _LARGE

    def recording(self) -> Recording | None:
        """Drives of the model as trained, where it can be driven here at little cost."""
        contract = self.card.contract
        if self.large or not drivable(contract):
            return None
        return RECORDINGS.get(self.model.digest, contract.control_output, self.reference, self.seed)

    def reference(self) -> Session:
        """The model as trained."""
        return open_model(self.model.files, self.card.contract)


def judge(bench: Bench, main: Artifact, twin: Artifact | None) -> Judged:
    """Contract and parity of one artifact. Raises GoldenDataError and the reference's errors."""
    contract = bench.card.contract
    way, reason = _way(bench, main, twin)
    if way is None:
        return Judged(None, f"not judged: {reason}")
    try:
        check_ports(main.manifest, contract)
    except ContractBrokenError as problem:
        return Judged(False, f"contract failed: {problem.what}: {problem.why}")
    golden = read_golden(bench.golden, contract).head(bench.rows)
    with Candidate(contract, way) as candidate:
        if bench.large:
            candidate.ask_alone()  # a vehicle has no batch, and a quantised graph may answer otherwise in one
        try:
            first = check_contract(candidate, golden, _RANDOM, bench.seed)
            if first.verdict is not Verdict.PASSED:
                return Judged(False, _said(first))
            if Check.PARITY not in bench.rules:
                return Judged(True, f"{_said(first)}; the policy asks for no parity")
            recording = None if way.pace is Pace.CRAWL else bench.recording()
            second = parity(bench, candidate, golden, recording)
        except MissingError as problem:
            return Judged(None, f"not judged: {problem.what}: {problem.why}")
    share = worst_share(second)
    if second.verdict is not Verdict.PASSED:
        return Judged(False, _said(second), share)
    took = f"{share:.0%} of its margins" if share is not None else "no margin"
    return Judged(True, f"contract passed, parity takes {took} ({way.obtained}, {way.label})", share)


def parity(bench: Bench, candidate: Candidate, golden: Golden, recording: Recording | None) -> CheckResult:
    """The check of parity with the margins that hold for the way of the candidate."""
    rule = bench.rules[Check.PARITY]
    return check_parity(candidate, golden, replace(rule, margins=rule.limits(candidate.obtained)), recording)


def worst_share(result: CheckResult) -> float | None:
    """The worst figure as a share of its limit; None where nothing was compared."""
    shares = [
        abs(figure.value) / figure.limit if figure.limit else (_ENDLESS if figure.value else 0.0)
        for figure in result.figures
        if figure.limit is not None
    ]
    return min(_ENDLESS, max(shares)) if shares else None


def examine(bench: Bench, main: Artifact, twin: Artifact | None) -> str:
    """A short closed loop of what is about to win; '' where it passes, stays open or cannot be driven here."""
    contract, rule = bench.card.contract, bench.rules.get(Check.CLOSED_LOOP)
    way, _ = _way(bench, main, twin)
    if rule is None or way is None or way.pace is Pace.CRAWL or bench.large or not drivable(contract):
        return ""
    rules = FleetRules({bench.profile.name: {str(check): each for check, each in bench.rules.items()}})
    settings = Settings(rules, bench.seed, scenarios=SCENARIOS, row_scenarios=SCENARIOS)
    subject = Subject(
        contract=contract,
        weights=bench.model.files.model,
        weights_digest=bench.model.digest,
        golden=bench.golden,
        manifest=main.manifest,
        profile=bench.profile,
        build=bench.build,
        reference=bench.reference,
        ways=(way,),
        drives=bench.drives,
    )
    with Candidate(contract, way) as candidate:
        limits = replace(rule, margins=rule.limits(candidate.obtained))
        result = check_closed_loop(candidate, subject, settings, limits)
    return _said(result) if result.verdict is Verdict.FAILED else ""


def _way(bench: Bench, main: Artifact, twin: Artifact | None) -> tuple[Way | None, str]:
    """The fastest way of executing the artifact here, or why there is none."""
    ways, unreachable = ways_of(bench.build, main, twin)
    for way in sorted(ways, key=lambda each: each.pace is Pace.CRAWL):
        # Each row counts: no check may ask more than it must.
        return (replace(way, pace=Pace.CRAWL) if bench.large else way), ""
    return None, "; ".join(f"{place.label}: {place.reason}" for place in unreachable) or "no way to execute it"


def _said(result: CheckResult) -> str:
    return f"{result.check} {result.verdict} ({result.obtained}): {result.summary}"
