"""The checks that ``OwnJudge`` can run: the simulator's closed loop, and the replay of a drive log.

Both are the suite's own code; what differs is only who signs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.policy import Rule
from nwmctl.driving import episode
from nwmctl.driving.observe import Observation
from nwmctl.driving.scenarios import paired
from nwmctl.errors import CandidateFailedError, PolicyShapeError
from nwmctl.toolchains.protocol import Session
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.closed_loop import REMEDY, pair
from nwmctl.validation.drives import BLOCK, control_of
from nwmctl.validation.estimates import decide
from nwmctl.validation.figures import against, figure, no_margins, not_run
from nwmctl.validation.judges.log_replay import check_log_replay
from nwmctl.validation.judges.own import Run
from nwmctl.validation.recording import OBSERVED, drivable


def log_run(log: Path, name: str) -> Run:
    """Replay a drive log; ``name`` names it for people."""

    def run(candidate: Candidate, reference: Callable[[], Session], rule: Rule, seed: int) -> CheckResult:
        return check_log_replay(candidate, reference, log, rule, name=name, strongest=candidate.obtained)

    return run


def simulator_run(scenarios: int) -> Run:
    """Drive ``scenarios`` paired scenarios in the simulator."""

    def run(candidate: Candidate, reference: Callable[[], Session], rule: Rule, seed: int) -> CheckResult:
        return replace(_drive(candidate, reference, rule, seed, scenarios), seeds=(seed,))

    return run


def _drive(
    candidate: Candidate, reference: Callable[[], Session], rule: Rule, seed: int, scenarios: int
) -> CheckResult:
    contract, obtained = candidate.contract, candidate.obtained
    if not drivable(contract):
        summary = f"the simulator shows {', '.join(OBSERVED)} and the model wants to see something else"
        return not_run(Check.CLOSED_LOOP, summary, "validate this model in a simulator that shows its inputs")
    ids, control = paired(scenarios, seed), contract.control_output
    with reference() as model:
        known = episode.run(_driver(model, control), ids, BLOCK)
    try:
        driven = episode.run(_driver(candidate, control), ids, BLOCK)
    except (CandidateFailedError, PolicyShapeError) as problem:
        summary = f"{problem.what}: {problem.why}"
        return CheckResult(Check.CLOSED_LOOP, Verdict.FAILED, obtained, summary, (), problem.next)
    pairs = pair(known, driven)
    figures = (
        figure("scenarios", pairs.count, "", obtained),
        *(estimate.figure(obtained) for estimate in pairs.estimates()),
        figure("reference_failure_rate", pairs.reference_failures, "", obtained),
        figure("candidate_failure_rate", pairs.candidate_failures, "", obtained),
    )
    if driven.faults.any():
        summary = f"{int(driven.faults.sum())} controls were not finite in {scenarios} scenarios"
        return CheckResult(Check.CLOSED_LOOP, Verdict.FAILED, obtained, summary, figures, REMEDY)
    if not rule.margins:
        return no_margins(Check.CLOSED_LOOP, obtained, figures)
    judged = against(rule.margins, figures)
    found = decide(pairs.estimates(), judged, rule.margins, "scenarios", REMEDY)
    said = f"{found.summary} ({scenarios} paired scenarios, {candidate.way.label})"
    return CheckResult(Check.CLOSED_LOOP, found.verdict, obtained, said, judged.figures, found.next, needs=found.needs)


def _driver(session: Session | Candidate, control: str) -> episode.Policy:
    def drive(seen: Observation) -> NDArray[np.floating]:
        return control_of(session.run(seen), control)

    return drive
