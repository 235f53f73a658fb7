"""`nwmctl verify BUNDLE`: what can be established about a bundle from its bytes, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nwmctl.cli.common import JsonOption, KeysOption, emit, page


def verify(
    bundle: Annotated[Path, typer.Argument(help="A .swu file.")],
    authority: Annotated[
        Path | None, typer.Option("--authority", help="PEM of the release authority [the key folder's].")
    ] = None,
    keys: KeysOption = None,
    json_: JsonOption = False,
) -> None:
    """Check a bundle's signature, every hash in it, and what its parts say about one another."""
    from nwmctl.app.verify import verify_bundle

    found = verify_bundle(bundle, authority, keys)
    if json_:
        emit(found.plain())
        return
    from rich.markup import escape

    console = page()
    console.print(f"[green]✓[/] {escape(bundle.name)}")
    for line in found.established:
        console.print(f"  [green]✓[/] {escape(line)}", soft_wrap=True)
    for line in found.open:
        console.print(f"  [dim]–[/] {escape(line)}", soft_wrap=True)
