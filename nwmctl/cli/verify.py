"""`nwmctl verify`: what can be established about a bundle or a release from bytes, offline. `nwmctl evidence`: all of
a release's papers as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nwmctl.cli.common import AesKeyOption, JsonOption, KeysOption, WorkspaceOption, emit, page

AuthorityOption = Annotated[
    Path | None, typer.Option("--authority", help="PEM of the release authority [the key folder's].")
]


def verify(
    subject: Annotated[
        Path, typer.Argument(help="A bundle (.swu), a dossier (.dossier.json), a folder of both, or a release file.")
    ],
    dossier: Annotated[
        Path | None, typer.Option("--dossier", help="The release's dossier [the one beside the bundle].")
    ] = None,
    release: Annotated[
        Path | None, typer.Option("--release", help="A release file whose safety and model keys you trust.")
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option("--model", help="Folder of a trained model, to compare its weights (may be repeated)."),
    ] = None,
    safety_key: Annotated[
        list[str] | None, typer.Option("--safety-key", help="A key that may sign policies (may be repeated).")
    ] = None,
    model_key: Annotated[
        list[str] | None, typer.Option("--model-key", help="A key that may sign models (may be repeated).")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Exit code 7 if any link of the chain stays open.")
    ] = False,
    aes_key: AesKeyOption = None,
    authority: AuthorityOption = None,
    keys: KeysOption = None,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Walk from the bytes in the car back to the trained weights; say what holds and what could not be seen."""
    from nwmctl.app.verify import VerifyOrder
    from nwmctl.app.verify import verify as walk

    order = VerifyOrder(
        subject, authority, keys, dossier, release, tuple(model or ()), workspace, tuple(safety_key or ()),
        tuple(model_key or ()), complete, aes_key or "",
    )  # fmt: skip
    found = walk(order)
    if json_:
        emit(found.plain())
        return
    from rich.markup import escape

    from nwmctl.domain.certificate import LinkState

    console = page()
    console.print(f"[green]✓[/] {escape(subject.name)}: nothing contradicts anything else", soft_wrap=True)
    for link in found.links:
        mark = "[green]✓[/]" if link.state is LinkState.ESTABLISHED else "[yellow]–[/]"
        console.print(f"  {mark} [dim]{link.topic:12}[/] {escape(link.text)}", soft_wrap=True)
    left = len(found.texts(LinkState.OPEN))
    console.print(f"{len(found.links) - left} established, {left} open", style="dim")


def evidence(
    subject: Annotated[Path, typer.Argument(help="A dossier, a folder with one, or a staged release's file.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder: one file per paper.")],
    authority: AuthorityOption = None,
    keys: KeysOption = None,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a release's certificate, statements, bill of materials and papers as files (status: draft)."""
    from nwmctl.app.papers import export_papers
    from nwmctl.app.verify import VerifyOrder

    written = export_papers(VerifyOrder(subject, authority, keys, workspace=workspace), out)
    if json_:
        emit({"folder": str(out), "status": "draft", "files": written})
        return
    page().print(f"{len(written)} files in {out}; status: draft, no conformity is claimed", soft_wrap=True)
