"""The driver of vendors' compilers that are described by data (see ``declaration``), here or on a host over SSH.

Nothing of any vendor's is in this code. The declaration's bytes and the program's own version are part of the
fingerprint and of the manifest; the address of a host is part of neither. What cannot be read out of a payload is not
claimed. Executes payloads by declared programs: here (``rows``), or on hardware that has said which chip it is
(``external_bench``).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.measurement import Latency
from nwmctl.errors import HostChangedError, NwmError, PlaceUnavailableError, RecipeOptionError
from nwmctl.remote.workroom import Login, Workroom
from nwmctl.toolchains import external_recipe
from nwmctl.toolchains.declaration import Declaration, load
from nwmctl.toolchains.external_bench import BenchSession, confirm, run_argv
from nwmctl.toolchains.external_compile import (
    commands_of,
    hand_over,
    inspect,
    made_of,
    refuse_no_work,
    run_all,
    version_of,
)
from nwmctl.toolchains.external_hosts import Hosts
from nwmctl.toolchains.external_measure import measure
from nwmctl.toolchains.external_recipe import TEMPLATE
from nwmctl.toolchains.external_work import Workplace, workplace
from nwmctl.toolchains.files import versions
from nwmctl.toolchains.lowering import lower
from nwmctl.toolchains.manifests import described
from nwmctl.toolchains.protocol import BenchOrder, Compiled, CompileRequest, Effort, Place, Probe, Reach, Session
from nwmctl.toolchains.rows import RowSession

_CODE = 2
_REPORT_BYTES = 64 << 20


class External:
    """``Toolchain`` for everything that is declared in ``folders``; a later folder's declaration wins. ``hosts`` says
    where the machines are that declarations name."""

    name = "external"

    def __init__(self, folders: tuple[Path, ...], hosts: Hosts | None = None) -> None:
        self._folders = folders
        self._hosts = hosts or Hosts()
        self._told: dict[Digest, str] = {}
        """Versions that hosts have told, by declaration: a search asks for many keys, and each question takes a
        connection."""

    def declarations(self) -> dict[str, tuple[Declaration, Digest]]:
        """All declarations by name, with the digests of their files. Raises ToolchainTemplateError."""
        found: dict[str, tuple[Declaration, Digest]] = {}
        for path in (path for folder in self._folders for path in sorted(folder.glob("*.yaml"))):
            found[path.stem] = load(path)
        return found

    def probe(self) -> Probe:
        """See ``Toolchain.probe``: how many declarations there are, and which can be used. Asks no host."""
        try:
            known, hosts = self.declarations(), self._hosts.names()
        except NwmError as problem:
            return Probe(self.name, False, "", f"{problem.what}: {problem.why}", problem.next)
        usable = {name: declared for name, (declared, _) in known.items() if _usable(declared, hosts)}
        absent = [name for name in known if name not in usable]
        here = [name if not declared.host else f"{name} (on {declared.host})" for name, declared in usable.items()]
        detail = f"declared: {', '.join(known) or 'none'}; usable: {', '.join(here) or 'none'}"
        install = "; ".join(f"{name}: {known[name][0].install}" for name in absent)
        able = [each for declared in usable.values() for each in external_recipe.capabilities(declared)]
        return Probe(self.name, bool(usable), "", detail, install, tuple(dict.fromkeys(able)))

    def fingerprint(self, recipe: Recipe) -> str:
        """See ``Toolchain.fingerprint``. Asks the program for its version; raises what ``compile`` raises for a program
        or a host that is not there."""
        declared, digest = self._declared(recipe)
        own = versions("onnx", "onnxruntime", "onnx-ir")
        version = self._told.get(digest, "")
        if not version:
            with tempfile.TemporaryDirectory(prefix="nwmctl-version-") as scratch:
                with self._work(declared, Path(scratch)) as work:
                    version = version_of(declared, work)
            if declared.host:
                self._told[digest] = version
        return f"external driver {_CODE}, {declared.name} {digest}, version {version}, {own}"

    def variations(self, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> tuple[Recipe, ...]:
        """See ``Toolchain.variations``: of every declaration that can be used. Raises ToolchainTemplateError."""
        hosts = self._hosts.names()
        return tuple(
            recipe
            for declared, _ in self.declarations().values()
            if _usable(declared, hosts)
            for recipe in external_recipe.variations(declared, unit, instruction_sets, effort)
        )

    def compile(self, request: CompileRequest) -> Compiled:
        """See ``Toolchain.compile``. Also raises RemoteError subclasses, which say nothing about the model."""
        declared, digest = self._declared(request.recipe)
        asked = external_recipe.read(declared, request)
        commands = commands_of(declared, request, asked)
        limits = request.limits
        with self._work(declared, request.scratch) as work:
            version = version_of(declared, work)
            self._refuse_another_version(declared, digest, version)
            lowered = lower(request.files, request.scratch, asked.order, limits)
            given = hand_over(declared, request, lowered, self._files(declared), work)
            said = run_all(declared, commands, request.scratch, limits, work)
            payload = work.fetch(declared.payload)
            report = work.fetch(declared.report) if declared.report else None
        refuse_no_work(declared, payload, given)
        assert payload is not None
        if report is not None:
            said += report.read_bytes()[:_REPORT_BYTES].decode("utf-8", "replace")
        inspection = inspect(declared, request.recipe.precision, said)
        made = made_of(declared, digest, version, commands, payload, request.driver)
        return Compiled(payload, described(request, lowered, inspection, made))

    def places(self, manifest: ArtifactManifest) -> Mapping[Place, str]:
        """See ``Toolchain.places``."""
        try:
            declared, _ = self._declared(manifest.recipe)
            if declared.run is None:
                host = f"the declaration of '{declared.name}' has no 'run:'; its artifacts execute on a bench"
            elif declared.bench_host:
                host = f"its artifacts execute on the host '{declared.bench_host}'"
            else:
                host = "" if shutil.which(declared.run.program) else f"not here: {declared.install}"
        except NwmError as problem:
            host = f"{problem.what}: {problem.why}"
        return {Place.HOST: host, Place.EMULATED: "no emulation is declared for external toolchains"}

    def open(self, payload: Path, manifest: ArtifactManifest, place: Place, timeout_s: float = 60.0) -> Session:
        """See ``Toolchain.open``."""
        reason = self.places(manifest)[place]
        declared, _ = self._declared(manifest.recipe)
        if reason or declared.run is None:
            raise PlaceUnavailableError(
                f"the artifact cannot execute here ({place})", why=reason, next="run the check on a bench that can"
            )
        program = shutil.which(declared.run.program) or declared.run.program
        argv = (str(Path(program).absolute()), *run_argv(declared, declared.run, manifest, str(payload.resolve()))[1:])
        return RowSession(
            f"the runtime of {declared.name}", argv, manifest, timeout_s, declared.error_pattern,
            declared.environment, declared.run_seconds,
        )  # fmt: skip

    def bench(self, manifest: ArtifactManifest, chip: str) -> Reach:
        """See ``WithBench.bench``."""
        try:
            declared, login = self._bench_of(manifest, chip)
            assert declared.bench is not None
            with Workroom.open(login) as room:
                confirm(declared, declared.bench, room)
        except PlaceUnavailableError as problem:
            return Reach(f"{problem.what}: {problem.why}", problem.next)
        return Reach("", "", declared.bench.quick)

    def open_bench(self, payload: Path, manifest: ArtifactManifest, chip: str, timeout_s: float = 60.0) -> BenchSession:
        """See ``WithBench.open_bench``."""
        declared, login = self._bench_of(manifest, chip)
        return BenchSession(declared, login, payload, manifest, timeout_s)

    def measure_on_bench(
        self,
        payload: Path,
        manifest: ArtifactManifest,
        chip: str,
        inputs: Mapping[str, NDArray[np.generic]],
        order: BenchOrder,
    ) -> Latency:
        """See ``WithBench.measure_on_bench``."""
        declared, login = self._bench_of(manifest, chip)
        with BenchSession(declared, login, payload, manifest, order.timeout_s) as session:
            return measure(declared, session, manifest, inputs, order)

    def benches(self) -> str:
        """The benches that can be asked, by name, for the key of what is found on them."""
        hosts = self._hosts.names()
        known = [declared for declared, _ in self.declarations().values() if declared.bench_host in hosts]
        return ", ".join(f"{each.bench_host} with {each.bench.chip} for {each.name}" for each in known if each.bench)

    def _bench_of(self, manifest: ArtifactManifest, chip: str) -> tuple[Declaration, Login]:
        declared, _ = self._declared(manifest.recipe)
        why = ""
        if declared.bench is None or declared.run is None:
            why = f"the declaration of '{declared.name}' has no 'bench:' with a 'run:'"
        elif declared.bench.chip != chip:
            why = f"the bench of '{declared.name}' carries {declared.bench.chip}"
        elif declared.bench_host not in self._hosts.names():
            why = f"no file of hosts says where '{declared.bench_host}' is"
        if why:
            raise PlaceUnavailableError(
                f"no {chip} is within reach of this machine",
                why=why,
                next=f"connect a bench that carries {chip}, as docs/toolchains.md says, or have a judge check it there",
            )
        return declared, self._hosts.login(declared.bench_host)

    def _work(self, declared: Declaration, scratch: Path) -> AbstractContextManager[Workplace]:
        login = self._hosts.login(declared.host) if declared.host else None
        return workplace(scratch, declared.host, login, declared.install)

    def _refuse_another_version(self, declared: Declaration, digest: Digest, version: str) -> None:
        """The key of what is built names the version that was told for it. Raises HostChangedError."""
        known = self._told.pop(digest, version)
        if known != version:
            raise HostChangedError(
                f"'{declared.name}' on the host '{declared.host}' became another version meanwhile",
                why=f"it was {known} and is {version}",
                next="run the command again; what was built before stays",
            )

    def _files(self, declared: Declaration) -> dict[str, Path]:
        """The files beside a declaration that go along, by name."""
        beside = next(f for f in reversed(self._folders) if (f / f"{declared.name}.yaml").is_file())
        return {name: beside / name for name in declared.files.values()}

    def _declared(self, recipe: Recipe) -> tuple[Declaration, Digest]:
        known, name = self.declarations(), recipe.options.get(TEMPLATE)
        if not isinstance(name, str) or name not in known:
            raise RecipeOptionError(
                f"no external toolchain is called {name!r}" if name else f"the recipe lacks the option '{TEMPLATE}'",
                why=f"declared are {', '.join(known) or 'none'}",
                next="name a declaration, or write one next to the examples in templates/toolchains",
            )
        return known[name]


def _usable(declared: Declaration, hosts: tuple[str, ...]) -> bool:
    """Whether its programs are here, or its host is known. A host is not asked."""
    if declared.host:
        return declared.host in hosts
    return all(shutil.which(command.program) for command in declared.commands)
