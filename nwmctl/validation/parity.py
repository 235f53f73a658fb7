"""Parity: open loop, does the artifact answer what the trained model answered on the golden data?

Errors are in the channels' own units, in float64, over all golden rows and horizon steps. Beside the largest error
each control channel is regressed on the reference (candidate = gain x reference + offset), because a feedback loop
hides a wrong gain that an open loop shows at once. Limits are the policy's margins; there are none in this module.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.model import Channel, ModelContract
from nwmctl.domain.policy import Rule
from nwmctl.errors import CandidateFailedError
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.figures import against, figure, no_margins
from nwmctl.validation.inputs import Golden

SIGN_FLOOR = 0.02
"""Share of a channel's range (or of its largest reference value) below which a sign means nothing."""
_TINY = 1e-12


def check_parity(candidate: Candidate, golden: Golden, rule: Rule) -> CheckResult:
    """Compare the artifact's answers, row by row at batch 1, with the recorded ones."""
    obtained = candidate.obtained
    try:
        outputs = candidate.run_rows(golden.inputs)
    except CandidateFailedError as problem:
        return CheckResult(Check.PARITY, Verdict.FAILED, obtained, f"{problem.what}: {problem.why}", (), problem.next)
    broken = [name for name, values in outputs.items() if not np.isfinite(values.astype(np.float64)).all()]
    if broken:
        summary = f"{', '.join(sorted(broken))} holds values that are not finite on golden data"
        return CheckResult(
            Check.PARITY, Verdict.FAILED, obtained, summary, (), "see the contract check for the channels"
        )
    figures = parity_figures(candidate.contract, golden.outputs, outputs, obtained)
    if not rule.margins:
        return no_margins(Check.PARITY, obtained, figures)
    judged = against(rule.margins, figures)
    where = f"{golden.rows} golden rows, {candidate.way.label}"
    if judged.exceeded:
        summary = f"{'; '.join(judged.exceeded[:4])} ({where})"
        next = "try the next recipe, or compile at a higher precision"
        return CheckResult(Check.PARITY, Verdict.FAILED, obtained, summary, judged.figures, next)
    if judged.missing:
        return CheckResult(
            Check.PARITY,
            Verdict.INCONCLUSIVE,
            obtained,
            f"the policy limits {', '.join(judged.missing)}, which this model does not have",
            judged.figures,
            "have the safety role name margins for the figures that this model has",
        )
    worst = ", ".join(
        f"{f.name} {f.value:.2g} {f.unit}".rstrip() for f in judged.figures if f.name.endswith(".max_abs") and f.limit
    )
    return CheckResult(
        Check.PARITY, Verdict.PASSED, obtained, f"{worst or 'within all margins'} ({where})", judged.figures
    )


def parity_figures(
    contract: ModelContract, reference: Tensors, candidate: Mapping[str, NDArray[np.generic]], obtained: Obtained
) -> tuple[ResultFigure, ...]:
    """All figures: ``<output>.relative``, ``<output>.max_abs``, and per control channel ``<channel>.max_abs``,
    ``.gain_error``, ``.offset`` and ``.sign_flips``."""
    made: list[ResultFigure] = []
    for spec in contract.outputs:
        a, b = reference[spec.name].astype(np.float64), candidate[spec.name].astype(np.float64)
        size = float(np.linalg.norm(a))
        made.append(figure(f"{spec.name}.relative", float(np.linalg.norm(b - a)) / max(size, _TINY), "", obtained))
        if spec.name != contract.control_output:
            units = {channel.unit for channel in spec.channels}
            unit = units.pop() if len(units) == 1 else ""
            made.append(figure(f"{spec.name}.max_abs", float(np.abs(b - a).max()), unit, obtained))
            continue
        for index, channel in enumerate(spec.channels):
            made += _channel_figures(channel, a[..., index].ravel(), b[..., index].ravel(), obtained)
    return tuple(made)


def _channel_figures(
    channel: Channel, reference: NDArray[np.float64], candidate: NDArray[np.float64], obtained: Obtained
) -> list[ResultFigure]:
    gain, offset = regress(reference, candidate)
    return [
        figure(f"{channel.name}.max_abs", float(np.abs(candidate - reference).max()), channel.unit, obtained),
        figure(f"{channel.name}.gain_error", gain - 1.0, "", obtained),
        figure(f"{channel.name}.offset", offset, channel.unit, obtained),
        figure(f"{channel.name}.sign_flips", _sign_flips(channel, reference, candidate), "", obtained),
    ]


def regress(reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> tuple[float, float]:
    """Gain and offset of the least-squares line; a reference that never moves leaves the gain at 1."""
    centred = reference - reference.mean()
    spread = float(centred @ centred)
    gain = float(centred @ (candidate - candidate.mean())) / spread if spread > _TINY else 1.0
    return gain, float(candidate.mean() - gain * reference.mean())


def _sign_flips(channel: Channel, reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> float:
    """Share (0..1) of clearly signed reference values whose counterpart has the other sign."""
    if channel.low is not None and channel.high is not None:
        floor = SIGN_FLOOR * (channel.high - channel.low)
    else:
        floor = SIGN_FLOOR * float(np.abs(reference).max())
    clear = np.abs(reference) > floor
    return float((np.sign(candidate[clear]) != np.sign(reference[clear])).mean()) if clear.any() else 0.0
