"""Runs told to people and programs."""

from __future__ import annotations

import json

import pytest

from nwmctl.agent.journal import JOURNAL_NAME, Journal
from nwmctl.app.history import Story, list_summaries, story
from nwmctl.domain.event import (
    Decided,
    Event,
    Remedy,
    RunEnded,
    RunResumed,
    RunStarted,
    RunState,
    StepFailed,
    StepFinished,
    StepStarted,
)
from nwmctl.domain.step import PlannedStep, StepState
from nwmctl.errors import LogCorruptError, RunUnknownError
from nwmctl.storage.workspace import Workspace
from tests.e2e.command import Place
from tests.fakes import some_digest

KEY = some_digest("key")
PLAN = (PlannedStep("compile/x", "compile", {}, {}, "artifact for x"),)
EVENTS: tuple[Event, ...] = (
    RunStarted(1_000_000, "r1", "nwmctl deploy x", some_digest("r"), "0.1", "ann", "/r.yaml", PLAN),
    StepStarted(2_000_000, "compile/x", 1, KEY),
    StepFailed(3_000_000, "compile/x", 1, "CompileFailedError", "the compiler [failed]", "it hung", "use another"),
    Decided(3_000_000, "compile/x", 1, Remedy.ADJUST, "next-alternative", "alternative 2 of 2 is next", 0, "recipe", 1),
    RunResumed(4_000_000, "bob", 0),
    StepStarted(5_000_000, "compile/x", 2, KEY),
    StepFinished(6_000_000, "compile/x", 2, KEY, StepState.DONE, 1.0, {"payload": KEY}, {}, "parity failed"),
    StepFinished(6_000_000, "compile/x", 3, KEY, StepState.CACHED, 0.0, {}),
    RunEnded(7_000_000, RunState.FAILED, "because"),
)  # fmt: skip


def test_a_story_tells_plan_attempts_decisions_and_reasons_in_order() -> None:
    text = "\n".join(f"{line.at} {line.text}" for line in Story("r1", EVENTS).lines())
    words = [
        "1970-01-01 00:00:01 run r1: nwmctl deploy x (by ann", "plan  compile/x: artifact for x", "attempt 1 begins",
        "attempt 1 failed: CompileFailedError: the compiler [failed]", "why it hung",
        "agent decides adjust by rule next-alternative: alternative 2 of 2 is next", "resumed by bob",
        "attempt 2 begins", "done in 1.0 s -> payload", "concern: parity failed", "found in the store",
        "run failed: because",
    ]  # fmt: skip
    places = [text.index(word) for word in words]
    assert places == sorted(places)


def test_a_story_in_json_has_every_event_with_its_kind() -> None:
    plain = json.loads(json.dumps(Story("r1", EVENTS).plain()))
    assert [event["event"] for event in plain["events"]] == [type(event).__name__ for event in EVENTS]
    assert plain["events"][3]["reason"] == "alternative 2 of 2 is next"


def write(place: Place, name: str, *events: Event) -> Workspace:
    workspace = Workspace.open(place.workspace)
    journal = Journal(workspace.runs / name)
    for event in events:
        journal.append(event)
    journal.close()
    return workspace


def test_a_list_says_how_each_run_ended(place: Place) -> None:
    write(place, "1", *EVENTS)
    write(place, "2", *EVENTS[:3])
    write(place, "3")
    rows = list_summaries(Workspace.open(place.workspace))
    assert [(row.run, row.state, row.finished, row.steps) for row in rows] == [
        ("1", "failed", 1, 1), ("2", "unfinished", 0, 1),
    ]  # fmt: skip
    assert "--resume 2" in rows[1].reason
    assert [row["run"] for row in place.run("runs", "list", "--json").ok().json["runs"]] == ["1", "2"]


def test_the_latest_run_is_called_last(place: Place) -> None:
    workspace = write(place, "1", *EVENTS)
    write(place, "2", *EVENTS[:3])
    assert story(workspace, "last").run == "2"
    assert story(workspace, "1").events == EVENTS


def test_without_runs_there_is_no_last_one(place: Place) -> None:
    with pytest.raises(RunUnknownError):
        story(Workspace.open(place.workspace), "last")
    assert place.run("runs", "show").code == 3
    assert "no runs" in place.run("runs", "list").ok().out


def test_a_damaged_journal_is_reported_and_does_not_hide_the_other_runs(place: Place) -> None:
    workspace = write(place, "1", *EVENTS)
    write(place, "2", *EVENTS)
    path = workspace.runs / "1" / JOURNAL_NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(LogCorruptError):
        story(workspace, "1")
    rows = {row.run: row for row in list_summaries(workspace)}
    assert rows["1"].state == "damaged"
    assert rows["2"].state == "failed"


def test_text_of_others_is_not_read_as_markup(place: Place) -> None:
    write(place, "1", *EVENTS)
    assert "the compiler [failed]" in place.run("runs", "show").ok().out
