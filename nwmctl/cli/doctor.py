"""`nwmctl doctor`: what works here, and what to install."""

from __future__ import annotations

import typer

from nwmctl.cli.common import JsonOption, KeysOption, WorkspaceOption, emit, page, settings_of


def doctor(workspace: WorkspaceOption = None, keys: KeysOption = None, json_: JsonOption = False) -> None:
    """Say what is installed, which toolchains and real counterparties work here, and what to install."""
    from nwmctl.app.doctor import Health, examine
    from nwmctl.formats.codec import to_plain

    findings = examine(settings_of(workspace, keys))
    problems = sum(finding.health is Health.PROBLEM for finding in findings)
    if json_:
        emit({"findings": [to_plain(finding) for finding in findings], "problems": problems})
    else:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        marks = {
            Health.OK: "[green]✓[/]",
            Health.WARNING: "[yellow]![/]",
            Health.OPTIONAL: "[yellow]–[/]",
            Health.PROBLEM: "[red]✗[/]",
        }
        group = ""
        for finding in findings:
            if finding.group != group:
                group = finding.group
                table.add_row("", f"[bold]{group}[/]", "")
            install = f"  [cyan]{escape(finding.install)}[/]" if finding.install else ""
            table.add_row(marks[finding.health], escape(finding.name), f"{escape(finding.detail)}{install}")
        page().print(table)
    if problems:
        from nwmctl.errors import ExitCode

        raise typer.Exit(int(ExitCode.MISSING))
