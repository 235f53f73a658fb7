"""The instruction-set check: is the code in the payload of the promised precision, and code that the chip has?

Reads the manifest's ``found`` counts, which were taken out of the payload, never the label. How that is obtained:
``measured`` where this machine is the chip and the code has run on it; ``assembled`` where an assembler of the chip's
instruction set accepted the code (machine code is an assembler's output; PTX is only where ptxas took
it); ``estimated`` for PTX that no assembler has seen, the weakest word there is for something that was looked at.
Running under an emulator that has every feature proves nothing here and does not count.
"""

from __future__ import annotations

from collections.abc import Mapping

from nwmctl.domain.artifact import ArtifactManifest, Precision, Quantisation
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.platform import Build, Chip
from nwmctl.toolchains.graph_options import KEEP, QUANTISATION, REST
from nwmctl.toolchains.inspect_arm64 import EXTENSION
from nwmctl.validation.figures import figure, not_run

IMPLIED: Mapping[str, frozenset[str]] = {
    "armv9-a": frozenset({"dotprod", "fullfp16", "fp16fml"}),
}
"""Extensions that an architecture level makes mandatory; whatever else a chip has, its profile lists by name."""

TENSOR_CORE = ("mma", "wmma", "HMMA", "IMMA")
"""What multiplies on tensor cores, in PTX and in machine code."""
ASSEMBLER = "ptxas"
"""Key of ``found`` that counts the kernels which the assembler accepted."""
_TOTALS = ("instructions", "kernels", ASSEMBLER)
_OTHER_RECIPE = "compile with another recipe, or correct the profile's recipe"


def check_instruction_set(manifest: ArtifactManifest, build: Build, chip: Chip, *, ran_on_chip: bool) -> CheckResult:
    """Judge what was found in the payload. ``ran_on_chip``: this machine is the chip, and the artifact answered."""
    if not manifest.found:
        return not_run(
            Check.INSTRUCTION_SET,
            "nothing was read out of this payload",
            "give the toolchain an inspection that counts instructions or operators",
        )
    obtained = _obtained(manifest, build, ran_on_chip)
    tensor = _tensor_core(manifest)
    wrong = _precision_faults(manifest)
    if build.unit == "gpu":
        wrong += _gpu_faults(manifest, chip, tensor)
    lacking = _lacking(manifest, chip)
    figures: tuple[ResultFigure, ...] = (
        figure("instructions_the_chip_may_lack", sum(lacking.values()), "", obtained, 0.0),
    )
    if build.unit == "gpu":
        figures += (figure("tensor_core_instructions", tensor, "", obtained),)
    if wrong:
        return CheckResult(Check.INSTRUCTION_SET, Verdict.FAILED, obtained, "; ".join(wrong), figures, _OTHER_RECIPE)
    if lacking:
        need = sorted({EXTENSION[name] for name in lacking})
        summary = f"{_counted(lacking)} need {', '.join(need)}, which the profile does not list for {chip.name}"
        next = f"list {', '.join(need)} among the instruction sets of {chip.name} with a source, or compile without"
        return CheckResult(Check.INSTRUCTION_SET, Verdict.INCONCLUSIVE, obtained, summary, figures, next)
    return CheckResult(Check.INSTRUCTION_SET, Verdict.PASSED, obtained, _summary(manifest, build, tensor), figures)


def _obtained(manifest: ArtifactManifest, build: Build, ran_on_chip: bool) -> Obtained:
    if ran_on_chip:
        return Obtained.MEASURED
    if build.unit == "cpu" or manifest.found.get(ASSEMBLER, 0) > 0:
        return Obtained.ASSEMBLED
    return Obtained.ESTIMATED


def _precision_faults(manifest: ArtifactManifest) -> list[str]:
    found, promised = manifest.found_precision, _promised(manifest)
    return [] if found in promised else [f"the recipe asks for {promised[0]} and the payload holds {found} code"]


def _promised(manifest: ArtifactManifest) -> tuple[Precision, ...]:
    """The arithmetic that a recipe promises. With weights alone in int8 that is the rest's; of mixed precision it says
    itself that some is the rest's, and that integers are there at all is asserted when it is compiled."""
    recipe = manifest.recipe
    if recipe.precision is not Precision.INT8:
        return (recipe.precision,)
    rest = Precision(str(recipe.options.get(REST, Precision.FP32)))
    if recipe.options.get(QUANTISATION) == Quantisation.WEIGHTS:
        return (rest,)
    return (Precision.INT8, rest) if recipe.options.get(KEEP) else (Precision.INT8,)


def _gpu_faults(manifest: ArtifactManifest, chip: Chip, tensor: int) -> list[str]:
    said: list[str] = []
    if manifest.instruction_set not in chip.instruction_sets:
        listed = ", ".join(chip.instruction_sets)
        said.append(f"the code is for {manifest.instruction_set}, {chip.name} has {listed}")
    if manifest.recipe.precision is not Precision.FP32 and not tensor:
        said.append(f"{manifest.recipe.precision} code without a single tensor-core instruction")
    return said


def _tensor_core(manifest: ArtifactManifest) -> int:
    return sum(count for name, count in manifest.found.items() if name.split(".")[0] in TENSOR_CORE)


def _lacking(manifest: ArtifactManifest, chip: Chip) -> dict[str, int]:
    """Found instructions whose extension the profile neither lists nor implies."""
    has = set(chip.instruction_sets).union(*(IMPLIED.get(name, frozenset()) for name in chip.instruction_sets))
    return {
        name: count
        for name, count in sorted(manifest.found.items())
        if count and name in EXTENSION and EXTENSION[name] not in has
    }


def _summary(manifest: ArtifactManifest, build: Build, tensor: int) -> str:
    kinds = [item for item in manifest.found.items() if item[0] not in _TOTALS]
    most = dict(sorted(kinds, key=lambda item: (-item[1], item[0]))[:3])
    # Toolchains append every extension that the compiler was free to use; the counts say what it did use.
    core = " ".join(manifest.instruction_set.split()[:2])
    text = f"{manifest.found_precision} code for {core}: {_counted(most)}"
    if build.unit == "gpu":
        text += f"; {tensor} tensor-core instructions"
        if manifest.jit_in_vehicle:
            text += f"; the driver {manifest.needs.driver or 'in the vehicle'} compiles it further"
    return text


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
