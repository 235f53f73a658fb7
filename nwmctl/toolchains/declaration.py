"""External toolchains as data: which programs, with which arguments, where, and how to understand them.

A declaration (``templates/toolchains/*.yaml``) holds argument lists of Jinja2 templates. Every argument is rendered on
its own and handed over as one argument: no shell splits it. A missing variable is an error, never an empty text. It
names hosts and never says where they are (see ``external_hosts``), so it can be shared and its digest follows no
address. Reads declarations and renders them; starts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nwmctl.domain.artifact import Option, Precision, Quantisation
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.errors import ToolchainTemplateError
from nwmctl.formats import yamldoc
from nwmctl.formats.codec import from_plain
from nwmctl.toolchains.process import ERROR_PATTERN

CALIBRATION = "calibration"
"""The variable with the calibration data's file, '' where the model package brings none."""
VARIABLES = ("model", "payload", "precision", "rest", "unit", "driver", CALIBRATION)
"""What every compile template may use."""
FIGURES = ("n", "p50_ms", "p99_ms", "p999_ms", "most_ms", "misses")
"""The groups of a pattern for a program that computes a latency's figures itself."""
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class CommandTemplate:
    """A program (a name on PATH or an absolute path) and its arguments; an argument that renders to '' is left out.

    ``inputs`` and ``outputs`` are rendered once per tensor and follow the arguments, with the variables ``file``,
    ``name`` and ``index``: for runtimes that want their files named.
    """

    program: str
    arguments: tuple[str, ...]
    inputs: str = ""
    outputs: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """Hardware that executes payloads over SSH. ``host`` is its name in the file of hosts ('': the declaration's).

    ``chip`` is a platform profile's name of it. The bench counts as that chip only if what ``identify`` prints there
    matches ``pattern``, each time anew. ``quick``: executing one row takes it well under a second.
    """

    chip: str
    identify: CommandTemplate
    pattern: str
    host: str = ""
    quick: bool = False


@dataclass(frozen=True, slots=True)
class MeasureTemplate:
    """How a bench's own program measures. Variables: payload, runs, warm_up.

    ``samples`` matches one execution's milliseconds each (one group); or ``figures`` has the named groups n, p50_ms,
    p99_ms, p999_ms, most_ms and misses. Both are looked for in what it prints and in ``report``, a file that it leaves.
    ``co_load`` is a program that loads the chip's memory until it is killed; without it only ``none`` is measured.
    """

    command: CommandTemplate
    samples: str = ""
    figures: str = ""
    report: str = ""
    co_load: CommandTemplate | None = None

    def __post_init__(self) -> None:
        if bool(self.samples) == bool(self.figures):
            raise ValueError("a measurement needs either 'samples' or 'figures'")
        if self.samples and _compiled(self.samples).groups != 1:
            raise ValueError("'samples' must have exactly one group, the milliseconds of one execution")
        lacking = set(FIGURES) - set(_compiled(self.figures).groupindex) if self.figures else set()
        if lacking:
            raise ValueError(f"'figures' lacks the named groups {', '.join(sorted(lacking))}")
        _refuse_path("report", self.report)


