"""A late, an early, a slowed and a scaled channel: the delay is told apart from everything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nwmctl.validation.delay import delay_steps

Values = NDArray[np.float64]
STEPS, DRIVES = 60, 10
ALL = np.ones((STEPS, DRIVES), np.bool_)


def wandering(seed: int) -> Values:
    """Commands that wander as a driver's do: smooth, with a corner now and then."""
    stream = np.random.default_rng(seed)
    pushes = stream.normal(size=(STEPS, DRIVES)) * (stream.random((STEPS, DRIVES)) < 0.3)
    found = np.zeros((STEPS, DRIVES))
    for step in range(1, STEPS):
        found[step] = 0.8 * found[step - 1] + pushes[step]
    return found


def shifted(values: Values, steps: int) -> Values:
    """Late by so many decisions, holding the first (or last) value at the end where nothing is known."""
    found = values.copy()
    if steps > 0:
        found[steps:], found[:steps] = values[:-steps], values[0]
    elif steps < 0:
        found[:steps], found[steps:] = values[-steps:], values[-1]
    return found


def told(reference: Values, candidate: Values, live: NDArray[np.bool_] = ALL) -> float:
    found = delay_steps(reference, candidate, live)
    assert found is not None
    return found


@given(st.integers(0, 10_000))
def test_a_model_is_not_late_against_itself(seed: int) -> None:
    values = wandering(seed)
    assert told(values, values) == 0.0


@pytest.mark.parametrize("steps", [-2, -1, 1, 2])
def test_whole_decisions_are_told_with_their_sign(steps: int) -> None:
    for seed in range(5):
        values = wandering(seed)
        assert told(values, shifted(values, steps)) == pytest.approx(steps, abs=0.25)


def test_half_a_decision_is_told() -> None:
    for seed in range(5):
        values = wandering(seed)
        assert told(values, (values + shifted(values, 1)) / 2.0) == pytest.approx(0.5, abs=0.1)


@given(st.integers(0, 1000), st.floats(0.2, 3.0), st.floats(-2.0, 2.0), st.booleans())
def test_gain_sign_and_offset_are_no_delay(seed: int, gain: float, offset: float, swapped: bool) -> None:
    values = wandering(seed)
    assert abs(told(values, (-gain if swapped else gain) * values + offset)) < 1e-6


def test_a_little_noise_is_no_delay() -> None:
    for seed in range(20):
        values = wandering(seed)
        noise = np.random.default_rng(seed + 99).normal(size=values.shape)
        assert abs(told(values, values + 0.03 * values.std() * noise)) < 0.05


def test_what_comes_after_the_end_of_a_drive_does_not_count() -> None:
    values = wandering(3)
    live = ALL.copy()
    live[30:, 4:] = False
    rubbish = np.where(live, values, np.random.default_rng(1).normal(size=values.shape) * 50.0)
    assert told(values, rubbish, live) == told(values, values, live) == 0.0
    late = np.where(live, shifted(values, 1), rubbish)
    assert told(values, late, live) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize(
    ("reference", "candidate", "live"),
    [
        (np.zeros((STEPS, DRIVES)), wandering(1), ALL),
        (wandering(1), np.full((STEPS, DRIVES), 0.3), ALL),
        (wandering(1), wandering(1), np.zeros_like(ALL)),
        (wandering(1)[:4], wandering(1)[:4], ALL[:4]),
        (wandering(1)[:1], wandering(1)[:1], ALL[:1]),
    ],
)
def test_what_does_not_move_or_is_too_short_has_no_delay(
    reference: Values, candidate: Values, live: NDArray[np.bool_]
) -> None:
    assert delay_steps(reference, candidate, live) is None
