"""Parity: open loop, does the artifact answer what the trained model answered?

Asked are the package's golden data, row by row at batch 1, and drives of the model recorded for the seed of this run.
Errors are in the channels' own units, in float64, over all horizon steps. Beside the errors each control channel is
regressed on the reference (candidate = gain x reference + offset), because a feedback loop hides a wrong gain that an
open loop shows at once, and its delay is estimated along the drives. The largest error is taken over the golden data
alone: over many drives it only measures how rare an input was met, the 99 % quantile does not. Limits are the
policy's margins; there are none in this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.model import Channel, ModelContract
from nwmctl.domain.policy import Rule
from nwmctl.errors import CandidateFailedError
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.delay import delay_steps
from nwmctl.validation.figures import against, figure, no_margins
from nwmctl.validation.inputs import Golden
from nwmctl.validation.recording import Recording, executed

SIGN_FLOOR = 0.02
"""Share of a channel's range (or of its largest reference value) below which a sign means nothing."""
DELAY = ".delay_steps"
"""What the figures of a delay end with: they need drives, so they are not asked of a way that is too slow for them."""
_QUANTILE = 0.99
_TINY = 1e-12
_NEXT = "try the next recipe, or compile at a higher precision"
_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Driven:
    """What reference and candidate answered along the same drives."""

    recording: Recording
    candidate: Tensors

    def rows(self, name: str) -> tuple[_Values, _Values]:
        """Reference's and candidate's answers [N,...] at every decision of a drive under way."""
        live = self.recording.live
        one, other = self.recording.answers[name][live], self.candidate[name][live]
        return one.astype(np.float64), other.astype(np.float64)


def check_parity(candidate: Candidate, golden: Golden, rule: Rule, recording: Recording | None = None) -> CheckResult:
    """Compare the artifact's answers with the recorded ones. ``recording`` is None where nothing can be driven."""
    obtained = candidate.obtained
    try:
        outputs = candidate.run_rows(golden.inputs)
        driven = None if recording is None else Driven(recording, candidate.replay(recording))
    except CandidateFailedError as problem:
        return CheckResult(Check.PARITY, Verdict.FAILED, obtained, f"{problem.what}: {problem.why}", (), problem.next)
    asked = f"{golden.rows} golden rows" + (f" + {recording.rows} decisions of drives" if recording else "")
    where, seeds = f"{asked}, {candidate.way.label}", (recording.seed,) if recording else ()
    broken = [name for name, values in outputs.items() if not _finite(values, driven.rows(name)[1] if driven else None)]
    if broken:
        summary = f"{', '.join(sorted(broken))} holds values that are not finite ({where})"
        next = "see the contract check for the channels"
        return CheckResult(Check.PARITY, Verdict.FAILED, obtained, summary, (), next, seeds)
    figures = parity_figures(candidate.contract, golden.outputs, outputs, obtained, driven)
    # Without drives nobody can tell a delay; the policy's judge still misses the figure if no other way has it.
    margins = {name: limit for name, limit in rule.margins.items() if driven or not name.endswith(DELAY)}
    if not margins:
        return no_margins(Check.PARITY, obtained, figures)
    judged = against(margins, figures)
    if judged.exceeded:
        summary = f"{'; '.join(judged.exceeded[:4])} ({where})"
        return CheckResult(Check.PARITY, Verdict.FAILED, obtained, summary, judged.figures, _NEXT, seeds)
    if judged.missing:
        summary = f"the policy limits {', '.join(judged.missing)}, which this model does not have"
        next = "have the safety role name margins for the figures that this model has"
        return CheckResult(Check.PARITY, Verdict.INCONCLUSIVE, obtained, summary, judged.figures, next, seeds)
    worst = ", ".join(
        f"{f.name} {f.value:.2g} {f.unit}".rstrip() for f in judged.figures if f.name.endswith(".max_abs") and f.limit
    )
    summary = f"{worst or 'within all margins'} ({where})"
    return CheckResult(Check.PARITY, Verdict.PASSED, obtained, summary, judged.figures, "", seeds)


