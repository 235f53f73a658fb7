"""What the model as trained and an artifact commanded along the same recorded drives, as plain values.

Between executing an artifact and judging its commands lies a seam: the same artifact is executed once and judged for
every platform whose vehicle models it drives, so the commands travel as a document of their own. Judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.figure import Obtained
from nwmctl.errors import CandidateFailedError
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.recording import Recording, executed

_DIGITS = 6
"""Decimals that are kept: a millionth of a rad or of a m/s2 is below what any precision resolves."""
_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drive:
    """One drive, decision by decision: speed m/s, steer rad at the road wheels, acceleration m/s2."""

    speed: tuple[float, ...]
    reference_steer: tuple[float, ...]
    reference_acceleration: tuple[float, ...]
    steer: tuple[float, ...]
    acceleration: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Commands:
    """All drives of one way of executing. ``fault`` says why there are none: what the artifact did instead of
    answering, and ``next`` what to do about it."""

    obtained: Obtained
    label: str
    seed: int
    drives: tuple[Drive, ...] = ()
    fault: str = ""
    next: str = ""


def command(candidate: Candidate, recording: Recording) -> Commands:
    """Ask the artifact along the drives. Never fails for the artifact's sake: its faults are part of the answer."""
    label, obtained, seed = candidate.way.label, candidate.obtained, recording.seed
    try:
        answers = candidate.replay(recording)
    except CandidateFailedError as problem:
        return Commands(obtained, label, seed, (), f"{problem.what}: {problem.why}", problem.next)
    name = candidate.contract.control_output
    reference, own = executed(recording.answers, name), executed(answers, name)
    if not np.isfinite(own[recording.live]).all():
        fault = "its commands along recorded drives are not all finite"
        return Commands(obtained, label, seed, (), fault, "see the contract check for the channels")
    speed = recording.speeds()
    drives = tuple(
        Drive(_kept(speed[kept, drive]), *_columns(reference[kept, drive]), *_columns(own[kept, drive]))
        for drive, kept in enumerate(recording.live.T)
    )
    return Commands(obtained, label, seed, drives)


def _columns(commands: _Values) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return _kept(commands[:, 0]), _kept(commands[:, 1])


def _kept(values: _Values) -> tuple[float, ...]:
    return tuple((np.round(values, _DIGITS) + 0.0).tolist())
