"""The closing page of a deployment, for a person."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nwmctl.cli.words import duration, size
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.evidence import Check, CheckResult, Verdict

if TYPE_CHECKING:
    from nwmctl.app.summary import ArtifactRow, Summary
    from nwmctl.domain.policy import Shortfall
    from nwmctl.fleet.status import CampaignStatus

_MARK = {
    Verdict.PASSED: ("✓", "green"),
    Verdict.FAILED: ("✗", "bold red"),
    Verdict.INCONCLUSIVE: ("?", "yellow"),
    Verdict.NOT_RUN: ("–", "dim"),
}


def print_summary(console: Console, summary: Summary) -> None:
    """The whole page."""
    console.print()
    console.rule(
        f"[bold]{escape(summary.release)}[/] · sequence {summary.sequence} · {escape(summary.model)}", align="left"
    )
    _time(console, summary)
    if summary.artifacts:
        console.print("\n[bold]Artifacts[/]")
        console.print(_artifact_table(summary.artifacts))
        console.print("\n[bold]Checks[/]  verdict and how it was obtained; – did not run and counts as nothing")
        console.print(_check_table(summary.artifacts))
        _limits(console, summary)
    if summary.campaign:
        print_campaign(console, summary.campaign)
    _files(console, summary)
    _next(console, summary)


def print_campaign(console: Console, campaign: CampaignStatus) -> None:
    """A campaign's waves."""
    back = campaign.kind is BundleKind.RETURN
    word = "Rollback" if back else "Rollout"
    reason = f"  [dim]{escape(campaign.reason)}[/]" if campaign.reason else ""
    console.print(f"\n[bold]{word}[/]  {escape(campaign.name)}: {campaign.state}{reason}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("wave", "state", "vehicles", "committed", "failed", "open", "gate"):
        table.add_column(title, justify="left" if title in ("wave", "state", "gate") else "right")
    for wave in campaign.waves:
        counts = wave.counts
        failed = Text(str(counts.failed), "red" if counts.failed else "dim")
        table.add_row(
            wave.name, wave.state, str(counts.total), str(counts.committed), failed, str(counts.open), wave.gate
        )
    console.print(table)


def _time(console: Console, summary: Summary) -> None:
    from nwmctl.app.engine import BUDGET_S

    if summary.staged_s is not None:
        share = summary.staged_s / BUDGET_S
        console.print(f"staged after {duration(summary.staged_s)} of {duration(BUDGET_S)} ({share:.1%})", end="; ")
    console.print(
        f"build part {duration(summary.build_s)}; {summary.cached} of {summary.steps} steps found in the store"
    )
    if summary.critical:
        console.print(f"[dim]critical path: {escape(' → '.join(summary.critical))}[/]")


def _artifact_table(rows: tuple[ArtifactRow, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("platform", "build", "toolchain", "runs on", "precision found", "size", "note"):
        table.add_column(title, justify="right" if title == "size" else "left", overflow="fold")
    for row in rows:
        manifest = row.manifest
        asked = "" if manifest.found_precision is manifest.recipe.precision else f" (asked {manifest.recipe.precision})"
        note = f"finished in the vehicle by driver {manifest.needs.driver}" if manifest.jit_in_vehicle else ""
        table.add_row(
            row.platform,
            row.build,
            f"{manifest.recipe.toolchain} {manifest.toolchain_version}",
            manifest.instruction_set.partition(" ")[0],
            f"{manifest.found_precision}{asked}{_found(manifest.found)}",
            size(manifest.size),
            note,
        )
    return table


def _found(found: dict[str, int]) -> str:
    for mark, word in (("mma", "tensor-core mma"), ("bfmmla", "bfmmla"), ("smmla", "smmla"), ("sdot", "sdot")):
        count = sum(number for name, number in found.items() if mark in name)
        if count:
            return f", {count} {word}"
    return ""


def _check_table(rows: tuple[ArtifactRow, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("platform")
    table.add_column("build")
    for check in Check:
        table.add_column(check.replace("_", " "))
    for row in rows:
        table.add_row(row.platform, row.build, *(_verdict(row.best(check)) for check in Check))
    return table


def _verdict(result: CheckResult | None) -> Text:
    if result is None:
        return Text("", "dim")
    mark, style = _MARK[result.verdict]
    word = "" if result.verdict is Verdict.NOT_RUN else f" {result.obtained}"
    return Text(f"{mark}{word}", style)


def _limits(console: Console, summary: Summary) -> None:
    if not summary.shortfalls:
        console.print("\nThis evidence satisfies the policy's rules for a real fleet.")
        return
    console.print("\n[bold yellow]Not enough for a real fleet[/]  the policy would refuse to sign this evidence:")
    for line in group_shortfalls(summary.shortfalls):
        console.print(f"  {escape(line)}", style="yellow")


def group_shortfalls(shortfalls: tuple[Shortfall, ...]) -> list[str]:
    """Shortfalls with the same check, reason and remedy in one line, with the builds they concern."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for short in shortfalls:
        groups[(short.check, short.reason, short.settle)].append(f"{short.platform} {short.build}")
    return [
        f"{check.replace('_', ' ')}: {reason}; {settle}  [{', '.join(places)}]"
        for (check, reason, settle), places in groups.items()
    ]


def _files(console: Console, summary: Summary) -> None:
    release = [row for row in summary.bundles if row.kind is BundleKind.RELEASE]
    if not release:
        return
    total = sum(row.size for row in summary.bundles)
    console.print("\n[bold]Files[/]")
    console.print(f"  bundles     {len(summary.bundles)} signed, {size(total)}, the way back included")
    for row in release:
        console.print(f"              {escape(row.filename)}  {size(row.size)}", soft_wrap=True)
    console.print(f"  workspace   {summary.workspace}", soft_wrap=True)


def _next(console: Console, summary: Summary) -> None:
    console.print("\n[bold]Next[/]")
    rows = [("nwmctl runs show", "what was decided, and why")]
    if summary.campaign:
        rows.append(("nwmctl rollout status", "how the campaign stands"))
        rows.append(("nwmctl fleet status", "which vehicle models run which sequence"))
        rows.append((f"nwmctl rollback {summary.campaign.name} --reason ...", "bring the vehicles back"))
    for command, what in rows:
        console.print(f"  [cyan]{escape(command):48}[/] [dim]{what}[/]", soft_wrap=True)
