"""A model that is worse is refused, a better one passes, and what cannot be told is said to be open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.policy import FleetRules, Rule, judge
from nwmctl.domain.scenario import Family
from nwmctl.driving.metrics import Outcomes
from nwmctl.driving.scenarios import ScenarioId
from nwmctl.validation.non_inferiority import CRASHES, JERK, PROGRESS, check_non_inferiority, differences, planned
from nwmctl.validation.subject import Looks, Settings
from tests.validation import plant
from tests.validation.drivers import OLD, Told, outcomes, released, roads, rule

NEW = digest_bytes(b"plant")
Became = Callable[[tuple[ScenarioId, ...]], Outcomes]


def crashing(share: float, families: tuple[Family, ...] = tuple(Family), seed: int = 1, **more: float) -> Became:
    """A model that crashes on a share of some families' scenarios, each one drawn by its seed."""

    def became(ids: tuple[ScenarioId, ...]) -> Outcomes:
        drawn = np.array([np.random.default_rng([seed, i.seed, list(Family).index(i.family)]).random() for i in ids])
        hit = np.array([identity.family in families for identity in ids])
        made = outcomes(ids, (drawn < share) & hit)
        return replace(made, **{name: getattr(made, name) + value for name, value in more.items()})

    return became


def compare(folder: Path, old: Became, new: Became, named: Rule, **settings: object) -> tuple[CheckResult, Told]:
    told = Told({OLD: old, NEW: new})
    chosen = Settings(plant.RULES, seed=7, **settings)  # type: ignore[arg-type]
    return check_non_inferiority(released(folder, told), chosen, named, lambda share: None), told


def figures(result: CheckResult) -> dict[str, float]:
    return {figure.name: figure.value for figure in result.figures}


def test_a_model_that_crashes_more_fails(tmp_path: Path) -> None:
    result, _ = compare(tmp_path, crashing(0.05), crashing(0.25, seed=2), rule(crash_rate_increase=0.05))
    assert result.verdict is Verdict.FAILED
    assert "crash_rate_increase" in result.summary
    assert "keep the released one" in result.next
    assert result.obtained is Obtained.PROXY


def test_a_model_that_crashes_less_passes_and_satisfies_the_policy(tmp_path: Path) -> None:
    named = rule(crash_rate_increase=0.02)
    result, _ = compare(tmp_path, crashing(0.25), crashing(0.05), named)
    assert result.verdict is Verdict.PASSED
    assert figures(result)[CRASHES] == 0.0, "an improvement is no increase"
    signed = next(figure for figure in result.figures if figure.name == f"{CRASHES}.signed")
    assert signed.value == pytest.approx(-0.2, abs=0.05)
    assert signed.low is not None
    assert signed.high is not None
    assert signed.low < signed.value < signed.high < 0.0
    rules = FleetRules({"*": {"non_inferiority": named}})
    assert judge(rules, [Evidence(NEW, NEW, "nt2.0", "x", (result,))]) == ()


def test_too_few_pairs_are_inconclusive_and_say_how_many_would_do(tmp_path: Path) -> None:
    named = rule(crash_rate_increase=0.02)
    result, _ = compare(tmp_path, crashing(0.05), crashing(0.05, seed=2), named, pairs=100)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.needs is not None
    assert result.needs > 100
    assert f"about {result.needs} pairs" in result.next
    enough = 4 * result.needs
    more, _ = compare(tmp_path, crashing(0.05), crashing(0.05, seed=2), named, pairs=enough, most_pairs=enough)
    assert more.verdict is Verdict.PASSED


def test_one_family_that_gets_worse_fails_although_the_mean_does_not(tmp_path: Path) -> None:
    worse = (Family.MERGE,)
    old, new = crashing(0.1), crashing(0.4, worse)
    overall, _ = compare(tmp_path, old, new, rule(crash_rate_increase=0.05), pairs=1000)
    assert overall.verdict is Verdict.PASSED
    named = rule(crash_rate_increase=0.05, merge__crash_rate_increase=0.1)
    result, _ = compare(tmp_path, old, new, named, pairs=1000)
    assert result.verdict is Verdict.FAILED
    assert "merge.crash_rate_increase" in result.summary


@pytest.mark.parametrize(("change", "name"), [({"progress": -0.2}, PROGRESS), ({"jerk": 2.0}, JERK)])
def test_what_is_lost_beside_crashes_is_seen(tmp_path: Path, change: dict[str, float], name: str) -> None:
    named = Rule(Obtained.PROXY, margins={name: 0.1})
    result, _ = compare(tmp_path, crashing(0.05), crashing(0.05, **change), named)
    assert result.verdict is Verdict.FAILED
    back, _ = compare(tmp_path, crashing(0.05, **change), crashing(0.05), named)
    assert back.verdict is Verdict.PASSED


def test_lost_recoveries_are_seen(tmp_path: Path) -> None:
    named = rule(recovery_loss=0.1)
    result, told = compare(tmp_path, crashing(0.05), crashing(0.5), named)
    assert result.verdict is Verdict.FAILED
    assert figures(result)["traps"] in told.asked


