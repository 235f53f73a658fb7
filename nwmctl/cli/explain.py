"""Why each artifact was built by its recipe, on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nwmctl.cli.words import size
from nwmctl.domain.figure import Obtained

if TYPE_CHECKING:
    from nwmctl.app.explain import Explanation, Line

_WORD = {"won": "✓ won", "pruned": "left out"}
_STYLE = {"won": "green", "rejected": "red", "failed": "red", "pruned": "dim", "not built": "dim"}
_ORIGIN = {
    "search": "found by a {effort} search",
    "pinned": "pinned by the release's recipe file",
    "profile": "as the platform's profile lists them; `--search quick` or `full` looks for better ones",
}


def print_explanations(console: Console, found: tuple[Explanation, ...]) -> None:
    """One table for each artifact."""
    for one in found:
        console.print()
        console.rule(f"[bold]{escape(', '.join(one.places))}[/]  {escape(one.chip)} {escape(one.unit)}", align="left")
        console.print(f"[dim]recipes {_ORIGIN[one.origin].format(effort=one.effort)}[/]")
        console.print(_table(one.lines))
        if one.prediction_error is not None:
            error = f"{one.prediction_error:.0%}"
            console.print(f"[dim]cost model: half of its predictions were within {error} of what was measured[/]")
        about = tuple(line.text for line in one.lines)
        for note in one.notes:
            if not note.startswith(about):  # what is about one recipe stands in its row
                console.print(Text(f"note: {note}", "yellow"))


def _table(lines: tuple[Line, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("recipe", "", "ms per step", "predicted", "parity", "size", "because"):
        right = title in ("ms per step", "predicted", "parity", "size")
        table.add_column(title, justify="right" if right else "left", no_wrap=title not in ("recipe", "because"))
    best = next((line.ms for line in lines if line.chosen), None)
    for line in lines:
        table.add_row(
            Text(line.text, "bold" if line.chosen else ""),
            Text(_WORD.get(line.outcome, line.outcome), _STYLE.get(line.outcome, "")),
            _time(line),
            "" if line.predicted_ms is None or line.ms == line.predicted_ms else f"{line.predicted_ms:.3g}",
            "" if line.parity_share is None else f"{line.parity_share:.0%}",
            "" if line.size is None else size(line.size),
            Text(_because(line, best), "dim"),
        )
    return table


def _because(line: Line, best: float | None) -> str:
    """Of a recipe that passed, how it compares; of every other one, what was said about it."""
    if line.outcome == "passed":
        return f"{line.ms / best:.2f} times as long" if line.ms and best else "passed too"
    return line.reason.partition("; ")[0]


def _time(line: Line) -> str:
    if line.ms is None or line.obtained is Obtained.NOT_RUN:
        return "–"
    return f"{line.ms:.3g} {line.obtained}"
