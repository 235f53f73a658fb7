"""One artifact out of one recipe.

Thin on purpose: the compiling is the toolchain's, the choosing is the agent's. What is added here is that a driver's
answer is checked against what it was asked, so that a wrong driver, or a compiler that lies, is found where it is
wrong: the payload is a plain file of its own, it is not what went in, it holds something of what the recipe asks for,
and neither it nor its manifest tells where it was made. Each of these has a refusal of its own.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path

from nwmctl.compiler.promise import broken_promise
from nwmctl.compiler.traces import (
    Trace,
    folders_of_this_machine,
    names_of_this_machine,
    trace_in_bytes,
    trace_in_file,
)
from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.digest import Digest
from nwmctl.errors import (
    CompileFailedError,
    DriverAnswerError,
    NwmError,
    PathInArtifactError,
    PayloadNotPlainError,
    PayloadUnchangedError,
    PromiseBrokenError,
)
from nwmctl.formats import documents
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.lowering import LOWERED
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Toolchain

_OTHER = "try the next recipe, or another version of the compiler"
_MODEL_FORMAT = "onnx"


def compile_build(toolchain: Toolchain, request: CompileRequest) -> Compiled:
    """Compile, and check that payload and manifest belong together and to the request.

    Raises ToolchainError, MissingError and InputError subclasses, as ``Toolchain.compile`` does; for an answer that is
    wrong DriverAnswerError, PayloadNotPlainError, PayloadUnchangedError, PathInArtifactError, PromiseBrokenError.
    """
    try:
        compiled = toolchain.compile(request)
    except NwmError:
        raise
    except Exception as problem:  # drivers come from other packages too
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # told by the step
        raise CompileFailedError(
            f"the driver '{toolchain.name}' failed",
            why=f"{type(problem).__name__}: {problem}",
            next="report this as a defect of the driver",
        ) from problem
    for part in (compiled, compiled.twin):
        if part is not None:
            _check_file(toolchain.name, request, part.payload)
            _check_manifest(toolchain.name, request, part)
            _check_changed(toolchain.name, request, part)
            _check_traces(toolchain.name, request, part)
    broken = broken_promise(compiled.manifest, _weights_bytes(request))
    if broken:
        raise PromiseBrokenError(f"'{toolchain.name}' did not build what the recipe asks for", why=broken, next=_OTHER)
    return compiled


def _check_file(toolchain: str, request: CompileRequest, payload: Path) -> None:
    """A plain file inside the scratch folder, reached through no link."""
    scratch, wrong = request.scratch.resolve(), ""
    try:
        kind = payload.lstat().st_mode
    except OSError:
        raise _wrong(toolchain, "it names a payload that is not there") from None
    if stat.S_ISLNK(kind):
        wrong = "it is a symbolic link, and what it points to is not the compiler's"
    elif not stat.S_ISREG(kind):
        wrong = "it is no file"
    elif not payload.resolve().is_relative_to(scratch):
        wrong = "it lies outside of the scratch folder"
    if wrong:
        raise PayloadNotPlainError(f"'{toolchain}' left a payload that is not taken", why=wrong, next=_OTHER)


def _check_manifest(toolchain: str, request: CompileRequest, compiled: Compiled) -> None:
    manifest = compiled.manifest
    if manifest.model != request.model_digest or manifest.recipe != request.recipe:
        raise _wrong(toolchain, "its manifest is of another model or recipe")
    if manifest.size != compiled.payload.stat().st_size or manifest.payload != file_digest(compiled.payload):
        raise _wrong(toolchain, "its manifest does not describe the payload that it left")


def _check_changed(toolchain: str, request: CompileRequest, compiled: Compiled) -> None:
    """A payload in another format than the model's cannot be the model, its data or the lowered graph."""
    manifest = compiled.manifest
    if manifest.format == _MODEL_FORMAT and manifest.found_precision is manifest.recipe.precision:
        return  # a graph that needs nothing done to it stays as it is
    given = (request.model, request.data, request.calibration, request.scratch / LOWERED)
    for path in given:
        if path is not None and _same(path, compiled):
            raise PayloadUnchangedError(
                f"'{toolchain}' handed back what it was given",
                why=f"its payload is, byte for byte, {'the graph' if path.name == LOWERED else 'a file of the model'}",
                next=_OTHER,
            )


def _same(given: Path, compiled: Compiled) -> bool:
    if given == compiled.payload and compiled.manifest.format == _MODEL_FORMAT:
        return False
    return given.is_file() and given.stat().st_size == compiled.manifest.size and _digest_is(given, compiled.manifest)


def _digest_is(given: Path, manifest: ArtifactManifest) -> bool:
    digest: Digest = file_digest(given)
    return digest == manifest.payload


def _check_traces(toolchain: str, request: CompileRequest, compiled: Compiled) -> None:
    folders, names = folders_of_this_machine(request.scratch, request.model.parent), names_of_this_machine()
    found: dict[str, Trace | None] = {
        "payload": trace_in_file(compiled.payload, folders, names),
        "manifest": trace_in_bytes(documents.encode(compiled.manifest), folders, names),
    }
    for argument in compiled.manifest.argv:
        place = argument.rpartition("=")[2]
        if place.startswith("/"):  # whatever its root is
            found["command"] = Trace(argument, 0)
    for part, trace in found.items():
        if trace is not None:
            raise PathInArtifactError(
                f"the {part} that '{toolchain}' left tells where it was made",
                why=f"at byte {trace.offset} it holds '{trace.text}'",
                next="have the compiler be given relative names, or try the next recipe",
            )


def _weights_bytes(request: CompileRequest) -> int:
    return request.model.stat().st_size + (request.data.stat().st_size if request.data else 0)


def _wrong(toolchain: str, why: str) -> DriverAnswerError:
    return DriverAnswerError(
        f"the driver '{toolchain}' answered wrongly", why=why, next="report this as a defect of the driver"
    )
