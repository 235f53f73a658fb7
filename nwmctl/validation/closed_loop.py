"""Closed loop: does the artifact drive like the model it was built from, on the same scenarios?

Artifact equivalence is two-sided: some broken artifacts crash *less* than the model. So the median path deviation,
the shift of the failure rate (crash or off road) and the shift of the score must lie within the policy's margins with
their whole interval, and the outcomes must not differ significantly (exact McNemar test, written as ``1 - p`` so that
a margin is an upper limit like all others). An interval that contains its margin is inconclusive, and the result says
how many scenarios would settle it. Medians, never maxima: rounding alone moves single drives by metres.
Under emulation the drives have a time budget; what was not driven within it was not seen, and nothing passes on fewer
scenarios than were planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.clock import Clock
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.policy import Rule
from nwmctl.driving import episode
from nwmctl.driving.metrics import Outcomes, compare, join
from nwmctl.driving.scenarios import ScenarioId
from nwmctl.errors import CandidateFailedError, PolicyShapeError
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.drives import BLOCK, ScenarioList, Suite, control_of, first
from nwmctl.validation.estimates import Estimate, decide
from nwmctl.validation.figures import against, figure, no_margins, not_run
from nwmctl.validation.recording import OBSERVED, drivable
from nwmctl.validation.statistics import (
    CONFIDENCE,
    Interval,
    mcnemar,
    mean_interval,
    median_interval,
    quantile,
    settles_shift,
    settles_width,
    shift_interval,
    spent,
)
from nwmctl.validation.subject import Pace, Settings, Subject

DEVIATION, FAILURES, SCORE, CHANGE = (
    "median_path_deviation_m",
    "failure_rate_shift",
    "score_shift",
    "outcome_change_confidence",
)
"""Figures that a policy may limit: m; share -1..1; share -1..1; 1 - p of McNemar's test, 0..1."""
REMEDY = "try the next recipe, or compile at a higher precision"
_FEW = 4
"""Scenarios per batch where there is a time budget: what is left undone is known to four scenarios."""


@dataclass(frozen=True, slots=True)
class Paired:
    """What ``count`` paired drives say. ``more``/``less``: scenarios that only the candidate/reference failed.

    ``look``: how often the number of scenarios has been raised; the intervals are as sure as that look must be.
    """

    count: int
    more: int
    less: int
    deviation: Interval
    score: Interval
    reference_failures: float
    candidate_failures: float
    look: int = 0

    @property
    def failures(self) -> Interval:
        """Candidate's failure rate minus the reference's."""
        return shift_interval(self.more, self.less, self.count, spent(self.look))

    def estimates(self) -> tuple[Estimate, ...]:
        """The figures that are only as sure as the scenarios are many."""
        sure = spent(self.look + 1)
        widen = widening(self.look)

        def width(found: Interval, limit: float) -> int | None:
            return settles_width(found, self.count, limit, widen)

        return (
            Estimate(DEVIATION, "m", self.deviation, lambda limit: width(self.deviation, limit)),
            Estimate(
                FAILURES, "", self.failures, lambda limit: settles_shift(self.more, self.less, self.count, limit, sure)
            ),
            Estimate(SCORE, "", self.score, lambda limit: width(self.score, limit)),
        )


@dataclass(frozen=True, slots=True)
class Drive:
    """What a candidate is asked to drive: the first ``count`` of ``listed``, within ``budget_s`` seconds if named."""

    listed: ScenarioList
    count: int
    look: int
    budget_s: float | None = None
    clock: Clock | None = None


class _OutOfTime(Exception):
    """The time budget is spent; ``driven`` scenarios were driven to their end."""

    def __init__(self, driven: int = 0) -> None:
        super().__init__(driven)
        self.driven = driven


def widening(look: int) -> float:
    """How much wider the next look's normal intervals are than this one's."""
    return quantile((1.0 + spent(look + 1)) / 2.0) / quantile((1.0 + spent(look)) / 2.0)


def ordered(settings: Settings, pace: Pace) -> Drive:
    """What a way of this pace drives. All of them take the first scenarios of one list."""
    counts = {
        Pace.BATCH: settings.scenarios,
        Pace.ROWS: settings.row_scenarios,
        Pace.CRAWL: settings.emulated_scenarios,
    }
    listed = ScenarioList(Suite.ROADS, max(counts.values()), settings.seed, settings.braking)
    if pace is Pace.CRAWL:
        return Drive(listed, counts[pace], settings.looks.emulated, settings.emulated_budget_s, settings.clock)
    return Drive(listed, counts[pace], settings.looks.scenarios)


