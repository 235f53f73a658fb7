"""What a recipe may say to IREE, and the flags that it becomes. Pure.

The options are a closed set: an option that this driver does not know is an error, never a flag that is passed on.
Combinations that were measured to build something else than asked are refused here, in milliseconds.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nwmctl.domain.artifact import Option, Precision, Quantisation, Recipe
from nwmctl.errors import RecipeOptionError, UnsupportedRecipeError
from nwmctl.toolchains.graph_options import INTEGERS, QUANTISATION, REST, graph_order, known
from nwmctl.toolchains.lowering import Integers, LoweringOrder

UNITS = ("gpu", "vulkan", "cpu", "host")
_LEVELS = ("O0", "O1", "O2", "O3")
_LEVEL = "--iree-opt-level="
_COMMON = {"opt_level": "O0, O1, O2 or O3 (default O3; O1 for bf16, int8 and fp16 for vulkan)"}
_KNOWN: Mapping[str, Mapping[str, str]] = {
    "gpu": {
        **_COMMON,
        "arch": "the GPU's architecture, as sm_87 (default)",
        "machine_code": "true has ptxas assemble the kernels here, for this chip alone (default false: PTX)",
    },
    "vulkan": {**_COMMON, "arch": "the GPU's architecture, as ampere (default)"},
    "cpu": {
        **_COMMON,
        "cpu": "the core's name, as cortex-a78ae, or generic",
        "features": "extensions, as +v9a,+i8mm",
        "data_tiling": "true lays the weights out for the matrix instructions (default false; true for static int8)",
        "microkernels": "true takes the compiler's hand-written inner loops (default false)",
    },
    "host": _COMMON,
}
_HOST_CORES = {"x86_64": "x86-64-v3", "aarch64": "generic"}
_DEDUPLICATE = ("--iree-flow-inline-constants-max-byte-length=64",)
"""Biases stay arguments of a kernel: inlined, they make every layer's kernel another one (a fifth of the compile time,
and twice the code)."""
_STACK_LIMIT = 262144
_WORKER_STACK = 1048576


@dataclass(frozen=True, slots=True)
class Plan:
    """How one recipe is built: what the graph becomes, compiler flags, and what the runtime then needs."""

    unit: str
    precision: Precision
    order: LoweringOrder
    flags: tuple[str, ...]
    runtime_flags: tuple[str, ...] = ()
    machine_code: bool = False
    """Whether a GPU's payload carries its machine code and no text for a driver to compile."""

    @property
    def in_vehicle(self) -> bool:
        """Whether a driver in the vehicle compiles the payload further."""
        return self.unit in ("gpu", "vulkan") and not self.machine_code

    @property
    def bf16(self) -> bool:
        """Whether float products are demoted to bf16, which is the compiler's work: the graph stays fp32 there."""
        return Precision.BF16 in (self.precision, self.order.rest)

    @property
    def integers(self) -> bool:
        """Whether products of integers are asked for."""
        return self.order.quantisation is Quantisation.STATIC


def plan(recipe: Recipe, unit: str) -> Plan:
    """Read a recipe for one unit. Raises RecipeOptionError, UnsupportedRecipeError."""
    _refuse(recipe.precision, unit)
    options = _Reader(recipe, unit)
    order = _order(recipe, options, unit)
    bf16 = Precision.BF16 in (recipe.precision, order.rest)
    careful = bf16 or recipe.precision is Precision.INT8 or (unit, recipe.precision) == ("vulkan", Precision.FP16)
    level = options.choice("opt_level", _LEVELS, "O1" if careful else "O3")
    flags = [f"{_LEVEL}{level}", *_DEDUPLICATE]
    runtime: tuple[str, ...] = ()
    if bf16:
        if level not in ("O0", "O1"):
            why = "from O2 on this compiler drops the conversion or needs more than 16 GB; the payload would be fp32"
            raise options.wrong("opt_level", why, "use O1 for bf16")
        flags += _bf16_flags()
    match unit:
        case "gpu":
            arch = options.text("arch", r"sm_\d{2,3}", "sm_87")
            flags += ["--iree-hal-target-device=cuda", f"--iree-cuda-target={arch}"]
            if order.quantisation is Quantisation.WEIGHTS:
                # Otherwise the compiler widens them beforehand and stores fp16, without a word.
                flags.append("--iree-opt-const-expr-hoisting=false")
        case "vulkan":
            arch = options.text("arch", r"[a-z][a-z0-9]*", "ampere")
            flags += ["--iree-hal-target-device=vulkan", f"--iree-vulkan-target={arch}"]
        case "cpu":
            more, runtime = _core(options, order, level)
            flags += more
        case _:
            flags += [*host_flags(), *_deep_stack(level)]
    machine_code = unit == "gpu" and options.flag("machine_code")
    return Plan(unit, recipe.precision, order, tuple(flags), runtime, machine_code)


