"""Non-inferiority: does the new model drive at least as well as the released one, within the policy's margins?

Models are compared, not artifacts: both as trained, on the same scenarios, overall and family by family. Every figure
is one-sided, "how much worse": crashes, leaving the road, progress, comfort (jerk), and recovery from traps. How many
pairs a margin needs is worked out first, from how often the two models differed on other scenarios (a pilot whose
drives count for nothing else). The figures are ``proxy`` everywhere, since what
drove is no artifact; that each artifact drives like its model is for the closed loop. A model is never inferior to
itself: with the same weights nothing is driven.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.policy import Rule
from nwmctl.domain.scenario import Family
from nwmctl.driving.metrics import Outcomes, recovered
from nwmctl.validation.closed_loop import undrivable, widening
from nwmctl.validation.drives import BLOCK, DrivenModel, ModelDrives, ScenarioList, Share, Suite
from nwmctl.validation.estimates import Estimate, decide, interval_figure
from nwmctl.validation.figures import against, figure, no_margins, not_run
from nwmctl.validation.recording import drivable
from nwmctl.validation.statistics import (
    Interval,
    mean_interval,
    pairs_needed,
    score_interval,
    settles_score,
    settles_width,
    spent,
)
from nwmctl.validation.subject import Settings, Subject

CRASHES, OFF_ROAD, PROGRESS, JERK, RECOVERY = (
    "crash_rate_increase",
    "off_road_increase",
    "progress_loss",
    "jerk_increase",
    "recovery_loss",
)
"""Figures that a policy may limit, never below zero: share; share; share of the way at cruise speed; m/s3; share of
traps. The first four also per family, as in ``merge.crash_rate_increase``."""
COMPARED = (CRASHES, OFF_ROAD, PROGRESS, JERK)
_SIZES = (250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)
_TRAP_SIZES = (80, 160, 400, 800, 1_600, 4_000, 8_000)
_TRAP_SPREAD = 0.15
"""Share of traps on which two models are taken to differ before any were driven."""
_APART = 500_000
"""Seeds between the pilot's scenarios and those that count."""
LOOK_FACTOR = 4
"""By how much every further look multiplies the pairs."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How much worse the new model was, pair by pair; ``binary`` values are -1, 0 or 1."""

    name: str
    unit: str
    values: NDArray[np.float64]
    binary: bool

    @property
    def spread(self) -> float:
        """Variance of one pair's difference; for outcomes kept away from the zero of a few pairs."""
        if self.binary:
            return (float(np.abs(self.values).sum()) + 2.0) / (len(self.values) + 4.0)
        return float(self.values.var(ddof=1)) if len(self.values) > 1 else math.inf

    def estimate(self, look: int, per_pair: float) -> Estimate:
        """With its interval. ``per_pair``: pairs in all for each pair that this difference is about."""
        count = len(self.values)
        sure, surer = spent(look), spent(look + 1)
        if self.binary:
            more, less = int((self.values > 0).sum()), int((self.values < 0).sum())
            found = score_interval(more, less, count, sure)

            def needed(limit: float) -> int | None:
                return settles_score(more, less, count, limit, surer)
        else:
            found = mean_interval(self.values, sure)

            def needed(limit: float) -> int | None:
                return settles_width(found, count, limit, widening(look), signed=True)

        def in_all(limit: float) -> int | None:
            pairs = needed(limit)
            return None if pairs is None else math.ceil(pairs * per_pair)

        return Estimate(self.name, self.unit, found, in_all, one_sided=True)


def differences(released: Outcomes, new: Outcomes) -> Iterator[Difference]:
    """Every difference that may have a margin, overall and by family, over the same scenarios of both."""
    families = np.array([identity.family for identity in released.ids])
    groups = [("", np.ones(len(families), dtype=bool))]
    groups += [(f"{family}.", families == family) for family in Family if (families == family).any()]
    for prefix, chosen in groups:
        crashed = new.crashed[chosen].astype(np.float64) - released.crashed[chosen]
        off_road = new.off_road[chosen].astype(np.float64) - released.off_road[chosen]
        yield Difference(f"{prefix}{CRASHES}", "", crashed, binary=True)
        yield Difference(f"{prefix}{OFF_ROAD}", "", off_road, binary=True)
        yield Difference(f"{prefix}{PROGRESS}", "", released.progress[chosen] - new.progress[chosen], binary=False)
        yield Difference(f"{prefix}{JERK}", "m/s3", new.jerk[chosen] - released.jerk[chosen], binary=False)


def planned(pilot: Outcomes, other: Outcomes, margins: Mapping[str, float]) -> int:
    """Pairs that exclude every margin if the new model is as good as the pilot says for sure, and at least if the
    models are equally good; one of a few round numbers. The pilot's drives are no part of the sample, so whatever is
    read out of them, the sample's intervals stay what they are."""
    needed = []
    for each in differences(pilot, other):
        limit = margins.get(each.name, 0.0)
        if limit > 0.0:
            better = max(0.0, -each.estimate(0, 1.0).found.high)
            needed.append(pairs_needed(each.spread, limit + better) * len(pilot) / len(each.values))
    return _round(max(needed, default=0.0), _SIZES)


