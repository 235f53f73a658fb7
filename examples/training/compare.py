"""Compare the stages on held-out scenarios: ``python -m examples.training.compare --work DIR``.

Every checkpoint of the work folder drives the same scenarios (``--count`` of them from the test seed; no stage trains
on them or selects by them), and so do the rule-based expert and a driver that does nothing. The table goes to standard
output and to ``compared.json``. Intervals are 95 %: Wilson for a crash rate, the paired bootstrap (10,000 resamples,
fixed seed) for a difference of scores, and the exact McNemar test for a difference of crashes. The stages are in order
where the world model alone scores below the last supervised checkpoint and that one below reinforcement learning.
``--upgrade OLD NEW`` compares just two checkpoints, for example on many more scenarios.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from examples.training import recipe as r
from examples.training.files import write
from examples.training.network import Driver, policy_of
from nwmctl.driving import episode
from nwmctl.driving.constants import FloatArray
from nwmctl.driving.metrics import Outcomes, summarise
from nwmctl.driving.observe import Observation
from nwmctl.driving.scenarios import ScenarioId, paired

_RESAMPLES: Final = 10_000
_Z: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Row:
    """One driver. Rates, progress and score as fractions, jerk in m/s3."""

    name: str
    scenarios: int
    failed: float
    failed_low: float
    failed_high: float
    off_road: float
    progress: float
    jerk: float
    score: float
    score_low: float
    score_high: float


@dataclass(frozen=True, slots=True)
class Better:
    """How much better ``new`` scores than ``old`` on the same scenarios, and in how many only one of them failed."""

    old: str
    new: str
    score: float
    low: float
    high: float
    only_old_failed: int
    only_new_failed: int
    mcnemar_p: float


@dataclass(frozen=True, slots=True)
class Compared:
    """The whole table."""

    seed: int
    rows: tuple[Row, ...]
    steps: tuple[Better, ...]
    in_order: bool


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate."""
    rate, square = hits / count, _Z * _Z / count
    middle, half = rate + square / 2, _Z * math.sqrt(rate * (1 - rate) / count + square / (4 * count))
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def mcnemar(one: int, other: int) -> float:
    """The exact two-sided p that pairs fall to either side alike."""
    count, fewer = one + other, min(one, other)
    tail: float = sum(math.comb(count, i) for i in range(fewer + 1)) / 2**count
    return min(1.0, 2 * tail)


def interval(values: FloatArray) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean."""
    stream = np.random.default_rng(1)
    means = [float(values[stream.integers(0, len(values), len(values))].mean()) for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def row(name: str, outcomes: Outcomes) -> Row:
    """What a driver's outcomes amount to."""
    total = summarise(outcomes)
    low, high = wilson(int(outcomes.failed.sum()), len(outcomes))
    score_low, score_high = interval(outcomes.score)
    return Row(
        name, len(outcomes), float(outcomes.failed.mean()), low, high, total.off_road_rate,
        total.progress, total.jerk, total.score, score_low, score_high,
    )  # fmt: skip


def better(old: tuple[str, Outcomes], new: tuple[str, Outcomes]) -> Better:
    """Pair two drivers scenario by scenario."""
    apart = new[1].score - old[1].score
    low, high = interval(apart)
    lost, won = int((old[1].failed & ~new[1].failed).sum()), int((new[1].failed & ~old[1].failed).sum())
    return Better(old[0], new[0], float(apart.mean()), low, high, lost, won, mcnemar(lost, won))


def driven(weights: Path, ids: tuple[ScenarioId, ...]) -> Outcomes:
    """What a checkpoint does."""
    model = Driver()
    model.load_state_dict(torch.load(weights))
    return episode.run(policy_of(model), ids)


def idle(seen: Observation) -> FloatArray:
    """No steering, no acceleration."""
    return np.zeros((len(seen["ego"]), 2))


def compare(work: Path, count: int = r.HELD_OUT) -> Compared:
    """Drive every checkpoint of ``work``, print and keep the table. Raises ValueError if a stage is missing."""
    names = [path.stem for path in sorted(work.glob("[0-9]-*.pt"))]
    if len(names) < 3 or not names[-1].endswith("reinforce"):
        raise ValueError(f"{work} does not hold every stage from the world model to reinforcement learning")
    ids = paired(count, r.TEST_SEED)
    models = [(name, driven(work / f"{name}.pt", ids)) for name in names]
    others = [("idle", episode.run(idle, ids)), ("expert", episode.run_expert(ids))]
    steps = [better(old, new) for old, new in itertools.pairwise(models)]
    steps += [better(others[1], models[-1])]
    score = {name: float(outcomes.score.mean()) for name, outcomes in models}
    in_order = score[names[0]] < score[names[-2]] < score[names[-1]]
    found = Compared(r.TEST_SEED, tuple(row(*each) for each in models + others), tuple(steps), in_order)
    write(work / "compared.json", (json.dumps(asdict(found), indent=1) + "\n").encode())
    show(found)
    return found


def show(found: Compared) -> None:
    """Print the table."""
    print(f"{'':<14} failed % (95 %)         off road %  progress   jerk  score (95 %)")
    for each in found.rows:
        failed = f"{100 * each.failed:5.1f} ({100 * each.failed_low:4.1f} to {100 * each.failed_high:4.1f})"
        score = f"{each.score:.3f} ({each.score_low:.3f} to {each.score_high:.3f})"
        off_road = f"{100 * each.off_road:10.1f}"
        print(f"{each.name:<14} {failed:<23} {off_road} {each.progress:9.3f} {each.jerk:6.2f}  {score}")
    for step in found.steps:
        show_better(step)
    print(f"world model < supervised < reinforcement learning: {'yes' if found.in_order else 'NO'}")


def show_better(step: Better) -> None:
    """Print one comparison."""
    print(
        f"{step.old} -> {step.new}: score {step.score:+.4f} ({step.low:+.4f} to {step.high:+.4f}); only the old failed "
        f"{step.only_old_failed}, only the new {step.only_new_failed}, McNemar p {step.mcnemar_p:.2g}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=r.HELD_OUT)
    parser.add_argument("--upgrade", nargs=2, metavar=("OLD", "NEW"), help="compare these two checkpoints only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.upgrade:
        sys.exit(0 if compare(given.work, given.count).in_order else 1)
    ids = paired(given.count, r.TEST_SEED)
    old, new = ((name, driven(given.work / f"{name}.pt", ids)) for name in given.upgrade)
    for name, outcomes in (old, new):
        print(asdict(row(name, outcomes)))
    show_better(better(old, new))


if __name__ == "__main__":
    main()
