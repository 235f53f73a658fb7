"""Waves and gates: pure laws."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.domain.campaign import GateDecision, WaveCounts
from nwmctl.domain.release import Gate, WaveSpec
from nwmctl.fleet.campaigns import create_campaign
from nwmctl.fleet.gates import decide, decide_return
from nwmctl.fleet.waves import plan_quotas, split, vin_hash
from tests.fleet import house
from tests.postgres import Stores

GATE = Gate(min_committed=0.9, max_failed=0.1, abort_failed=0.5, soak_s=10)
SPECS = st.lists(
    st.one_of(
        st.integers(1, 5).map(lambda n: WaveSpec("w", GATE, per_model=n)),
        st.floats(0.01, 1).map(lambda share: WaveSpec("w", GATE, share=share)),
    ),
    min_size=1,
    max_size=5,
)
COUNTS = st.dictionaries(st.sampled_from("ABCDEF"), st.integers(0, 200), min_size=1)


@given(SPECS, COUNTS)
def test_quotas_cover_ranks_without_hole_or_overlap(specs: list[WaveSpec], counts: dict[str, int]) -> None:
    quotas = plan_quotas(specs, counts)
    for model, count in counts.items():
        ranges = sorted((q.above, q.upto, q.wave) for q in quotas if q.vehicle_model == model)
        assert [r[0] for r in ranges] == [0, *(r[1] for r in ranges)][: len(ranges)]
        assert [r[2] for r in ranges] == sorted(r[2] for r in ranges)
        assert (ranges[-1][1] if ranges else 0) <= count
    if specs[-1].share == 1:
        assert sum(q.upto - q.above for q in quotas) == sum(counts.values())


@given(st.floats(0.01, 1), COUNTS)
def test_a_share_is_rounded_up_and_spread(share: float, counts: dict[str, int]) -> None:
    quotas = plan_quotas([WaveSpec("w", GATE, share=share)], counts)
    total, taken = sum(counts.values()), sum(q.upto - q.above for q in quotas)
    assert share * total - 1e-6 <= taken < share * total + 1
    for quota in quotas:
        assert abs(quota.upto - share * counts[quota.vehicle_model]) < 1


def test_seven_percent_of_a_hundred_is_seven() -> None:
    assert plan_quotas([WaveSpec("w", GATE, share=0.07)], {"A": 100})[0].upto == 7


def test_the_canary_takes_each_model_and_order_does_not_matter() -> None:
    vehicles = [(f"V{number}", "ABC"[number % 3]) for number in range(90)]
    specs = [WaveSpec("canary", GATE, per_model=2), WaveSpec("some", GATE, share=0.25), WaveSpec("rest", GATE, share=1)]
    waves = split(specs, vehicles)
    assert waves == split(specs, reversed(vehicles))
    assert Counter(waves.values()) == {1: 6, 2: 21, 3: 63}
    assert Counter(model for vin, model in vehicles if waves[vin] == 1) == {"A": 2, "B": 2, "C": 2}


def test_the_hash_is_a_promise() -> None:
    assert vin_hash("LJ1EEAUU7PA000001") == 2200870871340430951
    assert 0 <= vin_hash("x") < 2**63


def test_the_database_plans_as_the_plain_form(tmp_path: Path, stores: Stores) -> None:
    made = house.release(waves=(WaveSpec("canary", GATE, per_model=2), WaveSpec("some", GATE, share=0.3)))
    database = house.fleet_database(tmp_path, per_model=17, made=made, database=stores.open())
    created = create_campaign(database, made, house.T0)
    rows = database.reader.all("SELECT vin, wave FROM assignment")
    assert dict(rows) == split(made.waves, [(vin, code) for vin, code, _ in house.vins(17)])
    assert (created.vehicles, created.left) == (len(rows), 51 - len(rows))


@pytest.mark.parametrize(
    ("counts", "quiet_s", "decision"),
    [
        (WaveCounts(0, 0, 0, 0), 0, GateDecision.PROCEED),
        (WaveCounts(10, 0, 0, 10), 99, GateDecision.WAIT),
        (WaveCounts(10, 9, 0, 1), 9.9, GateDecision.WAIT),
        (WaveCounts(10, 9, 0, 1), 10, GateDecision.PROCEED),
        (WaveCounts(10, 9, 1, 0), 10, GateDecision.PROCEED),
        (WaveCounts(10, 0, 2, 8), 0, GateDecision.PAUSE),
        (WaveCounts(10, 0, 5, 5), 0, GateDecision.ABORT),
        (WaveCounts(20, 17, 2, 1), 99, GateDecision.WAIT),
    ],
)
def test_what_a_gate_says(counts: WaveCounts, quiet_s: float, decision: GateDecision) -> None:
    said, reason = decide(GATE, counts, quiet_s)
    assert said is decision, reason
    assert reason


def test_what_cannot_be_reached_any_more_pauses() -> None:
    gate = Gate(min_committed=1.0, max_failed=0.5)
    said, reason = decide(gate, WaveCounts(10, 9, 1, 0), 0)
    assert said is GateDecision.PAUSE
    assert "no longer be reached" in reason


def test_a_return_ends_when_all_have_answered() -> None:
    assert decide_return(WaveCounts(3, 1, 1, 1))[0] is GateDecision.WAIT
    assert decide_return(WaveCounts(3, 2, 1, 0))[0] is GateDecision.PROCEED
    assert decide_return(WaveCounts(3, 0, 3, 0))[0] is GateDecision.PAUSE
    assert decide_return(WaveCounts(0, 0, 0, 0))[0] is GateDecision.PROCEED


COUNT_VALUES = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)).map(
    lambda parts: WaveCounts(sum(parts), *parts)
)
SHARES = st.floats(0, 1)


@given(st.builds(Gate, SHARES, SHARES, SHARES, st.floats(0, 100)), COUNT_VALUES, st.floats(0, 200))
def test_more_failures_never_make_a_gate_bolder(gate: Gate, counts: WaveCounts, quiet_s: float) -> None:
    boldness = [GateDecision.ABORT, GateDecision.PAUSE, GateDecision.WAIT, GateDecision.PROCEED]
    if not counts.committed:
        return
    worse = WaveCounts(counts.total, counts.committed - 1, counts.failed + 1, counts.open)
    now, then = decide(gate, counts, quiet_s)[0], decide(gate, worse, quiet_s)[0]
    assert boldness.index(then) <= boldness.index(now)
