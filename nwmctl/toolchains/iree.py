"""The driver of IREE: builds for the GPU and the Arm cores of a chip without the chip, and host twins.

lower -> import -> compile, each a process of its own with the scratch folder as its working directory and fixed file
names, so that the payload's bytes do not depend on where they were made. What is found in a payload is read out of the
very code that lies in it. Executes nothing; see ``sessions`` and ``emulation``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest, Precision, Quantisation, Recipe, RuntimeNeeds
from nwmctl.errors import PlaceUnavailableError, ToolchainMissingError, UnsupportedRecipeError
from nwmctl.toolchains import emulation, ptxas, sessions
from nwmctl.toolchains.files import ABSENT, packaged_program, version_of, versions
from nwmctl.toolchains.graph_files import check_single_message
from nwmctl.toolchains.inspect_arm64 import DOTS, inspect_arm64
from nwmctl.toolchains.inspect_ptx import inspect_ptx
from nwmctl.toolchains.inspect_spirv import inspect_spirv
from nwmctl.toolchains.inspect_x86 import WIDE_INTEGERS, inspect_x86
from nwmctl.toolchains.inspection import Inspection, uninspectable
from nwmctl.toolchains.iree_options import Plan, host_instruction_set, plan, twin
from nwmctl.toolchains.iree_variations import CAPABILITIES, variations
from nwmctl.toolchains.lowering import Lowered, lower
from nwmctl.toolchains.machine_code import CudaBuild, build_machine_code, inspect_machine_code
from nwmctl.toolchains.manifests import Made, described
from nwmctl.toolchains.process import Command, Limits, python_module, run_tool
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Effort, Place, Probe, Session

FORMAT = "iree-vmfb"
COMPILER, RUNTIME = "iree-base-compiler", "iree-base-runtime"
_INSTALL = "pip install 'nwmctl[iree]'"
_CODE = 3
"""Raised when this driver's own doing changes the payload's bytes."""
_MLIR = "model.mlir"
_FEATURES = re.compile(r'cpu_features = "([^"]*)"')


class Iree:
    """``Toolchain`` for IREE."""

    name = "iree"

    def probe(self) -> Probe:
        """See ``Toolchain.probe``."""
        version = version_of(COMPILER)
        binary = packaged_program("iree.compiler", "_mlir_libs/iree-compile")
        if binary is None:
            return Probe(self.name, False, version, "the compiler's program is not installed", _INSTALL)
        missing = emulation.missing()
        emulated = f"no emulation: {missing}" if missing else "emulation works"
        detail = f"cross-compiles for CUDA, Vulkan and aarch64; {emulated}"
        return Probe(self.name, True, version, detail, capabilities=CAPABILITIES)

    def fingerprint(self, recipe: Recipe) -> str:
        """See ``Toolchain.fingerprint``. The kind of machine decides the host twin's bytes."""
        tools = f"{versions(COMPILER, 'onnx', 'onnxruntime', 'onnx-ir')}, ptxas {ptxas.version()}"
        return f"iree driver {_CODE}, {tools}, {os.uname().machine}"

    def variations(self, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> tuple[Recipe, ...]:
        """See ``Toolchain.variations``."""
        return variations(unit, instruction_sets, effort, assembler=not ptxas.missing())

    def compile(self, request: CompileRequest) -> Compiled:
        """See ``Toolchain.compile``. ``timeout_s`` holds for each of the three processes."""
        compiler = packaged_program("iree.compiler", "_mlir_libs/iree-compile")
        if compiler is None:
            raise ToolchainMissingError(
                "the IREE compiler is not installed", why=f"no package {COMPILER} in this environment", next=_INSTALL
            )
        vehicle = plan(request.recipe, request.unit)
        if vehicle.in_vehicle and not request.driver:
            raise UnsupportedRecipeError(
                "a GPU artifact needs the driver version of the fleet's baseline",
                why="the driver finishes the compilation in the vehicle, so it is part of what is released",
                next="write 'runtime_driver:' into the platform's profile",
            )
        limits = request.limits
        single = "its importer holds the graph as one message, which has less than 2 GiB"
        check_single_message(self.name, request.files, vehicle.order, single)
        lowered = lower(request.files, request.scratch, vehicle.order, limits)
        _run(
            "iree-import-onnx",
            python_module("iree.compiler.tools.import_onnx", lowered.path.name, "-o", _MLIR),
            request,
            limits,
        )
        main = _Build(request, vehicle, lowered, compiler, "model").compiled(limits)
        if vehicle.unit == "host":
            return main
        stand_in = _Build(request, twin(vehicle), lowered, compiler, "twin").compiled(limits)
        return dataclasses.replace(main, twin=stand_in)

    def places(self, manifest: ArtifactManifest) -> Mapping[Place, str]:
        """See ``Toolchain.places``."""
        if manifest.instruction_set.startswith("aarch64 "):
            emulated = emulation.missing()
        else:
            emulated = f"there is no emulator of {manifest.instruction_set} here; the host twin stands for its numerics"
        if manifest.instruction_set != host_instruction_set():
            host = f"this machine does not execute {manifest.instruction_set}; the host twin stands for its numerics"
        elif version_of(RUNTIME) == ABSENT:
            host = f"the IREE runtime is not installed: {_INSTALL}"
        else:
            host = _lacking_features()
        return {Place.HOST: host, Place.EMULATED: emulated}

    def open(self, payload: Path, manifest: ArtifactManifest, place: Place, timeout_s: float = 60.0) -> Session:
        """See ``Toolchain.open``."""
        reason = self.places(manifest)[place]
        if reason:
            raise PlaceUnavailableError(
                f"the artifact cannot execute here ({place})", why=reason, next="run `nwmctl doctor`"
            )
        match place:
            case Place.HOST:
                return sessions.open_worker("iree", payload, manifest.inputs, manifest.outputs, timeout_s)
            case Place.EMULATED:
                return emulation.open_emulated(payload, manifest, timeout_s)


class _Build:
    """One run of the compiler, and the reading of what came out."""

    def __init__(self, request: CompileRequest, how: Plan, lowered: Lowered, compiler: Path, stem: str) -> None:
        self.request, self.how, self.lowered, self.compiler = request, how, lowered, compiler
        self.payload = request.scratch / f"{stem}.vmfb"
        self.binaries, self.sources = request.scratch / f"{stem}-binaries", request.scratch / f"{stem}-sources"
        self.listings = request.scratch / f"{stem}-listings"
        self.argv = (_MLIR, "-o", self.payload.name, *how.flags)

    def compiled(self, limits: Limits) -> Compiled:
        """Run the compiler and describe its payload."""
        if self.how.machine_code:
            return self._with_machine_code(limits)
        dumps = [f"--iree-hal-dump-executable-binaries-to={self.binaries.name}"]
        if self.how.unit == "cpu":
            dumps.append(f"--iree-hal-dump-executable-sources-to={self.sources.name}")
        if self.how.unit == "host":
            dumps.append(f"--iree-hal-dump-executable-intermediates-to={self.listings.name}")
        _run("iree-compile", (str(self.compiler), *self.argv, *dumps), self.request, limits)
        inspection, instruction_set = self._inspect()
        if self.how.unit == "gpu":
            texts = sorted(self.binaries.glob("*"))
            inspection = ptxas.checked(inspection, texts, instruction_set, self.request.scratch, limits)
        jit = self.how.in_vehicle
        version = version_of(COMPILER)
        driver = self.request.driver if jit else ""
        needs = RuntimeNeeds(RUNTIME, version, self.how.runtime_flags, driver)
        made = Made(
            self.payload, FORMAT, ("iree-compile", *self.argv), f"{COMPILER} {version}", instruction_set, needs,
            jit_in_vehicle=jit, notes=about(self.how, self.lowered, inspection),
        )  # fmt: skip
        return Compiled(self.payload, described(self.request, self.lowered, inspection, made))

    def _with_machine_code(self, limits: Limits) -> Compiled:
        """The same with the assembler's output in the place of PTX."""
        chip, version = _flag(self.how, "--iree-cuda-target="), version_of(COMPILER)
        code = build_machine_code(CudaBuild(self.compiler, _MLIR, self.payload, self.how.flags, chip, limits))
        inspection, chip = inspect_machine_code(code)
        needs = RuntimeNeeds(RUNTIME, version, self.how.runtime_flags, f">= {ptxas.LOADS_FROM}, {chip}")
        made = Made(
            self.payload, FORMAT, code.argv, f"{ptxas.TOOL} {code.assembler}, {COMPILER} {version}", chip, needs,
            notes=about(self.how, self.lowered, inspection), sources={ptxas.TOOL: ptxas.program_digest()},
        )  # fmt: skip
        return Compiled(self.payload, described(self.request, self.lowered, inspection, made))

    def _inspect(self) -> tuple[Inspection, str]:
        """What is in the payload, and the instruction set that it was built for."""
        parts = sorted(self.binaries.glob("*"))
        whole = self.payload.read_bytes()
        if not parts:
            raise uninspectable("the payload", "the compiler left no code to look at")
        codes = [part.read_bytes() for part in parts]
        if any(code not in whole for code in codes):
            raise uninspectable("the payload", "the code that the compiler left to look at is not the code in it")
        if self.how.unit == "gpu":
            return inspect_ptx("\n".join(code.decode("utf-8", "replace") for code in codes))
        if self.how.unit == "vulkan":
            inspection, needed = inspect_spirv(codes)
            return inspection, f"spirv-{needed} {_flag(self.how, '--iree-vulkan-target=')}"
        if len(codes) != 1:
            raise uninspectable("the payload", f"it holds {len(codes)} images of machine code, one is expected")
        if self.how.unit == "cpu":
            core = _flag(self.how, "--iree-llvmcpu-target-cpu=")
            return inspect_arm64(codes[0]), f"aarch64 {core} {self._features()}".rstrip()
        if os.uname().machine == "aarch64":
            return inspect_arm64(codes[0]), host_instruction_set()
        listing = "\n".join(part.read_text("utf-8") for part in sorted(self.listings.glob("*.s")))
        return inspect_x86(listing), host_instruction_set()

    def _features(self) -> str:
        """The extensions that the compiler was free to use, as it spells them out in its own input."""
        found = {match for part in self.sources.glob("*.mlir") for match in _FEATURES.findall(part.read_text("utf-8"))}
        if len(found) > 1:
            raise uninspectable("the payload", "its parts were compiled for different extensions")
        return found.pop() if found else ""


def about(how: Plan, lowered: Lowered, inspection: Inspection) -> tuple[str, ...]:
    """What people must know when the code is not, or not throughout, what the recipe asks for."""
    notes: list[str] = []
    asked, found = how.precision, inspection.precision
    count = sum(lowered.quantised.values())
    if how.order.quantisation is Quantisation.WEIGHTS:
        notes.append(f"the weights of {count} products are int8; the arithmetic is {found}")
    elif how.unit == "host" and asked is Precision.BF16:
        notes.append("operands are rounded to bf16 and multiplied in fp32: this kind of machine has no bf16 unit")
    elif how.unit == "host" and asked is Precision.INT8 and WIDE_INTEGERS & inspection.found.keys():
        notes.append("int8 is widened and multiplied in wider integers: this kind of machine is not built for int8")
    elif found is not asked:
        notes.append(f"the recipe asks for {asked} and the code is {found}")
    if how.integers:
        notes.append(f"{count} products are int8, what stays float is {how.order.rest}")
        if how.unit == "cpu" and not DOTS & inspection.found.keys():
            notes.append("no dot-product or matrix instruction: int8 is multiplied without them, slower than fp32")
    return tuple(notes)


def _run(tool: str, argv: tuple[str, ...], request: CompileRequest, limits: Limits) -> None:
    run_tool(Command(tool, argv, request.scratch, limits))


def _flag(how: Plan, name: str) -> str:
    return next(flag.removeprefix(name) for flag in how.flags if flag.startswith(name))


def _lacking_features() -> str:
    """Why this machine cannot execute a host twin; '' if it can."""
    if os.uname().machine != "x86_64":
        return ""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return ""
    flags = set(re.findall(r"\w+", text.partition("flags")[2].partition("\n")[0]))
    lacking = sorted({"avx2", "fma", "f16c", "bmi2"} - flags)
    return f"this CPU lacks {', '.join(lacking)}" if flags and lacking else ""
