"""More scenarios where a check lacks power: asked for by the step, granted by the playbook, bounded by the guard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from nwmctl.agent.policy import Decision, Guard, Playbook, Situation
from nwmctl.domain.digest import Digest
from nwmctl.domain.event import Decided, Remedy, RunState
from nwmctl.domain.step import Outcome, PlannedStep
from tests.agent.test_runner import House, Stubborn, step


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def uncertain(house: House, enough: int) -> object:
    """A check that can say something once its amount has been raised ``enough`` times."""

    def judge(parameters: Mapping[str, int], inputs: Mapping[str, Digest]) -> Outcome:
        times = parameters["more"]
        out = {"out": house.store.put_bytes(b"evidence %d" % times)}
        return Outcome(out) if times >= enough else Outcome(out, {}, "too few to say", wanted={"more": times + 1})

    return judge


def plan(most: int, repair: str = "") -> list[PlannedStep]:
    return [
        step("compile", parameters={"r": 1}, adjustable={"r": (1, 2)}),
        step("validate", "compile", parameters={"more": 0}, raises={"more": most}, repair=repair),
        step("bundle", "validate"),
    ]


def decided(house: House) -> list[tuple[Remedy, str, str, int]]:
    return [
        (event.remedy, event.rule, event.parameter, event.choice)
        for event in house.events
        if isinstance(event, Decided)
    ]


def test_an_open_check_gets_more_scenarios_before_anything_follows_from_it(house: House) -> None:
    house.add("compile")
    house.add("validate", uncertain(house, 2))
    house.add("bundle")
    result = house.run(plan(2))
    assert result.state is RunState.DONE
    assert house.steps["validate"].runs == [{"more": 0}, {"more": 1}, {"more": 2}]
    assert len(house.steps["bundle"].runs) == 1
    assert decided(house) == [
        (Remedy.ADJUST, "order-more-scenarios", "more", 1),
        (Remedy.ADJUST, "order-more-scenarios", "more", 2),
    ]
    assert house.run(plan(2)).outcomes == result.outcomes, "a resumed run keeps what was ordered"


def test_orders_end_at_the_most_and_the_evidence_stands(house: House) -> None:
    house.add("compile")
    house.add("validate", uncertain(house, 9))
    house.add("bundle")
    result = house.run(plan(1))
    assert house.steps["validate"].runs == [{"more": 0}, {"more": 1}]
    assert result.outcomes["validate"].concern == "too few to say"
    assert result.state is RunState.DONE, "the signer refuses it, with the reason"


def test_what_more_scenarios_cannot_settle_goes_to_another_recipe(house: House) -> None:
    house.add("compile")
    house.add("validate", uncertain(house, 9))
    house.add("bundle")
    house.run(plan(1, repair="compile"))
    assert [entry[1] for entry in decided(house)] == ["order-more-scenarios", "next-alternative", "no-alternative"]


def test_a_repair_gives_back_no_order(house: House) -> None:
    """The intervals of a second artifact stay as sure as the first one's had to become."""
    house.add("compile")
    house.add("validate", uncertain(house, 9))
    house.add("bundle")
    house.run(plan(1, repair="compile"))
    assert house.steps["validate"].runs[-1] == {"more": 1}


@pytest.mark.parametrize("choice", [0, 3, -1])
def test_the_guard_lets_nobody_lower_an_amount_or_raise_it_beyond_the_most(choice: int) -> None:
    wild = Stubborn(Decision(Remedy.ADJUST, "wild", "", parameter="more", choice=choice))
    situation = Situation("validate", 1, 0, None, "open", {}, {"more": 1}, {"more": 2}, {"more": 2})
    assert Guard(wild).decide(situation).rule == "guard"


def test_nothing_is_ordered_that_was_not_asked_for() -> None:
    situation = Situation("validate", 1, 0, None, "failed", {}, {}, {"more": 2}, {})
    assert Playbook().decide(situation).remedy is Remedy.ABORT
