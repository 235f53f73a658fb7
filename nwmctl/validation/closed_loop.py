"""Closed loop: does the artifact drive like the model it was built from, on the same scenarios?

Artifact equivalence is two-sided: some broken artifacts crash *less* than the model. So the median path deviation,
the shift of the failure rate (crash or off road) and the shift of the score must lie within the policy's margins with
their whole interval, and the outcomes must not differ significantly (exact McNemar test, written as ``1 - p`` so that
a margin is an upper limit like all others). An interval that contains its margin is inconclusive, and the result says
how many scenarios would settle it. Medians, never maxima: rounding alone moves single drives by metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.model import ModelContract
from nwmctl.domain.policy import Rule
from nwmctl.driving import episode
from nwmctl.driving.metrics import Outcomes, compare
from nwmctl.driving.scenarios import ScenarioId, paired
from nwmctl.errors import CandidateFailedError, PolicyShapeError
from nwmctl.toolchains.protocol import Session
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.figures import Judged, against, figure, no_margins, not_run
from nwmctl.validation.statistics import (
    CONFIDENCE,
    MOST_SCENARIOS,
    Interval,
    mcnemar,
    mean_interval,
    median_interval,
    settles_shift,
    settles_width,
    shift_interval,
)
from nwmctl.validation.subject import OpenSession

OBSERVED = ("ego", "agents", "route")
"""What the simulator shows a driver; a model with other inputs cannot be driven in it."""
BATCH = 100
DEVIATION, FAILURES, SCORE, CHANGE = (
    "median_path_deviation_m",
    "failure_rate_shift",
    "score_shift",
    "outcome_change_confidence",
)
"""Figures that a policy may limit: m; share -1..1; share -1..1; 1 - p of McNemar's test, 0..1."""
_KEPT = 8


@dataclass(frozen=True, slots=True)
class Paired:
    """What ``count`` paired drives say. ``more``/``less``: scenarios that only the candidate/reference failed."""

    count: int
    more: int
    less: int
    deviation: Interval
    score: Interval
    reference_failures: float
    candidate_failures: float

    @property
    def failures(self) -> Interval:
        """Candidate's failure rate minus the reference's."""
        return shift_interval(self.more, self.less, self.count)

    @property
    def intervals(self) -> dict[str, Interval]:
        """The figures that are only as sure as the scenarios are many."""
        return {DEVIATION: self.deviation, FAILURES: self.failures, SCORE: self.score}

    def settled_by(self, name: str, limit: float) -> int | None:
        """Scenarios after which the figure's interval would be clear of the limit, if what was seen goes on."""
        if name == FAILURES:
            return settles_shift(self.more, self.less, self.count, limit)
        return settles_width(self.intervals[name], self.count, limit)


class ReferenceRuns:
    """How the model as trained drove: computed once per process for each model and list of scenarios."""

    def __init__(self) -> None:
        self._runs: dict[tuple[Digest, tuple[ScenarioId, ...]], Outcomes] = {}
        self._lock = Lock()

    def get(
        self, weights: Digest, control: str, open_reference: OpenSession, scenarios: tuple[ScenarioId, ...]
    ) -> Outcomes:
        """The reference's outcomes. Errors of the reference pass."""
        with self._lock:  # held while driving: a second caller with the same question waits for the answer
            known = self._runs.get((weights, scenarios))
            if known is None:
                with open_reference() as session:
                    known = episode.run(_driver(session, control), scenarios, BATCH)
                while len(self._runs) >= _KEPT:
                    self._runs.pop(next(iter(self._runs)))
                self._runs[weights, scenarios] = known
            return known


REFERENCES = ReferenceRuns()


def _driver(session: Session | Candidate, control: str) -> episode.Policy:
    def drive(seen: Mapping[str, NDArray[np.float32]]) -> NDArray[np.floating]:
        return session.run(seen)[control].astype(np.float64)

    return drive


def drivable(contract: ModelContract) -> bool:
    """Whether the simulator can show this model everything that it wants to see."""
    return {spec.name for spec in contract.inputs} == set(OBSERVED)


