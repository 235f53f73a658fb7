"""The committed recipes: every seed, size and rate that decides what the example models become.

Nothing else in the training reads a number from elsewhere. Seeds of training, validation and test scenarios never
overlap: a scenario's seed is ``base + index``, and no base is nearer than the sizes used here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nwmctl.driving.scenarios import Family, ScenarioId

TEST_SEED: Final = 1_000_000
TEST_SCENARIOS: Final = 300
"""What each stage measures itself on; the stages are compared on the first ``HELD_OUT`` of them."""
HELD_OUT: Final = 250
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
HARD_MIX: Final[dict[Family, int]] = {
    Family.HIGHWAY: 5,
    Family.MERGE: 5,
    Family.ROUNDABOUT: 5,
    Family.INTERSECTION: 8,
    Family.CURVY: 1,
}
"""The same for reinforcement learning: more where imitation still crashes."""


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
class Exploration:
    """One round of exploring: see ``explore``."""

    scenarios: int = 800
    """Scenarios that the model drives as it is."""
    near: float = 0.6
    """A scenario is hard if the model fails in it or comes nearer than this many metres to somebody."""
    plain: int = 60
    """How many of the others are explored too, and what their drives weigh."""
    plain_weight: float = 2.0
    drives: int = 10
    """Drives with a push per explored scenario."""
    size: float = 1.5
    """Standard deviation of a push's height in m/s2."""


@dataclass(frozen=True, slots=True)
class Reinforce:
    """The stage of reinforcement learning: ``iterates`` times explore and update. The batches and weights belong to
    the four losses: pushed decisions, the model's own, and the recorded drives' (expert's controls, world model)."""

    name: str
    iterates: int
    steps: int
    rate: float
    seed: int
    first_scenario: int
    validation: int = VALIDATION_SCENARIOS
    """Scenarios on which every iterate is judged; the best becomes the stage's result."""
    exploration: Exploration = Exploration()
    calmer: float = 0.9
    """The rate's factor from one iterate to the next."""
    reach: float = 1.0
    """How far along a push the plan's goal lies."""
    batch: int = 112
    keep_batch: int = 48
    anchor_batch: int = 80
    keep: float = 1.5
    imitate: float = 0.5
    predict: float = 0.1


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
    )
    reinforce: Reinforce = Reinforce("closed-loop reinforcement learning", 12, 100, 1.0e-4, 21, 600_000)


SHORT: Final = Recipe(
    Drives("expert", 1_600, 10_000, 0.6),
    Stage("world-model pre-training", 500, 1.0e-3, 0.0, 1.0, seed=11),
    Stage("supervised fine-tuning", 600, 8.0e-4, 1.0, 0.15, seed=12),
    Stage("supervised fine-tuning, continued", 300, 6.0e-4, 1.0, 0.15, seed=13),
    ((Drives("dagger-1", 400, 300_000, 0.3), Stage("DAgger round 1", 300, 4e-4, 1.0, 0.15, 14, fresh=0.35)),),
    Reinforce(
        "closed-loop reinforcement learning", 4, 80, 1.0e-4, 21, 600_000, 200,
        Exploration(scenarios=300, plain=30, drives=8),
    ),
)  # fmt: skip
"""The same stages in the same order, small enough for 20 minutes on two cores. Its models are not released."""


def training_ids(drives: Drives) -> tuple[ScenarioId, ...]:
    """The scenarios of a collection, the families in the proportions of ``MIX``, interleaved."""
    return _mixed(MIX, drives.seed, drives.count)


def reinforcement_ids(plan: Reinforce, number: int) -> tuple[ScenarioId, ...]:
    """The scenarios of one iterate; no two iterates share any."""
    count = plan.exploration.scenarios
    return _mixed(HARD_MIX, plan.first_scenario + number * count, count)


def _mixed(mix: dict[Family, int], seed: int, count: int) -> tuple[ScenarioId, ...]:
    cycle = [family for family, share in mix.items() for _ in range(share)]
    order = sorted(range(len(cycle)), key=lambda i: (i * 7) % len(cycle))
    return tuple(ScenarioId(cycle[order[i % len(cycle)]], seed + i) for i in range(count))
