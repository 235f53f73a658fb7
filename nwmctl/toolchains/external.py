"""The driver of vendors' compilers that are described by data (see ``declaration``).

Nothing of any vendor's is in this code. The declaration's bytes and the program's own version are part of the
fingerprint and of the manifest. Runs on this machine only. What cannot be read out of a payload is not claimed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest, Option, Precision, Recipe, RuntimeNeeds
from nwmctl.domain.digest import Digest
from nwmctl.errors import (
    CompileFailedError,
    NwmError,
    PlaceUnavailableError,
    RecipeOptionError,
    ToolchainMissingError,
    ToolchainTemplateError,
    UnsupportedRecipeError,
)
from nwmctl.toolchains.declaration import CommandTemplate, Declaration, load, render
from nwmctl.toolchains.files import file_digest, versions
from nwmctl.toolchains.inspection import Inspection, dominant
from nwmctl.toolchains.lowering import LOWERED, Lowered, LoweringOrder, lower
from nwmctl.toolchains.process import Command, Limits, run_tool
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Effort, Place, Probe, Session
from nwmctl.toolchains.rows import RowSession

TEMPLATE = "template"
"""The recipe option that names the declaration."""
_CODE = 1
_VERSION_S = 20.0


class External:
    """``Toolchain`` for everything that is declared in ``folders``; a later folder's declaration wins."""

    name = "external"

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders

    def declarations(self) -> dict[str, tuple[Declaration, Digest]]:
        """All declarations by name, with the digests of their files. Raises ToolchainTemplateError."""
        found: dict[str, tuple[Declaration, Digest]] = {}
        for path in (path for folder in self._folders for path in sorted(folder.glob("*.yaml"))):
            found[path.stem] = load(path)
        return found

    def probe(self) -> Probe:
        """See ``Toolchain.probe``: how many declarations there are, and which programs are here."""
        try:
            known = self.declarations()
        except NwmError as problem:
            return Probe(self.name, False, "", f"{problem.what}: {problem.why}", problem.next)
        here = [name for name, (declared, _) in known.items() if shutil.which(declared.compile.program)]
        absent = [name for name in known if name not in here]
        detail = f"declared: {', '.join(known) or 'none'}; programs here: {', '.join(here) or 'none'}"
        install = "; ".join(f"{name}: {known[name][0].install}" for name in absent)
        return Probe(self.name, bool(here), "", detail, install)

    def fingerprint(self, recipe: Recipe) -> str:
        """See ``Toolchain.fingerprint``. Raises what ``compile`` raises for a program that is not here."""
        declared, digest = self._declared(recipe)
        own = versions("onnx", "onnxruntime")
        return f"external driver {_CODE}, {declared.name} {digest}, version {_version(declared)}, {own}"

    def variations(self, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> tuple[Recipe, ...]:
        """See ``Toolchain.variations``."""
        return ()

    def compile(self, request: CompileRequest) -> Compiled:
        """See ``Toolchain.compile``."""
        declared, digest = self._declared(request.recipe)
        options = _options(declared, request)
        program, version = _program(declared, declared.compile), _version(declared)
        variables: dict[str, Option] = {
            "model": LOWERED,
            "payload": declared.payload,
            "precision": request.recipe.precision.value,
            "unit": request.unit,
            "driver": request.driver,
        }
        arguments = render(declared, declared.compile, {**options, **variables})
        limits = Limits(request.timeout_s, request.memory_bytes)
        # The vendor's compiler converts by itself; a graph that is converted already would hide what it does.
        lowered = lower(request.files, request.scratch, LoweringOrder(Precision.FP32), limits)
        finished = run_tool(
            Command(
                declared.name, (program, *arguments), request.scratch, limits,
                error_pattern=declared.error_pattern, scan_stdout=declared.scan_stdout,
            )
        )  # fmt: skip
        payload = request.scratch / declared.payload
        if not payload.is_file() or not payload.stat().st_size:
            raise CompileFailedError(
                f"{declared.name} exited 0 and left no payload",
                why=f"there is no '{declared.payload}' in its working directory, or it is empty",
                next="correct 'payload:' or the arguments in the toolchain's declaration",
            )
        inspection = _inspect(declared, request.recipe.precision, finished.stdout + finished.stderr)
        argv = (Path(declared.compile.program).name, *arguments)
        return Compiled(payload, _manifest(declared, digest, version, request, lowered, inspection, argv, payload))

    def places(self, manifest: ArtifactManifest) -> Mapping[Place, str]:
        """See ``Toolchain.places``."""
        emulated = "no emulation is declared for external toolchains"
        try:
            declared, _ = self._declared(manifest.recipe)
            if declared.run is None:
                host = f"the declaration of '{declared.name}' has no 'run:'; its artifacts execute on a bench"
            else:
                host = "" if shutil.which(declared.run.program) else f"not here: {declared.install}"
        except NwmError as problem:
            host = f"{problem.what}: {problem.why}"
        return {Place.HOST: host, Place.EMULATED: emulated}

    def open(self, payload: Path, manifest: ArtifactManifest, place: Place, timeout_s: float = 60.0) -> Session:
        """See ``Toolchain.open``."""
        reason = self.places(manifest)[place]
        declared, _ = self._declared(manifest.recipe)
        if reason or declared.run is None:
            raise PlaceUnavailableError(
                f"the artifact cannot execute here ({place})", why=reason, next="run the check on a bench that can"
            )
        program = _program(declared, declared.run)
        arguments = render(declared, declared.run, {"payload": str(payload.resolve())})
        return RowSession(
            f"the runtime of {declared.name}", (program, *arguments), manifest, timeout_s, declared.error_pattern
        )

    def _declared(self, recipe: Recipe) -> tuple[Declaration, Digest]:
        known, name = self.declarations(), recipe.options.get(TEMPLATE)
        if not isinstance(name, str) or name not in known:
            raise RecipeOptionError(
                f"no external toolchain is called {name!r}" if name else f"the recipe lacks the option '{TEMPLATE}'",
                why=f"declared are {', '.join(known) or 'none'}",
                next="name a declaration, or write one next to the examples in templates/toolchains",
            )
        return known[name]


def _options(declared: Declaration, request: CompileRequest) -> dict[str, Option]:
    """Defaults with the recipe's own options on top. Raises UnsupportedRecipeError, RecipeOptionError."""
    recipe = request.recipe
    if request.unit not in declared.units or recipe.precision not in declared.precisions:
        raise UnsupportedRecipeError(
            f"the toolchain '{declared.name}' does not build {recipe.precision} for the unit '{request.unit}'",
            why=f"it is declared for {', '.join(declared.precisions)} on {', '.join(declared.units)}",
            next="choose another recipe for this build",
        )
    given = {name: value for name, value in recipe.options.items() if name != TEMPLATE}
    for name, value in given.items():
        if name not in declared.options or type(value) is not type(declared.options[name]):
            listed = ", ".join(f"{key} ({type(default).__name__})" for key, default in declared.options.items())
            raise RecipeOptionError(
                f"the recipe's option '{name}' is not possible with {declared.name}",
                why=f"it is {value!r}; declared are {listed or 'none'}",
                next="correct the recipe or the declaration",
            )
    return {**declared.options, **given}


def _program(declared: Declaration, command: CommandTemplate) -> str:
    path = shutil.which(command.program)
    if path is None:
        raise ToolchainMissingError(
            f"the toolchain '{declared.name}' is not installed here",
            why=f"there is no program '{command.program}'",
            next=declared.install,
        )
    return str(Path(path).absolute())


def _version(declared: Declaration) -> str:
    """What the program says that it is. Raises ToolchainMissingError, CompileFailedError, ToolchainTimeoutError."""
    argv = (_program(declared, declared.version), *render(declared, declared.version, {}))
    with tempfile.TemporaryDirectory(prefix="nwmctl-version-") as scratch:
        said = run_tool(Command(declared.name, argv, Path(scratch), Limits(_VERSION_S), error_pattern=""))
    found = re.search(declared.version_pattern, said.stdout + said.stderr)
    if not found:
        raise ToolchainTemplateError(
            f"the version of '{declared.name}' cannot be told",
            why=f"'{declared.version_pattern}' does not match what the program says",
            next="correct 'version_pattern:' in its declaration",
        )
    return found.group(1)


def _inspect(declared: Declaration, asked: Precision, output: str) -> Inspection:
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


def _manifest(
    declared: Declaration,
    digest: Digest,
    version: str,
    request: CompileRequest,
    lowered: Lowered,
    inspection: Inspection,
    argv: tuple[str, ...],
    payload: Path,
) -> ArtifactManifest:
    return ArtifactManifest(
        model=request.model_digest,
        recipe=request.recipe,
        payload=file_digest(payload),
        size=payload.stat().st_size,
        format=declared.format,
        argv=argv,
        toolchain_version=f"{declared.name} {version}, declaration {digest.short}",
        instruction_set=declared.instruction_set,
        found=inspection.found,
        found_precision=inspection.precision,
        needs=RuntimeNeeds(declared.runtime, version, (), request.driver if declared.jit_in_vehicle else ""),
        jit_in_vehicle=declared.jit_in_vehicle,
        notes=inspection.notes,
        inputs=lowered.inputs,
        outputs=lowered.outputs,
    )
