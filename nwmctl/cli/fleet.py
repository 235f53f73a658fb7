"""`nwmctl rollout`, `nwmctl rollback`, `nwmctl fleet`, `nwmctl gateway`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nwmctl.cli.common import (
    FaultsOption,
    JsonOption,
    KeysOption,
    PlatformsOption,
    ReleaseArgument,
    WorkspaceOption,
    emit,
    page,
    release_output,
    settings_of,
    talk,
)

if TYPE_CHECKING:
    from nwmctl.fleet.status import CampaignStatus
    from nwmctl.storage.database import Database

rollout = typer.Typer(help="Campaigns: waves, gates, states.", rich_markup_mode=None, no_args_is_help=True)
fleet = typer.Typer(help="Vehicles and what they run.", rich_markup_mode=None, no_args_is_help=True)
gateway = typer.Typer(help="The HTTP edge for vehicles.", rich_markup_mode=None, no_args_is_help=True)

CampaignArgument = Annotated[str | None, typer.Argument(help="A campaign's name [the latest].", show_default=False)]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit trail.")]
FollowOption = Annotated[bool, typer.Option(help="Follow until it ends or needs a person.")]


@rollout.command("start")
def start(
    release: ReleaseArgument,
    follow: FollowOption = True,
    faults: FaultsOption = "",
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Open and start the campaign of a published release.

    For a virtual fleet, what its vehicles left their factory with is built first, unless the store has it.
    """
    from nwmctl.app.fleets import open_campaign
    from nwmctl.app.session import open_session
    from nwmctl.cli.running import run_with_view

    _check_faults(faults)
    purpose = f"nwmctl rollout start {release.name}"
    with open_session(settings_of(workspace, keys, platforms), release, purpose) as session:
        opened = open_campaign(session.project, session.workspace, session.parts.clock)
        if session.project.release.fleet.virtual:
            plan = session.factory_plan()
            report = run_with_view(session, plan, purpose, None) if plan else None
            if report:
                report.raise_problem()
            session.keep_factory(report)
    _follow_and_show(workspace, opened.name, follow, json_, faults)


@rollout.command("status")
def status(campaign: CampaignArgument = None, workspace: WorkspaceOption = None, json_: JsonOption = False) -> None:
    """Show a campaign's waves, counts and gates."""
    from nwmctl.app.clock import SystemClock
    from nwmctl.app.fleets import campaign_named, fleet_database

    with fleet_database(settings_of(workspace).open()) as database:
        _show(campaign_named(database, campaign, SystemClock().now_us()), json_)


