"""Traps: does the artifact find its way back from error states as often as the model it was built from?

The same traps for both, each laid over roads of several families. The question is one-sided: an artifact that
recovers more often than its model breaks no margin here (whether it drives *otherwise* is for the closed loop). The
loss is judged overall and, where the policy names a margin for it, trap by trap; every trap is listed with its rates.
The new model against the released one is compared in ``non_inferiority``.
"""

from __future__ import annotations

import numpy as np

from nwmctl.domain.evidence import Check, CheckResult
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.policy import Rule
from nwmctl.domain.scenario import Trap
from nwmctl.driving.metrics import Outcomes, recovered
from nwmctl.errors import CandidateFailedError, PolicyShapeError
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.closed_loop import REMEDY, Drive, broken, drive, not_finite, undrivable
from nwmctl.validation.drives import ScenarioList, Suite
from nwmctl.validation.estimates import Estimate, decide, interval_figure
from nwmctl.validation.figures import against, figure, no_margins
from nwmctl.validation.non_inferiority import RECOVERY, Difference
from nwmctl.validation.recording import drivable
from nwmctl.validation.subject import Settings, Subject


def check_traps(candidate: Candidate, subject: Subject, settings: Settings, rule: Rule) -> CheckResult:
    """Put both into the same traps and compare. Errors of the model pass; the candidate's never do."""
    if not drivable(subject.contract):
        return undrivable(Check.TRAP_SUITE, subject)
    obtained, look = candidate.obtained, settings.looks.traps
    listed = ScenarioList(Suite.TRAPS, settings.traps, settings.seed, settings.braking)
    known = subject.drives.get(subject.model, listed)
    try:
        driven = drive(candidate, known.ids, Drive(listed, settings.traps, look))
    except (CandidateFailedError, PolicyShapeError) as problem:
        return broken(Check.TRAP_SUITE, candidate, problem, settings.seed)
    estimates = losses(known, driven, look)
    figures = (*_figures(known, driven, estimates, rule, obtained), *settings.braking_figures(obtained))
    ran = f"{settings.traps} traps, {candidate.way.label}{settings.said_braking}"
    if driven.faults.any():
        return not_finite(Check.TRAP_SUITE, candidate, driven, ran, figures, settings.seed)
    if not rule.margins:
        return no_margins(Check.TRAP_SUITE, obtained, figures)
    judged = against(rule.margins, figures)
    found = decide(estimates, judged, rule.margins, "traps", REMEDY)
    rates = f"recovered {_rate(driven)}, the model {_rate(known)}"
    return CheckResult(
        Check.TRAP_SUITE,
        found.verdict,
        obtained,
        f"{found.summary}; {rates} ({ran})",
        judged.figures,
        found.next,
        (settings.seed,),
        needs=found.needs,
    )


def losses(reference: Outcomes, candidate: Outcomes, look: int = 0) -> tuple[Estimate, ...]:
    """How much less often the candidate recovered: overall, and for each trap as ``<trap>.recovery_loss``."""
    loss = recovered(reference).astype(np.float64) - recovered(candidate)
    made = [Difference(RECOVERY, "", loss, binary=True).estimate(look, 1.0)]
    for trap, chosen in _by_trap(reference):
        each = Difference(f"{trap}.{RECOVERY}", "", loss[chosen], binary=True)
        made.append(each.estimate(look, len(loss) / len(each.values)))
    return tuple(made)


def _by_trap(outcomes: Outcomes) -> list[tuple[Trap, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]]:
    traps = np.array([str(identity.trap) for identity in outcomes.ids])
    return [(trap, traps == str(trap)) for trap in Trap if (traps == str(trap)).any()]


def _figures(
    reference: Outcomes, candidate: Outcomes, estimates: tuple[Estimate, ...], rule: Rule, obtained: Obtained
) -> tuple[ResultFigure, ...]:
    mine, others = recovered(candidate), recovered(reference)
    made = [
        figure("traps", len(mine), "", obtained),
        figure("recovered", float(mine.mean()), "", obtained),
        figure("reference_recovered", float(others.mean()), "", obtained),
    ]
    for trap, chosen in _by_trap(reference):
        made.append(figure(f"{trap}.recovered", float(mine[chosen].mean()), "", obtained))
        made.append(figure(f"{trap}.reference_recovered", float(others[chosen].mean()), "", obtained))
    overall, *single = estimates
    made.append(interval_figure(f"{RECOVERY}.signed", "", overall.found, obtained))
    made.append(overall.figure(obtained))
    made += [estimate.figure(obtained) for estimate in single if estimate.name in rule.margins]
    return tuple(made)


def _rate(outcomes: Outcomes) -> str:
    return f"{float(recovered(outcomes).mean()):.0%}"
