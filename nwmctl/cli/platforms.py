"""`nwmctl platforms`: hardware generations as data, with sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nwmctl.cli.common import JsonOption, PlatformsOption, emit, page, settings_of

if TYPE_CHECKING:
    from nwmctl.domain.figure import Figure
    from nwmctl.domain.platform import EnvelopeLimit

group = typer.Typer(help="Platform profiles and vehicle models.", rich_markup_mode=None, no_args_is_help=True)


@group.command("list")
def list_(platforms: PlatformsOption = None, json_: JsonOption = False) -> None:
    """List platforms with their compute variants and vehicle models."""
    from nwmctl.app.project import load_platforms

    files = load_platforms(settings_of(None, platforms=platforms).platforms)
    rows = [
        {
            "platform": name,
            "title": profile.title,
            "variants": [variant.name for variant in profile.variants],
            "vehicle_models": [vehicle.name for vehicle in files.catalogue.on(name)],
        }
        for name, profile in files.profiles.items()
    ]
    if json_:
        emit({"platforms": rows})
        return
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 1, 0))
    for title in ("platform", "title", "compute variants", "vehicle models"):
        table.add_column(title)
    for row in rows:
        table.add_row(
            str(row["platform"]), str(row["title"]), ", ".join(row["variants"]), ", ".join(row["vehicle_models"])
        )
    page().print(table)


@group.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A platform's name.")],
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Show one profile; every figure with its source and how surely it is known."""
    from dataclasses import fields

    from nwmctl.app.project import load_platforms
    from nwmctl.errors import PlanError
    from nwmctl.formats.codec import to_plain

    profiles = load_platforms(settings_of(None, platforms=platforms).platforms).profiles
    if name not in profiles:
        raise PlanError(
            f"there is no platform '{name}'", why=f"known are {', '.join(profiles)}", next="see `nwmctl platforms list`"
        )
    profile = profiles[name]
    if json_:
        plain: Any = to_plain(profile)
        emit(plain)
        return
    from rich.markup import escape
    from rich.table import Table

    console = page()
    console.print(f"[bold]{escape(profile.title)}[/]  {escape(profile.description)}\n")
    figures = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("figure", "value", "confidence", "source"):
        figures.add_column(title)
    for chip in profile.chips:
        _row(figures, f"{chip.name} memory bandwidth", chip.memory_bandwidth)
        _row(figures, f"{chip.name} memory", chip.memory)
        for unit, figure in chip.peaks.items():
            _row(figures, f"{chip.name} peak {unit}", figure)
    _row(figures, "budget latency", profile.budget.latency)
    _row(figures, "budget memory", profile.budget.memory)
    _row(figures, "budget bandwidth share", profile.budget.bandwidth_share)
    for entry in fields(profile.envelope) if profile.envelope else ():
        bound: EnvelopeLimit = getattr(profile.envelope, entry.name)
        over = f" over {bound.over_s:g} s" if bound.over_s else ""
        _row(figures, f"limit {entry.name.replace('_', ' ')}{over}", bound.limit)
    console.print(figures)
    for variant in profile.variants:
        console.print(f"\n[bold]{variant.name}[/]  [dim]{variant.confidence}: {escape(variant.source)}[/]")
        for seat in variant.seats:
            console.print(f"  seat   {seat.count} x {seat.chip} as {seat.role}  [dim]{seat.confidence}[/]")
        for build in variant.builds:
            recipes = ", then ".join(f"{recipe.toolchain} {recipe.precision}" for recipe in build.recipes)
            console.print(
                f"  build  {build.name} on {build.chip}.{build.unit}: {recipes}  [dim]{escape(build.note)}[/]"
            )


def _row(table: Any, name: str, figure: Figure) -> None:
    value = "unknown" if figure.value is None else f"{figure.value:g} {figure.unit}"
    table.add_row(name, value, str(figure.confidence), figure.source)


@group.command("check")
def check(
    folder: Annotated[Path | None, typer.Argument(help="Folder of profiles; the embedded ones by default.")] = None,
    json_: JsonOption = False,
) -> None:
    """Check profiles and catalogues; the first error names file, line and key."""
    from nwmctl.app.project import load_platforms

    files = load_platforms(settings_of(None, platforms=folder).platforms)
    counts = {"platforms": len(files.profiles), "vehicle_models": len(files.catalogue.vehicles)}
    if json_:
        emit(counts)
        return
    page().print(f"{counts['platforms']} platforms and {counts['vehicle_models']} vehicle models: no error")