def twin(vehicle: Plan) -> Plan:
    """The host twin of a plan: the same graph and precision, plain code of this kind of machine.

    Data tiling is left out: it changes the layout of weights and not what is computed, and on x86 it is 40 times
    slower for bf16.
    """
    level = next(flag for flag in vehicle.flags if flag.startswith(_LEVEL)).removeprefix(_LEVEL)
    bf16 = _bf16_flags() if vehicle.bf16 else []
    flags = (f"{_LEVEL}{level}", *_DEDUPLICATE, *bf16, *host_flags(), *_deep_stack(level))
    return Plan("host", vehicle.precision, vehicle.order, flags)


def host_flags() -> list[str]:
    """Flags for this kind of machine; the oldest core of the kind that is worth building for, so that the bytes are
    the same on all of them."""
    machine, _, core = host_instruction_set().partition(" ")
    if not core:
        raise _unsupported(f"the machine '{machine}'", f"host twins are built on {' and '.join(_HOST_CORES)}")
    return _cpu_flags(f"{machine}-linux-gnu", core)


def host_instruction_set() -> str:
    """What host twins are built for on this kind of machine; the machine's name alone where that is not known."""
    machine = platform.machine()
    return f"{machine} {_HOST_CORES.get(machine, '')}".rstrip()


def _refuse(precision: Precision, unit: str) -> None:
    """Refuse what was measured not to become what was asked."""
    match precision, unit:
        case _, _ if unit not in UNITS:
            raise _unsupported(f"the unit '{unit}'", f"it builds for {', '.join(UNITS)}")
        case Precision.INT8, "vulkan":
            raise _unsupported("int8 for the vulkan", "what becomes of it was not measured")
        case Precision.INT8, "host":
            raise _unsupported("int8 for the host", "this compiler has no fast integer code for it; others have")
        case Precision.BF16, "host":
            why = "what it makes of bf16 there multiplies fp32; only the host twin of a bf16 artifact needs that"
            raise _unsupported("bf16 for the host", why)
        case Precision.BF16, "gpu" | "vulkan":
            why = "what becomes of it was not measured; fp16 reaches the tensor cores"
            raise _unsupported(f"bf16 for the {unit}", why)


def _order(recipe: Recipe, options: _Reader, unit: str) -> LoweringOrder:
    """What the recipe says about the graph."""
    gpu = unit == "gpu"
    order = graph_order(recipe, 1, quantisation=Quantisation.WEIGHTS if gpu else Quantisation.STATIC)
    if gpu and order.quantisation is Quantisation.WEIGHTS and REST not in recipe.options:
        order = replace(order, rest=Precision.FP16)
    if gpu and order.quantisation not in (None, Quantisation.WEIGHTS):
        why = "integer products use no tensor core there and are slower than fp16"
        raise options.wrong(QUANTISATION, why, "use weights: they are widened inside the kernels")
    if gpu and order.quantisation is Quantisation.WEIGHTS and order.rest is not Precision.FP16:
        raise options.wrong(REST, "only fp16 reaches the tensor cores", "write 'rest: fp16'")
    if order.quantisation is Quantisation.DYNAMIC:
        why = "this compiler does not compile scales that are computed at run time"
        raise options.wrong(QUANTISATION, why, "use static, with calibration data in the model's package")
    if order.integers is not Integers.SIGNED and order.quantisation is Quantisation.STATIC:
        why = "unsigned activations stay scalar on Arm, slower than fp32"
        raise options.wrong(INTEGERS, why, "leave it out: signed integers become dot products")
    return order