def check_closed_loop(candidate: Candidate, subject: Subject, settings: Settings, rule: Rule) -> CheckResult:
    """Drive both on the same scenarios and compare. Errors of the reference pass; the candidate's never do."""
    if not drivable(subject.contract):
        return undrivable(Check.CLOSED_LOOP, subject)
    wanted, obtained = ordered(settings, candidate.way.pace), candidate.obtained
    seeds = (settings.seed,)
    known = first(subject.drives.get(subject.model, wanted.listed), wanted.count)
    try:
        driven = drive(candidate, known.ids, wanted)
    except (CandidateFailedError, PolicyShapeError) as problem:
        return broken(Check.CLOSED_LOOP, candidate, problem, settings.seed)
    except _OutOfTime as end:
        summary = f"only {end.driven} of {wanted.count} scenarios driven within {wanted.budget_s:g} s"
        next = "raise 'emulated_budget_s' under the release's 'validation:', or drive fewer scenarios"
        text = f"{summary}, {candidate.way.label}"
        return CheckResult(Check.CLOSED_LOOP, Verdict.INCONCLUSIVE, obtained, text, (), next, seeds)
    pairs = pair(known, driven, wanted.look)
    figures = (*_figures(pairs, obtained), *settings.braking_figures(obtained))
    ran = f"{wanted.count} paired scenarios, {candidate.way.label}{settings.said_braking}"
    if driven.faults.any():
        return not_finite(Check.CLOSED_LOOP, candidate, driven, ran, figures, settings.seed)
    if not rule.margins:
        return no_margins(Check.CLOSED_LOOP, obtained, figures)
    judged = against(rule.margins, figures)
    found = decide(pairs.estimates(), judged, rule.margins, "scenarios", REMEDY)
    said = f"{found.summary} ({ran})"
    return CheckResult(
        Check.CLOSED_LOOP, found.verdict, obtained, said, judged.figures, found.next, seeds, needs=found.needs
    )


def drive(candidate: Candidate, ids: tuple[ScenarioId, ...], wanted: Drive) -> Outcomes:
    """The candidate's outcomes, in order. Raises CandidateFailedError, PolicyShapeError."""
    clock, control, braking = wanted.clock, candidate.contract.control_output, wanted.listed.braking
    if wanted.budget_s is None or clock is None:
        return episode.run(lambda seen: control_of(candidate.run(seen), control, braking), ids, BLOCK)
    end = clock.monotonic() + wanted.budget_s

    def policy(seen: Mapping[str, NDArray[np.float32]]) -> NDArray[np.floating]:
        if clock.monotonic() >= end:
            raise _OutOfTime
        return control_of(candidate.run(seen), control, braking)

    parts: list[Outcomes] = []
    for start in range(0, len(ids), _FEW):
        try:
            parts.append(episode.run(policy, ids[start : start + _FEW], _FEW))
        except _OutOfTime:
            raise _OutOfTime(start) from None
    return join(parts)


def undrivable(check: Check, subject: Subject) -> CheckResult:
    """The simulator lacks what this model looks at."""
    inputs = ", ".join(spec.name for spec in subject.contract.inputs)
    return not_run(
        check,
        f"the simulator shows {', '.join(OBSERVED)}; the model wants {inputs}",
        "validate this model in a simulator that shows its inputs",
    )


def broken(
    check: Check, candidate: Candidate, problem: CandidateFailedError | PolicyShapeError, seed: int
) -> CheckResult:
    """The artifact did not drive to the end."""
    summary = f"{problem.what}: {problem.why}"
    return CheckResult(check, Verdict.FAILED, candidate.obtained, summary, (), problem.next, (seed,))


def not_finite(
    check: Check, candidate: Candidate, driven: Outcomes, ran: str, figures: tuple[ResultFigure, ...], seed: int
) -> CheckResult:
    """The artifact's controls were no numbers."""
    summary = f"{int(driven.faults.sum())} controls were not finite in {ran}"
    next = "see the contract check for the inputs"
    return CheckResult(check, Verdict.FAILED, candidate.obtained, summary, figures, next, (seed,))


def pair(reference: Outcomes, candidate: Outcomes, look: int = 0) -> Paired:
    """Compare two runs over the same scenarios. Raises UnpairedOutcomesError where they are not the same."""
    found = compare(reference, candidate)
    return Paired(
        count=len(reference),
        more=found.only_candidate_failed,
        less=found.only_reference_failed,
        deviation=median_interval(found.path_deviation, spent(look)),
        score=mean_interval(candidate.score - reference.score, spent(look)),
        reference_failures=float(reference.failed.mean()),
        candidate_failures=float(candidate.failed.mean()),
        look=look,
    )


def _figures(pairs: Paired, obtained: Obtained) -> tuple[ResultFigure, ...]:
    return (
        figure("scenarios", pairs.count, "", obtained),
        figure("interval_confidence", max(CONFIDENCE, spent(pairs.look)), "", obtained),
        *(estimate.figure(obtained) for estimate in pairs.estimates()),
        figure(CHANGE, 1.0 - mcnemar(pairs.more, pairs.less), "", obtained),
        figure("reference_failure_rate", pairs.reference_failures, "", obtained),
        figure("candidate_failure_rate", pairs.candidate_failures, "", obtained),
    )
