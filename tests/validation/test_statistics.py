"""The statistics against brute force and against the laws that they must obey."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.validation.parity import regress
from nwmctl.validation.statistics import (
    Interval,
    binomial_below,
    mcnemar,
    mean_interval,
    median_interval,
    pairs_needed,
    score_interval,
    settles_score,
    settles_shift,
    settles_width,
    share_interval,
    shift_interval,
    spent,
)


def exact_below(successes: int, trials: int, share: Fraction) -> float:
    return float(sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes + 1)))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 99))
def test_binomial_is_exact(successes: int, trials: int, percent: int) -> None:
    assert binomial_below(successes, trials, percent / 100) == pytest.approx(
        min(1.0, exact_below(successes, trials, Fraction(percent, 100))), rel=1e-9
    )


def test_mcnemar_known_values() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(9, 1) == mcnemar(1, 9)


def test_share_interval_known_values() -> None:
    assert share_interval(0, 100).high == pytest.approx(1 - 0.025 ** (1 / 100))
    found = share_interval(5, 50)
    assert (found.low, found.high) == (pytest.approx(0.03327, abs=1e-4), pytest.approx(0.21814, abs=1e-4))


@given(st.integers(1, 200), st.data())
def test_share_interval_holds_its_estimate_and_mirrors(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    found, mirrored = share_interval(hits, trials), share_interval(trials - hits, trials)
    assert found.low <= found.value <= found.high
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-9)


@pytest.mark.parametrize("truth", [0.02, 0.2])
def test_share_interval_covers_the_truth_often_enough(truth: float) -> None:
    stream = np.random.default_rng(8)
    hits = stream.binomial(60, truth, 200)
    covered = [share_interval(int(h), 60).low <= truth <= share_interval(int(h), 60).high for h in hits]
    assert np.mean(covered) >= 0.94


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=80))
def test_median_interval_is_ordered_and_made_of_values(values: list[float]) -> None:
    found = median_interval(np.array(values))
    assert found.low <= found.value <= found.high
    assert len(values) < 6 or {found.low, found.high} <= set(values)
    assert len(values) >= 6 or math.isinf(found.high)


def test_median_interval_covers_the_truth_often_enough() -> None:
    stream = np.random.default_rng(9)
    found = [median_interval(stream.exponential(1.0, 41)) for _ in range(400)]
    assert np.mean([i.low <= math.log(2) <= i.high for i in found]) >= 0.94


def test_shift_is_antisymmetric_and_narrows() -> None:
    one, other = shift_interval(4, 1, 100), shift_interval(1, 4, 100)
    assert (one.low, one.high) == (pytest.approx(-other.high), pytest.approx(-other.low))
    assert shift_interval(0, 0, 400).most < shift_interval(0, 0, 100).most / 3


def test_intervals_know_their_least_and_most() -> None:
    assert (Interval(0.1, -0.2, 0.3).least, Interval(0.1, -0.2, 0.3).most) == (0.0, 0.3)
    assert (Interval(-0.4, -0.5, -0.3).least, Interval(-0.4, -0.5, -0.3).most) == (0.3, 0.5)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(20, 100), st.sampled_from([0.02, 0.05, 0.1]))
def test_the_forecast_settles_what_it_says(more: int, less: int, pairs: int, limit: float) -> None:
    needed = settles_shift(more, less, pairs, limit)
    if needed is None:
        assert abs(more - less) / pairs == pytest.approx(limit, rel=0.2)
        return
    # What the forecast promises if the rates stay: at (about) that size the interval is clear of the limit.
    scaled = shift_interval(round(more * needed / pairs), round(less * needed / pairs), needed)
    assert scaled.most <= limit * 1.1 or scaled.least > limit * 0.9


def test_width_forecast() -> None:
    assert settles_width(Interval(0.3, 0.2, 0.5), 20, 0.4) == 80
    assert settles_width(Interval(0.4, 0.2, 0.5), 20, 0.4) is None
    assert settles_width(Interval(0.1, -math.inf, math.inf), 3, 0.4) == 20


def test_mean_interval_of_one_value_is_open() -> None:
    assert math.isinf(mean_interval(np.array([1.0])).high)


@given(st.floats(-3, 3), st.floats(-2, 2), st.integers(0, 2**20))
def test_regression_finds_gain_and_offset(gain: float, offset: float, seed: int) -> None:
    reference = np.random.default_rng(seed).normal(0.2, 1.0, 64)
    found = regress(reference, gain * reference + offset)
    assert found == (pytest.approx(gain, abs=1e-9), pytest.approx(offset, abs=1e-9))


def test_a_reference_that_stands_still_has_no_gain_error() -> None:
    assert regress(np.full(8, 0.5), np.full(8, 0.7)) == (1.0, pytest.approx(0.2))


# --- one-sided questions about thousands of pairs --------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 60), st.integers(120, 4000))
def test_score_interval_holds_its_estimate_and_mirrors(more: int, less: int, pairs: int) -> None:
    found, mirrored = score_interval(more, less, pairs), score_interval(less, more, pairs)
    assert -1.0 <= found.low <= found.value <= found.high <= 1.0
    assert (found.low, found.high) == (pytest.approx(-mirrored.high, abs=1e-9), pytest.approx(-mirrored.low, abs=1e-9))


def test_score_interval_known_values() -> None:
    # The closed form where no pair is discordant, and the normal interval that many pairs come close to.
    found = score_interval(0, 0, 250)
    assert found.high == pytest.approx(1.959964**2 / (250 + 1.959964**2), abs=1e-6)
    wald = 1.959964 * math.sqrt(300 / 5000**2)
    assert score_interval(150, 150, 5000).high == pytest.approx(wald, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(100, 3000), st.floats(-0.2, 0.3))
def test_score_interval_ends_where_the_score_test_refuses(more: int, less: int, pairs: int, shift: float) -> None:
    """Against a brute-force likelihood: the restricted fit is found on a grid, the test statistic follows."""
    found = score_interval(more, less, pairs)
    if min(abs(shift - found.low), abs(shift - found.high)) < 2e-3:
        return
    shares = np.linspace(max(0.0, -shift) + 1e-9, 1.0 - max(0.0, shift), 400_001)
    others = pairs - more - less
    with np.errstate(divide="ignore", invalid="ignore"):
        # shares: P(only the other); P(only the one) is that plus the shift.
        rest = 1.0 - 2.0 * shares - shift
        terms = [n * np.log(p) for n, p in ((less, shares), (more, shares + shift), (others, rest)) if n]
        likelihood = np.where(rest > 0.0, np.sum(terms, axis=0), -np.inf)
    best = shares[int(np.nanargmax(likelihood))]
    spread = pairs * (2.0 * best + shift - shift * shift)
    refused = abs(more - less - pairs * shift) > 1.959964 * math.sqrt(max(spread, 0.0))
    assert refused == (not found.low < shift < found.high)


@pytest.mark.parametrize(("pairs", "margin", "discordant"), [(250, 0.05, 0.08), (250, 0.04, 0.06), (1000, 0.02, 0.05)])
def test_a_model_that_is_worse_by_the_margin_seldom_passes(pairs: int, margin: float, discordant: float) -> None:
    stream = np.random.default_rng(11)
    more, less = (discordant + margin) / 2.0, (discordant - margin) / 2.0
    drawn = stream.multinomial(pairs, [more, less, 1.0 - more - less], 1500)
    passed = np.mean([score_interval(int(m), int(n), pairs).high <= margin for m, n, _ in drawn])
    assert passed <= 0.025 + 3.0 * math.sqrt(0.025 / 1500)


@pytest.mark.parametrize(("margin", "discordant"), [(0.04, 0.06), (0.009, 0.06), (0.1, 0.2)])
def test_the_pairs_that_a_margin_needs_are_enough_for_equals(margin: float, discordant: float) -> None:
    pairs = pairs_needed(discordant, margin)
    stream = np.random.default_rng(12)
    half = discordant / 2.0
    drawn = stream.multinomial(pairs, [half, half, 1.0 - discordant], 600)
    passed = np.mean([score_interval(int(m), int(n), pairs).high <= margin for m, n, _ in drawn])
    assert 0.74 <= passed <= 0.88


def test_what_the_facts_say_about_power() -> None:
    assert pairs_needed(0.06, 0.0434) == pytest.approx(250, rel=0.02)
    assert pairs_needed(0.06, 0.0097) == pytest.approx(5000, rel=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(50, 200), st.sampled_from([0.02, 0.05]))
def test_the_one_sided_forecast_settles_what_it_says(more: int, less: int, pairs: int, limit: float) -> None:
    needed = settles_score(more, less, pairs, limit, spent(1))
    if needed is not None:
        scaled = score_interval(round(more * needed / pairs), round(less * needed / pairs), needed, spent(1))
        assert scaled.high <= limit or scaled.low > limit


def test_every_look_is_surer_and_all_looks_together_err_seldom() -> None:
    assert spent(0) == pytest.approx(0.95)
    assert all(spent(look) < spent(look + 1) for look in range(6))
    # One side of a two-sided interval counts: half of what is left over.
    assert sum((1.0 - spent(look)) / 2.0 for look in range(50)) <= 0.05 + 1e-12


def test_looking_again_and_again_does_not_pass_a_bad_model() -> None:
    """The whole procedure, simulated at the margin: look, raise fourfold, look again, on the same growing sample."""
    stream, margin, discordant = np.random.default_rng(13), 0.05, 0.09
    shares = [(discordant + margin) / 2.0, (discordant - margin) / 2.0, 1.0 - discordant]
    passed = 0
    for _ in range(800):
        more = less = count = 0
        for look, size in enumerate((100, 300, 1200)):
            drawn = stream.multinomial(size, shares)
            more, less, count = more + int(drawn[0]), less + int(drawn[1]), count + size
            found = score_interval(more, less, count, spent(look))
            if found.high <= margin or found.low > margin:
                passed += found.high <= margin
                break
    assert passed / 800 <= 0.05
