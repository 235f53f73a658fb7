"""What a recipe may say to IREE, and the flags that it becomes. Pure.

The options are a closed set: an option that this driver does not know is an error, never a flag that is passed on.
Combinations that were measured to build something else than asked are refused here, in milliseconds.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.domain.artifact import Option, Precision, Recipe
from nwmctl.errors import RecipeOptionError, UnsupportedRecipeError
from nwmctl.toolchains.lowering import Scope

_LEVELS = ("O0", "O1", "O2", "O3")
_COMMON = {"opt_level": "O0, O1, O2 or O3 (default O3; O1 for bf16)"}
_KNOWN: Mapping[str, Mapping[str, str]] = {
    "gpu": {**_COMMON, "arch": "the GPU's architecture, as sm_87 (default)"},
    "cpu": {
        **_COMMON,
        "cpu": "the core's name, as cortex-a78ae, or generic",
        "features": "extensions, as +v9a,+i8mm",
        "data_tiling": "true lays the weights out for the matrix instructions (default false)",
    },
    "host": _COMMON,
}
_FP16 = {"fp16_scope": "matmul (default) or all: what is converted to fp16"}
_HOST_CORES = {"x86_64": "x86-64-v3", "aarch64": "generic"}
_DEDUPLICATE = ("--iree-flow-inline-constants-max-byte-length=64",)
"""Biases stay arguments of a kernel: inlined, they make every layer's kernel another one (a fifth of the compile time,
and twice the code)."""
_STACK_LIMIT = 262144
_WORKER_STACK = 1048576


@dataclass(frozen=True, slots=True)
class Plan:
    """How one recipe is built: the graph's precision, compiler flags, and what the runtime then needs."""

    unit: str
    precision: Precision
    scope: Scope
    flags: tuple[str, ...]
    runtime_flags: tuple[str, ...] = ()

    @property
    def graph_precision(self) -> Precision:
        """The lowered graph's precision: bf16 is the compiler's work, its graph is fp32."""
        return Precision.FP16 if self.precision is Precision.FP16 else Precision.FP32


def plan(recipe: Recipe, unit: str) -> Plan:
    """Read a recipe for one unit. Raises RecipeOptionError, UnsupportedRecipeError."""
    if unit not in _KNOWN:
        raise _unsupported(f"the unit '{unit}'", f"it builds for {', '.join(_KNOWN)}")
    if recipe.precision is Precision.INT8:
        raise _unsupported("int8", "quantisation needs calibration, which this version does not do")
    if recipe.precision is Precision.BF16 and unit == "gpu":
        raise _unsupported("bf16 on the gpu", "what becomes of it was not measured; fp16 reaches the tensor cores")
    options = _Reader(recipe, unit)
    level = options.choice("opt_level", _LEVELS, "O1" if recipe.precision is Precision.BF16 else "O3")
    scope = Scope(options.choice("fp16_scope", tuple(Scope), Scope.MATMUL))
    flags = [f"--iree-opt-level={level}", *_DEDUPLICATE]
    runtime: tuple[str, ...] = ()
    if recipe.precision is Precision.BF16:
        if level not in ("O0", "O1"):
            why = "from O2 on this compiler drops the conversion or needs more than 16 GB; the payload would be fp32"
            raise options.wrong("opt_level", why, "use O1 for bf16")
        flags += _bf16_flags()
    match unit:
        case "gpu":
            arch = options.text("arch", r"sm_\d{2,3}", "sm_87")
            flags += ["--iree-hal-target-device=cuda", f"--iree-cuda-target={arch}"]
        case "cpu":
            flags += _cpu_flags("aarch64-linux-gnu", options.text("cpu", r"[a-z0-9][a-z0-9.-]*", None))
            features = options.text("features", r"[+-][a-z0-9][a-z0-9.-]*(,[+-][a-z0-9][a-z0-9.-]*)*", "")
            flags += [f"--iree-llvmcpu-target-cpu-features={features}"] if features else []
            tiling = options.flag("data_tiling")
            flags += ["--iree-opt-data-tiling"] if tiling else []
            if tiling and level == "O3":
                flags.append(f"--iree-llvmcpu-stack-allocation-limit={_STACK_LIMIT}")
                runtime = (f"--task_worker_stack_size={_WORKER_STACK}",)
        case _:
            flags += host_flags()
    return Plan(unit, recipe.precision, scope, tuple(flags), runtime)


def twin(vehicle: Plan) -> Plan:
    """The host twin of a plan: the same graph and precision, plain code of this kind of machine.

    Data tiling is left out: it changes the layout of weights and not what is computed, and on x86 it is 40 times
    slower for bf16.
    """
    level = next(flag for flag in vehicle.flags if flag.startswith("--iree-opt-level="))
    bf16 = _bf16_flags() if vehicle.precision is Precision.BF16 else []
    return Plan("host", vehicle.precision, vehicle.scope, (level, *_DEDUPLICATE, *bf16, *host_flags()))


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


def _cpu_flags(triple: str, core: str) -> list[str]:
    return [
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        f"--iree-llvmcpu-target-triple={triple}",
        f"--iree-llvmcpu-target-cpu={core}",
    ]


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
        self.known = {**_KNOWN[unit], **(_FP16 if recipe.precision is Precision.FP16 else {})}
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
        """One of a few words; the default where the option has no meaning."""
        if name not in self.known:
            return default
        value = self._options.get(name, default)
        if value not in possible:
            raise self.wrong(name, f"it is {value!r}, it must be {self.known[name]}", "correct the recipe")
        return str(value)

    def flag(self, name: str) -> bool:
        """True or false; false where it is not given."""
        value = self._options.get(name, False)
        if not isinstance(value, bool):
            raise self.wrong(name, f"it is {value!r}, it must be true or false", "correct the recipe")
        return value

    def wrong(self, name: str, why: str, next: str) -> RecipeOptionError:
        """The refusal of one option."""
        return RecipeOptionError(f"the recipe's option '{name}' is not possible with iree", why=why, next=next)