def check_closed_loop(
    candidate: Candidate, reference: OpenSession, weights: Digest, scenarios: int, seed: int, rule: Rule
) -> CheckResult:
    """Drive both on the same scenarios and compare. Errors of the reference pass; the candidate's never do."""
    contract, obtained = candidate.contract, candidate.obtained
    if not drivable(contract):
        inputs = ", ".join(spec.name for spec in contract.inputs)
        return not_run(
            Check.CLOSED_LOOP,
            f"the simulator shows {', '.join(OBSERVED)}; the model wants {inputs}",
            "validate this model in a simulator that shows its inputs",
        )
    ids = paired(scenarios, seed)
    known = REFERENCES.get(weights, contract.control_output, reference, ids)
    try:
        driven = episode.run(_driver(candidate, contract.control_output), ids, BATCH)
    except (CandidateFailedError, PolicyShapeError) as problem:
        summary = f"{problem.what}: {problem.why}"
        return CheckResult(Check.CLOSED_LOOP, Verdict.FAILED, obtained, summary, (), problem.next, (seed,))
    pairs = pair(known, driven)
    figures = _figures(pairs, obtained)
    ran = f"{scenarios} paired scenarios, {candidate.way.label}"
    if driven.faults.any():
        summary = f"{int(driven.faults.sum())} controls were not finite in {ran}"
        next = "see the contract check for the inputs"
        return CheckResult(Check.CLOSED_LOOP, Verdict.FAILED, obtained, summary, figures, next, (seed,))
    if not rule.margins:
        return no_margins(Check.CLOSED_LOOP, obtained, figures)
    judged = against(rule.margins, figures)
    verdict, summary, next = _decide(pairs, judged, rule.margins)
    return CheckResult(Check.CLOSED_LOOP, verdict, obtained, f"{summary} ({ran})", judged.figures, next, (seed,))


def pair(reference: Outcomes, candidate: Outcomes) -> Paired:
    """Compare two runs over the same scenarios. Raises UnpairedOutcomesError where they are not the same."""
    found = compare(reference, candidate)
    return Paired(
        count=len(reference),
        more=found.only_candidate_failed,
        less=found.only_reference_failed,
        deviation=median_interval(found.path_deviation),
        score=mean_interval(candidate.score - reference.score),
        reference_failures=float(reference.failed.mean()),
        candidate_failures=float(candidate.failed.mean()),
    )


def _figures(pairs: Paired, obtained: Obtained) -> tuple[ResultFigure, ...]:
    made = [figure("scenarios", pairs.count, "", obtained)]
    for name, found in pairs.intervals.items():
        unit = "m" if name == DEVIATION else ""
        made.append(figure(name, found.value, unit, obtained))
        made.append(figure(f"{name}.low", found.low, unit, obtained))
        made.append(figure(f"{name}.high", found.high, unit, obtained))
    made += [
        figure(CHANGE, 1.0 - mcnemar(pairs.more, pairs.less), "", obtained),
        figure("reference_failure_rate", pairs.reference_failures, "", obtained),
        figure("candidate_failure_rate", pairs.candidate_failures, "", obtained),
    ]
    return tuple(made)


def _decide(pairs: Paired, judged: Judged, margins: Mapping[str, float]) -> tuple[Verdict, str, str]:
    """Verdict, summary and what is next. Failed beats inconclusive beats passed."""
    limits = {name: limit for name, limit in margins.items() if name in pairs.intervals}
    failed = [_say(pairs, name, limit) for name, limit in limits.items() if pairs.intervals[name].least > limit]
    failed += [text for text in judged.exceeded if text.split(" ")[0] not in pairs.intervals]
    if failed:
        return Verdict.FAILED, "; ".join(failed), "try the next recipe, or compile at a higher precision"
    if judged.missing:
        summary = f"the policy limits {', '.join(judged.missing)}, which this check does not measure"
        return Verdict.INCONCLUSIVE, summary, "have the safety role name margins for figures that exist"
    open_ = {name: limit for name, limit in limits.items() if pairs.intervals[name].most > limit}
    if open_:
        needed = [pairs.settled_by(name, limit) for name, limit in open_.items()]
        summary = "; ".join(_say(pairs, name, limit) for name, limit in open_.items())
        return Verdict.INCONCLUSIVE, summary, _order(needed)
    said = ", ".join(_short(pairs, name) for name in limits)
    return Verdict.PASSED, said or "within all margins", ""


def _say(pairs: Paired, name: str, limit: float) -> str:
    return f"{_short(pairs, name)}, at most {limit:.3g} is allowed"


def _short(pairs: Paired, name: str) -> str:
    found = pairs.intervals[name]
    unit = " m" if name == DEVIATION else ""
    return f"{name} {_shown(found.value)}{unit} [{_shown(found.low)}, {_shown(found.high)}]"


def _shown(value: float) -> str:
    """Thousandths are all that people read; the figures beside the summary have every digit."""
    return f"{value + 0.0:.3f}" if round(value, 3) else "0"


def _order(needed: list[int | None]) -> str:
    counts = [count for count in needed if count is not None]
    if len(counts) < len(needed):
        return f"{MOST_SCENARIOS} scenarios would not settle it at these rates: try another recipe or another margin"
    return f"about {max(counts)} scenarios would settle it with {CONFIDENCE:.0%} confidence, if the rates stay"
