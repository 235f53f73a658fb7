"""One artifact out of one recipe.

Thin on purpose: the compiling is the toolchain's, the choosing is the agent's. What is added here is that a driver's
answer is checked against what it was asked, so that a wrong driver is found where it is wrong.
"""

from __future__ import annotations

from nwmctl.errors import CompileFailedError, NwmError
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Toolchain


def compile_build(toolchain: Toolchain, request: CompileRequest) -> Compiled:
    """Compile, and check that payload and manifest belong together and to the request.

    Raises ToolchainError, MissingError and InputError subclasses, as ``Toolchain.compile`` does.
    """
    try:
        compiled = toolchain.compile(request)
    except NwmError:
        raise
    except Exception as problem:  # drivers come from other packages too
        raise CompileFailedError(
            f"the driver '{toolchain.name}' failed",
            why=f"{type(problem).__name__}: {problem}",
            next="report this as a defect of the driver",
        ) from problem
    for part in (compiled, compiled.twin):
        if part is not None:
            _check(toolchain.name, request, part)
    return compiled


def _check(toolchain: str, request: CompileRequest, compiled: Compiled) -> None:
    manifest, wrong = compiled.manifest, ""
    if manifest.model != request.model_digest or manifest.recipe != request.recipe:
        wrong = "its manifest is of another model or recipe"
    elif not compiled.payload.is_file():
        wrong = "it names a payload that is not there"
    elif manifest.size != compiled.payload.stat().st_size or manifest.payload != file_digest(compiled.payload):
        wrong = "its manifest does not describe the payload that it left"
    elif any(part.startswith("/") or "=/" in part for part in manifest.argv):
        wrong = "its manifest holds a path of this machine"
    if wrong:
        raise CompileFailedError(
            f"the driver '{toolchain}' answered wrongly", why=wrong, next="report this as a defect of the driver"
        )
