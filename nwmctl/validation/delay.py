"""Delay: is a control channel of the artifact late, or early, against the model's on the same drives?

The candidate's command at decision t is laid over the reference's at t-2 .. t+2 by a straight line for each lag; the
lag that leaves the least unexplained is the delay, and a parabola through its neighbours gives the part between two
decisions. A gain or an offset does not move it, an artifact that answers from a stale history or from the question
before does. Pure; knows no margin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

REACH = 2
"""Lags that are tried, in decisions, on either side."""
_TINY = 1e-12
_FEW = 20
"""Decisions below which no lag can be told."""


def delay_steps(
    reference: NDArray[np.float64], candidate: NDArray[np.float64], live: NDArray[np.bool_]
) -> float | None:
    """Delay of the candidate in decisions (positive: late), from commands [T,S] of S drives.

    The same estimate of the reference against itself, a few hundredths because a drive has two ends, is taken off.
    None where nothing can be told: too few decisions, or a channel that does not move.
    """
    found, own = _estimate(reference, candidate, live), _estimate(reference, reference, live)
    return None if found is None or own is None else found - own


def _estimate(reference: NDArray[np.float64], candidate: NDArray[np.float64], live: NDArray[np.bool_]) -> float | None:
    unexplained = [_unexplained(reference, candidate, live, lag) for lag in range(-REACH, REACH + 1)]
    if any(value is None for value in unexplained):
        return None
    errors = np.array(unexplained, np.float64)
    best = int(np.argmin(errors))
    inner = min(max(best, 1), len(errors) - 2)
    before, here, after = errors[inner - 1 : inner + 2]
    bend = before - 2.0 * here + after
    between = 0.0 if best != inner or bend < _TINY else 0.5 * (before - after) / bend
    return float(best - REACH + between)


def _unexplained(
    reference: NDArray[np.float64], candidate: NDArray[np.float64], live: NDArray[np.bool_], lag: int
) -> float | None:
    """Share (0..1) of the candidate's variance that a line over the reference ``lag`` decisions ago leaves open.

    The decisions compared are the same for every lag, so that the shares can be compared too.
    """
    steps = len(reference)
    inside = slice(REACH, steps - REACH)
    # A drive's rows count while it is under way, with all their neighbours in time.
    kept = live[2 * REACH :] if steps > 2 * REACH else live[:0]
    y = candidate[inside][kept]
    x = reference[REACH - lag : steps - REACH - lag][kept]
    if len(y) < _FEW:
        return None
    x, y = x - x.mean(), y - y.mean()
    moved, own = float(x @ x), float(y @ y)
    if moved < _TINY or own < _TINY:
        return None
    return max(0.0, 1.0 - float(x @ y) ** 2 / (moved * own))