@rollout.command("pause")
def pause(
    campaign: CampaignArgument = None,
    reason: ReasonOption = "paused by a person",
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Offer nothing new; vehicles that have begun may finish."""
    _show(_change("pause", campaign, reason, workspace), json_)


@rollout.command("resume")
def resume(
    campaign: CampaignArgument = None,
    reason: ReasonOption = "resumed by a person",
    follow: FollowOption = True,
    faults: FaultsOption = "",
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Go on after a pause; failures so far are accepted."""
    _check_faults(faults)
    _follow_and_show(workspace, _change("resume", campaign, reason, workspace).name, follow, json_, faults)


@rollout.command("abort")
def abort(
    campaign: CampaignArgument = None,
    reason: ReasonOption = "aborted by a person",
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """End a campaign: cancel what no vehicle has seen, ask the others to stop."""
    _show(_change("abort", campaign, reason, workspace), json_)


def rollback(
    campaign: CampaignArgument = None,
    reason: ReasonOption = "rolled back by a person",
    follow: FollowOption = True,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Bring vehicles back: by the intact inactive slot where there is one, by the return bundle otherwise."""
    from nwmctl.app.clock import SystemClock
    from nwmctl.app.fleets import campaign_named, fleet_database
    from nwmctl.fleet import campaigns

    now_us = SystemClock().now_us()
    with fleet_database(settings_of(workspace).open()) as database:
        name = campaign_named(database, campaign, now_us).name
        begun = campaigns.rollback(database, name, reason, now_us)
    talk().print(f"{name}: {begun.by_slot} vehicles return by their inactive slot, {begun.by_bundle} by return bundle")
    _follow_and_show(workspace, name, follow, json_)


@fleet.command("import")
def import_(
    inventory: Annotated[
        Path,
        typer.Argument(
            help="CSV: vin,vehicle_model,baseline,sequence[,token][,market][,baseline_version][,link][,components]."
        ),
    ],
    name: Annotated[str, typer.Option("--fleet", help="The fleet's name.")],
    virtual: Annotated[bool, typer.Option("--virtual", help="Virtual vehicles; never mixed with real ones.")] = False,
    workspace: WorkspaceOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Bring an inventory into the database; a bad line is named and changes nothing."""
    from nwmctl.app.clock import SystemClock
    from nwmctl.app.fleets import import_fleet
    from nwmctl.app.project import load_platforms

    settings = settings_of(workspace, platforms=platforms)
    catalogue = load_platforms(settings.platforms).catalogue
    done = import_fleet(settings.open(), inventory, catalogue, name, virtual=virtual, clock=SystemClock())
    if json_:
        emit({"fleet": name, "lines": done.lines, "added": done.added})
        return
    talk().print(f"fleet {name}: {done.lines} lines read, {done.added} vehicles new")


@fleet.command("status")
def fleet_status(
    vin: Annotated[str | None, typer.Argument(help="One vehicle's story.", show_default=False)] = None,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Which vehicle models run which sequence; or everything that happened to one vehicle."""
    from nwmctl.app.fleets import fleet_database
    from nwmctl.fleet.status import fleet_counts, fleet_names
    from nwmctl.formats.codec import to_plain

    with fleet_database(settings_of(workspace).open()) as database:
        if vin is not None:
            _story(database, vin, json_)
            return
        rows = [row for name in fleet_names(database) for row in fleet_counts(database, name)]
    if json_:
        emit({"vehicles": [to_plain(row) for row in rows]})
        return
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("platform", "vehicle model", "baseline", "sequence", "vehicles"):
        table.add_column(title, justify="right" if title in ("sequence", "vehicles") else "left")
    for row in rows:
        table.add_row(row.platform, row.vehicle_model, row.baseline, str(row.sequence), str(row.vehicles))
    page().print(table if rows else "no vehicles yet; `nwmctl fleet import` brings them in")


@fleet.command("why")
def fleet_why(
    vin: Annotated[str, typer.Argument(help="The vehicle.")],
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Why a vehicle is, or is not, offered what it is owed: wave, campaign, what it lacks, bytes."""
    from nwmctl.app.fleets import fleet_database
    from nwmctl.fleet.why import why
    from nwmctl.formats.codec import to_plain

    with fleet_database(settings_of(workspace).open()) as database:
        found = why(database, vin)
    if json_:
        plain = to_plain(found)
        assert isinstance(plain, dict)
        emit(plain)
        return
    from rich.markup import escape

    console = page()
    owes = f"{found.campaign}: {found.state}" if found.state else "owes nothing"
    console.print(f"{escape(vin)}  {escape(owes)}  {'offered' if found.offered else 'not offered'}", soft_wrap=True)
    for reason in found.reasons:
        console.print(f"  {escape(reason)}", soft_wrap=True)
    parts = {**found.reported.runtimes, **found.reported.components}
    has = ", ".join(f"{name} {version}" for name, version in parts.items()) or "no runtime"
    baseline = f"{found.reported.baseline} {found.reported.baseline_version}".strip() or "none"
    console.print(
        f"[dim]  reported: {escape(has)}; baseline {escape(baseline)}; market {found.market or 'unknown'}[/]",
        soft_wrap=True,
    )


def _story(database: Database, vin: str, as_json: bool) -> None:
    from datetime import UTC, datetime

    from nwmctl.fleet.status import story
    from nwmctl.formats.codec import to_plain

    lines = story(database, vin)
    if as_json:
        emit({"vin": vin, "story": [to_plain(line) for line in lines]})
        return
    from rich.markup import escape

    console = page()
    for line in lines:
        at = datetime.fromtimestamp(line.at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
        data = ", ".join(f"{key} {value}" for key, value in line.data.items())
        console.print(f"[dim]{at}[/]  {line.what}  {escape(data)}  {escape('; '.join(line.details))}", soft_wrap=True)


@gateway.command("serve")
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8480,
    mirror: Annotated[str, typer.Option(help="Folder to serve, relative to the workspace.")] = "mirrors/local",
    mirror_url: Annotated[
        str,
        typer.Option(help="Web server with the mirror's files: vehicles download there what was read back from it."),
    ] = "",
    controller: Annotated[bool, typer.Option(help="Advance campaigns from this process.")] = True,
    director_keys: Annotated[
        Path | None, typer.Option(help="Key folder of the director: sign its metadata when vehicles ask.")
    ] = None,
    passphrase_env: Annotated[
        str | None, typer.Option("--passphrase-env", help="Environment variable that holds these keys' passphrase.")
    ] = None,
    ready_file: Annotated[Path | None, typer.Option(help="Write address and process here once ready.")] = None,
    parent: Annotated[int | None, typer.Option(hidden=True, help="End when the process of this id does.")] = None,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Serve vehicles (hawkBit DDI, Uptane), files and status; advance campaigns."""
    from nwmctl.app.local import serve_gateway

    place = settings_of(workspace).open()

    def announce(facts: Mapping[str, Any]) -> None:
        if json_:
            emit(facts)
            release_output()
            sys.stdout.flush()
        elif ready_file is None:
            talk().print(f"gateway at {facts['url']}; Ctrl-C ends it", soft_wrap=True)

    serve_gateway(
        place,
        host,
        port,
        mirror,
        controller=controller,
        mirror_url=mirror_url,
        director_keys=director_keys,
        passphrase_env=passphrase_env,
        ready_file=ready_file,
        parent=parent,
        announce=announce,
    )


def _change(verb: str, campaign: str | None, reason: str, workspace: Path | None) -> CampaignStatus:
    from nwmctl.app.clock import SystemClock
    from nwmctl.app.fleets import campaign_named, fleet_database
    from nwmctl.fleet import campaigns

    now_us = SystemClock().now_us()
    actions = {"pause": campaigns.pause, "resume": campaigns.resume, "abort": campaigns.abort}
    with fleet_database(settings_of(workspace).open()) as database:
        name = campaign_named(database, campaign, now_us).name
        actions[verb](database, name, reason, now_us)
        return campaign_named(database, name, now_us)


def _check_faults(text: str) -> None:
    """Raise FaultPlanError before anything is changed."""
    if text:
        from nwmctl.vehicle.faults import plan_from_text

        plan_from_text(text)


def _follow_and_show(workspace: Path | None, name: str, follow: bool, as_json: bool, faults: str = "") -> None:
    from nwmctl.cli.following import follow_campaign, raise_if_stopped

    status = follow_campaign(settings_of(workspace).open(), name, follow=follow, faults=faults)
    _show(status, as_json)
    raise_if_stopped(status)


def _show(status: CampaignStatus, as_json: bool) -> None:
    from nwmctl.cli.summary import print_campaign
    from nwmctl.formats.codec import to_plain

    if as_json:
        plain = to_plain(status)
        assert isinstance(plain, dict)
        emit(plain)
        return
    print_campaign(page(), status)
