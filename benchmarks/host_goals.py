"""The goals of the host benchmark, judged from samples: ratios of medians with bootstrap intervals. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.toolchains.processor import has_dot_products, processor

Samples = NDArray[np.float64]
_RESAMPLES = 2000
PROCESSES = 4
"""Of each subject where two are compared that may be equal."""


@dataclass(frozen=True)
class Goal:
    """Whether a goal is reached, in words with its figures."""

    reached: bool
    words: str


def interval(other: Samples, mine: Samples) -> tuple[float, float, float]:
    """How many times longer ``other`` takes: low, middle, high. Samples of one index belong to one round; rounds are
    drawn together, since a loaded moment is loaded for both."""
    stream = np.random.default_rng(1)
    count = min(len(other), len(mine))
    drawn = stream.integers(0, count, (_RESAMPLES, count))
    ratios = np.median(other[drawn], axis=1) / np.median(mine[drawn], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(np.median(other) / np.median(mine)), float(high)


def interval_of_processes(other: Samples, mine: Samples) -> tuple[float, float, float]:
    """As ``interval``, of samples by process and round: one process lies better in memory than another one of the very
    same code, so processes are drawn too."""
    stream = np.random.default_rng(1)
    (processes, rounds), ratios = mine.shape, []
    for _ in range(_RESAMPLES):
        turns = stream.integers(0, rounds, rounds)
        drawn = [each[stream.integers(0, processes, processes)][:, turns] for each in (other, mine)]
        ratios.append(np.median(drawn[0]) / np.median(drawn[1]))
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(np.median(other) / np.median(mine)), float(high)


def best(theirs: Mapping[str, Samples]) -> str:
    """The fastest peer by its median."""
    return min(theirs, key=lambda name: float(np.median(theirs[name])))


def generated_goals(
    names: tuple[str, str, str, str | None],
    samples: Mapping[str, Samples],
    theirs: Mapping[str, Samples],
    reference: str,
    error_ratio: float | None,
    equal: tuple[float, float, float],
) -> list[Goal]:
    """For the large model: ``names`` of the chosen artifact, our fp32, full int8 and the mixture. ``equal``: how many
    times longer than our fp32 the best peer takes, from several processes of each."""
    chosen, fp32, int8, mixed = names
    peer = best(theirs)
    goals = [
        _at_least(1.3, interval(theirs[peer], samples[chosen]), f"the best peer ({peer})"),
        _at_least(2.5, interval(theirs[reference], samples[chosen]), f"{reference}{_missing()}"),
        _not_slower(equal, f"at equal precision, {PROCESSES} processes of each, {fp32}", peer),
    ]
    if mixed is None or error_ratio is None:
        return [*goals, Goal(False, "mixed precision: no mixture halves the error of full int8")]
    low, speed, high = interval(samples[int8], samples[mixed])
    words = (
        f"mixed precision has {speed:.0%} ({low:.0%} to {high:.0%}) of full int8's speed (goal 90 %) at"
        f" {error_ratio:.0%} of its worst parity figure (goal 50 %)"
    )
    return [*goals, Goal(speed >= 0.9 and error_ratio <= 0.5, words)]


def example_goals(chosen: str, samples: Mapping[str, Samples], theirs: Mapping[str, Samples]) -> list[Goal]:
    """For the small model, where overhead rules."""
    peer = best(theirs)
    return [_not_slower(interval(theirs[peer], samples[chosen]), f"the example, {chosen}", peer)]


def _at_least(goal: float, found: tuple[float, float, float], what: str) -> Goal:
    low, middle, high = found
    return Goal(middle >= goal, f"{middle:.2f} ({low:.2f} to {high:.2f}) x {what}; goal {goal:g}")


def _not_slower(found: tuple[float, float, float], mine: str, peer: str) -> Goal:
    """Reached unless it is slower beyond doubt: equal machine code is neither faster nor slower than itself."""
    low, middle, high = found
    word = "as fast within the noise" if low < 1.0 <= high else "faster" if low >= 1.0 else "slower"
    return Goal(high >= 1.0, f"{mine}: {middle:.2f} ({low:.2f} to {high:.2f}) x the best peer ({peer}), {word}")


def _missing() -> str:
    if has_dot_products(processor()):
        return ""
    return (
        " (this processor has AVX2 and no VNNI: its integer products are at most twice as fast as its fp32 ones, so"
        " this goal is out of its reach; what is missing is AVX-VNNI or AVX512-VNNI)"
    )
