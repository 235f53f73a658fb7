"""Whole episodes with the trajectory guard round the policy, and how often it had to step in.

Every batch gets a guard of its own, and decisions after an episode's end are not counted, so the interventions of a
scenario do not depend on the batch it drove in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nwmctl.driving import episode, metrics
from nwmctl.driving.constants import BoolArray, FloatArray, IntArray
from nwmctl.driving.guard import REASONS, Guard, PlanPolicy, Reason
from nwmctl.driving.metrics import Outcomes
from nwmctl.driving.scenarios import ScenarioId


@dataclass(frozen=True, slots=True, eq=False)
class Interventions:
    """Decisions in which the guard replaced the policy's control; first dimension N, in the order of ``ids``."""

    ids: tuple[ScenarioId, ...]
    counts: IntArray
    """[N, len(REASONS)]"""
    decisions: IntArray
    """[N] decisions that were driven."""
    way: FloatArray
    """[N] metres that were driven."""

    @property
    def episodes(self) -> BoolArray:
        """[N] whether the guard intervened at all."""
        return np.asarray(self.counts.sum(axis=1) > 0)

    def per_km(self, reason: Reason | None = None) -> float:
        """Interventions per km driven, for one reason or all; 0 where nothing was driven."""
        way = float(self.way.sum())
        count = int(self.counts.sum()) if reason is None else self.of(reason)
        return 1000.0 * count / way if way else 0.0

    def chosen(self, which: BoolArray) -> Interventions:
        """Those of some scenarios; ``which`` [N]."""
        ids = tuple(identity for identity, taken in zip(self.ids, which, strict=True) if taken)
        return Interventions(ids, self.counts[which], self.decisions[which], self.way[which])

    def of(self, reason: Reason) -> int:
        """Interventions for one reason."""
        return int(self.counts[:, REASONS.index(reason)].sum())


def run_guarded(
    policy: PlanPolicy, scenarios: Sequence[ScenarioId], batch: int = 100
) -> tuple[Outcomes, Interventions]:
    """Drive every scenario with the guard round the policy. Raises PolicyShapeError; ValueError if none."""
    if not scenarios or batch < 1:
        raise ValueError("at least one scenario and a batch of at least one are needed")
    parts, counts = [], []
    for begin in range(0, len(scenarios), batch):
        guard = Guard(policy)
        part = episode.run(guard, scenarios[begin : begin + batch], batch)
        parts.append(part)
        counts.append(guard.counts(part.steps))
    outcomes = metrics.join(parts)
    return outcomes, Interventions(outcomes.ids, np.concatenate(counts), outcomes.steps, way_driven(outcomes))


def way_driven(outcomes: Outcomes) -> FloatArray:
    """[N] metres that the ego drove."""
    step = np.diff(outcomes.path, axis=1)
    return np.asarray(np.sqrt((step * step).sum(axis=-1)).sum(axis=1))
