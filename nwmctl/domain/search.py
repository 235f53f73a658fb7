"""A search for the best recipe: what was tried, what came of it, and what was chosen. Nouns only.

``Ranked`` is what the compile step takes; it holds no figure, so that the same choice has the same digest, however the
machine was loaded when it was made. ``RecipeFile`` is what a person reviews and pins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.measurement import Latency


class Effort(StrEnum):
    """How much a search tries."""

    QUICK = "quick"
    FULL = "full"


class CandidateState(StrEnum):
    """What became of a candidate."""

    WON = "won"
    PASSED = "passed"
    """The checks passed; another one is faster."""
    REJECTED = "rejected"
    """A check failed or stayed open."""
    FAILED = "failed"
    """The toolchain did not build or execute it."""
    PRUNED = "pruned"
    """Not built: predicted to be slower, beyond the prediction's own error, or to fail parity; or it would tell nothing
    new, or there was no time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One recipe of a search. ``ms`` is what it was ranked by and ``obtained`` how that is known; ``latency`` has the
    whole measurement where there is one. ``parity_share`` is the worst parity figure as a share of its margin."""

    recipe: Recipe
    state: CandidateState
    reason: str
    ms: float | None = None
    obtained: Obtained = Obtained.NOT_RUN
    predicted_ms: float | None = None
    latency: Latency | None = None
    size: int | None = None
    parity_share: float | None = None
    found_precision: Precision | None = None


@dataclass(frozen=True, slots=True)
class SearchReport:
    """A whole search, candidates from the best down. ``prediction_error``: median of |predicted / measured - 1| over
    the candidates that were measured; None where none was."""

    model: Digest
    chip: str
    unit: str
    effort: str
    candidates: tuple[Candidate, ...]
    prediction_error: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranked:
    """Recipes for one build, the best first: what to compile, and what to fall back on. ``why`` is one sentence."""

    chip: str
    unit: str
    recipes: tuple[Recipe, ...]
    why: str = ""

    def __post_init__(self) -> None:
        if not self.recipes:
            raise ValueError("a ranking holds at least one recipe")


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """Pinned recipes. ``builds`` by place (``nt2.0/quad-orin/gpu``); ``model``: the digest of the model that they were
    found for. Another model may be built by them too, and is then checked like any other."""

    model: Digest
    builds: dict[str, Ranked] = field(default_factory=dict)