def _core(options: _Reader, order: LoweringOrder, level: str) -> tuple[list[str], tuple[str, ...]]:
    """Flags for an Arm core, and what the runtime then needs."""
    flags = _cpu_flags("aarch64-linux-gnu", options.text("cpu", r"[a-z0-9][a-z0-9.-]*", None))
    features = options.text("features", r"[+-][a-z0-9][a-z0-9.-]*(,[+-][a-z0-9][a-z0-9.-]*)*", "")
    flags += [f"--iree-llvmcpu-target-cpu-features={features}"] if features else []
    integers = order.quantisation is Quantisation.STATIC
    tiling = options.flag("data_tiling", integers)
    if integers and not tiling:
        why = "without it this compiler multiplies int8 with smlal, slower than fp32"
        raise options.wrong("data_tiling", why, "leave it out, or choose a float precision")
    if integers:
        # A transpose that is folded into a product takes it out of the tiling.
        flags.append("--iree-global-opt-propagate-transposes=false")
    if order.quantisation is Quantisation.WEIGHTS:
        # Otherwise the compiler multiplies the scales in beforehand and stores the weights as floats again.
        flags.append("--iree-opt-const-expr-max-size-increase-threshold=0")
    if options.flag("microkernels"):
        flags.append("--iree-llvmcpu-enable-ukernels=all")
    flags += ["--iree-opt-data-tiling"] if tiling else []
    more = _deep_stack(level)
    return [*flags, *more], (f"--task_worker_stack_size={_WORKER_STACK}",) if more else ()


def _cpu_flags(triple: str, core: str) -> list[str]:
    return [
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        f"--iree-llvmcpu-target-triple={triple}",
        f"--iree-llvmcpu-target-cpu={core}",
    ]


def _deep_stack(level: str) -> list[str]:
    """From O2 on whole layers become one kernel, which needs more stack than the compiler allows by itself. The
    runtime's workers crash without as much; a host twin runs on the main thread, which has enough."""
    return [] if level in ("O0", "O1") else [f"--iree-llvmcpu-stack-allocation-limit={_STACK_LIMIT}"]


def _bf16_flags() -> list[str]:
    return [
        "--iree-global-opt-demote-contraction-inputs-type=bf16",
        "--iree-global-opt-demote-contraction-inputs-operations=matmul",
    ]


def _unsupported(what: str, why: str) -> UnsupportedRecipeError:
    return UnsupportedRecipeError(
        f"the toolchain 'iree' does not build {what}", why=why, next="choose another recipe for this build"
    )


class _Reader:
    """Reads options of a closed set; every refusal names the option, the value and what is possible."""

    def __init__(self, recipe: Recipe, unit: str) -> None:
        self.known = {**_KNOWN[unit], **known(recipe.precision)}
        self._options: Mapping[str, Option] = recipe.options
        self._where = f"{recipe.precision} for the {unit}"
        for name in self._options:
            if name not in self.known:
                raise self.wrong(name, f"iree knows {', '.join(self.known)} for {self._where}", "correct the recipe")

    def text(self, name: str, pattern: str, default: str | None) -> str:
        """A text that matches; without a default it must be given."""
        value = self._options.get(name, default)
        if value is None:
            raise self.wrong(name, f"it must be given: {self.known[name]}", f"add '{name}' to the recipe's options")
        if not isinstance(value, str) or (value and not re.fullmatch(pattern, value)):
            raise self.wrong(name, f"it is {value!r}, it must be {self.known[name]}", "correct the recipe")
        return value

    def choice(self, name: str, possible: tuple[str, ...], default: str) -> str:
        """One of a few words."""
        value = self._options.get(name, default)
        if value not in possible:
            raise self.wrong(name, f"it is {value!r}, it must be {self.known[name]}", "correct the recipe")
        return str(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._options.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, f"it is {value!r}, it must be true or false", "correct the recipe")
        return value

    def wrong(self, name: str, why: str, next: str) -> RecipeOptionError:
        """The refusal of one option."""
        return RecipeOptionError(f"the recipe's option '{name}' is not possible with iree", why=why, next=next)
