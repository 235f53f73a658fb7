"""Runs: started, resumed, refused; what they took, and what earlier ones foretell."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.agent.journal import JOURNAL_NAME, Journal, fold, list_runs, read_journal
from nwmctl.agent.runner import RunResult
from nwmctl.app.engine import Engine, expected_durations, report
from nwmctl.app.session import open_session, release_of_run
from nwmctl.app.settings import Settings, load_settings
from nwmctl.domain.event import Event, RunEnded, RunResumed, RunStarted, RunState, StepFinished
from nwmctl.domain.step import OutputRef, PlannedStep, StepState
from nwmctl.domain.work import StepName
from nwmctl.errors import FileUnreadableError, RunMismatchError, RunUnknownError, WorkspaceLockedError
from nwmctl.storage.workspace import Workspace
from tests.e2e.command import Place, refused, traces
from tests.fakes import FakeClock, Silent, some_digest


def settings(place: Place) -> Settings:
    return load_settings(place.workspace, place.keys, environment=place.environ)


def pulled(place: Place) -> str:
    """Run the pull steps; gives the run's name."""
    with open_session(settings(place), place.project.release, "test") as session:
        done = session.run(session.plan(StepName.PULL), "a test", Silent())
    assert done.result.state is RunState.DONE
    return done.run


def test_a_run_is_journalled_from_its_plan_to_its_end(place: Place) -> None:
    run = pulled(place)
    events = read_journal(place.workspace / "runs", run)
    first, last = events[0], events[-1]
    assert isinstance(first, RunStarted)
    assert (first.command, first.release_path) == ("a test", str(place.project.release.resolve()))
    assert [step.id for step in first.plan] == ["pull/release", "pull/return"]
    assert isinstance(last, RunEnded)
    assert last.state is RunState.DONE


def test_a_resumed_run_does_nothing_twice(place: Place) -> None:
    run = pulled(place)
    with open_session(settings(place), release_of_run(settings(place), run), "test") as session:
        done = session.resume(run, Silent())
    assert set(done.result.states.values()) == {StepState.CACHED}
    events = read_journal(place.workspace / "runs", run)
    assert len([event for event in events if isinstance(event, RunResumed)]) == 1
    assert list_runs(place.workspace / "runs") == [run]


def test_a_run_is_not_resumed_with_another_release(place: Place) -> None:
    run = pulled(place)
    place.project.edit_release(lambda release: release.update(poll_s=1.0))
    before = traces(place)
    with (
        open_session(settings(place), place.project.release, "test") as session,
        pytest.raises(RunMismatchError, match="another release") as caught,
    ):
        session.resume(run, Silent())
    assert "nwmctl deploy" in caught.value.next
    assert traces(place) == before
    told = refused(place.run("deploy", "--resume", run, "--json"), "RunMismatchError", 8)
    assert run in told["what"]


def test_a_run_that_nobody_started_is_not_resumed(place: Place) -> None:
    pulled(place)
    for name in ("20200101-000000-1", "../runs", ".", ""):
        with pytest.raises(RunUnknownError):
            release_of_run(settings(place), name)


def test_a_run_that_was_killed_before_its_first_record_says_so(place: Place) -> None:
    journal = Journal(place.workspace / "runs" / "early")
    journal.close()
    with pytest.raises(RunUnknownError, match="killed before it began"):
        release_of_run(settings(place), "early")


def test_a_release_that_has_gone_is_named_on_resume(place: Place) -> None:
    run = pulled(place)
    place.project.release.rename(place.project.folder / "moved.yaml")
    with (
        pytest.raises(FileUnreadableError, match=r"release\.yaml"),
        open_session(settings(place), release_of_run(settings(place), run), "test"),
    ):
        pass


def test_two_commands_do_not_run_in_one_workspace(place: Place) -> None:
    with open_session(settings(place), place.project.release, "the first"):
        with (
            pytest.raises(WorkspaceLockedError) as caught,
            open_session(settings(place), place.project.release, "the second"),
        ):
            pass
    assert "the first" in caught.value.why
    pulled(place)


