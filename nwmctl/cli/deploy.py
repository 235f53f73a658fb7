"""`nwmctl deploy`: the whole road."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.build import ApprovalOption, JunitOption, PassphraseOption
from nwmctl.cli.common import (
    AesKeyOption,
    FaultsOption,
    JsonOption,
    KeysOption,
    PlatformsOption,
    SearchOption,
    WorkspaceOption,
)

if TYPE_CHECKING:
    from nwmctl.app.engine import RunReport
    from nwmctl.app.session import Session


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the user wants beside the road itself."""

    follow: bool
    faults: str
    junit: Path | None
    as_json: bool


def deploy(
    release: Annotated[
        Path | None, typer.Argument(help="The release file [the embedded example].", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan with reasons and change nothing.")] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Go on with a run that was interrupted.")
    ] = None,
    follow: Annotated[bool, typer.Option(help="Follow the campaign until it ends or needs a person.")] = True,
    faults: FaultsOption = "",
    junit: JunitOption = None,
    search: SearchOption = None,
    approval: ApprovalOption = None,
    passphrase_env: PassphraseOption = None,
    aes_key: AesKeyOption = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Pull, compile, check, bundle, sign, stage, publish, roll out.

    Against a virtual fleet, gateway and vehicles run here while the campaign is followed. Against a real fleet the
    controller advances the campaign; Ctrl-C leaves it running.
    """
    from nwmctl.app.session import open_session, release_of_run
    from nwmctl.cli.common import search_order, settings_of
    from nwmctl.cli.running import print_plan, run_with_view
    from nwmctl.storage.resources import example_release
    from nwmctl.vehicle.faults import plan_from_text

    plan_from_text(faults)  # refused here, not after everything was built
    settings = settings_of(workspace, keys, platforms, aes_key)
    path = release_of_run(settings, resume) if resume else release or example_release()
    purpose = f"nwmctl deploy {path.name}"
    with open_session(
        settings, path, purpose, approvals=approval or (), passphrase_env=passphrase_env, dry_run=dry_run,
        ask=not dry_run, search=search_order(search),
    ) as session:  # fmt: skip
        plan = session.plan()
        if dry_run:
            print_plan(session, plan, json_)
            return
        report = run_with_view(session, plan, purpose, resume)
        _finish(session, report, _Wishes(follow, faults, junit, json_))


def _finish(session: Session, report: RunReport, wishes: _Wishes) -> None:
    from nwmctl.app.exports import export_junit
    from nwmctl.app.summary import summarise
    from nwmctl.cli.common import emit, page, talk
    from nwmctl.cli.following import follow_campaign, raise_if_stopped
    from nwmctl.cli.summary import print_summary

    if wishes.junit:
        export_junit(session, report, wishes.junit)
    name = None if report.result.problems else session.campaign_opened(report)
    if name is None:
        summary = summarise(session, report, None)
        if not wishes.as_json:
            print_summary(talk(), summary)
        elif not report.result.problems:
            emit(summary.plain())
        report.raise_problem()
        return
    campaign = follow_campaign(session.workspace, name, follow=wishes.follow, faults=wishes.faults)
    summary = summarise(session, report, campaign)
    if wishes.as_json:
        emit(summary.plain())
    else:
        print_summary(page(), summary)
    raise_if_stopped(campaign)
