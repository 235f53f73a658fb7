"""`nwmctl runs`: what was asked for, what happened, what was decided and why."""

from __future__ import annotations

from typing import Annotated

import typer

from nwmctl.cli.common import JsonOption, WorkspaceOption, emit, page, settings_of

group = typer.Typer(help="Runs of this workspace and their stories.", rich_markup_mode=None, no_args_is_help=True)


@group.command("list")
def list_(workspace: WorkspaceOption = None, json_: JsonOption = False) -> None:
    """List the runs, latest last."""
    from nwmctl.app.history import list_summaries

    rows = list_summaries(settings_of(workspace).open())
    if json_:
        emit({"runs": [row.plain() for row in rows]})
        return
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("run", "state", "steps", "command", "by", "why it ended"):
        table.add_column(name)
    for row in rows:
        table.add_row(row.run, row.state, f"{row.finished}/{row.steps}", row.command, row.requested_by, row.reason)
    page().print(table if rows else "no runs in this workspace yet; `nwmctl deploy` starts one")


@group.command("show")
def show(
    run: Annotated[str, typer.Argument(help="A run's name; 'last' for the latest.")] = "last",
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Tell a run's story: plan with reasons, attempts, decisions with rules and reasons."""
    from nwmctl.app.history import story

    told = story(settings_of(workspace).open(), run)
    if json_:
        emit(told.plain())
        return
    from rich.markup import escape

    console = page()
    for line in told.lines():
        console.print(f"[dim]{line.at}[/]  [{line.style}]{escape(line.text)}[/]", soft_wrap=True)


@group.command("evidence")
def evidence_(
    run: Annotated[str, typer.Argument(help="A run's name; 'last' for the latest.")] = "last",
    build: Annotated[
        str, typer.Option("--build", "-b", help="PLATFORM or PLATFORM/VARIANT/BUILD: all figures of these.")
    ] = "",
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Show what each check found; with --build every figure, and which layer eats the bandwidth."""
    from nwmctl.app.evidence import evidence

    found = evidence(settings_of(workspace).open(), run, build)
    if json_:
        emit(found.plain())
        return
    from nwmctl.cli.evidence import print_evidence

    print_evidence(page(), found, figures=bool(build))
