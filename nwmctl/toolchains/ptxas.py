"""NVIDIA's assembler, from a pinned wheel: PTX text in, a chip's machine code out, the same bytes in any folder.

Two uses: to finish in this house what a driver would otherwise finish in the vehicle, and to check that PTX is what
the chip's own assembler accepts. What it says about each kernel (registers, memory, spills) is kept. A refusal is
handed on in its own words. Executes nothing on a GPU, and needs none.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.domain.digest import Digest
from nwmctl.errors import AssemblyFailedError, ToolchainMissingError
from nwmctl.toolchains.cubin import read_cubin
from nwmctl.toolchains.files import ABSENT, file_digest, packaged_program, version_of
from nwmctl.toolchains.inspection import Inspection
from nwmctl.toolchains.process import Command, Limits, run_tool

PACKAGE = "nvidia-cuda-nvcc-cu12"
INSTALL = "pip install 'nwmctl[ptxas]'"
TOOL = "ptxas"
FLAGS = ("-O3", "-v")
LOADS_FROM = "CUDA 12"
"""What a driver must support to load what this assembler writes."""
_WORKERS = 4
_RELEASE = re.compile(r"\bV(\d+(?:\.\d+)+)\b")
_KERNEL = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"\b(\d+) bytes smem\b")


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the assembler says about one kernel: registers per thread; bytes of stack and of spilled registers per
    thread; bytes of shared memory per block that the kernel itself reserves."""

    name: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


@dataclass(frozen=True, slots=True)
class Assembled:
    """The machine code of one PTX file, and its kernels."""

    cubin: bytes
    kernels: tuple[Kernel, ...]


def missing() -> str:
    """Why the assembler cannot be used here; '' if it can. Starts nothing."""
    return "" if packaged_program("nvidia.cuda_nvcc", "bin/ptxas") else f"{TOOL} is not installed: {INSTALL}"


def version() -> str:
    """The version of the installed package, or ``absent``; for fingerprints and ``doctor``. Starts nothing."""
    return ABSENT if missing() else version_of(PACKAGE)


def program() -> Path:
    """The assembler's file. Raises ToolchainMissingError."""
    found = packaged_program("nvidia.cuda_nvcc", "bin/ptxas")
    if found is None:
        raise ToolchainMissingError(
            "the assembler ptxas is not installed",
            why=f"no package {PACKAGE} in this environment",
            next=INSTALL,
        )
    return found


def program_digest() -> Digest:
    """The digest of the program itself: it decides the machine code's bytes."""
    return file_digest(program())


def stated_version(scratch: Path, limits: Limits) -> str:
    """The version as the program itself states it, as ``12.9.86``; the package's label may say anything. Raises
    ToolchainError if it states none, or another one than its package."""
    said = run_tool(Command(TOOL, (str(program()), "--version"), scratch, limits, failure=AssemblyFailedError))
    found = _RELEASE.search(said.stdout)
    stated = found.group(1) if found else "silent"
    if stated != version_of(PACKAGE):
        raise AssemblyFailedError(
            "the assembler is not the one that its package names",
            why=f"the package {PACKAGE} is {version_of(PACKAGE)}, the program is {stated}",
            next=f"install it again: {INSTALL}",
        )
    return stated


def assemble(source: Path, chip: str, scratch: Path, limits: Limits) -> Assembled:
    """Assemble one PTX file for a chip (``sm_87``). ``scratch`` takes the files in between. Raises AssemblyFailedError
    with the assembler's words, InspectionFailedError if what it wrote is not what it said."""
    folder = scratch / f"{source.stem}.assembly"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # The same names for every kernel, so that no name of a file can reach the bytes.
    shutil.copyfile(source, folder / "kernel.ptx")
    argv = (str(program()), f"-arch={chip}", *FLAGS, "kernel.ptx", "-o", "kernel.cubin")
    said = run_tool(Command(TOOL, argv, folder, limits, failure=AssemblyFailedError, crash=AssemblyFailedError))
    try:
        cubin = (folder / "kernel.cubin").read_bytes()
    except FileNotFoundError as problem:
        raise _unlike(source, "it exited 0 and left no machine code") from problem
    kernels = told(said.stderr + said.stdout)
    found = read_cubin(cubin)
    if found.chip != chip or {kernel.name for kernel in kernels} != set(found.kernels):
        raise _unlike(source, f"it speaks of {len(kernels)} kernels, its file holds {len(found.kernels)} {found.chip}")
    return Assembled(cubin, kernels)


def assemble_all(sources: Sequence[Path], chip: str, scratch: Path, limits: Limits) -> tuple[Assembled, ...]:
    """Assemble several files, a few at a time; results in the order of ``sources``."""
    # Meters and surroundings hold for a thread; each kernel takes a copy of them along.
    work = [(copy_context(), source) for source in sources]
    with ThreadPoolExecutor(_WORKERS) as pool:
        return tuple(pool.map(lambda each: each[0].run(assemble, each[1], chip, scratch, limits), work))


def checked(inspection: Inspection, sources: Sequence[Path], chip: str, scratch: Path, limits: Limits) -> Inspection:
    """An inspection of PTX with the assembler's word on it: how many kernels it took, and their figures. Where there is
    no assembler the inspection says so. Raises as ``assemble``: PTX that it refuses, no driver takes either."""
    if missing():
        return replace(inspection, notes=(*inspection.notes, f"no assembler has seen it: {missing()}"))
    kernels = [kernel for each in assemble_all(sources, chip, scratch, limits) for kernel in each.kernels]
    note = f"{TOOL} {version()} takes it for {chip}: {summary(kernels)}"
    return replace(inspection, found={**inspection.found, TOOL: len(kernels)}, notes=(*inspection.notes, note))


def told(text: str) -> tuple[Kernel, ...]:
    """The kernels in the assembler's report, by name."""
    kernels: list[Kernel] = []
    for part in text.split("Compiling entry function ")[1:]:
        name = _KERNEL.match(f"Compiling entry function {part}")
        frame, used, shared = _FRAME.search(part), _USED.search(part), _SHARED.search(part)
        if not name or not frame or not used:
            raise AssemblyFailedError(
                "the assembler's report cannot be read",
                why=part.strip().partition("\n")[0][:120],
                next=f"install the version that this release was tested with: {INSTALL}",
            )
        stack, stores, loads = (int(number) for number in frame.groups())
        reserved = int(shared.group(1)) if shared else 0
        kernels.append(Kernel(name.group(1), int(used.group(1)), stack, stores, loads, reserved))
    return tuple(sorted(kernels, key=lambda kernel: kernel.name))


def summary(kernels: Sequence[Kernel]) -> str:
    """One line for people: how many kernels, the most registers and shared memory, and what was spilled."""
    spilled = [kernel for kernel in kernels if kernel.spill_stores or kernel.spill_loads]
    most = max((kernel.registers for kernel in kernels), default=0)
    shared = max((kernel.shared for kernel in kernels), default=0)
    spills = f"{len(spilled)} spill registers ({spilled[0].name} first)" if spilled else "none spills registers"
    return f"{len(kernels)} kernels, at most {most} registers and {shared} bytes of own shared memory, {spills}"


def _unlike(source: Path, why: str) -> AssemblyFailedError:
    return AssemblyFailedError(
        f"the assembler's output for '{source.name}' is not what was asked for",
        why=why,
        next=f"install the version that this release was tested with: {INSTALL}",
    )