def parity_figures(
    contract: ModelContract,
    reference: Tensors,
    candidate: Mapping[str, NDArray[np.generic]],
    obtained: Obtained,
    driven: Driven | None = None,
) -> tuple[ResultFigure, ...]:
    """All figures.

    Of the golden data alone: ``<output>.max_abs``, and per control channel ``<channel>.max_abs``. Of golden data and
    drives together: ``<output>.relative``, and per control channel ``.p99_abs``, ``.gain_error``, ``.offset`` and
    ``.sign_flips``. Of the drives alone: ``<channel>.delay_steps``, in decisions, positive where the artifact is late.
    """
    made: list[ResultFigure] = []
    for spec in contract.outputs:
        a, b = reference[spec.name].astype(np.float64), candidate[spec.name].astype(np.float64)
        more = driven.rows(spec.name) if driven else (a[:0], b[:0])
        all_a, all_b = np.concatenate([a, more[0]]), np.concatenate([b, more[1]])
        size = float(np.linalg.norm(all_a))
        relative = float(np.linalg.norm(all_b - all_a)) / max(size, _TINY)
        made.append(figure(f"{spec.name}.relative", relative, "", obtained))
        if spec.name != contract.control_output:
            units = {channel.unit for channel in spec.channels}
            unit = units.pop() if len(units) == 1 else ""
            made.append(figure(f"{spec.name}.max_abs", float(np.abs(b - a).max()), unit, obtained))
            continue
        for index, channel in enumerate(spec.channels):
            worst = float(np.abs(b[..., index] - a[..., index]).max())
            made.append(figure(f"{channel.name}.max_abs", worst, channel.unit, obtained))
            made += _channel_figures(channel, all_a[..., index].ravel(), all_b[..., index].ravel(), obtained)
    return (*made, *(_delays(contract, driven, obtained) if driven else ()))


def _channel_figures(
    channel: Channel, reference: _Values, candidate: _Values, obtained: Obtained
) -> list[ResultFigure]:
    gain, offset = regress(reference, candidate)
    usual = float(np.quantile(np.abs(candidate - reference), _QUANTILE))
    return [
        figure(f"{channel.name}.p99_abs", usual, channel.unit, obtained),
        figure(f"{channel.name}.gain_error", gain - 1.0, "", obtained),
        figure(f"{channel.name}.offset", offset, channel.unit, obtained),
        figure(f"{channel.name}.sign_flips", _sign_flips(channel, reference, candidate), "", obtained),
    ]


def _delays(contract: ModelContract, driven: Driven, obtained: Obtained) -> list[ResultFigure]:
    """Of the command that is executed, the first of the horizon; a channel that never moves has no delay."""
    made = []
    recording, name = driven.recording, contract.control_output
    channels = next((spec.channels for spec in contract.outputs if spec.name == name), ())
    one, other = (executed(answers, name) for answers in (recording.answers, driven.candidate))
    for index, channel in enumerate(channels):
        late = delay_steps(one[..., index], other[..., index], recording.live)
        if late is not None:
            made.append(figure(f"{channel.name}{DELAY}", late, "steps", obtained))
    return made


def regress(reference: _Values, candidate: _Values) -> tuple[float, float]:
    """Gain and offset of the least-squares line; a reference that never moves leaves the gain at 1."""
    centred = reference - reference.mean()
    spread = float(centred @ centred)
    gain = float(centred @ (candidate - candidate.mean())) / spread if spread > _TINY else 1.0
    return gain, float(candidate.mean() - gain * reference.mean())


def _sign_flips(channel: Channel, reference: _Values, candidate: _Values) -> float:
    """Share (0..1) of clearly signed reference values whose counterpart is as clearly signed the other way."""
    if channel.low is not None and channel.high is not None:
        floor = SIGN_FLOOR * (channel.high - channel.low)
    else:
        floor = SIGN_FLOOR * float(np.abs(reference).max())
    clear = np.abs(reference) > floor
    flipped = np.where(reference > 0.0, candidate < -floor, candidate > floor)
    return float(flipped[clear].mean()) if clear.any() else 0.0


def _finite(golden: NDArray[np.generic], driven: _Values | None) -> bool:
    both = np.isfinite(golden.astype(np.float64)).all()
    return bool(both and (driven is None or np.isfinite(driven).all()))
