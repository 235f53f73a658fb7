"""`nwmctl drive`: let artifacts drive in the simulator, and watch them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.common import JsonOption, WorkspaceOption, emit, page, settings_of, talk

if TYPE_CHECKING:
    from nwmctl.app.drives import Drives, Replay, Row

group = typer.Typer(
    help="Let artifacts drive in the simulator, and watch them (docs/driving.md).",
    rich_markup_mode=None,
    no_args_is_help=True,
)

ArtifactOption = Annotated[
    str,
    typer.Option(
        "--artifact", "-a",
        help="A model package's folder, an ONNX file, PLATFORM/VARIANT/BUILD of a run, or a digest.",
    ),
]  # fmt: skip
ReferenceOption = Annotated[
    str | None, typer.Option("--reference", "-r", help="What it is compared with [the model as trained].")
]
GuardOption = Annotated[bool, typer.Option("--guard", help="Let the trajectory guard watch the artifact.")]


@group.command("replay")
def replay(
    scenario: Annotated[str, typer.Argument(help="FAMILY:SEED, FAMILY:SEED:TRAP, or a scenario file.")],
    artifact: ArtifactOption,
    reference: ReferenceOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the animated SVG is written.")] = Path("replay.svg"),
    guard: GuardOption = False,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Drive one scenario with the artifact and the reference; write an animation to watch in a browser."""
    from nwmctl.app.drives import pair_up, write_picture
    from nwmctl.app.drives import replay as driven

    pairing = pair_up(artifact, reference, guard, settings_of(workspace))
    shown = driven(scenario, pairing)
    write_picture(out, shown.svg)
    if json_:
        emit(shown.plain(out))
        return
    _print_replay(shown)
    talk().print(f"wrote {out} ({len(shown.svg.encode()) / 1000:.0f} kB): open it in a browser", soft_wrap=True)


@group.command("run")
def run(
    artifact: ArtifactOption,
    reference: ReferenceOption = None,
    scenarios: Annotated[int, typer.Option("--scenarios", "-n", min=1, max=100_000, help="How many.")] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first scenario's seed.")] = 20_260_000,
    traps: Annotated[bool, typer.Option("--traps", help="Drive the trap suite, not the plain families.")] = False,
    guard: GuardOption = False,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Drive many scenarios with the artifact and the reference; print what became of them, per family."""
    from nwmctl.app.drives import drive, pair_up

    pairing = pair_up(artifact, reference, guard, settings_of(workspace))
    driven = drive(pairing, scenarios, seed, trapped=traps, say=lambda text: talk().print(text, style="dim"))
    if json_:
        emit(driven.plain())
        return
    _print_drives(driven)


@group.command("list")
def list_(json_: JsonOption = False) -> None:
    """List the families of scenarios and the traps."""
    from nwmctl.app.drives import choices

    known = choices()
    if json_:
        emit(known)
        return
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("name", "what", "on"):
        table.add_column(name)
    for row in known["families"]:
        table.add_row(str(row["name"]), str(row["what"]), "")
    table.add_row("")
    for row in known["traps"]:
        families = row["families"]
        table.add_row(f":{row['name']}", str(row["what"]), ", ".join(families) if isinstance(families, list) else "")
    page().print(table)


def _print_replay(shown: Replay) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("", "name", "outcome", "score", "progress", "jerk m/s³", "guard", "obtained"):
        table.add_column(name)
    pairing = shown.pairing
    for who, drivable, recording in (
        ("reference", pairing.reference, shown.reference),
        ("candidate", pairing.candidate, shown.candidate),
    ):
        found = recording.outcomes
        table.add_row(
            who, escape(drivable.name), recording.verdict, f"{found.score[0]:.2f}", f"{found.progress[0]:.2f}",
            f"{found.jerk[0]:.2f}", f"{recording.interventions}×" if recording.interventions else "–",
            escape(f"{drivable.obtained} ({drivable.how})"),
        )  # fmt: skip
    page().print(table)


def _print_drives(driven: Drives) -> None:
    from rich.markup import escape
    from rich.table import Table

    console, pairing = page(), driven.pairing
    for who, drivable in (("reference", pairing.reference), ("candidate", pairing.candidate)):
        console.print(f"{who:<10} {escape(drivable.name)}  [dim]{drivable.obtained}: {escape(drivable.how)}[/]")
    console.print()
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("reference → candidate")
    trapped = any(row.reference_recovered is not None for row in driven.rows)
    extra = (["recovered %"] if trapped else []) + (["guard /km"] if pairing.guarded else [])
    for name in ("n", "crash %", "off road %", "progress", "jerk m/s³", "score", *extra):
        table.add_column(name, justify="right", no_wrap=True)
    for row in driven.rows:
        table.add_row(row.name, *_cells(row), style="bold" if row.name == "all" else "")
    console.print(table)
    console.print(
        f"\n[dim]only the reference failed in {driven.only_reference_failed} scenarios, only the candidate in "
        f"{driven.only_candidate_failed}; seeds from {driven.seed}, nwmctl's simulator, not a real road[/]"
    )
    if driven.interventions is not None:
        from nwmctl.driving.guard import REASONS

        found = driven.interventions
        reasons = ", ".join(f"{reason} {found.of(reason)}" for reason in REASONS if found.of(reason)) or "none"
        console.print(
            f"[dim]the guard replaced {int(found.counts.sum())} of {int(found.decisions.sum())} decisions, in "
            f"{int(found.episodes.sum())} of {len(found.ids)} scenarios: {reasons}[/]"
        )


def _cells(row: Row) -> list[str]:
    one, other = row.reference, row.candidate

    def both(first: float, second: float, digits: int) -> str:
        return f"{first:.{digits}f} → {second:.{digits}f}"

    cells = [
        str(one.scenarios),
        both(100.0 * one.crash_rate, 100.0 * other.crash_rate, 1),
        both(100.0 * one.off_road_rate, 100.0 * other.off_road_rate, 1),
        both(one.progress, other.progress, 3),
        both(one.jerk, other.jerk, 2),
        both(one.score, other.score, 3),
    ]
    if row.reference_recovered is not None and row.candidate_recovered is not None:
        cells.append(both(100.0 * row.reference_recovered, 100.0 * row.candidate_recovered, 1))
    if row.interventions_per_km is not None:
        cells.append(f"{row.interventions_per_km:.1f}")
    return cells
