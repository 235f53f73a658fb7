"""External toolchains as data: which program, with which arguments, and how to understand it.

A declaration (``templates/toolchains/*.yaml``) holds argument lists of Jinja2 templates. Every argument is rendered on
its own and handed over as one argument: there is no shell. A missing variable is an error, never an empty text. Reads
declarations and renders them; starts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nwmctl.domain.artifact import Option, Precision
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.errors import ToolchainTemplateError
from nwmctl.formats import yamldoc
from nwmctl.formats.codec import from_plain
from nwmctl.toolchains.process import ERROR_PATTERN


@dataclass(frozen=True, slots=True)
class CommandTemplate:
    """A program (a name on PATH or an absolute path) and its arguments; an argument that renders to '' is left out."""

    program: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declaration:
    """One external toolchain.

    Variables of ``compile``: model, payload, precision, unit, driver and every name in ``options`` (whose values are
    the defaults). Of ``run``: payload; see ``rows`` for what that program reads and leaves.
    ``inspect`` maps a precision to a pattern; its matches in the program's output are counted.
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

    def __post_init__(self) -> None:
        for pattern in (self.version_pattern, self.error_pattern, *self.inspect.values()):
            try:
                re.compile(pattern)
            except re.error as problem:
                raise ValueError(f"the pattern '{pattern}' does not parse: {problem}") from problem
        if re.compile(self.version_pattern).groups != 1:
            raise ValueError("version_pattern must have exactly one group, the version")
        for precision in self.inspect:
            if precision not in tuple(Precision):
                raise ValueError(f"'{precision}' is no precision; known are {', '.join(Precision)}")
        if "/" in self.payload or self.payload in ("", ".", ".."):
            raise ValueError(f"payload is '{self.payload}', it must be a plain file name")


def load(path: Path) -> tuple[Declaration, Digest]:
    """A declaration and the digest of its file. Raises SchemaError, ToolchainTemplateError."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ToolchainTemplateError(
            f"{path.name} cannot be read", why=problem.strerror or "", next="correct the file's permissions"
        ) from problem
    plain, source = yamldoc.parse(data, path.name)
    declared = from_plain(Declaration, plain, source)
    if declared.name != path.stem:
        raise ToolchainTemplateError(
            f"{path.name} declares the toolchain '{declared.name}'",
            why="a declaration is found by its file's name, so the two must agree",
            next="rename the file or the toolchain",
        )
    return declared, digest_bytes(data)


def render(declared: Declaration, command: CommandTemplate, variables: Mapping[str, Option]) -> tuple[str, ...]:
    """The arguments of one call. Raises ToolchainTemplateError."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    try:
        rendered = [environment.from_string(argument).render(variables) for argument in command.arguments]
    except TemplateError as problem:
        raise ToolchainTemplateError(
            f"an argument in the declaration of '{declared.name}' cannot be rendered",
            why=problem.message or type(problem).__name__,
            next=f"use only the variables {', '.join(variables) or '(none)'}",
        ) from problem
    return tuple(argument for argument in rendered if argument)
