"""The negative control: could this artifact, and the check that judged it, have said no?

Three demands. The same input gives the same bits. Another input gives another output, of the golden data and of drives
from other seeds. And the answers to *other* rows do not pass the parity margins: a margin that forgives a swap of rows
would forgive anything. The last demand needs the policy's parity margins and is left out, and said to be, where there
are none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import ResultFigure
from nwmctl.errors import CandidateFailedError
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.figures import against, figure
from nwmctl.validation.inputs import Golden, take
from nwmctl.validation.parity import DELAY, Driven, parity_figures
from nwmctl.validation.recording import Recording

_ROWS = 16
"""Golden rows that are asked; enough for many pairs, few enough for emulation."""


def check_negative_control(
    candidate: Candidate, golden: Golden, parity_margins: Mapping[str, float], recording: Recording | None = None
) -> CheckResult:
    """Ask twice, ask otherwise, and hold the wrong answers against the parity margins."""
    obtained = candidate.obtained
    few = golden.head(_ROWS)
    if few.rows < 2:
        return _failed(candidate, "the golden data hold one row, so no other input can be asked", ())
    try:
        first = candidate.run_rows(few.inputs)
        again = candidate.run_rows(take(few.inputs, slice(0, 2)), again=True)
        driven = None if recording is None else Driven(recording, candidate.replay(recording))
    except CandidateFailedError as problem:
        return _failed(candidate, f"{problem.what}: {problem.why}", ())
    name = candidate.contract.control_output
    unstable = sum(not np.array_equal(first[key][:2], again[key], equal_nan=True) for key in first)
    deaf = sum(_same(first[name][row], first[name][row - 1]) for row in range(few.rows))
    figures: tuple[ResultFigure, ...] = (
        figure("outputs_not_repeated", unstable, "", obtained, 0.0),
        figure("pairs_without_response", deaf, "", obtained, 0.0),
    )
    wrong = [f"{unstable} outputs differ when the same input is asked again"] if unstable else []
    if deaf:
        wrong.append(f"{deaf} of {few.rows} pairs of different inputs give the same {name}")
    if driven is not None:
        alike = _drives_alike(driven, name)
        figures += (figure("drives_without_response", alike, "", obtained, 0.0),)
        wrong += [f"{alike} drives from different seeds give the same {name} throughout"] if alike else []
    if not all(np.isfinite(values.astype(np.float64)).all() for values in first.values()):
        wrong.append("outputs that are not finite can be compared with nothing")
    if parity_margins and not wrong:
        caught = _caught(candidate, few, first, parity_margins, driven)
        figures += (figure("margins_that_catch_swapped_rows", caught, "", obtained),)
        if caught == 0:
            wrong.append("answers to other rows would pass the parity margins, so parity proves nothing")
    if wrong:
        return _failed(candidate, "; ".join(wrong), figures)
    asked = f"{few.rows} other inputs" + (f" and {recording.live.shape[1]} drives" if recording else "")
    summary = f"same input, same bits; {asked}, other outputs"
    summary += "; swapped rows would fail parity" if parity_margins else "; no parity margins to try against"
    return CheckResult(Check.NEGATIVE_CONTROL, Verdict.PASSED, obtained, summary, figures)


def _drives_alike(driven: Driven, name: str) -> int:
    """Neighbouring drives, of different scenarios, along which every answer is the same."""
    said, live = driven.candidate[name], driven.recording.live
    both = [live[:, drive] & live[:, drive - 1] for drive in range(1, live.shape[1])]
    return sum(_same(said[kept, drive], said[kept, drive - 1]) for drive, kept in enumerate(both, 1))


def _caught(
    candidate: Candidate, few: Golden, outputs: Tensors, margins: Mapping[str, float], driven: Driven | None
) -> int:
    """How many parity margins notice that every row, and every drive, got its neighbour's reference."""
    swapped: Tensors = {name: np.roll(values, 1, axis=0) for name, values in few.outputs.items()}
    wrong = None
    if driven is not None:
        # Every answer stands where the next drive's should; only decisions that both drives have can be compared.
        next_live = driven.recording.live & np.roll(driven.recording.live, 1, axis=1)
        there: Tensors = {name: np.roll(values, 1, axis=1) for name, values in driven.candidate.items()}
        recording = Recording(driven.recording.steps, driven.recording.answers, next_live, driven.recording.seed)
        wrong = Driven(recording, there)
    known = {name: limit for name, limit in margins.items() if driven is not None or not name.endswith(DELAY)}
    judged = against(known, parity_figures(candidate.contract, swapped, outputs, candidate.obtained, wrong))
    return len(judged.exceeded)


def _same(one: np.ndarray[tuple[int, ...], np.dtype[np.generic]], other: object) -> bool:
    return bool(np.array_equal(one, np.asarray(other)))


def _failed(candidate: Candidate, summary: str, figures: tuple[ResultFigure, ...]) -> CheckResult:
    next = "the artifact ignores its inputs or keeps state between calls: compile again from the model's own weights"
    return CheckResult(Check.NEGATIVE_CONTROL, Verdict.FAILED, candidate.obtained, summary, figures, next)
