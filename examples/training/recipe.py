"""The committed recipe: every seed, size and rate that decides what the example models become.

Nothing else in the training reads a number from elsewhere. Seeds of training, validation and test scenarios never
overlap: a scenario's seed is ``base + index``, and no base is nearer than the sizes used here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nwmctl.driving.scenarios import Family, ScenarioId

TEST_SEED: Final = 1_000_000
TEST_SCENARIOS: Final = 300
VALIDATION_SEED: Final = 2_000_000
VALIDATION_SCENARIOS: Final = 500
INIT_SEED: Final = 7

MIX: Final[dict[Family, int]] = {
    Family.HIGHWAY: 5,
    Family.MERGE: 6,
    Family.ROUNDABOUT: 4,
    Family.INTERSECTION: 6,
    Family.CURVY: 3,
}
"""Drives per 24 of each family: more where imitation fails first."""


@dataclass(frozen=True, slots=True)
class Drives:
    """One collection: ``count`` drives from ``seed`` on; ``noise`` is the share of drives that are pushed about."""

    name: str
    count: int
    seed: int
    noise: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of optimisation. ``imitate`` and ``predict`` weigh the two losses; ``rate`` is the peak rate."""

    name: str
    steps: int
    rate: float
    imitate: float
    predict: float
    seed: int
    batch: int = 256
    fresh: float = 0.0
    """Share of each batch that comes from the newest drives (the rest: from all)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All of it. ``rounds`` are DAgger rounds: the model of then drives, the expert says what it would have done."""

    expert_drives: Drives = Drives("expert", 4_800, 10_000, 0.6)
    pretrain: Stage = Stage("world-model pre-training", 1_200, 1.0e-3, 0.0, 1.0, seed=11)
    finetune: Stage = Stage("supervised fine-tuning", 700, 8.0e-4, 1.0, 0.15, seed=12)
    extend: Stage = Stage("supervised fine-tuning, continued", 2_000, 6.0e-4, 1.0, 0.15, seed=13)
    rounds: tuple[tuple[Drives, Stage], ...] = (
        (Drives("dagger-1", 1_200, 300_000, 0.3), Stage("DAgger round 1", 1_000, 4e-4, 1.0, 0.15, 14, fresh=0.35)),
        (Drives("dagger-2", 1_200, 400_000, 0.3), Stage("DAgger round 2", 1_000, 4e-4, 1.0, 0.15, 15, fresh=0.35)),
        (Drives("dagger-3", 1_200, 500_000, 0.3), Stage("DAgger round 3", 2_000, 3e-4, 1.0, 0.15, 16, fresh=0.35)),
    )


def training_ids(drives: Drives) -> tuple[ScenarioId, ...]:
    """The scenarios of a collection, the families in the proportions of ``MIX``, interleaved."""
    cycle = [family for family, share in MIX.items() for _ in range(share)]
    order = sorted(range(len(cycle)), key=lambda i: (i * 7) % len(cycle))
    return tuple(ScenarioId(cycle[order[i % len(cycle)]], drives.seed + i) for i in range(drives.count))
