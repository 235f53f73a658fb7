"""The closing page of a deployment, for a person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nwmctl.cli.words import duration, size
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.evidence import Check, Verdict
from nwmctl.domain.figure import Obtained

if TYPE_CHECKING:
    from nwmctl.app.summary import ArtifactRow, Summary
    from nwmctl.domain.policy import Shortfall
    from nwmctl.fleet.delivery import Ways
    from nwmctl.fleet.status import CampaignStatus

_Said = tuple["tuple[Verdict, Obtained] | None", ...]
"""For each check, what matters most to a reader."""
MARK = {
    Verdict.PASSED: ("✓", "green"),
    Verdict.FAILED: ("✗", "bold red"),
    Verdict.INCONCLUSIVE: ("?", "yellow"),
    Verdict.NOT_RUN: ("–", "dim"),
}


def print_summary(console: Console, summary: Summary) -> None:
    """The whole page."""
    console.print()
    # Bundles that were built elsewhere bring no model along.
    model = f" · {escape(summary.model)}" if summary.model else ""
    console.rule(f"[bold]{escape(summary.release)}[/] · sequence {summary.sequence}{model}", align="left")
    _time(console, summary)
    if summary.artifacts:
        console.print("\n[bold]Artifacts[/]")
        console.print(_artifact_table(summary.artifacts))
        console.print("\n[bold]Checks[/]  verdict and how it was obtained; – did not run and counts as nothing")
        for table in _check_tables(summary.artifacts, console.width):
            console.print(table)
        _limits(console, summary)
    if summary.campaign:
        print_campaign(console, summary.campaign)
    _files(console, summary)
    _certificate(console, summary)
    _next(console, summary)


def print_campaign(console: Console, campaign: CampaignStatus) -> None:
    """A campaign's waves."""
    back = campaign.kind is BundleKind.RETURN
    word = "Rollback" if back else "Rollout"
    reason = f"  [dim]{escape(campaign.reason)}[/]" if campaign.reason else ""
    console.print(f"\n[bold]{word}[/]  {escape(campaign.name)}: {campaign.state}{reason}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("wave", "state", "vehicles", "committed", "failed", "open", ""):
        table.add_column(title, justify="left" if title in ("wave", "state", "") else "right")
    for wave in campaign.waves:
        counts = wave.counts
        failed = Text(str(counts.failed), "red" if counts.failed else "dim")
        table.add_row(
            wave.name, wave.state, str(counts.total), str(counts.committed), failed, str(counts.open), wave.gate
        )
    console.print(table)
    if campaign.ways is not None:
        _ways(console, campaign.ways)
    if campaign.traffic is not None:
        budget, spent = campaign.traffic.budget, campaign.traffic.spent
        told = ", ".join(
            f"{size(used)} {where}" + ("" if most is None else f" of {size(most)}")
            for where, used, most in (
                ("over cellular links", spent.cellular, budget.cellular_budget),
                ("in all", spent.total, budget.total_budget),
            )
        )
        console.print(f"[dim]downloads offered: {told}[/]")


def _ways(console: Console, ways: Ways) -> None:
    parts = [
        f"{offers} {how} ({size(taken)})"
        for how, offers, taken in (
            ("by delta", ways.delta_offers, ways.delta_bytes),
            ("by full bundle", ways.full_offers, ways.full_bytes),
        )
    ]
    console.print(f"[dim]attempts offered: {', '.join(parts)}[/]")


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
    for title in ("build", "toolchain", "code for", "precision found in it", "size", "note"):
        table.add_column(title, justify="right" if title == "size" else "left", no_wrap=title != "note")
    for row in rows:
        manifest = row.manifest
        asked = "" if manifest.found_precision is manifest.recipe.precision else f" (asked {manifest.recipe.precision})"
        note = f"jit, driver {manifest.needs.driver}" if manifest.jit_in_vehicle else ""
        table.add_row(
            f"{row.platform} {row.build}",
            f"{manifest.recipe.toolchain} {manifest.toolchain_version.rpartition(' ')[2]}",
            manifest.instruction_set.partition(" ")[0],
            f"{manifest.found_precision}{asked}{_found(manifest.found)}",
            size(manifest.size),
            note,
        )
    return table


def _found(found: dict[str, int]) -> str:
    for mark, word in (("mma", "tensor-core mma"), ("bfmmla", "bfmmla"), ("smmla", "smmla"), ("sdot", "sdot")):
        count = sum(number for name, number in found.items() if mark in name.lower())
        if count:
            return f", {count} {word}"
    return ""


_GAP = 2
_FIRST = max(len(check) for check in Check) + _GAP


def _check_tables(rows: tuple[ArtifactRow, ...], width: int) -> Iterator[Table]:
    """Checks down; across, builds about which the same was said. As many tables as the console's width needs."""
    alike: dict[_Said, list[ArtifactRow]] = {}
    for row in rows:
        best = [row.best(check) for check in Check]
        alike.setdefault(tuple((one.verdict, one.obtained) if one else None for one in best), []).append(row)
    heads = {said: [f"{row.platform} {row.build}" for row in group] for said, group in alike.items()}
    chunk: list[_Said] = []
    taken = _FIRST
    for said, names in heads.items():
        wide = max(len(name) for name in names) + _GAP
        if chunk and taken + wide > width:
            yield _check_table(chunk, heads)
            chunk, taken = [], _FIRST
        chunk.append(said)
        taken += wide
    yield _check_table(chunk, heads)


def _check_table(
    columns: Sequence[_Said],
    heads: Mapping[_Said, Sequence[str]],
) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
    table.add_column("check", no_wrap=True, vertical="bottom", min_width=_FIRST - _GAP)
    for said in columns:
        table.add_column("\n".join(heads[said]), no_wrap=True, vertical="bottom")
    for index, check in enumerate(Check):
        found = [said[index] for said in columns]
        if any(found):
            table.add_row(check.replace("_", " "), *(_verdict(one) for one in found))
    return table


def _verdict(said: tuple[Verdict, Obtained] | None) -> Text:
    if said is None:
        return Text("")
    mark, style = MARK[said[0]]
    return Text(mark if said[0] is Verdict.NOT_RUN else f"{mark} {said[1]}", style)


def _limits(console: Console, summary: Summary) -> None:
    if not summary.shortfalls:
        console.print("\nThis evidence satisfies the policy's rules for a real fleet.")
        return
    console.print("\n[bold yellow]Not enough for a real fleet[/]  its rules would refuse to sign this evidence:")
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(style="dim")
    for check, reason, platforms in group_shortfalls(summary.shortfalls):
        table.add_row(f"  {check.replace('_', ' ')}", reason, ", ".join(platforms))
    console.print(table)
    chips = sorted({row.chip for row in summary.artifacts if row.platform in _real(summary)})
    if chips:
        benches = " and one with ".join(chips)
        console.print(f"  [yellow]what would settle it: the same checks on a bench with {benches}[/]")


def _real(summary: Summary) -> set[str]:
    return {short.platform for short in summary.shortfalls if short.platform != "virtual"}


def group_shortfalls(shortfalls: tuple[Shortfall, ...]) -> list[tuple[str, str, list[str]]]:
    """Check, reason and platforms; the same reason is said once."""
    groups: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for short in sorted(shortfalls, key=lambda short: list(Check).index(short.check)):
        groups[short.check, short.reason.split(";")[0]][short.platform] = None
    return [(check, reason, list(platforms)) for (check, reason), platforms in groups.items()]


def _files(console: Console, summary: Summary) -> None:
    release = [row for row in summary.bundles if row.kind is BundleKind.RELEASE]
    if not release:
        return
    total = sum(row.size for row in summary.bundles)
    console.print(f"\n[bold]Files[/]  {len(summary.bundles)} signed bundles, {size(total)}, the way back included")
    for row in release:
        serves = f", for vehicles with sequence {', '.join(map(str, row.serves))}" if row.serves else ""
        console.print(f"  {escape(row.filename)}  [dim]{size(row.size)}{serves}[/]", soft_wrap=True)
    console.print(f"  in {escape(_short_path(release[0].path.parent))}", soft_wrap=True)


def _certificate(console: Console, summary: Summary) -> None:
    row = summary.certificate
    if row is None:
        return
    keys = ", development keys that protect nothing" if row.development else ""
    console.print(
        f"\n[bold]Certificate[/]  root {row.root.short} over {row.leaves} leaves, {row.statements} of them sealed "
        f"statements; status: draft",
        soft_wrap=True,
    )
    console.print(f"  sealed by {escape(row.key[:_KEY])}…{keys}", soft_wrap=True)
    if row.unopened:
        console.print(f"  [yellow]{row.unopened} encrypted files were not opened: no payload key was given[/]")
    console.print(f"  in {escape(_short_path(row.path))}", soft_wrap=True)


_KEY = len("rsa3072:") + 12


def _short_path(path: Path) -> str:
    """Relative to where the user stands, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _next(console: Console, summary: Summary) -> None:
    console.print("\n[bold]Next[/]")
    rows = [("nwmctl runs show", "what was decided, and why"), ("nwmctl runs evidence", "what each check found")]
    if summary.bundles:
        first = summary.bundles[0]
        # A repository's file names begin with their hash; the shell finds them by what follows it. A bundle that was
        # not staged has nothing but a hash for a name.
        staged = first.path.name.endswith(first.filename)
        pattern = f"{_short_path(first.path.parent)}/*{first.filename}" if staged else _short_path(first.path)
        rows.append((f"nwmctl verify {pattern}", "what a bundle establishes, offline"))
    if summary.certificate and summary.certificate.staged:
        release = _short_path(summary.release_file.resolve())
        rows.append((f"nwmctl verify {release}", "what the whole release establishes, back to the weights"))
        rows.append((f"nwmctl evidence {release} --out FOLDER", "certificate, statements, bill of materials as files"))
    if summary.campaign:
        rows.append(("nwmctl rollout status", "how the campaign stands"))
        rows.append(("nwmctl fleet status", "which vehicle models run which sequence"))
        rows.append((f"nwmctl rollback {summary.campaign.name} --reason ...", "bring the vehicles back"))
    for command, what in rows:
        console.print(f"  [cyan]{escape(command)}[/]  [dim]{what}[/]", soft_wrap=True)
