"""compile: model x recipe -> artifact (payload and manifest) and its host twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import ArtifactManifest, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CompileWork, StepName
from nwmctl.errors import UnsupportedRecipeError
from nwmctl.formats import documents
from nwmctl.steps.base import Progress, Step
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.protocol import Compiled, CompileRequest
from nwmctl.toolchains.registry import Registry


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

    return Step(StepName.COMPILE, 1, True, CompileWork, _Compile(store, toolchains, timeout_s), fingerprint)
