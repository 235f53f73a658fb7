"""What a gate says about a wave. Pure: counts and seconds of quiet in, decision and reason out.

Shares are of the vehicles that count: those committed, failed, or still open. The order of the rules is the order of
caution: abort, pause, then wait or proceed.
"""

from __future__ import annotations

from nwmctl.domain.campaign import GateDecision, WaveCounts
from nwmctl.domain.release import Gate


def enough_committed(gate: Gate, counts: WaveCounts) -> bool:
    """Whether the share that must have committed has; an empty wave always has."""
    return counts.committed >= gate.min_committed * counts.total - 1e-9


def decide(gate: Gate, counts: WaveCounts, quiet_s: float) -> tuple[GateDecision, str]:
    """The decision and its reason. ``quiet_s``: seconds since enough had committed without a failure after it."""
    if counts.total == 0:
        return GateDecision.PROCEED, "no vehicle of the wave counts"
    failed = counts.failed / counts.total
    said = f"{counts.failed} of {counts.total} failed ({failed:.1%})"
    if counts.failed and failed >= gate.abort_failed:
        return GateDecision.ABORT, f"{said}; the gate aborts at {gate.abort_failed:.1%}"
    if failed > gate.max_failed + 1e-9:
        return GateDecision.PAUSE, f"{said}; the gate allows {gate.max_failed:.1%}"
    committed = f"{counts.committed} of {counts.total} committed ({counts.committed / counts.total:.1%})"
    if not enough_committed(gate, counts):
        if counts.committed + counts.open < gate.min_committed * counts.total - 1e-9:
            return GateDecision.PAUSE, f"{committed}; {gate.min_committed:.1%} can no longer be reached"
        return GateDecision.WAIT, f"{committed}; the gate asks for {gate.min_committed:.1%}"
    if quiet_s < gate.soak_s:
        return GateDecision.WAIT, f"{committed}; quiet for {quiet_s:.1f} s of {gate.soak_s:g} s"
    return GateDecision.PROCEED, f"{committed}, {counts.failed} failed, quiet for {quiet_s:.1f} s"


def decide_return(counts: WaveCounts) -> tuple[GateDecision, str]:
    """The decision for a return: failures never hold the others up, and it ends when every vehicle has answered."""
    said = f"{counts.committed} of {counts.total} are back, {counts.failed} failed"
    if counts.open:
        return GateDecision.WAIT, f"{said}, {counts.open} have not answered"
    if counts.failed and not counts.committed:
        return GateDecision.PAUSE, f"{said}: none came back"
    return GateDecision.PROCEED, said
