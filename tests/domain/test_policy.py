"""The policy judges evidence; a release tightens and never loosens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Confidence, Figure, Obtained, ResultFigure
from nwmctl.domain.policy import BRAKING, FleetRules, Policy, Rule, judge, tightened
from nwmctl.errors import PolicyLoosenedError
from tests.fakes import some_digest


def pack(*results: CheckResult, platform: str = "nt2.0") -> Evidence:
    return Evidence(some_digest("model"), some_digest("artifact"), platform, "gpu", results)


def parity(obtained: Obtained, error: float = 0.001, verdict: Verdict = Verdict.PASSED) -> CheckResult:
    figure = ResultFigure("control_rel", error, "1", obtained)
    return CheckResult(Check.PARITY, verdict, obtained, "compared", (figure,))


RULES = FleetRules({"*": {"parity": Rule(Obtained.PROXY, margins={"control_rel": 0.01})}})
BENCH = FleetRules({"*": {"parity": Rule(Obtained.BENCH)}})


def test_enough() -> None:
    assert judge(RULES, [pack(parity(Obtained.PROXY))]) == ()


def test_a_stronger_way_is_enough_and_a_weaker_one_is_not() -> None:
    assert judge(RULES, [pack(parity(Obtained.MEASURED))]) == ()
    (short,) = judge(BENCH, [pack(parity(Obtained.EMULATED))])
    assert "demands 'bench'" in short.reason
    assert "bench" in short.settle


def test_not_run_never_passes_a_required_check() -> None:
    silent = CheckResult(Check.PARITY, Verdict.NOT_RUN, Obtained.NOT_RUN, "no qemu here", next="install it")
    (short,) = judge(RULES, [pack(silent)])
    assert short.reason == "not_run: no qemu here"
    assert short.settle == "install it"
    (missing,) = judge(RULES, [pack()])
    assert missing.check is Check.PARITY


def test_one_failure_outweighs_any_pass() -> None:
    (short,) = judge(RULES, [pack(parity(Obtained.MEASURED), parity(Obtained.PROXY, verdict=Verdict.FAILED))])
    assert short.reason.startswith("failed")


def test_a_failure_counts_where_nobody_asked() -> None:
    failed = CheckResult(Check.BUDGET, Verdict.FAILED, Obtained.ESTIMATED, "too large")
    (short,) = judge(RULES, [pack(parity(Obtained.PROXY), failed)])
    assert short.check is Check.BUDGET


def test_inconclusive_never_passes() -> None:
    assert judge(RULES, [pack(parity(Obtained.MEASURED, verdict=Verdict.INCONCLUSIVE))])


def test_a_margin_is_checked_again_and_must_be_there() -> None:
    assert judge(RULES, [pack(parity(Obtained.PROXY, 0.02))])
    bare = CheckResult(Check.PARITY, Verdict.PASSED, Obtained.PROXY, "compared")
    (short,) = judge(RULES, [pack(bare)])
    assert "missing" in short.reason


def test_verdict_and_way_of_not_run_go_together() -> None:
    with pytest.raises(ValueError, match="not_run"):
        CheckResult(Check.PARITY, Verdict.PASSED, Obtained.NOT_RUN, "claimed")


@pytest.mark.parametrize(
    "loose",
    [
        Rule(Obtained.ESTIMATED, margins={"control_rel": 0.01}),
        Rule(Obtained.PROXY, required=False),
        Rule(Obtained.PROXY, margins={"control_rel": 0.02}),
    ],
)
@pytest.mark.parametrize("place", ["*", "nt2.0"])
def test_loosening_is_refused(loose: Rule, place: str) -> None:
    with pytest.raises(PolicyLoosenedError) as refusal:
        tightened(RULES, {place: {"parity": loose}}, 0)
    assert "parity" in refusal.value.what


def test_star_tightens_a_platforms_own_rule_too() -> None:
    rules = FleetRules({"*": {"parity": Rule(Obtained.PROXY)}, "nt3.0": {"parity": Rule(Obtained.EMULATED)}})
    tight = tightened(rules, {"*": {"parity": Rule(Obtained.BENCH)}}, 0)
    for platform in ("nt2.0", "nt3.0"):
        rule = tight.rule(platform, Check.PARITY)
        assert rule is not None
        assert rule.weakest is Obtained.BENCH


obtained = st.sampled_from([way for way in Obtained if way is not Obtained.NOT_RUN])
rule = st.builds(
    Rule,
    obtained,
    st.booleans(),
    st.dictionaries(st.sampled_from(["control_rel", "other"]), st.floats(0, 1), max_size=2),
)
table = st.dictionaries(st.sampled_from(["*", "nt2.0", "nt3.0"]), st.dictionaries(st.sampled_from(["parity"]), rule))


@given(table, table, st.lists(st.builds(parity, obtained, st.floats(0, 1)), max_size=2))
def test_whatever_tightening_accepts_never_accepts_more(base: dict, tighter: dict, results: list) -> None:  # type: ignore[type-arg]
    rules = FleetRules(base)
    try:
        tight = tightened(rules, tighter, 0)
    except PolicyLoosenedError:
        return
    for platform in ("nt2.0", "nt3.0", "virtual"):
        evidence = [pack(*results, platform=platform)]
        if judge(rules, evidence):
            assert judge(tight, evidence), "the tightened rules accept what the policy refuses"


@pytest.mark.parametrize(
    ("low", "high", "enough"),
    [(None, None, True), (-0.01, 0.02, True), (-0.03, 0.01, False), (-0.01, 0.03, False), (None, 0.01, False)],
)
def test_the_whole_interval_of_a_figure_counts(low: float | None, high: float | None, enough: bool) -> None:
    """Evidence made under one margin may be judged under a stricter one: the estimate alone says too little."""
    rules = FleetRules({"*": {"closed_loop": Rule(Obtained.PROXY, margins={"score_shift": 0.02})}})
    figure = ResultFigure("score_shift", 0.0, "", Obtained.PROXY, None, low, high)
    result = CheckResult(Check.CLOSED_LOOP, Verdict.PASSED, Obtained.PROXY, "", (figure,))
    pack = Evidence(some_digest("m"), some_digest("a"), "nt9", "b", (result,))
    assert (judge(rules, [pack]) == ()) is enough


# --- what a driver in the vehicle compiles further ----------------------------------------------------------------

JIT = (some_digest("artifact"),)
LATENCY = CheckResult(Check.LATENCY, Verdict.PASSED, Obtained.BENCH, "4 ms")
NOTHING_ASKED = FleetRules({"*": {}})


def test_a_bench_must_see_what_a_driver_compiles_further() -> None:
    short = judge(RULES, [pack(parity(Obtained.PROXY))], JIT)
    assert [each.check for each in short] == [Check.PARITY, Check.LATENCY]
    assert all("compiles this artifact further" in each.reason for each in short)
    assert all("bench" in each.settle and "driver" in each.settle for each in short)
    assert judge(RULES, [pack(parity(Obtained.BENCH), LATENCY)], JIT) == ()
    assert judge(RULES, [pack(parity(Obtained.PROXY))], (some_digest("another artifact"),)) == ()


@given(st.sampled_from(Obtained), st.sampled_from(Obtained))
def test_nothing_weaker_than_a_bench_will_do_whatever_the_policy_says(first: Obtained, second: Obtained) -> None:
    def result(check: Check, obtained: Obtained) -> CheckResult:
        ran = obtained is not Obtained.NOT_RUN
        return CheckResult(check, Verdict.PASSED if ran else Verdict.NOT_RUN, obtained, "said")

    evidence = [pack(result(Check.PARITY, first), result(Check.LATENCY, second))]
    enough = first.satisfies(Obtained.BENCH) and second.satisfies(Obtained.BENCH)
    assert (judge(NOTHING_ASKED, evidence, JIT) == ()) is enough


def test_a_bench_s_failure_is_told_as_one() -> None:
    (short, _) = judge(NOTHING_ASKED, [pack(parity(Obtained.BENCH, verdict=Verdict.FAILED))], JIT)
    assert short.reason.startswith("failed")


# --- braking ------------------------------------------------------------------------------------------------------


def braking(value: float | None, unit: str = "m/s2") -> Figure:
    confidence = Confidence.UNKNOWN if value is None else Confidence.ASSUMED
    return Figure(value, unit, "assumed for tests", confidence)


DRIVEN = {"closed_loop": Rule(Obtained.PROXY, margins={"score_shift": 0.1})}


def drive(*held: float, judge: str = "") -> CheckResult:
    figures = [ResultFigure("score_shift", 0.0, "", Obtained.PROXY)]
    figures += [ResultFigure(BRAKING, value, "m/s2", Obtained.PROXY) for value in held]
    return CheckResult(Check.CLOSED_LOOP, Verdict.PASSED, Obtained.PROXY, "drove", tuple(figures), judge=judge)


def test_drives_that_braked_harder_than_vehicles_will_are_not_enough() -> None:
    free, held = FleetRules({"*": DRIVEN}), FleetRules({"*": DRIVEN}, braking=braking(5.0))
    assert judge(free, [pack(drive())]) == ()
    (short,) = judge(held, [pack(drive())])
    assert short.reason == "its drives braked as hard as the simulated car can, the policy holds vehicles to 5 m/s2"
    (short,) = judge(held, [pack(drive(6.0))])
    assert "at up to 6 m/s2" in short.reason
    for good in (5.0, 4.0):
        assert judge(held, [pack(drive(good))]) == ()
    assert judge(held, [pack(drive(5.0), drive(judge="rig"))]) == (), "a judge's brakes are the judge's own"


def test_a_release_does_not_touch_the_braking_and_a_bundle_takes_the_least() -> None:
    virtual, real = FleetRules({"*": DRIVEN}, braking=braking(5.0)), FleetRules({"*": DRIVEN}, 1, braking(4.0))
    assert tightened(virtual, {"*": {"closed_loop": Rule(Obtained.BENCH)}}, 2).braking == braking(5.0)
    assert Policy("p", 1, virtual, real).braking == braking(4.0)
    assert Policy("p", 1, virtual, FleetRules({})).braking == braking(5.0)
    assert Policy("p", 1, FleetRules({}), FleetRules({})).braking is None


@pytest.mark.parametrize("wrong", [braking(None), braking(0.0), braking(-5.0), braking(16.0), braking(5.0, "g")])
def test_braking_that_nobody_can_mean(wrong: Figure) -> None:
    with pytest.raises(ValueError, match="braking"):
        FleetRules({}, braking=wrong)
