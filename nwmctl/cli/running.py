"""Runs a part of the road for a command: live view, exports, closing page or JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nwmctl.cli.common import emit, page, talk
from nwmctl.cli.live import LiveView
from nwmctl.cli.summary import print_summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nwmctl.app.engine import RunReport
    from nwmctl.app.session import Session
    from nwmctl.domain.step import PlannedStep
    from nwmctl.domain.work import StepName


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a command asks for. ``until`` is the last kind of step, ``parts`` folders of bundles built elsewhere,
    ``dossier`` a dossier that was drawn up elsewhere."""

    until: StepName
    command: str
    as_json: bool
    platforms: tuple[str, ...] = ()
    junit: Path | None = None
    out: Path | None = None
    parts: tuple[Path, ...] = ()
    dossier: Path | None = None
    explain: bool = False


def run_until(session: Session, request: RunRequest) -> None:
    """Run the road up to a kind of step. Raises the refusal that ended it."""
    from nwmctl.app.explain import explanations
    from nwmctl.app.exports import (
        certified_plan,
        collected_plan,
        export_bundles,
        export_dossier,
        export_junit,
        judge_checks,
    )
    from nwmctl.app.summary import summarise
    from nwmctl.cli.explain import print_explanations
    from nwmctl.domain.work import StepName

    plan = session.plan(request.until, request.platforms)
    if request.parts:
        plan = collected_plan(session, plan, request.parts)
    if request.dossier:
        plan = certified_plan(session, plan, request.dossier)
    report = run_with_view(session, plan, request.command, None)
    if request.junit:
        export_junit(session, report, request.junit)
    summary = summarise(session, report, None)
    why = explanations(session, report) if request.explain and not report.result.problems else ()
    if request.as_json and not report.result.problems:
        emit({**summary.plain(), **({"why": [one.plain() for one in why]} if request.explain else {})})
    report.raise_problem()
    if not request.as_json:
        print_explanations(page(), why)
        print_summary(page(), summary)
    if request.out:
        certifies = request.until is StepName.CERTIFY
        written = [export_dossier(session, report, request.out)] if certifies else []
        for path in written or export_bundles(session, report, request.out):
            talk().print(f"wrote {path}", soft_wrap=True)
    if request.until is StepName.VALIDATE:
        judge_checks(session, report)


def run_with_view(session: Session, plan: Sequence[PlannedStep], command: str, resume: str | None) -> RunReport:
    """Run (or resume) with the live view on stderr."""
    from nwmctl.app.engine import BUDGET_S

    release = session.project.release
    title = f"{release.name}, sequence {release.sequence}, {len(plan)} steps"
    with LiveView(talk(), plan, title, BUDGET_S, session.parts.clock) as view:
        return session.resume(resume, view) if resume else session.run(plan, command, view)


def print_plan(session: Session, plan: Sequence[PlannedStep], as_json: bool) -> None:
    """What would run, with reasons, and what the store has already. Changes no journal."""
    from nwmctl.domain.step import StepState

    states = session.forecast(plan)
    rows = [
        {
            "step": step.id,
            "will": "be found in the store" if states[step.id] is StepState.CACHED else "run",
            "reason": step.reason,
            "needs": sorted(step.needs),
        }
        for step in plan
    ]
    if as_json:
        emit({"plan": rows})
        return
    from rich.table import Table

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("step", "will", "because"):
        table.add_column(title)
    for row in rows:
        table.add_row(str(row["step"]), str(row["will"]), str(row["reason"]))
    page().print(table)
