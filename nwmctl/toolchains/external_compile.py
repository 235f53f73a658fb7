"""How declared programs compile: what goes into their folder, what is run there, and what is made of what came out.

A compiler that exits 0 is not believed: a payload that is not there, is empty, or is what it was given is a failure,
and so are the words of an error. Where the programs run is no matter of this module (see ``external_work``).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from nwmctl.domain.artifact import Option, Precision, RuntimeNeeds
from nwmctl.domain.digest import Digest
from nwmctl.errors import CompileFailedError, PayloadUnchangedError, ToolchainTemplateError
from nwmctl.toolchains.declaration import CALIBRATION, Declaration, render
from nwmctl.toolchains.external_recipe import Asked
from nwmctl.toolchains.external_work import Workplace
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.inspection import Inspection, dominant
from nwmctl.toolchains.lowering import LOWERED, LOWERED_DATA, Lowered
from nwmctl.toolchains.manifests import Made
from nwmctl.toolchains.process import Command, Limits
from nwmctl.toolchains.protocol import CompileRequest

CALIBRATION_FILE = "calibration.npz"
_VERSION_S = 20.0


def hand_over(
    declared: Declaration, request: CompileRequest, lowered: Lowered, beside: Mapping[str, Path], work: Workplace
) -> dict[str, Digest]:
    """Put every file that the programs read into their folder; returns the digests by name."""
    files = {LOWERED: lowered.path, **beside}
    if lowered.data is not None:
        files[LOWERED_DATA] = lowered.data
    if declared.calibrates and request.calibration is not None:
        files[CALIBRATION_FILE] = request.calibration
    for name, path in files.items():
        work.put(name, path)
    return {name: file_digest(path) for name, path in files.items()}


def commands_of(declared: Declaration, request: CompileRequest, asked: Asked) -> list[tuple[str, ...]]:
    """The programs that compile, each with its arguments. Raises ToolchainTemplateError."""
    calibrated = declared.calibrates and request.calibration is not None
    variables: dict[str, Option] = {
        **asked.options,
        **declared.files,
        "model": LOWERED,
        "payload": declared.payload,
        "precision": request.recipe.precision.value,
        "rest": asked.order.rest.value,
        "unit": request.unit,
        "driver": request.driver,
        CALIBRATION: CALIBRATION_FILE if calibrated else "",
    }
    return [(command.program, *render(declared, command, variables)) for command in declared.commands]


def run_all(
    declared: Declaration, commands: list[tuple[str, ...]], scratch: Path, limits: Limits, work: Workplace
) -> str:
    """Run the programs one after the other; returns what they printed."""
    said = ""
    for argv in commands:
        finished = work.run(
            Command(
                declared.name, argv, scratch, limits, declared.environment,
                error_pattern=declared.error_pattern, scan_stdout=declared.scan_stdout,
            )
        )  # fmt: skip
        said += finished.stdout + finished.stderr
    return said


def refuse_no_work(declared: Declaration, payload: Path | None, given: Mapping[str, Digest]) -> None:
    """A compiler that exits 0 has not always compiled. Raises CompileFailedError, PayloadUnchangedError."""
    if payload is None:
        raise CompileFailedError(
            f"{declared.name} exited 0 and left no payload",
            why=f"there is no '{declared.payload}' in its working directory, or it is empty",
            next="correct 'payload:' or the arguments in the toolchain's declaration",
        )
    same = [name for name, digest in given.items() if digest == file_digest(payload)]
    if same:
        raise PayloadUnchangedError(
            f"{declared.name} exited 0 and compiled nothing",
            why=f"its payload is '{same[0]}' as it was given, byte for byte",
            next="look at the toolchain's own messages, and correct its declaration",
        )


def version_of(declared: Declaration, work: Workplace) -> str:
    """What the program says that it is. Raises ToolchainMissingError, CompileFailedError, ToolchainTimeoutError."""
    argv = (declared.version.program, *render(declared, declared.version, {}))
    with tempfile.TemporaryDirectory(prefix="nwmctl-version-") as scratch:
        command = Command(declared.name, argv, Path(scratch), Limits(_VERSION_S), declared.environment, "")
        said = work.run(command)
    found = re.search(declared.version_pattern, said.stdout + said.stderr)
    if not found:
        raise ToolchainTemplateError(
            f"the version of '{declared.name}' cannot be told",
            why=f"'{declared.version_pattern}' does not match what the program says",
            next="correct 'version_pattern:' in its declaration",
        )
    return found.group(1)


def inspect(declared: Declaration, asked: Precision, output: str) -> Inspection:
    if not declared.inspect:
        # Without counts nothing was found: the instruction-set check says not_run, whatever the label.
        return Inspection({}, asked, ("nothing was read out of the payload; the precision is only what was asked for",))
    counts = {name: len(re.findall(pattern, output)) for name, pattern in declared.inspect.items()}
    work = {Precision(name): float(count) for name, count in counts.items()}
    return Inspection(
        {f"reported.{name}": count for name, count in counts.items() if count},
        dominant(work, f"what {declared.name} built"),
        (f"counted in the words of {declared.name}, not in its payload",),
    )


def made_of(
    declared: Declaration, digest: Digest, version: str, commands: list[tuple[str, ...]], payload: Path, driver: str
) -> Made:
    """What was run and what came out, for the manifest."""
    argv: list[str] = []
    for program, *arguments in commands:
        argv += [*(("&&",) if argv else ()), Path(program).name, *arguments]
    return Made(
        payload,
        declared.format,
        tuple(argv),
        f"{declared.name} {version}, declaration {digest.short}",
        declared.instruction_set,
        RuntimeNeeds(declared.runtime, version, (), driver if declared.jit_in_vehicle else ""),
        declared.jit_in_vehicle,
        environment=declared.environment,
        sources={"declaration": digest},
    )
