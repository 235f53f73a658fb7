"""Log replay: on what recorded cars saw, does the artifact decide like the model, and no worse than their drivers?

Open loop: every observation comes out of the log, nothing that the artifact decides changes the next one. Two figures,
both events per kilometre with whole 95 % intervals against the policy's margins:

- ``disagreements_per_km``: where artifact and reference (the model as trained) want accelerations or lateral
  accelerations that differ by more than ``DISAGREEMENT``; a run of such steps is one event.
- ``driver_shift_per_km``: where only the artifact disagrees with the logged driver, less where only the reference does.
  A single rate against a human tells models apart badly; this paired difference does.

Too few kilometres are inconclusive, and the result says how many would do. What is wrong with the log fails the check
with its reason: nobody has looked at the artifact then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.policy import Rule
from nwmctl.driving.episode import first_control
from nwmctl.errors import CandidateFailedError, DriveLogError, LogsMissingError, PolicyShapeError
from nwmctl.toolchains.protocol import Session, Tensors
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.figures import against, figure, no_margins, not_run
from nwmctl.validation.judges.drive_log import Bounds, LogRows, open_log
from nwmctl.validation.judges.poisson import MOST_KM, rate_interval, settled_by, shift_interval
from nwmctl.validation.statistics import CONFIDENCE, Interval

DISAGREEMENT = 0.5
"""m/s2, of the longitudinal or the lateral acceleration that two controls ask for."""
RATE, SHIFT = "disagreements_per_km", "driver_shift_per_km"
"""Figures that a policy may limit."""
_UNIT = "1/km"
_SHORTEST_KM = 1e-3

OpenSession = Callable[[], Session]
Flags = NDArray[np.bool_]


@dataclass(slots=True)
class _Events:
    """Counts runs of flagged steps; a run does not go on into another drive."""

    count: int = 0
    _drive: str = ""
    _on: bool = False

    def add(self, drives: tuple[str, ...], flags: Flags) -> None:
        if not drives:
            return
        names = np.array(drives)
        before = np.concatenate([[self._drive], names[:-1]])
        was = np.concatenate([[self._on], flags[:-1]]) & (before == names)
        self.count += int((flags & ~was).sum())
        self._drive, self._on = drives[-1], bool(flags[-1])


@dataclass(slots=True)
class Replayed:
    """What a replay counted."""

    km: float = 0.0
    drives: int = 0
    steps: int = 0
    faults: int = 0
    """Steps at which the artifact's control was not finite."""
    disagreements: int = 0
    candidate_against_driver: int = 0
    reference_against_driver: int = 0
    only_candidate: int = 0
    only_reference: int = 0

    @property
    def intervals(self) -> dict[str, Interval]:
        """The figures that are only as sure as the log is long."""
        return {
            RATE: rate_interval(self.disagreements, self.km),
            SHIFT: shift_interval(self.only_candidate, self.only_reference, self.km),
        }

    def settled_by(self, name: str, limit: float) -> int | None:
        """Kilometres that would settle a figure, if the rates stay; None: none would."""
        more, less = (self.disagreements, 0) if name == RATE else (self.only_candidate, self.only_reference)
        return settled_by(more, less, self.km, limit)


def replay(candidate: Candidate, reference: OpenSession, log: Path, bounds: Bounds | None = None) -> Replayed:
    """Show every row to both and count. Raises DriveLogError, LogsMissingError, CandidateFailedError, PolicyShapeError,
    and the reference's errors."""
    contract = candidate.contract
    found = Replayed()
    events = {name: _Events() for name in ("apart", "candidate", "reference", "only candidate", "only reference")}
    last = ""
    with open_log(log, contract, bounds) as reader, reference() as model:
        for rows in reader.parts():
            lanes = len(rows.drive)
            ours = _control(candidate.run(rows.inputs), contract.control_output, lanes)
            theirs = _control(model.run(rows.inputs), contract.control_output, lanes)
            found.faults += int((~np.isfinite(ours)).any(axis=1).sum())
            speed, base = rows.pose[:, 3], reader.header.wheelbase_m
            us = apart(ours, rows.control, speed, base)
            them = apart(theirs, rows.control, speed, base)
            for name, flags in {
                "apart": apart(ours, theirs, speed, base),
                "candidate": us,
                "reference": them,
                "only candidate": us & ~them,
                "only reference": them & ~us,
            }.items():
                events[name].add(rows.drive, flags)
            found.km += float(np.abs(speed).sum()) / reader.header.rate_hz / 1000.0
            found.steps += lanes
            found.drives += _drives(rows, last)
            last = rows.drive[-1]
    found.disagreements = events["apart"].count
    found.candidate_against_driver = events["candidate"].count
    found.reference_against_driver = events["reference"].count
    found.only_candidate, found.only_reference = events["only candidate"].count, events["only reference"].count
    if found.km < _SHORTEST_KM:
        raise DriveLogError(
            "the drive log goes nowhere", why=f"its drives come to {found.km * 1000:.1f} m", next="log moving cars"
        )
    return found


def _control(outputs: Tensors, name: str, lanes: int) -> NDArray[np.float64]:
    return first_control(outputs[name].astype(np.float64), lanes)