def check_non_inferiority(subject: Subject, settings: Settings, rule: Rule, told: Share) -> CheckResult:
    """Compare the model with the released one. Errors of both models pass."""
    released, margins = subject.released, rule.margins
    if released is None:
        next = "name the released model under the release's 'previous:'"
        return not_run(Check.NON_INFERIORITY, "there is no released model to compare with", next)
    if not (drivable(subject.contract) and drivable(released.contract)):
        return undrivable(Check.NON_INFERIORITY, subject)
    if released.weights == subject.weights_digest:
        return _itself(rule)
    pairs = _Pairs(subject.drives, subject.model, released.model)
    count, traps = _amounts(pairs, settings, margins)
    old, new = pairs.drive(ScenarioList(Suite.ROADS, count, settings.seed + _APART, settings.braking), told)
    found = list(differences(old, new))
    look = settings.looks.pairs
    estimates = [each.estimate(look, count / len(each.values)) for each in found]
    figures = [figure("pairs", count, "", Obtained.PROXY), *_rates(old, new)]
    if RECOVERY in margins:
        before, after = pairs.drive(ScenarioList(Suite.TRAPS, traps, settings.seed + _APART, settings.braking), told)
        loss = recovered(before).astype(np.float64) - recovered(after)
        estimates.append(Difference(RECOVERY, "", loss, binary=True).estimate(look, count / traps))
        figures.append(figure("traps", traps, "", Obtained.PROXY))
    figures += _signed(estimates) + [each.figure(Obtained.PROXY) for each in estimates if each.name in margins]
    faults = int(new.faults.sum())
    ran = f"{count} pairs, both models as trained on this host"
    if faults:
        text = f"{faults} controls of the new model were not finite in {ran}"
        return _result(Verdict.FAILED, text, tuple(figures), "train the model again", settings)
    if not margins:
        return no_margins(Check.NON_INFERIORITY, Obtained.PROXY, tuple(figures))
    judged = against(margins, figures)
    said = decide(estimates, judged, margins, "pairs", "release a better model, or keep the released one")
    return _result(said.verdict, f"{said.summary} ({ran})", judged.figures, said.next, settings, said.needs)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Both models, driven side by side."""

    drives: ModelDrives
    new: DrivenModel
    released: DrivenModel

    def drive(self, listed: ScenarioList, told: Share = lambda share: None) -> tuple[Outcomes, Outcomes]:
        """The released model's outcomes and the new one's."""
        shares = [0.0, 0.0]

        def telling(index: int) -> Share:
            def tell(share: float) -> None:
                shares[index] = share
                told(sum(shares) / 2.0)

            return tell

        with ThreadPoolExecutor(2, thread_name_prefix="drive") as pool:
            asked = [
                pool.submit(self.drives.get, model, listed, telling(index))
                for index, model in enumerate((self.released, self.new))
            ]
            return asked[0].result(), asked[1].result()


def _amounts(pairs: _Pairs, settings: Settings, margins: Mapping[str, float]) -> tuple[int, int]:
    """Pairs and traps at this look."""
    count = settings.pairs
    if not count:
        # The first block of the closed loop's own list: for both models it has often been driven already.
        pilot, other = pairs.drive(
            ScenarioList(Suite.ROADS, min(BLOCK, settings.scenarios), settings.seed, settings.braking)
        )
        count = planned(pilot, other, margins)
    limit = margins.get(RECOVERY, 0.0)
    traps = _round(pairs_needed(_TRAP_SPREAD, limit), _TRAP_SIZES) if limit > 0.0 else _TRAP_SIZES[0]
    factor = LOOK_FACTOR**settings.looks.pairs
    return min(count * factor, settings.most_pairs), min(traps * factor, settings.most_pairs)


def _round(needed: float, sizes: tuple[int, ...]) -> int:
    return next((size for size in sizes if size >= needed), sizes[-1])


def _rates(old: Outcomes, new: Outcomes) -> Iterator[ResultFigure]:
    for name, of_old, of_new, unit in (
        ("crash_rate", old.crashed, new.crashed, ""),
        ("off_road_rate", old.off_road, new.off_road, ""),
        ("progress", old.progress, new.progress, ""),
        ("jerk", old.jerk, new.jerk, "m/s3"),
    ):
        yield figure(f"released_{name}", float(of_old.mean()), unit, Obtained.PROXY)
        yield figure(f"new_{name}", float(of_new.mean()), unit, Obtained.PROXY)


def _signed(estimates: list[Estimate]) -> list[ResultFigure]:
    """Every difference with its sign (above zero: worse), whether it has a margin or not."""
    return [interval_figure(f"{each.name}.signed", each.unit, each.found, Obtained.PROXY) for each in estimates]


def _itself(rule: Rule) -> CheckResult:
    """The released model against itself, as for the bundles of the way back: every difference is nought."""
    names = [f"{family}{name}" for family in ("", *(f"{f}." for f in Family)) for name in COMPARED] + [RECOVERY]
    nought = Interval(0.0, 0.0, 0.0)
    figures = [interval_figure(name, "", nought, Obtained.PROXY) for name in names if name in rule.margins]
    judged = against(rule.margins, figures)
    if judged.missing:
        summary = f"the policy limits {', '.join(judged.missing)}, which this check does not measure"
        next = "have the safety role name margins for figures that exist"
        return CheckResult(Check.NON_INFERIORITY, Verdict.INCONCLUSIVE, Obtained.PROXY, summary, judged.figures, next)
    summary = "this is the released model itself: the same weights"
    return CheckResult(Check.NON_INFERIORITY, Verdict.PASSED, Obtained.PROXY, summary, judged.figures)


def _result(
    verdict: Verdict,
    summary: str,
    figures: tuple[ResultFigure, ...],
    next: str,
    settings: Settings,
    needs: int | None = None,
) -> CheckResult:
    seeds = (settings.seed, settings.seed + _APART)
    return CheckResult(Check.NON_INFERIORITY, verdict, Obtained.PROXY, summary, figures, next, seeds, needs=needs)
