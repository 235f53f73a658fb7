"""Puts a GPU's machine code into an IREE payload in the place of PTX, and proves that it lies there.

The compiler's own switch for this changes nothing (it exits 0 with the same bytes), so its road for foreign kernels is
used: translate once, write the kernels as PTX, have the pinned assembler turn each into machine code, and let the
compiler finish the same translation with these files in the place of its kernels. What came out is read back: every
image must be the assembler's work byte for byte, every kernel that the host program launches must be in its image, the
launches must be those of the PTX build, and no PTX text may be left. Nothing executes: that the code runs, only the
chip can tell.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nwmctl.errors import MachineCodeMissingError
from nwmctl.toolchains import ptxas
from nwmctl.toolchains.cubin import read_cubin
from nwmctl.toolchains.cuda_images import Executable, read_executables
from nwmctl.toolchains.inspect_sass import inspect_sass
from nwmctl.toolchains.inspection import Inspection
from nwmctl.toolchains.process import Command, Limits, run_tool

_SUFFIX = "_cuda_nvptx_fb.ptx"
"""What the compiler appends to an executable's name where it leaves its code; it looks for the bare name."""
_ALIGNMENT = 8
_PREFIX_BYTES = 4
"""In the payload the code follows a length of four bytes, which is aligned for the eight bytes that ELF asks for."""
_PTX = re.compile(rb"\.target\s+sm_\d|\.version\s+\d+\.\d")


@dataclass(frozen=True, slots=True)
class CudaBuild:
    """One payload to build. ``source`` is the graph's file name in the scratch folder, which is ``payload.parent``;
    ``flags`` are the compiler's; ``chip`` as ``sm_87``; ``limits`` hold for each process."""

    compiler: Path
    source: str
    payload: Path
    flags: tuple[str, ...]
    chip: str
    limits: Limits

    @property
    def scratch(self) -> Path:
        """Where all tools run."""
        return self.payload.parent

    def name(self, what: str) -> str:
        """A file or folder of this build in the scratch folder."""
        return f"{self.payload.stem}-{what}"


@dataclass(frozen=True, slots=True)
class MachineCode:
    """What was put into the payload: ``cubins`` in the payload's order, the assembler's version and its words about the
    kernels, and the commands as they were run, joined by ``&&``."""

    cubins: tuple[bytes, ...]
    kernels: tuple[ptxas.Kernel, ...]
    assembler: str
    argv: tuple[str, ...]


def build_machine_code(build: CudaBuild) -> MachineCode:
    """Build the payload and prove what it carries. Raises ToolchainMissingError, AssemblyFailedError,
    CompileFailedError, InspectionFailedError, MachineCodeMissingError."""
    assembler = ptxas.stated_version(build.scratch, build.limits)
    translated, plain, objects = build.name("translated.mlirbc"), build.name("ptx"), build.name("machine-code")
    commands = [
        (build.source, "-o", translated, *build.flags, "--emit-mlir-bytecode", "--compile-to=executable-targets"),
        (
            translated, "-o", f"{plain}.vmfb", *build.flags, "--compile-from=executable-targets",
            "--iree-hal-link-executables=false", f"--iree-hal-dump-executable-binaries-to={plain}",
        ),
    ]  # fmt: skip
    for command in commands:
        _compile(build, command)
    sources = sorted((build.scratch / plain).glob(f"*{_SUFFIX}"))
    if not sources:
        raise _missing("the compiler left no PTX to assemble", "try the recipe without 'machine_code'")
    assembled = ptxas.assemble_all(sources, build.chip, build.scratch, build.limits)
    (build.scratch / objects).mkdir()
    for source, part in zip(sources, assembled, strict=True):
        name = source.name.removesuffix(_SUFFIX)
        (build.scratch / objects / f"{name}.cubin").write_bytes(padded(part.cubin))
    last = (
        translated, "-o", build.payload.name, *build.flags, "--compile-from=executable-targets",
        f"--iree-hal-substitute-executable-objects-from={objects}",
    )  # fmt: skip
    _compile(build, last)
    before = read_executables((build.scratch / f"{plain}.vmfb").read_bytes())
    texts = {source.read_bytes(): part.cubin for source, part in zip(sources, assembled, strict=True)}
    cubins = proven(build.payload.read_bytes(), before, texts)
    kernels = tuple(kernel for part in assembled for kernel in part.kernels)
    return MachineCode(cubins, kernels, assembler, _argv((*commands, last), build.chip))


def inspect_machine_code(code: MachineCode) -> tuple[Inspection, str]:
    """What the machine code does, and the chip that it is for. Raises InspectionFailedError."""
    inspection, chip = inspect_sass(code.cubins)
    said = (
        f"machine code of ptxas {code.assembler} for {chip} and no other chip: {ptxas.summary(code.kernels)}",
        f"a driver of {ptxas.LOADS_FROM} or later loads it as it is",
    )
    found = {**inspection.found, ptxas.TOOL: len(code.kernels)}
    return dataclasses.replace(inspection, found=found, notes=(*inspection.notes, *said)), chip


def proven(payload: bytes, before: Sequence[Executable], made: dict[bytes, bytes]) -> tuple[bytes, ...]:
    """The machine code in a payload, in its order. ``before`` is the same program with PTX in it, ``made`` the machine
    code of each PTX text. Raises MachineCodeMissingError where anything is not as it must be."""
    after = read_executables(payload)
    if _PTX.search(payload):
        raise _missing("there is PTX text left in it", "report this compiler version; build without 'machine_code'")
    if [each.launches for each in after] != [each.launches for each in before]:
        raise _missing("its kernels are launched in another way than those of the PTX build")
    cubins: list[bytes] = []
    for plain, executable in zip(before, after, strict=True):
        wanted = [made.get(image) for image in plain.images]
        if [padded(cubin) for cubin in wanted if cubin] != list(executable.images):
            raise _missing("an image in it is not what the assembler made of its PTX")
        if any(start % _ALIGNMENT for start in executable.starts):
            raise _missing(f"an image in it does not begin at a multiple of {_ALIGNMENT} bytes")
        within = [read_cubin(image).kernels for image in executable.images]
        lost = [each.name for each in executable.launches if each.name not in within[each.image]]
        if lost:
            raise _missing(f"the kernel '{lost[0]}' is launched and not in its image")
        cubins += [cubin for cubin in wanted if cubin]
    return tuple(cubins)


def padded(cubin: bytes) -> bytes:
    """A cubin with zeros after its end, so that the format, which builds from the end and puts a length before it, lets
    it begin at a multiple of eight bytes. ELF names all its parts by offset: what follows is never read."""
    return cubin + b"\0" * ((_PREFIX_BYTES - len(cubin)) % _ALIGNMENT)


def _compile(build: CudaBuild, arguments: tuple[str, ...]) -> None:
    run_tool(Command("iree-compile", (str(build.compiler), *arguments), build.scratch, build.limits))


def _argv(commands: Sequence[tuple[str, ...]], chip: str) -> tuple[str, ...]:
    """All commands in one, the assembler's (one per kernel) once."""
    compiles = [("iree-compile", *command) for command in commands]
    assembly = (ptxas.TOOL, f"-arch={chip}", *ptxas.FLAGS, "kernel.ptx", "-o", "kernel.cubin")
    ordered = [*compiles[:-1], assembly, compiles[-1]]
    return tuple(word for index, command in enumerate(ordered) for word in (*(["&&"] if index else []), *command))


def _missing(why: str, next: str = "build without 'machine_code', and report this compiler version") -> Exception:
    return MachineCodeMissingError("the payload does not carry the machine code that was asked for", why=why, next=next)
