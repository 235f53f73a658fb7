"""The negative control: could this artifact, and the check that judged it, have said no?

Three demands. The same input gives the same bits. Another input gives another output. And the answers to *other* rows
do not pass the parity margins: a margin that forgives a swap of rows would forgive anything. The last demand needs the
policy's parity margins and is left out, and said to be, where there are none.
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
from nwmctl.validation.parity import parity_figures

_ROWS = 16
"""Golden rows that are asked; enough for many pairs, few enough for emulation."""


def check_negative_control(candidate: Candidate, golden: Golden, parity_margins: Mapping[str, float]) -> CheckResult:
    """Ask twice, ask otherwise, and hold the wrong rows against the parity margins."""
    obtained = candidate.obtained
    few = golden.head(_ROWS)
    if few.rows < 2:
        return _failed(candidate, "the golden data hold one row, so no other input can be asked", ())
    try:
        first = candidate.run_rows(few.inputs)
        again = candidate.run_rows(take(few.inputs, slice(0, 2)), again=True)
    except CandidateFailedError as problem:
        return _failed(candidate, f"{problem.what}: {problem.why}", ())
    unstable = sum(not np.array_equal(first[name][:2], again[name], equal_nan=True) for name in first)
    control = first[candidate.contract.control_output]
    deaf = sum(_same(control[row], control[row - 1]) for row in range(few.rows))
    figures: tuple[ResultFigure, ...] = (
        figure("outputs_not_repeated", unstable, "", obtained, 0.0),
        figure("pairs_without_response", deaf, "", obtained, 0.0),
    )
    wrong = [f"{unstable} outputs differ when the same input is asked again"] if unstable else []
    if deaf:
        name = candidate.contract.control_output
        wrong.append(f"{deaf} of {few.rows} pairs of different inputs give the same {name}")
    if not all(np.isfinite(values.astype(np.float64)).all() for values in first.values()):
        wrong.append("outputs that are not finite can be compared with nothing")
    if parity_margins and not wrong:
        caught = _caught(candidate, few, first, parity_margins)
        figures += (figure("margins_that_catch_swapped_rows", caught, "", obtained),)
        if caught == 0:
            wrong.append("answers to other rows would pass the parity margins, so parity proves nothing")
    if wrong:
        return _failed(candidate, "; ".join(wrong), figures)
    summary = f"same input, same bits; {few.rows} other inputs, other outputs"
    summary += "; swapped rows would fail parity" if parity_margins else "; no parity margins to try against"
    return CheckResult(Check.NEGATIVE_CONTROL, Verdict.PASSED, obtained, summary, figures)


def _caught(candidate: Candidate, few: Golden, outputs: Tensors, margins: Mapping[str, float]) -> int:
    """How many parity margins notice that every row got its neighbour's reference."""
    swapped: Tensors = {name: np.roll(values, 1, axis=0) for name, values in few.outputs.items()}
    judged = against(margins, parity_figures(candidate.contract, swapped, outputs, candidate.obtained))
    return len(judged.exceeded)


def _same(one: np.ndarray[tuple[int, ...], np.dtype[np.generic]], other: object) -> bool:
    return bool(np.array_equal(one, np.asarray(other)))


def _failed(candidate: Candidate, summary: str, figures: tuple[ResultFigure, ...]) -> CheckResult:
    next = "the artifact ignores its inputs or keeps state between calls: compile again from the model's own weights"
    return CheckResult(Check.NEGATIVE_CONTROL, Verdict.FAILED, candidate.obtained, summary, figures, next)
