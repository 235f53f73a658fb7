"""What IREE is worth trying for on which unit of which chip, as recipes in the order of their promise. Pure.

The order follows what was counted and read out of artifacts (``benchmarks/RESULTS-compiler.md``): fp32 on a GPU uses no
tensor core; on an Arm core int8 and bf16 products execute less than half of fp32's instructions, and fp32 executes
fewer at O1 than at O3. A count of instructions is no time: measuring decides, where a bench is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping

from nwmctl.domain.artifact import Option, Precision, Quantisation, Recipe
from nwmctl.toolchains.protocol import Capability, Effort

CAPABILITIES = (
    Capability("gpu", Precision.FP32),
    Capability("gpu", Precision.FP16),
    Capability("gpu", Precision.INT8, (Quantisation.WEIGHTS,), mixed=True),
    Capability("vulkan", Precision.FP32),
    Capability("cpu", Precision.FP32),
    Capability("cpu", Precision.FP16),
    Capability("cpu", Precision.BF16),
    Capability("cpu", Precision.INT8, (Quantisation.STATIC, Quantisation.WEIGHTS), mixed=True),
    Capability("host", Precision.FP32),
    Capability("host", Precision.FP16),
)
_QUICK = 3
_V9 = "+v9a,+dotprod,+i8mm,+bf16,+fullfp16,+fp16fml"
_Options = Mapping[str, Option]
_FP32, _FP16, _BF16, _INT8 = Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8


def variations(
    unit: str, instruction_sets: tuple[str, ...], effort: Effort, assembler: bool = False
) -> tuple[Recipe, ...]:
    """Recipes for a unit of a chip with these instruction sets (words of the platforms' profiles). ``assembler``:
    whether a GPU's machine code can be made here; then it comes first, because no driver changes it in the vehicle."""
    found = _for(unit, set(instruction_sets), assembler)
    recipes = tuple(Recipe("iree", precision, dict(options)) for precision, options in found)
    return recipes[:_QUICK] if effort is Effort.QUICK else recipes


def _for(unit: str, has: set[str], assembler: bool) -> list[tuple[Precision, _Options]]:
    match unit:
        case "gpu":
            arch = next((name for name in sorted(has) if name.startswith("sm_")), "")
            return _gpu({"arch": arch}, assembler) if arch else []
        case "vulkan":
            # The compiler's name of the generation that sm_86 and sm_87 are of; other chips need a recipe of their own.
            return _vulkan({"arch": "ampere"}) if has & {"sm_86", "sm_87"} else []
        case "cpu" if "armv9-a" in has:
            return _armv9(has)
        case "cpu" if "armv8.2-a" in has:
            return _armv8({"cpu": "cortex-a78ae"})
        case "host" if "host" in has:
            return [(_FP32, {"opt_level": "O3"}), (_FP32, {"opt_level": "O1"}), (_FP16, {"opt_level": "O3"})]
        case _:
            return []


def _gpu(chip: _Options, assembler: bool) -> list[tuple[Precision, _Options]]:
    matmul = {**chip, "fp16_scope": "matmul", "opt_level": "O3"}
    found: list[tuple[Precision, _Options]] = [
        (_FP16, matmul),
        (_INT8, {**chip, "quantisation": "weights", "rest": "fp16", "opt_level": "O3"}),
        (_FP16, {**chip, "fp16_scope": "all", "opt_level": "O3"}),
        (_FP32, {**chip, "opt_level": "O3"}),
        (_FP16, {**matmul, "opt_level": "O1"}),
        (_FP32, {**chip, "opt_level": "O1"}),
    ]
    # A driver that translates in the vehicle is the way to fall back on, where machine code can be made here.
    return [*((kind, {**options, "machine_code": True}) for kind, options in found), *found] if assembler else found


def _vulkan(chip: _Options) -> list[tuple[Precision, _Options]]:
    return [
        (_FP32, {**chip, "opt_level": "O3"}),
        (_FP32, {**chip, "opt_level": "O1"}),
    ]


def _armv8(core: _Options) -> list[tuple[Precision, _Options]]:
    """Cores with dot products and half-precision arithmetic, without matrix instructions."""
    static = {**core, "quantisation": "static", "opt_level": "O1"}
    return [
        (_INT8, {**static, "microkernels": True}),
        (_FP32, {**core, "opt_level": "O1"}),
        (_FP16, {**core, "fp16_scope": "matmul", "opt_level": "O1"}),
        (_FP32, {**core, "opt_level": "O1", "data_tiling": True}),
        (_INT8, static),
        (_INT8, {**core, "quantisation": "weights", "opt_level": "O1"}),
        (_FP32, {**core, "opt_level": "O3"}),
    ]


def _armv9(has: set[str]) -> list[tuple[Precision, _Options]]:
    """Armv9 cores with the matrix instructions that the chip's profile lists."""
    features = ",".join(f for f in _V9.split(",") if f.removeprefix("+") not in {"i8mm", "bf16"} - has)
    core = {"cpu": "generic", "features": features}
    static = {**core, "quantisation": "static", "opt_level": "O1"}
    bf16: list[tuple[Precision, _Options]] = []
    if "bf16" in has:
        bf16 = [
            (_BF16, {**core, "data_tiling": True, "opt_level": "O1"}),
            (_INT8, {**static, "rest": "bf16"}),
        ]
    return [
        (_INT8, static),
        *bf16,
        (_FP32, {**core, "opt_level": "O1"}),
        (_FP16, {**core, "fp16_scope": "matmul", "opt_level": "O1"}),
        (_INT8, {**core, "quantisation": "weights", "opt_level": "O1"}),
        (_FP32, {**core, "opt_level": "O3"}),
    ]
