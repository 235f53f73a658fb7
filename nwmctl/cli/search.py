"""`nwmctl search`: find the best recipe for every build, and write them down for a person to review and pin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.build import PlatformOption
from nwmctl.cli.common import Effort, JsonOption, KeysOption, PlatformsOption, ReleaseArgument, WorkspaceOption

if TYPE_CHECKING:
    from nwmctl.app.engine import RunReport
    from nwmctl.app.session import Session


def search(
    release: ReleaseArgument,
    effort: Annotated[
        Effort, typer.Option("--effort", help="quick: a few recipes; full: all, and mixed.")
    ] = Effort.FULL,
    most_minutes: Annotated[
        float, typer.Option("--most-minutes", min=0.0, help="Per build; 0 sets no limit.", show_default=False)
    ] = 0.0,
    platform: PlatformOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the recipes here; a release pins them by `recipes:`.")
    ] = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Search toolchains, precisions and options for every build.

    Each candidate is compiled, checked, and measured where its hardware is at hand; elsewhere it is estimated, and the
    page says so. A search that is stopped goes on where it was.
    """
    from nwmctl.agent.building import SearchOrder
    from nwmctl.app.session import open_session
    from nwmctl.cli.common import settings_of
    from nwmctl.cli.running import run_with_view
    from nwmctl.domain.bundle import BundleKind
    from nwmctl.domain.work import StepName

    order = SearchOrder(effort.value, 60.0 * most_minutes)
    purpose = f"nwmctl search {release.name}"
    with open_session(settings_of(workspace, keys, platforms), release, purpose, search=order) as session:
        plan = session.plan(StepName.SEARCH, tuple(platform or ()), (BundleKind.RELEASE,))
        report = run_with_view(session, plan, purpose, None)
        report.raise_problem()
        _show(session, report, out, as_json=json_)


def _show(session: Session, report: RunReport, out: Path | None, *, as_json: bool) -> None:
    from nwmctl.app.explain import explanations, recipe_file
    from nwmctl.app.recipes import write_recipes
    from nwmctl.cli.common import emit, page, talk
    from nwmctl.cli.explain import print_explanations

    found = explanations(session, report)
    if out:
        write_recipes(out, recipe_file(session, found, report))
        talk().print(f"wrote {out}", soft_wrap=True)
    if as_json:
        emit({"builds": [one.plain() for one in found]})
        return
    print_explanations(page(), found)
    if not out:
        page().print("\n[bold]Next[/]")
        page().print("  [cyan]nwmctl search ... --out recipes.yaml[/]  [dim]write them down to review and pin[/]")