def test_two_runs_within_a_second_have_two_names(tmp_path: Path) -> None:
    clock = FakeClock()
    workspace = Workspace.open(tmp_path)
    engine = Engine(load_settings(tmp_path, environment={"HOME": "/"}), workspace, clock, clock.sleep)
    for number in (1, 2, 3):
        name = engine._new_name()
        assert name.endswith(f"-{number}")
        (workspace.runs / name).mkdir()


# --- time ---------------------------------------------------------------------------------------------------------


def finished(name: str, at_s: float, seconds: float, state: StepState = StepState.DONE) -> StepFinished:
    return StepFinished(round(at_s * 1e6), name, 1, some_digest(name), state, seconds, {})


def started(at_s: float, *plan: PlannedStep) -> RunStarted:
    return RunStarted(round(at_s * 1e6), "r", "c", some_digest("r"), "0", "u", "/r", plan)


PLAN = (
    PlannedStep("pull/release", "pull", {}, {}, ""),
    PlannedStep("sign/release/virtual", "sign", {}, {"x": OutputRef("pull/release", "x")}, ""),
    PlannedStep("stage", "stage", {}, {"x": OutputRef("sign/release/virtual", "x")}, ""),
    PlannedStep("rollout", "rollout", {}, {"x": OutputRef("stage", "x")}, ""),
)


def test_the_budget_ends_at_staged_and_counts_from_the_first_try() -> None:
    events: list[Event] = [
        started(100, *PLAN), finished("pull/release", 103, 3), RunResumed(round(500e6), "u", 1),
        finished("sign/release/virtual", 510, 4), finished("stage", 520, 6), finished("rollout", 900, 1),
    ]  # fmt: skip
    durations = {"pull/release": 3.0, "sign/release/virtual": 4.0, "stage": 6.0, "rollout": 1.0}
    told = report("r", PLAN, RunResult(RunState.DONE, durations=durations), events)
    assert told.staged_s == 420.0
    assert told.build_s == 410.0
    assert told.critical == tuple(step.id for step in PLAN)


def test_a_run_that_did_not_come_to_staged_has_no_time_of_it() -> None:
    told = report("r", PLAN, RunResult(RunState.FAILED), [started(100, *PLAN), finished("pull/release", 103, 3)])
    assert told.staged_s is None
    assert told.build_s == 3.0


def write_run(workspace: Workspace, name: str, *events: Event) -> None:
    journal = Journal(workspace.runs / name)
    for event in events:
        journal.append(event)
    journal.close()


def test_expected_durations_are_what_steps_really_took_last(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    write_run(workspace, "1", started(0), finished("a", 1, 9.0), finished("b", 2, 5.0))
    write_run(workspace, "2", started(0), finished("a", 1, 7.0), finished("b", 2, 0.001, StepState.CACHED))
    write_run(workspace, "3", started(0), finished("a", 1, 1.0))
    assert expected_durations(workspace, exclude="3") == {"a": 7.0, "b": 5.0}


def test_only_the_latest_runs_count(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    write_run(workspace, "0", started(0), finished("old", 1, 9.0))
    for number in range(1, 6):
        write_run(workspace, str(number), started(0), finished("new", 1, float(number)))
    assert expected_durations(workspace) == {"new": 5.0}


def test_a_damaged_journal_costs_only_its_durations(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    write_run(workspace, "1", started(0), finished("a", 1, 9.0))
    write_run(workspace, "2", started(0), finished("a", 1, 3.0))
    path = workspace.runs / "2" / JOURNAL_NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    assert expected_durations(workspace) == {"a": 9.0}


def test_a_history_forgets_what_was_repaired(tmp_path: Path) -> None:
    from nwmctl.domain.event import Decided, Remedy

    events: list[Event] = [
        started(0), finished("compile", 1, 1), finished("validate", 2, 1),
        Decided(3, "compile", 1, Remedy.ADJUST, "rule", "reason", 0.0, "recipe", 1),
    ]  # fmt: skip
    history = fold(events)
    assert history.finished.keys() == {"validate"}
    assert history.choices == {"compile": {"recipe": 1}}