@dataclass(frozen=True, slots=True)
class Declaration:
    """One external toolchain.

    Variables of ``prepare`` and ``compile``: ``VARIABLES``, every name in ``options`` (whose values are the defaults;
    ``values`` lists others that are worth trying) and in ``files`` (files beside the declaration that go along, such as
    a timing cache). Of ``run``: payload; see ``rows`` for what that program reads and leaves. ``host`` names the
    machine that compiles ('': this one). ``quantisations``: the forms of a graph quantised by nwmctl that it takes;
    without any, int8 is left to the program. ``inspect`` maps a precision to a pattern; its matches in the program's
    output and in ``report`` (a file that it leaves) are counted.
    """

    name: str
    description: str
    units: tuple[str, ...]
    precisions: tuple[Precision, ...]
    compile: CommandTemplate
    version: CommandTemplate
    version_pattern: str
    payload: str
    format: str
    instruction_set: str
    runtime: str
    install: str
    run: CommandTemplate | None = None
    options: dict[str, Option] = field(default_factory=dict)
    inspect: dict[str, str] = field(default_factory=dict)
    error_pattern: str = ERROR_PATTERN
    scan_stdout: bool = False
    jit_in_vehicle: bool = False
    host: str = ""
    prepare: tuple[CommandTemplate, ...] = ()
    report: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    values: dict[str, tuple[Option, ...]] = field(default_factory=dict)
    quantisations: tuple[Quantisation, ...] = ()
    run_seconds: str = ""
    """A pattern with one group: the milliseconds that one execution took in the runtime itself, as ``run`` prints."""
    bench: Bench | None = None
    measure: MeasureTemplate | None = None

    def __post_init__(self) -> None:
        bench = self.bench.pattern if self.bench else ""
        for pattern in (self.version_pattern, self.error_pattern, bench, *self.inspect.values()):
            _compiled(pattern)
        for name, pattern in (("version_pattern", self.version_pattern), ("run_seconds", self.run_seconds)):
            if pattern and _compiled(pattern).groups != 1:
                raise ValueError(f"{name} must have exactly one group")
        if not self.version_pattern:
            raise ValueError("version_pattern must have exactly one group, the version")
        for precision in self.inspect:
            if precision not in tuple(Precision):
                raise ValueError(f"'{precision}' is no precision; known are {', '.join(Precision)}")
        for name in (self.payload, *self.files.values()):
            if not _FILE.match(name):
                raise ValueError(f"'{name}' must be a plain file name")
        _refuse_path("report", self.report)
        self._refuse_variables()
        if self.bench and not (self.bench.host or self.host):
            raise ValueError("a bench needs a host")
        if self.measure and not self.bench:
            raise ValueError("'measure' needs a bench")

    def _refuse_variables(self) -> None:
        for name in (*self.options, *self.files):
            if name in VARIABLES or not _NAME.match(name) or (name in self.options and name in self.files):
                raise ValueError(f"'{name}' cannot be the name of an option or a file here")
        for name, values in self.values.items():
            default = self.options.get(name)
            if default is None or any(type(value) is not type(default) for value in values):
                raise ValueError(f"'values' of '{name}' must be values of an option and of its type")

    @property
    def commands(self) -> tuple[CommandTemplate, ...]:
        """What is run to compile, in order."""
        return (*self.prepare, self.compile)

    @property
    def calibrates(self) -> bool:
        """Whether its program reads the model package's calibration data."""
        used = re.compile(rf"\{{[{{%][^}}]*\b{CALIBRATION}\b")
        return any(used.search(argument) for command in self.commands for argument in command.arguments)

    @property
    def bench_host(self) -> str:
        """The name of the host that executes payloads; '' where none does."""
        return (self.bench.host or self.host) if self.bench else ""


def load(path: Path) -> tuple[Declaration, Digest]:
    """A declaration and the digest of its file with those that go along. Raises SchemaError, ToolchainTemplateError."""
    data = _read(path)
    plain, source = yamldoc.parse(data, path.name)
    declared = from_plain(Declaration, plain, source)
    if declared.name != path.stem:
        raise ToolchainTemplateError(
            f"{path.name} declares the toolchain '{declared.name}'",
            why="a declaration is found by its file's name, so the two must agree",
            next="rename the file or the toolchain",
        )
    if not declared.files:
        return declared, digest_bytes(data)
    parts = [str(digest_bytes(_read(path.parent / name))) for _, name in sorted(declared.files.items())]
    return declared, digest_bytes("\n".join([str(digest_bytes(data)), *parts]).encode())


def render(declared: Declaration, command: CommandTemplate, variables: Mapping[str, Option]) -> tuple[str, ...]:
    """The arguments of one call. Raises ToolchainTemplateError."""
    return tuple(argument for argument in _rendered(declared, command.arguments, variables) if argument)


def render_tensors(
    declared: Declaration, template: str, files: Mapping[str, str], variables: Mapping[str, Option]
) -> tuple[str, ...]:
    """One argument per tensor; ``files`` by tensor name. None for an empty template. Raises ToolchainTemplateError."""
    if not template:
        return ()
    return tuple(
        argument
        for index, (name, file) in enumerate(files.items())
        for argument in _rendered(declared, (template,), {**variables, "name": name, "file": file, "index": index})
    )


def _rendered(declared: Declaration, arguments: tuple[str, ...], variables: Mapping[str, Option]) -> Iterator[str]:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    try:
        for argument in arguments:
            yield environment.from_string(argument).render(variables)
    except TemplateError as problem:
        raise ToolchainTemplateError(
            f"an argument in the declaration of '{declared.name}' cannot be rendered",
            why=problem.message or type(problem).__name__,
            next=f"use only the variables {', '.join(variables) or '(none)'}",
        ) from problem


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as problem:
        raise ValueError(f"the pattern '{pattern}' does not parse: {problem}") from problem


def _refuse_path(what: str, name: str) -> None:
    parts = PurePosixPath(name).parts
    if name and not all(_FILE.match(part) for part in parts):
        raise ValueError(f"{what} is '{name}', it must be a plain path inside the working folder")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise ToolchainTemplateError(
            f"{path.name} cannot be read", why=problem.strerror or "", next="correct the file's name or its permissions"
        ) from problem