def test_a_smaller_margin_gets_more_pairs_and_no_more_than_the_most(tmp_path: Path) -> None:
    counts = [
        figures(compare(tmp_path, crashing(0.05), crashing(0.05, seed=2), rule(crash_rate_increase=m))[0])["pairs"]
        for m in (0.2, 0.03, 0.001)
    ]
    assert counts[0] < counts[1] <= counts[2]
    assert (counts[0], counts[2]) == (250, 5000)


def test_the_pilot_is_no_part_of_the_sample(tmp_path: Path) -> None:
    seen: list[set[int]] = []

    def noted(ids: tuple[ScenarioId, ...]) -> Outcomes:
        seen.append({identity.seed for identity in ids})
        return outcomes(ids)

    compare(tmp_path, noted, noted, rule(crash_rate_increase=0.05))
    pilot, sample = seen[0], seen[-1]
    assert not pilot & sample


def test_a_further_look_drives_fourfold_and_must_be_surer(tmp_path: Path) -> None:
    named = rule(crash_rate_increase=0.5)
    first, _ = compare(tmp_path, crashing(0.1), crashing(0.1, seed=2), named, pairs=250)
    second, _ = compare(tmp_path, crashing(0.1), crashing(0.1, seed=2), named, pairs=250, looks=Looks(pairs=1))
    assert figures(second)["pairs"] == 4 * figures(first)["pairs"]
    sure = [next(f for f in r.figures if f.name == f"{CRASHES}.signed") for r in (first, second)]
    width = [f.high - f.low for f in sure if f.high is not None and f.low is not None]
    assert width[1] > 0.5 * width[0] * 1.05, "half as wide for the pairs, and wider again for the second look"


def test_controls_that_are_no_numbers_fail(tmp_path: Path) -> None:
    def broken(ids: tuple[ScenarioId, ...]) -> Outcomes:
        return outcomes(ids, faults=np.ones(len(ids), dtype=np.int64))

    result, _ = compare(tmp_path, crashing(0.0), broken, rule(crash_rate_increase=0.5))
    assert result.verdict is Verdict.FAILED
    assert "not finite" in result.summary


def test_a_model_is_not_inferior_to_itself_and_nothing_is_driven(tmp_path: Path) -> None:
    told = Told({})
    subject = released(tmp_path, told)
    assert subject.released is not None
    same = replace(subject, released=replace(subject.released, weights=subject.weights_digest))
    named = rule(crash_rate_increase=0.01, merge__progress_loss=0.01, recovery_loss=0.05)
    result = check_non_inferiority(same, Settings(plant.RULES), named, lambda share: None)
    assert result.verdict is Verdict.PASSED
    assert not told.asked
    rules = FleetRules({"*": {"non_inferiority": named}})
    assert judge(rules, [Evidence(NEW, NEW, "nt2.0", "x", (result,))]) == ()
    odd = check_non_inferiority(same, Settings(plant.RULES), rule(horn=1.0), lambda share: None)
    assert odd.verdict is Verdict.INCONCLUSIVE


def test_without_a_released_model_it_is_not_run(tmp_path: Path) -> None:
    subject = replace(released(tmp_path, Told({})), released=None)
    result = check_non_inferiority(subject, Settings(plant.RULES), rule(crash_rate_increase=0.1), lambda share: None)
    assert (result.verdict, result.check) == (Verdict.NOT_RUN, Check.NON_INFERIORITY)
    assert "previous" in result.next


def test_margins_that_do_not_exist_and_rules_without_any_never_pass(tmp_path: Path) -> None:
    for named in (rule(), rule(crash_rate_increase=0.5, horn=1.0)):
        result, _ = compare(tmp_path, crashing(0.0), crashing(0.0), named)
        assert result.verdict is Verdict.INCONCLUSIVE
        assert result.needs is None


def test_every_family_is_compared_on_its_own_pairs() -> None:
    old, new = roads(50), roads(50, 10)
    found = {each.name: each for each in differences(old, new)}
    assert len(found) == 4 * (1 + len(Family))
    assert found[CRASHES].values.sum() == 10
    assert sum(found[f"{family}.{CRASHES}"].values.sum() for family in Family) == 10
    assert planned(old, new, {CRASHES: 0.5}) == 250
    assert planned(old, new, {f"merge.{CRASHES}": 0.05}) > planned(old, new, {CRASHES: 0.05})


def test_a_pilot_that_shows_a_clear_improvement_saves_pairs() -> None:
    margins = {CRASHES: 0.05}
    assert planned(roads(100, 40), roads(100, 10), margins) < planned(roads(100, 10), roads(100, 40), margins)
    even = np.arange(100) % 2 == 0
    one, other = outcomes(roads(100).ids, even), outcomes(roads(100).ids, ~even)
    assert planned(one, other, margins) >= 2500, "models that differ and are equally good need many"
