"""A sample of the battery: real graphs, broken and clean, before the checks of the example policy.

The whole battery is ``make bench-validation``. Here a few kinds with one seed each show that its machinery works, that
each check is needed (without it some kind gets through), and that the artifacts are what they say.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from benchmarks import validation
from benchmarks.battery import table
from benchmarks.battery.clean import CLEAN, GREY
from benchmarks.battery.shop import open_artifact, shop
from benchmarks.battery.trial import BROKEN, KINDS, SCENARIOS, Order, Said, Trial, make, run
from nwmctl.domain.evidence import Check, Verdict
from nwmctl.validation.inputs import Golden, read_golden

SEED = 81_000_000
"""Nothing was tuned on it, and the published run does not use it."""


@pytest.fixture(scope="module")
def golden() -> Golden:
    return read_golden(shop().golden, shop().card.contract)


def verdicts(trial: Trial) -> dict[str, str]:
    return {said.check: said.verdict for said in trial.said}


def failing(trial: Trial) -> set[str]:
    return {check for check, verdict in verdicts(trial).items() if verdict == Verdict.FAILED}


@pytest.mark.parametrize(
    ("kind", "only"),
    [
        ("another answer each time", Check.NEGATIVE_CONTROL),
        ("steer x 0.8", Check.PARITY),
        ("prediction head zeroed", Check.PARITY),
    ],
)
def test_without_the_one_check_that_sees_it_a_kind_gets_through(kind: str, only: Check) -> None:
    trial = run(Order(kind, 0, SEED, whole=False))
    assert only in failing(trial)
    assert table.outcome(trial.said) is Verdict.FAILED
    rest = tuple(said for said in trial.said if said.check != only)
    assert table.outcome(rest) is Verdict.PASSED


def test_only_the_contract_sees_a_nan_that_golden_data_do_not_show(golden: Golden) -> None:
    order = Order("NaN on rare input", 0, SEED, whole=False)
    outputs = open_artifact(make(order)).run(golden.inputs)
    assert np.isfinite(outputs["control"]).all()
    assert Check.CONTRACT in failing(run(order))


@pytest.mark.long
def test_a_clean_artifact_passes_everything() -> None:
    trial = run(Order("fp16 products", 0, SEED, whole=True))
    assert table.outcome(trial.said) is Verdict.PASSED, trial.said
    assert {Check.CONTRACT, Check.NEGATIVE_CONTROL, Check.PARITY, Check.CLOSED_LOOP} <= set(verdicts(trial))
    assert trial.scenarios >= SCENARIOS


def test_there_are_enough_kinds_and_every_one_is_a_graph_of_its_own(golden: Golden) -> None:
    assert len(BROKEN) >= 20
    assert len(CLEAN) >= 4
    assert not set(BROKEN) & {*CLEAN, *GREY}
    cheap = [kind for kind in BROKEN if not kind.startswith("int8")]  # calibrating takes seconds
    for kind in cheap:
        made = replace(KINDS[kind](shop(), np.random.default_rng(1)), session={"level": 0})  # loads faster
        with open_artifact(made) as session:
            outputs = session.run(golden.inputs)
        assert {name: values.shape for name, values in outputs.items()} == {
            name: values.shape for name, values in golden.outputs.items()
        }
        assert made.late or made.freezes or made.graph != shop().base.bytes(), f"{kind} changes nothing"


def test_the_same_order_gives_the_same_trial() -> None:
    order = Order("wrong normalisation", 4, SEED + 7, whole=False)
    assert replace(run(order), cpu_s=0.0) == replace(run(order), cpu_s=0.0)


def test_no_two_trials_of_a_run_share_a_scenario() -> None:
    plan = validation.orders(validation.Amount(), validation.FRESH_SEED, with_twin=True)
    seeds = sorted(order.seed for order in plan)
    assert len(set(seeds)) == len(plan)
    assert min(b - a for a, b in pairwise(seeds)) == validation.SEED_STEP
    assert sum(order.kind in BROKEN for order in plan) >= 300
    assert sum(order.kind in CLEAN for order in plan) >= 300
    assert SEED > 72_000_000, "pilots ran on the seeds below"
    assert not validation.FRESH_SEED <= SEED <= seeds[-1] + validation.SEED_STEP


def trial(kind: str, *said: tuple[Check, Verdict]) -> Trial:
    entries = tuple(Said(str(check), str(verdict)) for check, verdict in said)
    return Trial(kind, 0, SEED, True, "", entries, 1.0, SCENARIOS)


def test_the_table_counts_what_the_trials_say() -> None:
    trials = [
        trial("steer x 0.8", (Check.PARITY, Verdict.FAILED), (Check.CLOSED_LOOP, Verdict.INCONCLUSIVE)),
        trial("steer x 0.8", (Check.PARITY, Verdict.PASSED), (Check.CLOSED_LOOP, Verdict.PASSED)),
        trial("steer x 1.2", (Check.PARITY, Verdict.INCONCLUSIVE)),
        trial("fp16 products", (Check.PARITY, Verdict.FAILED)),
        trial("bf16 weights", (Check.PARITY, Verdict.PASSED)),
        trial(next(iter(GREY)), (Check.PARITY, Verdict.FAILED)),
    ]
    lines = table.headline(trials)
    assert "1 of 3: 33.33% [0.84%, 90.57%]" in lines[0]
    assert "1 of 3" in lines[1]
    assert "missed**: 1 of 3" in lines[2]
    assert "1 of 2: 50.00%" in lines[3]
    rows = [line for line in table.tables(trials) if line.startswith("| steer x 0.8 |")]
    assert rows == ["| steer x 0.8 | 2 | 1 | 0 | 1 | parity 1 | 1/2 | 0/2 (+1?) |"]
    assert [line.split(",")[0] for line in table.remarks(trials, table.surprising)] == [
        "- steer x 0.8",
        "- steer x 1.2",
        "- fp16 products",
    ]


def test_a_trial_survives_its_line_in_the_file() -> None:
    one = trial("steer x 0.8", (Check.PARITY, Verdict.FAILED))
    assert Trial.read(one.plain()) == one
