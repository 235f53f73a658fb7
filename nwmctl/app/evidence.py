"""What a run found out about each build: the evidence packs, read back for people and machines.

Reads the journal and the content store and nothing else; judges nothing again. The packs of the release's own builds
come back, not those of the way back, unless they are asked for by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nwmctl.agent.journal import fold, list_runs, read_journal
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.evidence import Check, Evidence
from nwmctl.domain.work import StepName
from nwmctl.errors import ArtifactUnknownError
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
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


def evidence(workspace: Workspace, run: str, place: str = "") -> tuple[str, tuple[BuildEvidence, ...]]:
    """The run's name and its evidence; ``last`` is the latest run. ``place``: one build, or all of a platform.

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
    return name, tuple(sorted(found, key=lambda one: one.place))
