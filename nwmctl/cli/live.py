"""The live view of a run: one row per kind of step, what is running, the budget. Draws; decides nothing.

On a terminal the table is redrawn in place and finished steps scroll by above it; elsewhere only the lines are
printed. Everything goes to stderr.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nwmctl.cli.words import duration, glyph, summary_text
from nwmctl.domain.event import Decided, Event, Remedy, RunResumed, RunStarted, StepFailed, StepFinished, StepStarted
from nwmctl.domain.step import PlannedStep, StepState

if TYPE_CHECKING:
    from nwmctl.domain.clock import Clock

_REDRAW_S = 0.12
_STYLE = {
    StepState.PENDING: "dim",
    StepState.RUNNING: "bold cyan",
    StepState.CACHED: "blue",
    StepState.DONE: "green",
    StepState.FAILED: "bold red",
    StepState.BLOCKED: "dim red",
}


class LiveView:
    """A listener that draws. Use as a context manager."""

    def __init__(
        self, console: Console, plan: Sequence[PlannedStep], title: str, budget_s: float, clock: Clock
    ) -> None:
        self._console = console
        self._title = title
        self._budget_s = budget_s
        self._clock = clock
        self._lock = threading.Lock()
        self._states = dict.fromkeys((step.id for step in plan), StepState.PENDING)
        self._kinds = list(dict.fromkeys(step.step for step in plan))
        self._kind_of = {step.id: step.step for step in plan}
        self._began = clock.monotonic()
        self._started: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._spent: dict[str, float] = {}
        self._staged_after: float | None = None
        self._run = ""
        self._lines: list[str] = []
        self._live = Live(self, console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._ended = threading.Event()
        # The only thread that ever touches the console: printing from several of them deadlocks with redrawing.
        self._drawer = threading.Thread(target=self._draw, name="view", daemon=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        self._drawer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._drawer.join()
        if self._live:
            self._live.stop()
        self._flush()

    def _draw(self) -> None:
        while not self._ended.wait(_REDRAW_S):
            self._flush()
            if self._live:
                self._live.refresh()

    def _flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        for line in lines:
            self._console.print(line, soft_wrap=True)

    # --- listener ---

    def event(self, event: Event) -> None:
        """Take note of an event and print what a person would want to have seen."""
        with self._lock:
            line = self._note(event)
            if line:
                self._lines.append(line)

    def _note(self, event: Event) -> str:
        match event:
            case RunStarted():
                return f"[dim]run {event.run}[/]  {escape(self._title)}"
            case RunResumed():
                return f"resumed: {event.finished} steps were already finished"
            case StepStarted():
                self._states[event.step] = StepState.RUNNING
                self._started[event.step] = self._clock.monotonic()
                return ""
            case StepFinished():
                return self._finished(event)
            case StepFailed():
                self._states[event.step] = StepState.FAILED
                return f"[red]✗[/] {escape(event.step)}  {escape(event.what)}"
            case Decided():
                style = "yellow" if event.remedy in (Remedy.RETRY, Remedy.ADJUST) else "red"
                return f"  [{style}]agent: {event.remedy}[/] [dim]({event.rule})[/] {escape(event.reason)}"
            case _:
                return ""

    def progress(self, step: str, text: str, share: float) -> None:
        """What a running step says about itself."""
        with self._lock:
            self._said[step] = f"{text} {share:.0%}" if 0 <= share <= 1 else text

    def _finished(self, event: StepFinished) -> str:
        self._states[event.step] = event.state
        self._said.pop(event.step, None)
        kind = self._kind_of.get(event.step, "")
        self._spent[kind] = self._spent.get(kind, 0.0) + event.duration_s
        if event.step == "stage":
            self._staged_after = self._clock.monotonic() - self._began
        style = _STYLE[event.state]
        text = summary_text(event.summary)
        warning = f"  [yellow]{escape(event.concern)}[/]" if event.concern else ""
        took = "found in the store" if event.state is StepState.CACHED else duration(event.duration_s)
        mark = f"[{style}]{glyph(event.state)}[/] {escape(event.step):42} [dim]{took:>9}[/]"
        return f"{mark}  {escape(text)}{warning}"

    # --- drawing ---

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            yield Group(self._table(), self._footer())

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(width=9)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", width=9)
        table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
        for kind in self._kinds:
            names = [name for name, owner in self._kind_of.items() if owner == kind]
            strip = Text()
            for name in names:
                state = self._states[name]
                strip.append(glyph(state), _STYLE[state])
            running = "   ".join(self._talk(name) for name in names if self._states[name] is StepState.RUNNING)
            spent = self._spent.get(kind)
            table.add_row(kind, strip, duration(spent) if spent is not None else "", Text(running, "cyan"))
        return table

    def _talk(self, name: str) -> str:
        now = self._clock.monotonic()
        took = duration(now - self._started.get(name, now))
        return f"{name.partition('/')[2] or name} {took} {self._said.get(name, '')}".rstrip()

    def _footer(self) -> Text:
        elapsed = self._staged_after or self._clock.monotonic() - self._began
        word = "staged after" if self._staged_after else "elapsed"
        share = elapsed / self._budget_s
        return Text(f"{word} {duration(elapsed)} of {duration(self._budget_s)} to staged ({share:.1%})", "dim")
