"""rebuild: compile an artifact once more elsewhere -> the result of the check that it is the same, byte for byte.

What is compared is what lies in the store: payload and manifest, of the artifact and of its twin. The result is a fact
about the toolchain here, and goes into the evidence of every build that has the artifact. Where the builds differ, both
are kept. A second build that cannot be made (no time, memory or disk) says nothing about the first: the check did not
run, and is asked again by the next run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.compiler.rebuild import HOW, Difference, build_elsewhere, differences
from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.clock import Clock, Sleep
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CompileWork, RebuildWork, StepName
from nwmctl.errors import DiskFullError, ToolchainError, ToolchainTimeoutError, ToolMemoryError
from nwmctl.formats import documents
from nwmctl.steps.base import Progress, Step
from nwmctl.steps.compile import Bounds, compile_request, cost, parts_of
from nwmctl.steps.judge import keep_results
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains import surroundings
from nwmctl.toolchains.registry import Registry
from nwmctl.validation.figures import figure, not_run

_PARTS = ("payload", "manifest", "twin_payload", "twin_manifest")
_APART_S = 2.1
"""So long after the first build the second one begins at the earliest: archives note times in steps of two seconds."""
_COULD_NOT = (ToolchainTimeoutError, ToolMemoryError, DiskFullError)


@dataclass(frozen=True, slots=True)
class _Rebuild:
    store: ContentStore
    toolchains: Registry
    bounds: Bounds
    clock: Clock
    sleep: Sleep

    def __call__(self, work: RebuildWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        manifest = _manifest(self.store, inputs)
        progress(f"{manifest.recipe.toolchain} {manifest.recipe.precision}, once more", -1.0)
        first = {part: self.store.path(inputs[part]) for part in _PARTS if part in inputs}
        self._wait(first["payload"])
        with self.store.scratch() as scratch, surroundings.metered() as meter:
            try:
                second = self._build(work, manifest, inputs, scratch)
            except _COULD_NOT as problem:
                summary, next = f"the second build could not be made: {problem.what}", problem.next
                return self._outcome(not_run(Check.REBUILD, summary, next), {}, fleeting=True)
            except ToolchainError as problem:
                said = f"it was built once and failed to build again: {problem.what}: {problem.why}"
                return self._outcome(_result(Verdict.FAILED, said, 0, 0, problem.next), {})
            found = differences(first, second)
            result = _judged(manifest, first, found)
            other = [each.part for each in found if each.part in second]
            kept = {f"rebuilt_{part}": self.store.put_file(second[part]) for part in other}
        return self._outcome(result, kept, cost(meter))

    def _build(
        self, work: RebuildWork, manifest: ArtifactManifest, inputs: Mapping[str, Digest], scratch: Path
    ) -> dict[str, Path]:
        """The second build's parts as files, by name."""
        order = CompileWork(work.unit, manifest.recipe, work.driver)
        request = compile_request(self.store, order, manifest.recipe, inputs, scratch, self.bounds)
        built = build_elsewhere(self.toolchains.get(manifest.recipe.toolchain), request)
        parts = {"": built, **({"twin_": built.twin} if built.twin is not None else {})}
        files: dict[str, Path] = {}
        for prefix, part in parts.items():
            files[f"{prefix}payload"] = part.payload
            files[f"{prefix}manifest"] = scratch / f"{prefix}manifest.json"
            files[f"{prefix}manifest"].write_bytes(documents.encode(part.manifest))
        return files

    def _wait(self, payload: Path) -> None:
        """Let the clock go on, so that a time of day in a payload differs."""
        age = self.clock.now_us() / 1e6 - payload.stat().st_mtime
        if 0 <= age < _APART_S:
            self.sleep(_APART_S - age)

    def _outcome(
        self,
        result: CheckResult,
        kept: dict[str, Digest],
        took: Mapping[str, int | float] | None = None,
        *,
        fleeting: bool = False,
    ) -> Outcome:
        said: dict[str, str | int | float | bool] = {str(result.verdict): 1, "_said": result.summary, **(took or {})}
        return Outcome({"rebuilt": keep_results(self.store, [result]), **kept}, said, fleeting=fleeting)


def _judged(manifest: ArtifactManifest, first: Mapping[str, Path], found: tuple[Difference, ...]) -> CheckResult:
    size = sum(path.stat().st_size for path in first.values())
    if found:
        said = "; ".join(map(str, found))
        next = f"use another recipe, or report the difference to whoever makes {manifest.toolchain_version}"
        return _result(Verdict.FAILED, f"built again {HOW}: {said}", len(found), size, next)
    parts = "payload and manifest" + (" of artifact and twin" if "twin_payload" in first else "")
    return _result(Verdict.PASSED, f"{parts}, {size} bytes, are the same when built {HOW}", 0, size)


def _result(verdict: Verdict, summary: str, different: int, size: int, next: str = "") -> CheckResult:
    figures = (
        figure("parts_that_differ", different, "", Obtained.MEASURED, 0.0),
        figure("bytes_compared", size, "B", Obtained.MEASURED),
    )
    return CheckResult(Check.REBUILD, verdict, Obtained.MEASURED, summary, figures if size else (), next)


def _manifest(store: ContentStore, inputs: Mapping[str, Digest]) -> ArtifactManifest:
    return documents.decode(ArtifactManifest, store.read(inputs["manifest"]), "artifact manifest")


def rebuild_step(
    store: ContentStore, toolchains: Registry, timeout_s: float, clock: Clock, sleep: Sleep
) -> Step[RebuildWork]:
    """The step. Its key holds the compile step's inputs, what that step has left, and the toolchain's fingerprint (as
    the input ``toolchain``, since the recipe is in the manifest). ``timeout_s``: see ``steps.compile.Bounds``."""

    def resolve(work: RebuildWork, inputs: Mapping[str, Digest]) -> tuple[RebuildWork, Mapping[str, Digest]]:
        recipe = _manifest(store, inputs).recipe
        tool = digest_bytes(toolchains.get(recipe.toolchain).fingerprint(recipe).encode())
        kept = {name: digest for name, digest in inputs.items() if name in _PARTS}
        return work, {**parts_of(inputs), **kept, "toolchain": tool}

    work = _Rebuild(store, toolchains, Bounds(timeout_s), clock, sleep)
    return Step(StepName.REBUILD, 2, True, RebuildWork, work, resolve=resolve)
