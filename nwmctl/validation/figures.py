"""Figures against limits: how a check turns numbers and the policy's margins into a verdict.

A margin is an upper limit of a figure's absolute value, the same comparison that the policy's judge makes. A margin
without its figure, and a rule without margins, settle nothing, so they are inconclusive: a check never makes up a
limit of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure

LARGEST = 1e308
DIGITS = 6
"""Significant digits of a figure in evidence; more would only carry the host's rounding."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Figures with their limits, and what is wrong with them."""

    figures: tuple[ResultFigure, ...]
    exceeded: tuple[str, ...]
    missing: tuple[str, ...]


def figure(name: str, value: float, unit: str, obtained: Obtained, limit: float | None = None) -> ResultFigure:
    """A figure rounded for evidence. Evidence holds finite numbers only: an infinity becomes the largest number, and
    so does what is not a number, which thus exceeds every limit."""
    if not math.isfinite(value):
        return ResultFigure(name, math.copysign(LARGEST, value), unit, obtained, limit)
    shown = float(f"{value:.{DIGITS}g}")
    return ResultFigure(name, shown + 0.0, unit, obtained, limit)


def against(margins: Mapping[str, float], figures: Iterable[ResultFigure]) -> Judged:
    """Lay the policy's margins over the figures."""
    limited = tuple(replace(f, limit=margins[f.name]) if f.name in margins else f for f in figures)
    exceeded = tuple(
        f"{f.name} is {f.value:.4g}{f' {f.unit}' if f.unit else ''}, at most {f.limit:.4g} is allowed"
        for f in limited
        if f.limit is not None and not abs(f.value) <= f.limit
    )
    known = {f.name for f in limited}
    return Judged(limited, exceeded, tuple(sorted(set(margins) - known)))


def not_run(check: Check, summary: str, next: str, figures: tuple[ResultFigure, ...] = ()) -> CheckResult:
    """A check that did not run, and what would make it run."""
    return CheckResult(check, Verdict.NOT_RUN, Obtained.NOT_RUN, summary, figures, next)


def not_demanded(check: Check, platform: str) -> CheckResult:
    """A check that compares with margins, on a platform for which the policy has no rule about it."""
    return not_run(
        check,
        f"the policy has no rule for {check} on {platform}, so there is no margin to compare with",
        f"have the safety role sign a policy with margins for {check} on {platform}",
    )


def no_margins(check: Check, obtained: Obtained, figures: tuple[ResultFigure, ...]) -> CheckResult:
    """A rule without a single margin: the figures are there, and nothing says what is good enough."""
    return CheckResult(
        check,
        Verdict.INCONCLUSIVE,
        obtained,
        f"the policy's rule for {check} names no margin",
        figures,
        f"have the safety role sign a policy that names margins for {check}",
    )
