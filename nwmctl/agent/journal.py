"""The journal of a run: the only truth about it.

Every event is on disk before anything that follows from it happens. Reading it back gives the plan, what is
finished, which alternatives were chosen, and the whole story with reasons.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nwmctl.domain.event import (
    Decided,
    Event,
    Remedy,
    RunEnded,
    RunResumed,
    RunStarted,
    StepFailed,
    StepFinished,
    StepStarted,
)
from nwmctl.errors import LogCorruptError, RunUnknownError
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.storage.applog import AppendLog, read_log

JOURNAL_NAME = "journal.log"
_KINDS: dict[str, type[Event]] = {
    "run_started": RunStarted,
    "run_resumed": RunResumed,
    "step_started": StepStarted,
    "step_finished": StepFinished,
    "step_failed": StepFailed,
    "decided": Decided,
    "run_ended": RunEnded,
}
_WORDS: dict[type[Event], str] = {kind: word for word, kind in _KINDS.items()}


class Journal:
    """A run's journal opened for writing; safe to use from several threads of one process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = AppendLog(folder / JOURNAL_NAME)
        self._lock = threading.Lock()
        self.events: list[Event] = [_decode(record) for record in self._log.records]

    def append(self, event: Event) -> None:
        """Write an event; it is on disk when this returns."""
        plain = to_plain(event)
        assert isinstance(plain, dict)
        with self._lock:
            self._log.append(canonical.encode({**plain, "event": _WORDS[type(event)]}).decode())
            self.events.append(event)

    def close(self) -> None:
        """Close the file."""
        self._log.close()


def read_journal(runs: Path, run: str) -> list[Event]:
    """A run's events so far. Raises RunUnknownError, LogCorruptError."""
    path = runs / run / JOURNAL_NAME
    if "/" in run or run.startswith(".") or not path.is_file():
        known = ", ".join(list_runs(runs)[-3:]) or "none"
        raise RunUnknownError(
            f"there is no run '{run}' in this workspace",
            why=f"the latest runs here are: {known}",
            next="see `nwmctl runs list`, or name the right --workspace",
        )
    return [_decode(record) for record in read_log(path)]


def list_runs(runs: Path) -> list[str]:
    """Names of all runs, oldest first."""
    return sorted(path.parent.name for path in runs.glob(f"*/{JOURNAL_NAME}"))


def _decode(record: str) -> Event:
    plain = canonical.decode(record.encode(), "journal record")
    table = dict(plain) if isinstance(plain, dict) else {}
    word = table.pop("event", None)
    kind = _KINDS.get(str(word))
    if kind is None:
        raise LogCorruptError(
            f"the journal holds an unknown event '{word}'",
            why="it was written by another version of nwmctl",
            next="use that version, or start a new run; finished steps are found in the content store",
        )
    event: Event = from_plain(kind, table, Source("journal record"))
    return event


@dataclass(slots=True)
class History:
    """What a journal says about a run, folded."""

    started: RunStarted | None = None
    finished: dict[str, StepFinished] = field(default_factory=dict)
    choices: dict[str, dict[str, int]] = field(default_factory=dict)
    ended: RunEnded | None = None


def fold(events: Iterable[Event]) -> History:
    """Fold events into a history. A repaired step's earlier result no longer counts."""
    history = History()
    for event in events:
        match event:
            case RunStarted():
                history.started = event
            case RunResumed():
                history.ended = None
            case StepFinished():
                history.finished[event.step] = event
            case Decided(remedy=Remedy.ADJUST):
                history.choices.setdefault(event.step, {})[event.parameter] = event.choice
                history.finished.pop(event.step, None)
            case RunEnded():
                history.ended = event
            case _:
                continue
    return history
