"""What every manifest says, put together in one place from what a driver knows.

A driver tells what it ran (``Made``); the request tells what was asked and which files were read; the lowering tells
the tensors and the operators before and after it; the inspection tells what is in the payload. The environment is told
as ``process`` fixes it, with words in the place of folders of this machine. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest, RuntimeNeeds
from nwmctl.domain.digest import Digest
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.inspection import Inspection
from nwmctl.toolchains.lowering import Lowered
from nwmctl.toolchains.process import stated_environment
from nwmctl.toolchains.protocol import CompileRequest


@dataclass(frozen=True, slots=True)
class Made:
    """What a driver ran and got.

    ``argv`` as it was run, without folders; ``tool`` is the tool with its version. ``environment`` is what the tool
    got beside the fixed environment; ``sources`` are digests of what was read besides the request's files (a
    declaration, an assembler, a tuning database). ``notes`` follow those of the inspection.
    """

    payload: Path
    format: str
    argv: tuple[str, ...]
    tool: str
    instruction_set: str
    needs: RuntimeNeeds
    jit_in_vehicle: bool = False
    notes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Digest] = field(default_factory=dict)


def described(request: CompileRequest, lowered: Lowered, inspection: Inspection, made: Made) -> ArtifactManifest:
    """The manifest of a payload. Reads the payload and the request's files once each, for their digests."""
    return ArtifactManifest(
        model=request.model_digest,
        recipe=request.recipe,
        payload=file_digest(made.payload),
        size=made.payload.stat().st_size,
        format=made.format,
        argv=made.argv,
        toolchain_version=made.tool,
        instruction_set=made.instruction_set,
        found=inspection.found,
        found_precision=inspection.precision,
        needs=made.needs,
        jit_in_vehicle=made.jit_in_vehicle,
        notes=(*inspection.notes, *made.notes),
        inputs=lowered.inputs,
        outputs=lowered.outputs,
        environment=stated_environment(made.environment),
        sources=dict(sorted({**_read(request), **made.sources}.items())),
        operators_before=lowered.before,
        operators_after=lowered.operators,
    )


def _read(request: CompileRequest) -> dict[str, Digest]:
    files = {"weights": request.model, "weights_data": request.data, "calibration": request.calibration}
    return {name: _digest_of(path) for name, path in files.items() if path is not None}


def _digest_of(path: Path) -> Digest:
    """An artifact and its twin name the same files: each is read once."""
    state = path.stat()
    return _once(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _once(path: Path, inode: int, size: int, changed_ns: int) -> Digest:
    return file_digest(path)
