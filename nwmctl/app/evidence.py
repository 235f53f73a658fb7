"""What a run found out about each build: the evidence packs, read back for people and machines, with the markets that
its release is meant for.

Reads the journal and the content store and nothing else; judges nothing again. The packs of the release's own builds
come back, not those of the way back, unless they are asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nwmctl.agent.journal import fold, list_runs, read_journal
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.evidence import Check, Evidence
from nwmctl.domain.homologation import MarketApproval
from nwmctl.domain.step import PlannedStep
from nwmctl.domain.work import BundleWork, StepName
from nwmctl.errors import ArtifactUnknownError
from nwmctl.formats import documents
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.storage.workspace import Workspace
from nwmctl.validation.layers import LayerRow, layer_rows


@dataclass(frozen=True, slots=True)
class BuildEvidence:
    """The evidence about one build. ``place`` is ``PLATFORM/VARIANT/BUILD``, with ``return/`` before it for the way
    back; ``layers`` the budget's table, heaviest first."""

    place: str
    pack: Evidence
    layers: tuple[LayerRow, ...]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "place": self.place,
            "evidence": to_plain(self.pack),
            "layers": [to_plain(row) for row in self.layers],
        }


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """The evidence of a run. ``markets`` are the release's approvals, as its file states them: empty where it names
    none or the run makes no bundles."""

    run: str
    markets: tuple[MarketApproval, ...]
    builds: tuple[BuildEvidence, ...]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run,
            "markets": [to_plain(each) for each in self.markets],
            "builds": [one.plain() for one in self.builds],
        }


def evidence(workspace: Workspace, run: str, place: str = "") -> RunEvidence:
    """The evidence of a run; ``last`` is the latest one. ``place``: one build, or all of a platform.

    Raises RunUnknownError, LogCorruptError; ArtifactUnknownError where the run has no such evidence.
    """
    names = list_runs(workspace.runs)
    name = names[-1] if run == "last" and names else run
    history, store = fold(read_journal(workspace.runs, name)), workspace.store()
    mark = f"{StepName.VALIDATE}/"
    found: list[BuildEvidence] = []
    for step, done in history.finished.items():
        if not step.startswith(mark) or "evidence" not in done.outputs:
            continue
        here = step.removeprefix(mark)
        own = here.startswith(f"{BundleKind.RELEASE}/")
        here = here.removeprefix(f"{BundleKind.RELEASE}/")
        if not (own if not place else here == place or here.startswith(f"{place}/")):
            continue
        pack = documents.decode(Evidence, store.read(done.outputs["evidence"]), f"evidence about {here}")
        layers = [row for result in pack.results if result.check is Check.BUDGET for row in layer_rows(result)]
        found.append(BuildEvidence(here, pack, tuple(layers)))
    if not found:
        raise ArtifactUnknownError(
            f"run {name} has no evidence{f' about {place}' if place else ''}",
            why="no check of it has ended, or it is about other builds",
            next="see `nwmctl runs show` for its steps; name PLATFORM or PLATFORM/VARIANT/BUILD",
        )
    plan = history.started.plan if history.started else ()
    return RunEvidence(name, _markets(plan), tuple(sorted(found, key=lambda one: one.place)))


def _markets(plan: Iterable[PlannedStep]) -> tuple[MarketApproval, ...]:
    found: dict[MarketApproval, None] = {}
    for step in plan:
        if step.step == StepName.BUNDLE:
            found |= dict.fromkeys(from_plain(BundleWork, step.parameters, Source(step.id)).terms.markets)
    return tuple(found)
