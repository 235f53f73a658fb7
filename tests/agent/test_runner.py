"""The runner: order, cache, remedies, repair, guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.agent.journal import Journal, fold
from nwmctl.agent.policy import Decision, Guard, Playbook, Situation
from nwmctl.agent.runner import Runner, RunResult
from nwmctl.domain.digest import Digest
from nwmctl.domain.event import Decided, Remedy, RunState, StepFinished
from nwmctl.domain.step import Outcome, OutputRef, PlannedStep, StepState
from nwmctl.errors import (
    CalibrationMismatchError,
    InputError,
    MissingError,
    PersonNeededError,
    RemoteError,
    ToolchainError,
    UnsupportedRecipeError,
)
from nwmctl.storage.content import ContentStore
from tests.fakes import FakeClock, FakeStep, Silent, StoreResults, echo


class House:
    """A store, a clock and a runner over fake steps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = ContentStore(root / "content")
        self.clock = FakeClock()
        self.steps: dict[str, FakeStep] = {}

    def add(self, name: str, work: object = None, pure: bool = True) -> FakeStep:
        self.steps[name] = FakeStep(name, work or echo(self.store), pure)  # type: ignore[arg-type]
        return self.steps[name]

    def run(self, plan: list[PlannedStep], run: str = "r1", policy: object = None, workers: int = 2) -> RunResult:
        journal = Journal(self.root / "runs" / run)
        guard = Guard(policy or Playbook())  # type: ignore[arg-type]
        runner = Runner(
            self.steps, StoreResults(self.store), journal, guard, self.clock, self.clock.sleep, Silent(), workers
        )
        result = runner.run(plan, {})
        self.events = list(journal.events)
        journal.close()
        return result


def step(id: str, *needs: str, **more: object) -> PlannedStep:
    kind = id.split("/")[0]
    inputs: dict[str, Digest | OutputRef] = {need: OutputRef(need, "out") for need in needs}
    return PlannedStep(id, kind, more.pop("parameters", {"n": id}), inputs, "test", **more)  # type: ignore[arg-type]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def raises_first(times: int, problem: Exception, store: ContentStore) -> object:
    """Work that fails a number of times, then answers."""
    left = [times]
    answer = echo(store)

    def work(parameters: object, inputs: Mapping[str, Digest]) -> Outcome:
        if left[0]:
            left[0] -= 1
            raise problem
        return answer(parameters, inputs)

    return work


def refusal(kind: type) -> Exception:
    problem: Exception = kind("it broke", why="because", next="mend it")
    return problem


def test_second_run_finds_every_pure_step(house: House) -> None:
    for name in "abc":
        house.add(name)
    plan = [step("a"), step("b", "a"), step("c", "a", "b")]
    first, second = house.run(plan), house.run(plan, "r2")
    assert [len(house.steps[name].runs) for name in "abc"] == [1, 1, 1]
    assert set(first.states.values()) == {StepState.DONE}
    assert set(second.states.values()) == {StepState.CACHED}
    assert first.outcomes == second.outcomes


def test_a_lost_object_makes_its_step_run_again(house: House, tmp_path: Path) -> None:
    house.add("a")
    digest = house.run([step("a")]).outcomes["a"].outputs["out"]
    house.store.path(digest).unlink()
    house.store = ContentStore(tmp_path / "content")
    house.steps["a"].work = echo(house.store)
    assert house.run([step("a")], "r2").states["a"] is StepState.DONE


def test_a_changed_parameter_runs_only_what_depends_on_it(house: House) -> None:
    for name in "abc":
        house.add(name)
    house.run([step("a"), step("b", "a"), step("c")])
    again = house.run([step("a"), step("b", "a", parameters={"n": "other"}), step("c")], "r2")
    assert again.states == {"a": StepState.CACHED, "b": StepState.DONE, "c": StepState.CACHED}


