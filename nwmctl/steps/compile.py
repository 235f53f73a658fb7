"""compile: model x recipe -> artifact (payload and manifest) and its host twin.

The recipe is the work order's, or the one at its rank of a search's ranking. What the compilers took (memory of all
their processes together, processor time) is told in the summary and is no part of what is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import ArtifactManifest, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.search import Ranked
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CompileWork, StepName
from nwmctl.errors import DiskFullError, UnsupportedRecipeError
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import Progress, Step, load_outcome, save_outcome
from nwmctl.storage.content import ContentStore
from nwmctl.storage.full import FULL
from nwmctl.toolchains import surroundings
from nwmctl.toolchains.endings import size
from nwmctl.toolchains.protocol import Compiled, CompileRequest
from nwmctl.toolchains.registry import Registry
from nwmctl.toolchains.surroundings import Meter

VERSION = 2
_PARTS = frozenset({"card", "weights", "weights_data", "calibration"})
"""The inputs that decide an artifact, besides its recipe."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What each process of a compiler may take: seconds, bytes of memory (all its processes together), and bytes on
    the disk. No part of a key: they decide whether there is a result, and not which."""

    timeout_s: float
    memory_bytes: int = 8 << 30
    scratch_bytes: int = 32 << 30


@dataclass(frozen=True, slots=True)
class _Compile:
    store: ContentStore
    toolchains: Registry
    bounds: Bounds

    def __call__(self, work: CompileWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        recipe = _recipe(work)
        progress(f"{recipe.toolchain} {recipe.precision}", -1.0)
        with self.store.scratch() as scratch, surroundings.metered() as meter:
            request = compile_request(self.store, work, recipe, inputs, scratch, self.bounds)
            compiled = compile_build(self.toolchains.get(recipe.toolchain), request)
            outputs = self._keep(compiled, "")
            if compiled.twin is not None:
                outputs |= self._keep(compiled.twin, "twin_")
        return Outcome(outputs, {**_summary(compiled.manifest), **cost(meter)})

    def _keep(self, compiled: Compiled, prefix: str) -> dict[str, Digest]:
        try:
            return {
                f"{prefix}payload": self.store.put_file(compiled.payload),
                f"{prefix}manifest": self.store.put_bytes(documents.encode(compiled.manifest)),
            }
        except OSError as problem:
            if problem.errno not in FULL:
                raise
            raise DiskFullError(
                "the disk became full while an artifact was stored",
                why=f"its payload needs {size(compiled.manifest.size)}; nothing of it was kept",
                next="free some space and resume the run; what was finished is kept",
            ) from problem


def compile_request(
    store: ContentStore,
    work: CompileWork,
    recipe: Recipe,
    inputs: Mapping[str, Digest],
    scratch: Path,
    bounds: Bounds,
) -> CompileRequest:
    """What a toolchain is asked, for an order and the parts of a model in the store."""
    data, calibration = (
        store.path(inputs[name]) if name in inputs else None for name in ("weights_data", "calibration")
    )
    return CompileRequest(
        store.path(inputs["weights"]), inputs["card"], recipe, work.unit, work.driver, scratch, bounds.timeout_s,
        bounds.memory_bytes, bounds.scratch_bytes, data, calibration,
    )  # fmt: skip


def cost(meter: Meter) -> dict[str, int | float]:
    """What tools took, for a summary; nothing where none ran."""
    if not meter.tools:
        return {}
    return {"peak_mb": round(meter.peak_bytes / 1e6, 1), "cpu_s": round(meter.cpu_s, 2)}


def parts_of(inputs: Mapping[str, Digest]) -> dict[str, Digest]:
    """Of a step's inputs, those that decide an artifact besides its recipe."""
    return {name: digest for name, digest in inputs.items() if name in _PARTS}


def resolved(
    store: ContentStore, work: CompileWork, inputs: Mapping[str, Digest]
) -> tuple[CompileWork, Mapping[str, Digest]]:
    """The order with its recipe in it, and the inputs that decide its result: no other than the parts of the model.

    So an artifact that a search has built is found under the same key by whoever asks for the recipe's rank.
    """
    own = parts_of(inputs)
    if work.recipe is not None:
        return work, own
    if "recipes" not in inputs:
        return work, own  # refused when it is read
    ranking = _ranking(store, inputs)
    if work.rank >= len(ranking.recipes):
        raise UnsupportedRecipeError(
            f"there is no recipe of rank {work.rank + 1} for {ranking.unit} of {ranking.chip}",
            why=f"{len(ranking.recipes)} passed the search",
            next="search with more effort, or pin another recipe",
        )
    return replace(work, recipe=ranking.recipes[work.rank], rank=0), own


def build_once(
    step: Step[CompileWork], store: ContentStore, work: CompileWork, inputs: Mapping[str, Digest], progress: Progress
) -> Outcome:
    """What the compile step gives for this order, from the store if it is there, and kept there if not.

    Raises as ``Toolchain.compile`` does, and DiskFullError.
    """
    parameters = to_plain(work)
    key = step.key(parameters, inputs)
    kept = load_outcome(store, key)
    if kept is None:
        kept = step.run(parameters, inputs, progress)
        save_outcome(store, key, kept)
    return kept


def _ranking(store: ContentStore, inputs: Mapping[str, Digest]) -> Ranked:
    return documents.decode(Ranked, store.read(inputs["recipes"]), "ranked recipes")


def _recipe(work: CompileWork) -> Recipe:
    if work.recipe is None:
        raise UnsupportedRecipeError("the work order names no recipe", why="none was ranked", next="start a new run")
    return work.recipe


def _summary(manifest: ArtifactManifest) -> dict[str, str | int | float | bool]:
    return {
        "recipe": f"{manifest.recipe.toolchain} {manifest.recipe.precision}",
        "found": f"{manifest.found_precision} found for {manifest.instruction_set.partition(' ')[0]}",
        "size": manifest.size,
        "jit_in_vehicle": manifest.jit_in_vehicle,
    }


def compile_step(
    store: ContentStore, toolchains: Registry, timeout_s: float, *, scratch_bytes: int = 32 << 30
) -> Step[CompileWork]:
    """The step. Its fingerprint is the toolchain's: another compiler version is another artifact.

    ``timeout_s``, ``scratch_bytes``: see ``Bounds``.
    """

    def fingerprint(work: CompileWork) -> str:
        return toolchains.get(_recipe(work).toolchain).fingerprint(_recipe(work))

    def resolve(work: CompileWork, inputs: Mapping[str, Digest]) -> tuple[CompileWork, Mapping[str, Digest]]:
        return resolved(store, work, inputs)

    def at_hand(work: CompileWork, inputs: Mapping[str, Digest]) -> Mapping[str, int]:
        ranked = work.recipe is None and "recipes" in inputs
        return {"rank": len(_ranking(store, inputs).recipes)} if ranked else {}

    work = _Compile(store, toolchains, Bounds(timeout_s, scratch_bytes=scratch_bytes))
    return Step(StepName.COMPILE, VERSION, True, CompileWork, work, fingerprint, resolve, at_hand)
