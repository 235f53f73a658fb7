"""What all commands share: options, output, errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from nwmctl.agent.building import SearchOrder
    from nwmctl.app.settings import Settings
    from nwmctl.errors import NwmError


class Effort(StrEnum):
    """The domain's efforts, once more: `--help` imports nothing of the domain."""

    QUICK = "quick"
    FULL = "full"


WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="Folder for everything nwmctl keeps [env NWMCTL_WORKSPACE; .nwmctl]."),
]
KeysOption = Annotated[
    Path | None, typer.Option("--keys", help="Key folder [env NWMCTL_KEYS; development keys for a virtual fleet].")
]
AesKeyOption = Annotated[
    str | None,
    typer.Option("--aes-key", metavar="URI", help="Key that encrypts payloads, file:PATH [env NWMCTL_AES_KEY]."),
]
PlatformsOption = Annotated[
    Path | None, typer.Option("--platforms", help="Folder of platform profiles [the embedded ones].")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
FaultsOption = Annotated[
    str, typer.Option("--faults", hidden=True, help="What goes wrong for virtual vehicles (docs/virtual-vehicle.md).")
]
SearchOption = Annotated[
    Effort | None,
    typer.Option("--search", help="Search for better recipes than the profiles' [no search].", show_default=False),
]
ReleaseArgument = Annotated[Path, typer.Argument(help="The release file (release.yaml).", show_default=False)]


def settings_of(
    workspace: Path | None, keys: Path | None = None, platforms: Path | None = None, aes_key: str | None = None
) -> Settings:
    """Settings from a command's options."""
    from nwmctl.app.settings import load_settings

    return load_settings(workspace, keys, platforms, aes_key=aes_key)


def search_order(effort: Effort | None) -> SearchOrder | None:
    """What --search asks for."""
    from nwmctl.agent.building import SearchOrder

    return SearchOrder(effort.value) if effort else None


def talk() -> Console:
    """The console for people: stderr, so that stdout stays data."""
    return _console(stderr=True)


def page() -> Console:
    """The console for results that a person reads: stdout."""
    return _console(stderr=False)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    # A file or a pipe has no width; 120 columns keep every table of ours whole.
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=120)


_held: list[Mapping[str, Any]] | None = None
"""Results that wait for the end of the command; None: they are printed at once."""


def hold_output() -> None:
    """Keep JSON results back until ``emit_error`` or ``release_output``, so that a command that shows a result and
    then refuses (a campaign that was paused, say) still prints one document."""
    global _held
    _held = []


def release_output() -> None:
    """Print what was held back."""
    global _held
    waiting, _held = _held or [], None
    for value in waiting:
        emit(value)


def emit(value: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    if _held is not None:
        _held.append(value)
        return
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def emit_error(problem: NwmError, as_json: bool) -> None:
    """A refusal: what, why, what next. In JSON with the result that was held back, if there is one."""
    global _held
    kind = type(problem).__name__
    if as_json:
        error = {"error": kind, "what": problem.what, "why": problem.why, "next": problem.next}
        result = {"result": _held[-1]} if _held else {}
        _held = None
        emit({**error, "exit_code": int(problem.exit_code), **result})
    from rich.markup import escape

    console = talk()
    console.print(f"[bold red]error[/] {escape(problem.what)}", soft_wrap=True)
    console.print(f"  [dim]why[/]   {escape(problem.why)}", soft_wrap=True)
    console.print(f"  [dim]next[/]  {escape(problem.next)}", soft_wrap=True)
