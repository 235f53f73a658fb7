"""Runs told to people: short rows for a list, and the whole story of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_never

from nwmctl.agent.journal import fold, list_runs, read_journal
from nwmctl.domain.event import Decided, Event, RunEnded, RunResumed, RunStarted, StepFailed, StepFinished, StepStarted
from nwmctl.domain.step import StepState
from nwmctl.errors import VerificationError
from nwmctl.formats.codec import to_plain
from nwmctl.storage.workspace import Workspace


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in one row. A run without an end was killed or is still going; one with a damaged journal is listed as
    such, with nothing else about it."""

    run: str
    command: str
    requested_by: str
    state: str
    reason: str
    steps: int
    finished: int

    def plain(self) -> Any:
        """For JSON."""
        return to_plain(self)


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One line of a story; ``style`` is a hint for colour."""

    at: str
    text: str
    style: str = "default"


@dataclass(frozen=True, slots=True)
class Story:
    """All events of one run."""

    run: str
    events: tuple[Event, ...]

    def plain(self) -> Any:
        """For JSON."""
        return {
            "run": self.run,
            "events": [{"event": type(event).__name__, **_mapping(event)} for event in self.events],
        }

    def lines(self) -> Iterator[StoryLine]:
        """The story in lines, in order."""
        for event in self.events:
            at = datetime.fromtimestamp(event.at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
            for text, style in _tell(event):
                yield StoryLine(at, text, style)


def _mapping(event: Event) -> dict[str, Any]:
    plain = to_plain(event)
    assert isinstance(plain, dict)
    return plain


def list_summaries(workspace: Workspace) -> list[RunSummary]:
    """All runs of a workspace, oldest first."""
    rows = []
    for name in list_runs(workspace.runs):
        try:
            history = fold(read_journal(workspace.runs, name))
        except VerificationError as problem:
            # One damaged journal must not hide the other runs.
            rows.append(RunSummary(name, "", "", "damaged", problem.what, 0, 0))
            continue
        if history.started is None:
            continue
        ended = history.ended
        rows.append(
            RunSummary(
                name,
                history.started.command,
                history.started.requested_by,
                str(ended.state) if ended else "unfinished",
                ended.reason if ended else f"killed or still running; `nwmctl deploy --resume {name}` goes on",
                len(history.started.plan),
                len(history.finished),
            )
        )
    return rows


def story(workspace: Workspace, run: str) -> Story:
    """A run's story; ``last`` is the latest run. Raises RunUnknownError, LogCorruptError."""
    names = list_runs(workspace.runs)
    name = names[-1] if run == "last" and names else run
    return Story(name, tuple(read_journal(workspace.runs, name)))


def _tell(event: Event) -> Iterator[tuple[str, str]]:
    match event:
        case RunStarted():
            yield f"run {event.run}: {event.command} (by {event.requested_by}, nwmctl {event.version})", "bold"
            for step in event.plan:
                yield f"  plan  {step.id}: {step.reason}", "dim"
        case RunResumed():
            yield f"resumed by {event.requested_by}; {event.finished} steps were finished", "bold"
        case StepStarted():
            yield f"{event.step}: attempt {event.attempt} begins (key {event.key.short})", "default"
        case StepFinished():
            how = "found in the store" if event.state is StepState.CACHED else f"done in {event.duration_s:.1f} s"
            outputs = ", ".join(f"{name} {digest.short}" for name, digest in sorted(event.outputs.items()))
            yield f"{event.step}: {how}{f' -> {outputs}' if outputs else ''}", "green"
            if event.concern:
                yield f"{event.step}: concern: {event.concern}", "yellow"
        case StepFailed():
            yield f"{event.step}: attempt {event.attempt} failed: {event.error}: {event.what}", "red"
            yield f"  why {event.why}", "red"
        case Decided():
            yield f"{event.step}: agent decides {event.remedy} by rule {event.rule}: {event.reason}", "yellow"
        case RunEnded():
            yield f"run {event.state}: {event.reason}", "bold"
        case _:
            assert_never(event)