def test_a_remote_problem_is_retried_with_backoff(house: House) -> None:
    house.add("a", raises_first(2, refusal(RemoteError), house.store))
    assert house.run([step("a")]).state is RunState.DONE
    assert house.clock.slept == [0.5, 1.0]


def test_retries_end(house: House) -> None:
    house.add("a", raises_first(99, refusal(RemoteError), house.store))
    house.add("b")
    house.add("c")
    result = house.run([step("a"), step("b", "a"), step("c")])
    assert result.state is RunState.FAILED
    assert result.states == {"a": StepState.FAILED, "b": StepState.BLOCKED, "c": StepState.DONE}
    assert len(house.steps["a"].runs) == 4


@pytest.mark.parametrize("kind", [InputError, MissingError])
def test_what_the_user_must_mend_is_not_retried(house: House, kind: type) -> None:
    house.add("a", raises_first(1, refusal(kind), house.store))
    assert house.run([step("a")]).state is RunState.FAILED
    assert len(house.steps["a"].runs) == 1


def test_a_person_is_asked(house: House) -> None:
    house.add("a", raises_first(1, refusal(PersonNeededError), house.store))
    assert house.run([step("a")]).state is RunState.WAITING


def test_a_failing_toolchain_gets_the_next_alternative(house: House) -> None:
    house.add("a", raises_first(1, refusal(ToolchainError), house.store))
    result = house.run([step("a", parameters={"recipe": "x"}, adjustable={"recipe": ("x", "y")})])
    assert result.state is RunState.DONE
    assert house.steps["a"].runs == [{"recipe": "x"}, {"recipe": "y"}]
    decided = [event for event in house.events if isinstance(event, Decided)]
    assert [(event.remedy, event.rule, event.choice) for event in decided] == [(Remedy.ADJUST, "next-alternative", 1)]
    assert "it broke" in decided[0].reason


def test_a_recipe_that_cannot_be_built_gets_the_next_alternative(house: House) -> None:
    house.add("a", raises_first(2, refusal(CalibrationMismatchError), house.store))
    result = house.run([step("a", parameters={"rank": 0}, adjustable={"rank": (0, 1, 2)})])
    assert result.state is RunState.DONE
    assert house.steps["a"].runs == [{"rank": 0}, {"rank": 1}, {"rank": 2}]


def test_the_last_recipe_that_cannot_be_built_needs_the_user(house: House) -> None:
    house.add("a", raises_first(9, refusal(UnsupportedRecipeError), house.store))
    result = house.run([step("a", parameters={"rank": 0}, adjustable={"rank": (0, 1)})])
    assert result.state is RunState.FAILED
    assert [event.rule for event in house.events if isinstance(event, Decided)] == [
        "next-alternative",
        "needs-the-user",
    ]


def test_no_more_alternatives_are_tried_than_the_inputs_have(house: House) -> None:
    house.add("a", raises_first(9, refusal(ToolchainError), house.store)).there = {"rank": 2}
    result = house.run([step("a", parameters={"rank": 0}, adjustable={"rank": (0, 1, 2, 3)})])
    assert result.state is RunState.FAILED
    assert [event.rule for event in house.events if isinstance(event, Decided)] == [
        "next-alternative",
        "no-alternative",
    ]
    assert house.steps["a"].runs == [{"rank": 0}, {"rank": 1}]


def test_the_last_concern_stands_where_the_inputs_have_no_more(house: House) -> None:
    """So what comes after may say why it refuses, with the evidence of the last attempt."""
    answer = echo(house.store)
    house.add("compile").there = {"rank": 2}
    house.add("validate", lambda parameters, inputs: replace(answer(parameters, inputs), concern="it is bad"))
    house.add("sign")
    plan = [
        step("compile", parameters={"rank": 0}, adjustable={"rank": (0, 1, 2, 3)}),
        step("validate", "compile", repair="compile"),
        step("sign", "validate"),
    ]
    result = house.run(plan)
    assert (result.state, result.outcomes["validate"].concern) == (RunState.DONE, "it is bad")
    assert house.steps["compile"].runs == [{"rank": 0}, {"rank": 1}]
    assert len(house.steps["sign"].runs) <= 2
    assert [event.rule for event in house.events if isinstance(event, Decided)][-1] == "no-alternative"