def apart(one: NDArray[np.float64], other: NDArray[np.float64], speed: NDArray[np.float64], wheelbase: float) -> Flags:
    """Where two controls [n,2] (steer rad, acceleration m/s2) disagree at these speeds (m/s). What is not finite
    disagrees with everything."""
    with np.errstate(invalid="ignore", over="ignore"):
        lateral = np.square(speed) / wheelbase * (np.tan(one[:, 0]) - np.tan(other[:, 0]))
        same = (np.abs(lateral) <= DISAGREEMENT) & (np.abs(one[:, 1] - other[:, 1]) <= DISAGREEMENT)
    return np.asarray(~same)


def _drives(rows: LogRows, last: str) -> int:
    names = np.array([last, *rows.drive])
    return int((names[1:] != names[:-1]).sum())


def check_log_replay(
    candidate: Candidate,
    reference: OpenSession,
    log: Path,
    rule: Rule | None,
    *,
    name: str,
    strongest: Obtained,
    bounds: Bounds | None = None,
) -> CheckResult:
    """The check. ``name`` names the log for people; its drives are worth ``strongest`` at most. Errors of the
    reference pass; the log's and the candidate's never do."""
    obtained = min(candidate.obtained, strongest, key=lambda word: word.strength)
    try:
        found = replay(candidate, reference, log, bounds)
    except LogsMissingError as problem:
        return not_run(Check.LOG_REPLAY, f"{problem.what}: {problem.why}", problem.next)
    except (DriveLogError, CandidateFailedError, PolicyShapeError) as problem:
        return failed(obtained, f"{problem.what}: {problem.why}", problem.next)
    figures = _figures(found, obtained)
    ran = f"{found.drives} drives, {found.km:.1f} km of the log '{name}', {candidate.way.label}"
    if found.faults:
        return replace(failed(obtained, f"{found.faults} controls were not finite in {ran}", ""), figures=figures)
    if rule is None or not rule.margins:
        return no_margins(Check.LOG_REPLAY, obtained, figures)
    judged = against(rule.margins, figures)
    verdict, summary, next = _decide(found, judged.missing, judged.exceeded, rule.margins)
    return CheckResult(Check.LOG_REPLAY, verdict, obtained, f"{summary} ({ran})", judged.figures, next)


def failed(obtained: Obtained, summary: str, next: str) -> CheckResult:
    """A failed log replay."""
    return CheckResult(Check.LOG_REPLAY, Verdict.FAILED, obtained, summary, (), next)


def _figures(found: Replayed, obtained: Obtained) -> tuple[ResultFigure, ...]:
    made = [
        figure("kilometres", found.km, "km", obtained),
        figure("drives", found.drives, "", obtained),
        figure("steps", found.steps, "", obtained),
    ]
    for name, interval in found.intervals.items():
        low, high = (figure("", bound, "", obtained).value for bound in (interval.low, interval.high))
        made.append(replace(figure(name, interval.value, _UNIT, obtained), low=low, high=high))
    for name, count in (
        ("candidate_against_driver_per_km", found.candidate_against_driver),
        ("reference_against_driver_per_km", found.reference_against_driver),
    ):
        made.append(figure(name, count / found.km, _UNIT, obtained))
    return tuple(made)


def _decide(
    found: Replayed, missing: tuple[str, ...], exceeded: tuple[str, ...], margins: Mapping[str, float]
) -> tuple[Verdict, str, str]:
    """Verdict, summary and what is next. Failed beats inconclusive beats passed."""
    limits = {name: limit for name, limit in margins.items() if name in found.intervals}
    wrong = [_say(found, name, limit) for name, limit in limits.items() if found.intervals[name].least > limit]
    wrong += [text for text in exceeded if text.split(" ")[0] not in found.intervals]
    if wrong:
        return Verdict.FAILED, "; ".join(wrong), "try the next recipe, or compile at a higher precision"
    if missing:
        said = f"the policy limits {', '.join(missing)}, which log replay does not measure"
        return Verdict.INCONCLUSIVE, said, "have the safety role name margins for figures that exist"
    open_ = {name: limit for name, limit in limits.items() if found.intervals[name].most > limit}
    if open_:
        needed = [found.settled_by(name, limit) for name, limit in open_.items()]
        return Verdict.INCONCLUSIVE, "; ".join(_say(found, *each) for each in open_.items()), _order(needed)
    return Verdict.PASSED, ", ".join(_short(found, name) for name in limits) or "within all margins", ""


def _order(needed: list[int | None]) -> str:
    known = [km for km in needed if km is not None]
    if len(known) < len(needed):
        return f"{MOST_KM:g} km would not settle it at these rates: try another recipe or another margin"
    return f"a log of about {max(known)} km would settle it with {CONFIDENCE:.0%} confidence, if the rates stay"


def _say(found: Replayed, name: str, limit: float) -> str:
    return f"{_short(found, name)}, at most {limit:.3g} is allowed"


def _short(found: Replayed, name: str) -> str:
    each = found.intervals[name]
    return f"{name} {each.value:.2f} [{each.low:.2f}, {each.high:.2f}]"
