"""`nwmctl delta`: make a delta, apply one, and plan which ones a release needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.common import (
    JsonOption,
    KeysOption,
    PlatformsOption,
    ReleaseArgument,
    WorkspaceOption,
    emit,
    page,
    settings_of,
    talk,
)

if TYPE_CHECKING:
    from rich.console import Console

    from nwmctl.app.delta import Planned

group = typer.Typer(help="Deltas between artifacts.", rich_markup_mode=None, no_args_is_help=True)

OldArgument = Annotated[Path, typer.Argument(help="The artifact that is there.", show_default=False)]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The file to write; replaced whole or not at all.")]


@group.command("encode")
def encode(
    old: OldArgument,
    new: Annotated[Path, typer.Argument(help="The artifact to get to.", show_default=False)],
    out: OutOption,
    json_: JsonOption = False,
) -> None:
    """Make the delta that turns one artifact into another, bit for bit."""
    from nwmctl.app import delta
    from nwmctl.cli.words import size

    report = delta.encode(old, new, out)
    if json_:
        from nwmctl.formats.codec import to_plain

        plain = to_plain(report)
        assert isinstance(plain, dict)
        emit({"out": str(out), **plain})
        return
    from rich.markup import escape
    from rich.table import Table

    console = page()
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("tensor", "kind", "new", "delta", ""):
        table.add_column(title, justify="right" if title in ("new", "delta") else "left")
    largest = sorted(report.shares, key=lambda share: -share.delta)[:12]
    for share in largest:
        ratio = f"{share.delta / share.new:.1%}" if share.new else ""
        kind = share.kind.name.lower()
        table.add_row(escape(share.name or "(no tensor)"), kind, size(share.new), size(share.delta), ratio)
    console.print(table)
    if len(report.shares) > len(largest):
        console.print(f"[dim]and {len(report.shares) - len(largest)} more[/]")
    told = f"{size(report.delta_size)} instead of {size(report.new_size)}: {report.ratio:.1%}"
    console.print(f"\n{escape(str(out))}: {told}", soft_wrap=True)


@group.command("apply")
def apply(
    old: OldArgument,
    delta: Annotated[Path, typer.Argument(help="The delta.", show_default=False)],
    out: OutOption,
    json_: JsonOption = False,
) -> None:
    """Apply a delta as a vehicle does: nothing is written unless every byte is as promised."""
    from nwmctl.app import delta as deltas

    digest = deltas.apply(old, delta, out)
    if json_:
        emit({"out": str(out), "digest": str(digest)})
        return
    talk().print(f"{out}: {digest}", soft_wrap=True, markup=False)


@group.command("plan")
def plan(
    release: ReleaseArgument,
    most: Annotated[int | None, typer.Option("--most", min=0, help="Build at most so many deltas [any].")] = None,
    cpu: Annotated[
        float | None, typer.Option("--cpu", min=0.0, help="Spend at most so many CPU-seconds on encoding [any].")
    ] = None,
    storage: Annotated[
        int | None, typer.Option("--storage", min=0, help="Put at most so many bytes of deltas on mirrors [any].")
    ] = None,
    least_saving: Annotated[
        float | None,
        typer.Option("--least-saving", min=0.0, max=1.0, help="Share that a delta must save to be worth it [0.05]."),
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="Encode the chosen deltas; their sizes are exact then.")
    ] = False,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Say, for every version that vehicles have, whether a delta or the full bundle brings the release, and why.

    Chooses which deltas to build so that the real mix of versions downloads least, and holds the whole against the
    release's byte budget. Limits that are given here stand in place of the release's own (`deltas:`).
    """
    from nwmctl.app import delta
    from nwmctl.bundling.delta_choice import Limits
    from nwmctl.bundling.delta_roads import Rules

    told = any(each is not None for each in (most, cpu, storage, least_saving))
    rules = Rules(Limits(most, cpu, storage), 0.05 if least_saving is None else least_saving) if told else None
    quiet = talk()
    found = delta.plan(
        settings_of(workspace, keys, platforms),
        release,
        rules,
        build=build,
        say=lambda text: quiet.print(f"[dim]{text}[/]"),
    )
    if json_:
        from nwmctl.formats.codec import to_plain

        plain = to_plain(found)
        assert isinstance(plain, dict)
        emit(plain)
        return
    _print(page(), found)


def _print(console: Console, found: Planned) -> None:
    from rich.markup import escape
    from rich.table import Table

    from nwmctl.bundling.delta_roads import Way
    from nwmctl.cli.words import size

    source = "as vehicles report" if found.reported else "as the inventory file says; no vehicle has reported yet"
    console.print(f"[bold]{escape(found.release)}[/]  [dim]versions {source}[/]\n")
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("line", "from", "vehicles", "way", "each", "in all", "why"):
        table.add_column(title, justify="right" if title in ("vehicles", "each", "in all") else "left")
    for pair in found.plan.pairs:
        known = found.sequences.get(pair.line, {}).get(pair.old)
        old = "/".join(str(sequence) for sequence in known) if known else pair.old
        each = "" if pair.way is Way.NOTHING else size(pair.bytes)
        told = f"{pair.reason}; {pair.obtained}" if pair.way is Way.DELTA else pair.reason
        total = "" if pair.way is Way.NOTHING else size(pair.bytes * pair.vehicles)
        table.add_row(escape(pair.line), escape(old), str(pair.vehicles), pair.way, each, total, escape(told))
    console.print(table)
    _sums(console, found)


def _sums(console: Console, found: Planned) -> None:
    from rich.markup import escape

    from nwmctl.bundling.delta_roads import Way
    from nwmctl.cli.words import size

    plan = found.plan
    share = f" ({plan.bytes / plan.all_full:.1%} of full downloads for all)" if plan.all_full else ""
    best = "no choice of deltas takes less" if plan.proven else f"no choice takes less than {size(plan.least)}"
    console.print(f"\n{size(plan.bytes)} in all{share}; {best}")
    if plan.build:
        cost = sum(delta.cpu_s for delta in plan.build)
        console.print(f"to build: {len(plan.build)} deltas, about {cost:.1f} CPU-seconds; `--build` encodes them")
    if found.built:
        console.print(f"{found.built} deltas between artifacts are in the store")
    waiting = plan.vehicles(Way.DEFERRED)
    if found.budget is None:
        console.print("[dim]the release has no byte budget (`bytes:`), so nobody waits[/]")
    elif waiting:
        console.print(f"[yellow]{waiting} vehicles wait[/], {size(plan.later)} in all:")
        for each in plan.shares:
            if each.way is Way.DEFERRED:
                console.print(f"  {escape(each.line)}, {each.vehicles} on {each.link}: {escape(each.reason)}")
    console.print(f"[dim]census {found.census.short}, plan {found.digest.short} in the store[/]")
