"""Why an artifact was built by this recipe, and what the others would have cost.

Gathers from a run's outcomes: the report of its search where it had one, else the recipes of the profile (or the pinned
ones) with the cost model's predictions. Chooses nothing, renders nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nwmctl.app.engine import RunReport
from nwmctl.app.session import Session
from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import ModelCard
from nwmctl.domain.search import Candidate, CandidateState, Ranked, RecipeFile, SearchReport
from nwmctl.domain.step import Outcome, OutputRef, PlannedStep
from nwmctl.domain.work import StepName
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.storage.content import ContentStore

if TYPE_CHECKING:
    from nwmctl.compiler.graph import GraphCount


class Origin(StrEnum):
    """Where the recipes of a build come from."""

    SEARCH = "search"
    PINNED = "pinned"
    PROFILE = "profile"


@dataclass(frozen=True, slots=True)
class Line:
    """One recipe: what became of it, what a control step takes (``ms``) and how that is known."""

    recipe: Recipe
    text: str
    outcome: str
    reason: str
    ms: float | None = None
    obtained: Obtained = Obtained.NOT_RUN
    predicted_ms: float | None = None
    size: int | None = None
    parity_share: float | None = None
    found: Precision | None = None

    @property
    def chosen(self) -> bool:
        """Whether the artifact was built by it."""
        return self.outcome == CandidateState.WON


@dataclass(frozen=True, slots=True)
class Explanation:
    """The choice for one artifact. ``places`` are the builds that share it."""

    places: tuple[str, ...]
    chip: str
    unit: str
    origin: Origin
    effort: str
    lines: tuple[Line, ...]
    prediction_error: float | None
    notes: tuple[str, ...]
    ranked: Ranked

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "builds": list(self.places),
            "chip": self.chip,
            "unit": self.unit,
            "origin": str(self.origin),
            "effort": self.effort,
            "prediction_error": self.prediction_error,
            "recipes": [to_plain(line) for line in self.lines],
            "notes": list(self.notes),
        }


def explanations(session: Session, report: RunReport) -> tuple[Explanation, ...]:
    """One for each artifact of the release in a run whose search or compile step has ended."""
    store, outcomes = session.workspace.store(), report.result.outcomes
    places = _places(session)
    found, mark = [], f"{StepName.COMPILE}/{BundleKind.RELEASE}/"
    for step in report.plan:
        if step.step == StepName.SEARCH and step.id in outcomes:
            found.append(_searched(step, places, outcomes, report.plan, store))
        elif step.id.startswith(mark) and step.id in outcomes and "recipes" not in step.inputs:
            found.append(_given(session, step, places, outcomes, store))
    return tuple(found)


def recipe_file(session: Session, found: tuple[Explanation, ...], report: RunReport) -> RecipeFile:
    """What a search chose, to be pinned: every build that was searched, or was pinned before."""
    card = report.result.outcomes[f"{StepName.PULL}/{BundleKind.RELEASE}"].outputs["card"]
    chosen = [one for one in found if one.origin is not Origin.PROFILE]
    return RecipeFile(card, {place: one.ranked for one in chosen for place in one.places})


def _searched(
    step: PlannedStep,
    places: Mapping[str, tuple[str, ...]],
    outcomes: Mapping[str, Outcome],
    plan: tuple[PlannedStep, ...],
    store: ContentStore,
) -> Explanation:
    said = documents.decode(SearchReport, store.read(outcomes[step.id].outputs["report"]), "search report")
    ranked = documents.decode(Ranked, store.read(outcomes[step.id].outputs["recipes"]), "ranked recipes")
    built = [
        outcomes[other.id]
        for other in plan
        if other.inputs.get("recipes") == OutputRef(step.id, "recipes") and other.id in outcomes
    ]
    notes = said.notes
    if built:
        recipe = _manifest(built[0], store).recipe
        if recipe != ranked.recipes[0]:
            notes = (*notes, f"built by {_said(recipe)}: what ranked before it did not satisfy the checks")
    lines = tuple(_line(candidate) for candidate in said.candidates)
    return Explanation(
        places.get(step.id, ()), said.chip, said.unit, Origin.SEARCH, said.effort, lines, said.prediction_error, notes,
        ranked,
    )  # fmt: skip


def _line(candidate: Candidate) -> Line:
    return Line(
        candidate.recipe, _said(candidate.recipe), str(candidate.state), candidate.reason, candidate.ms,
        candidate.obtained, candidate.predicted_ms, candidate.size, candidate.parity_share, candidate.found_precision,
    )  # fmt: skip


def _given(
    session: Session,
    step: PlannedStep,
    places: Mapping[str, tuple[str, ...]],
    outcomes: Mapping[str, Outcome],
    store: ContentStore,
) -> Explanation:
    """Recipes that nobody searched for: which was used, and what the cost model says about all of them."""
    from nwmctl.compiler.cost import predict
    from nwmctl.steps.ways import build_at

    here = places[step.id]
    platform, variant_name, build_name = here[0].split("/")
    profile = session.project.profiles[platform]
    build = build_at(profile, variant_name, build_name)
    manifest = _manifest(outcomes[step.id], store)
    count, rate = _counted(outcomes, store)
    chip, lines, notes = profile.chip(build.chip), [], []
    origin = Origin.PINNED if here[0] in session.project.pinned else Origin.PROFILE
    for number, recipe in enumerate(build.recipes, 1):
        told = predict(count, chip, build.unit, recipe, None, rate)
        notes += [f"no time can be predicted: {', '.join(told.missing)}"] if told.missing else []
        how = Obtained.ESTIMATED if told.ms is not None else Obtained.NOT_RUN
        place = f"number {number} of {len(build.recipes)} {'pinned' if origin is Origin.PINNED else 'in the profile'}"
        if recipe == manifest.recipe:
            lines.append(
                Line(
                    recipe, _said(recipe), str(CandidateState.WON), place, told.ms, how, told.ms, manifest.size, None,
                    manifest.found_precision,
                )
            )  # fmt: skip
        else:
            lines.append(Line(recipe, _said(recipe), "not built", place, told.ms, how, told.ms))
    ranked = Ranked(build.chip, build.unit, build.recipes, "")
    told_once = tuple(dict.fromkeys(notes))
    return Explanation(here, build.chip, build.unit, origin, "", tuple(lines), None, told_once, ranked)


def _counted(outcomes: Mapping[str, Outcome], store: ContentStore) -> tuple[GraphCount, float]:
    from nwmctl.compiler.graph import count_graph
    from nwmctl.steps.shelf import trained

    pulled = outcomes[f"{StepName.PULL}/{BundleKind.RELEASE}"].outputs
    card = documents.decode(ModelCard, store.read(pulled["card"]), "model card")
    model = trained(store, pulled).files
    return count_graph(model.model, model.data), card.contract.rate_hz


def _places(session: Session) -> dict[str, tuple[str, ...]]:
    """The builds that a search or compile step of the release is for, from the checks that read its artifact."""
    plan = session.plan(StepName.VALIDATE, kinds=(BundleKind.RELEASE,))
    by_id = {step.id: step for step in plan}
    used: dict[str, list[str]] = {}
    mark = f"{StepName.VALIDATE}/{BundleKind.RELEASE}/"
    for step in plan:
        source = step.inputs.get("manifest")
        if not step.id.startswith(mark) or not isinstance(source, OutputRef):
            continue
        place = step.id.removeprefix(mark)
        used.setdefault(source.step, []).append(place)
        recipes = by_id[source.step].inputs.get("recipes")
        if isinstance(recipes, OutputRef):
            used.setdefault(recipes.step, []).append(place)
    return {step: tuple(places) for step, places in used.items()}


def _manifest(outcome: Outcome, store: ContentStore) -> ArtifactManifest:
    return documents.decode(ArtifactManifest, store.read(outcome.outputs["manifest"]), "artifact manifest")


def _said(recipe: Recipe) -> str:
    from nwmctl.compiler.space import said

    return said(recipe)
