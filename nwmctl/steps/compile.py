"""compile: model x recipe -> artifact (payload and manifest) and its host twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import ArtifactManifest, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.search import Ranked
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CompileWork, StepName
from nwmctl.errors import UnsupportedRecipeError
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import Progress, Step, load_outcome, save_outcome
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.protocol import Compiled, CompileRequest
from nwmctl.toolchains.registry import Registry

_PARTS = frozenset({"card", "weights", "weights_data", "calibration"})
"""The inputs that decide an artifact, besides its recipe."""


@dataclass(frozen=True, slots=True)
class _Compile:
    store: ContentStore
    toolchains: Registry
    timeout_s: float

    def __call__(self, work: CompileWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        recipe = _recipe(work)
        progress(f"{recipe.toolchain} {recipe.precision}", -1.0)
        with self.store.scratch() as scratch:
            compiled = compile_build(
                self.toolchains.get(recipe.toolchain),
                CompileRequest(
                    model=self.store.path(inputs["weights"]),
                    model_digest=inputs["card"],
                    recipe=recipe,
                    unit=work.unit,
                    driver=work.driver,
                    scratch=scratch,
                    timeout_s=self.timeout_s,
                    data=self.store.path(inputs["weights_data"]) if "weights_data" in inputs else None,
                    calibration=self.store.path(inputs["calibration"]) if "calibration" in inputs else None,
                ),
            )
            outputs = self._keep(compiled, "")
            if compiled.twin is not None:
                outputs |= self._keep(compiled.twin, "twin_")
        return Outcome(outputs, _summary(compiled.manifest))

    def _keep(self, compiled: Compiled, prefix: str) -> dict[str, Digest]:
        return {
            f"{prefix}payload": self.store.put_file(compiled.payload),
            f"{prefix}manifest": self.store.put_bytes(documents.encode(compiled.manifest)),
        }


def resolved(
    store: ContentStore, work: CompileWork, inputs: Mapping[str, Digest]
) -> tuple[CompileWork, Mapping[str, Digest]]:
    """The order with its recipe in it, and the inputs that decide its result: no other than the parts of the model.

    So an artifact that a search has built is found under the same key by whoever asks for the recipe's rank.
    """
    own = {name: digest for name, digest in inputs.items() if name in _PARTS}
    if work.recipe is not None:
        return work, own
    if "recipes" not in inputs:
        return work, own  # refused when it is read
    ranking = documents.decode(Ranked, store.read(inputs["recipes"]), "ranked recipes")
    if work.rank >= len(ranking.recipes):
        raise UnsupportedRecipeError(
            f"there is no recipe of rank {work.rank + 1} for {ranking.unit} of {ranking.chip}",
            why=f"{len(ranking.recipes)} passed the search",
            next="search again with more effort: `nwmctl search --effort full`",
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


def compile_step(store: ContentStore, toolchains: Registry, timeout_s: float) -> Step[CompileWork]:
    """The step. Its fingerprint is the toolchain's: another compiler version is another artifact.

    ``timeout_s``: seconds for each process of a compiler; no part of the key, since it decides no result.
    """

    def fingerprint(work: CompileWork) -> str:
        return toolchains.get(_recipe(work).toolchain).fingerprint(_recipe(work))

    def resolve(work: CompileWork, inputs: Mapping[str, Digest]) -> tuple[CompileWork, Mapping[str, Digest]]:
        return resolved(store, work, inputs)

    work = _Compile(store, toolchains, timeout_s)
    return Step(StepName.COMPILE, 1, True, CompileWork, work, fingerprint, resolve)
