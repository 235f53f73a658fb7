"""Evidence for a person: each check with its words, one build with all figures, and which layer eats the bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nwmctl.cli.summary import MARK
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import ResultFigure

if TYPE_CHECKING:
    from nwmctl.app.evidence import RunEvidence
    from nwmctl.validation.layers import LayerRow

_LAYER = "layer."


def print_evidence(console: Console, found: RunEvidence, *, figures: bool) -> None:
    """The markets, and each build with its checks; ``figures``: with every figure and the layers as well."""
    for each in found.markets:
        console.print(Text(f"market {each.market}: RXSWIN {each.rxswin}, approval {each.approval}"), soft_wrap=True)
    for one in found.builds:
        console.print()
        console.rule(f"[bold]{escape(one.place)}[/]  artifact {one.pack.artifact.short}", align="left")
        for result in sorted(one.pack.results, key=lambda result: list(Check).index(result.check)):
            _result(console, result, figures=figures)
        if figures and one.layers:
            console.print("\n[bold]Which layer eats the bandwidth[/]  per control step at batch 1; counted, not timed")
            console.print(_layers(one.layers))


def _result(console: Console, result: CheckResult, *, figures: bool) -> None:
    mark, style = MARK[result.verdict]
    judge = f", judged by {result.judge}" if result.judge else ""
    name = str(result.check).replace("_", " ")
    how = "" if result.verdict is Verdict.NOT_RUN else f", {result.obtained}"
    console.print(f"\n[{style}]{mark}[/] [bold]{name}[/]  [dim]{result.verdict}{how}{escape(judge)}[/]")
    console.print(Text(f"  {result.summary}"))
    if result.next:
        console.print(Text(f"  next: {result.next}", "yellow"))
    shown = [item for item in result.figures if not item.name.startswith(_LAYER)]
    if figures and shown:
        console.print(_figures(shown))


def _figures(items: list[ResultFigure]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("  figure", "value", "95 % interval", "limit", "unit"):
        table.add_column(title, justify="left" if title in ("  figure", "unit") else "right", no_wrap=True)
    for item in items:
        limit = "" if item.limit is None else f"{item.limit:g}"
        table.add_row(f"  {item.name}", f"{item.value:.4g}", _interval(item), limit, item.unit)
    return table


def _interval(item: ResultFigure) -> str:
    if item.low is None and item.high is None:
        return ""
    low = "…" if item.low is None else f"{item.low:.3g}"
    high = "…" if item.high is None else f"{item.high:.3g}"
    return f"{low} to {high}"


def _layers(rows: tuple[LayerRow, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("  layer", "weights MB", "activations MB", "of all bytes", "GB/s", "of the chip", "operations/byte"):
        table.add_column(title, justify="left" if title == "  layer" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"  {row.layer}", f"{row.weight_mb:.3f}", f"{row.activation_mb:.3f}", f"{row.share:.0%}",
            f"{row.gb_per_s:.4f}", "" if row.bandwidth_share is None else f"{100.0 * row.bandwidth_share:.2g} %",
            f"{row.operations_per_byte:.1f}",
        )  # fmt: skip
    return table