def test_a_concern_repairs_the_cause_and_all_that_follows(house: House) -> None:
    house.add("compile", lambda parameters, inputs: Outcome({"out": house.store.put_bytes(parameters["r"].encode())}))

    def judge(parameters: object, inputs: Mapping[str, Digest]) -> Outcome:
        bad = house.store.read(inputs["compile"]) == b"bad"
        return Outcome({"out": inputs["compile"]}, {}, "it is bad" if bad else "")

    house.add("validate", judge)
    house.add("bundle")
    plan = [
        step("compile", parameters={"r": "bad"}, adjustable={"r": ("bad", "good")}),
        step("validate/a", "compile", repair="compile"),
        step("validate/b", "compile", repair="compile"),
        step("bundle", "validate/a", "validate/b"),
    ]
    result = house.run(plan, workers=1)
    assert result.state is RunState.DONE
    assert house.store.read(result.outcomes["validate/b"].outputs["out"]) == b"good"
    assert [event.remedy for event in house.events if isinstance(event, Decided)] == [Remedy.ADJUST]
    resumed = house.run(plan)
    assert resumed.outcomes == result.outcomes, "a resumed run keeps the chosen alternative"


def test_a_concern_without_alternatives_stands(house: House) -> None:
    house.add("compile")
    house.add("validate", lambda parameters, inputs: Outcome({"out": inputs["compile"]}, {}, "bad"))
    result = house.run([step("compile"), step("validate", "compile", repair="compile")])
    assert result.outcomes["validate"].concern == "bad"
    assert len(house.steps["compile"].runs) == 1


class Stubborn:
    """A policy that always wants what it must not have."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision

    def decide(self, situation: Situation) -> Decision:
        return self.decision


@pytest.mark.parametrize(
    "decision",
    [
        Decision(Remedy.ADJUST, "wild", "", parameter="recipe", choice=7),
        Decision(Remedy.ADJUST, "wild", "", parameter="margin", choice=1),
        Decision(Remedy.ADJUST, "wild", "", parameter="recipe", choice=0),
        Decision(Remedy.RETRY, "wild", ""),
    ],
)
def test_the_guard_stops_a_wild_policy(house: House, decision: Decision) -> None:
    house.add("a", raises_first(999, refusal(ToolchainError), house.store))
    plan = [step("a", parameters={"recipe": 1}, adjustable={"recipe": (1, 2)})]
    assert house.run(plan, policy=Stubborn(decision)).state is RunState.FAILED
    last = [event for event in house.events if isinstance(event, Decided)][-1]
    assert last.rule == "guard"
    assert "wild" in last.reason


def test_a_defect_becomes_a_failed_step_and_not_a_traceback(house: House) -> None:
    house.add("a", raises_first(1, ZeroDivisionError("x"), house.store))
    result = house.run([step("a")])
    assert type(result.problems["a"]).__name__ == "InternalError"


def test_an_idempotent_step_runs_in_every_run_but_once_per_run(house: House) -> None:
    house.add("stage", pure=False)
    plan = [step("stage")]
    house.run(plan)
    house.run(plan)  # the same journal: a resumed run
    assert len(house.steps["stage"].runs) == 1
    house.run(plan, "r2")
    assert len(house.steps["stage"].runs) == 2


def test_the_journal_tells_the_story(house: House) -> None:
    house.add("a")
    house.run([step("a")])
    history = fold(house.events)
    assert isinstance(history.finished["a"], StepFinished)
    assert history.ended is not None
    assert history.ended.state is RunState.DONE
