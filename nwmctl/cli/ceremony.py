"""`nwmctl keys ceremony`: one root, signed by its holders on separate machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.common import JsonOption, emit, talk

if TYPE_CHECKING:
    from nwmctl.trust.roots import RootView

group = typer.Typer(
    help="Sign a root by its holders, each on a machine of their own, offline.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

_DraftArgument = Annotated[Path, typer.Argument(help="The draft, the same file for every holder.")]
_PreviousOption = Annotated[
    Path | None, typer.Option("--previous", help="The root before this one [the key folder's newest, if it has one].")
]


@group.command("draft")
def draft(
    keys: Annotated[Path, typer.Option("--keys", help="The key folder that names all keys.")],
    out: Annotated[Path, typer.Option("--out", help="Where the draft is written.")],
    director: Annotated[
        bool, typer.Option("--director", help="The director's root, in place of the image repository's.")
    ] = False,
    previous: _PreviousOption = None,
    json_: JsonOption = False,
) -> None:
    """Write the next root, unsigned, for its holders to sign."""
    from nwmctl.app.ceremony import draft
    from nwmctl.domain.keys import KeyRole

    holders = KeyRole.DIRECTOR_ROOT if director else KeyRole.ROOT
    _show(draft(keys, out, holders, previous), f"draft written to {out}; give the same file to every holder", json_)


@group.command("show")
def show(
    root: Annotated[Path, typer.Argument(help="A draft or a finished root.")],
    json_: JsonOption = False,
) -> None:
    """Show what a root says: read it before you sign it."""
    from nwmctl.app.ceremony import show

    _show(show(root), "", json_)


@group.command("sign")
def sign(
    draft: _DraftArgument,
    keys: Annotated[Path, typer.Option("--keys", help="Your own key folder, with your root key.")],
    out: Annotated[Path, typer.Option("--out", help="Where your signature is written.")],
    previous: Annotated[
        Path | None, typer.Option("--previous", help="The root before this one; needed where it replaces your key.")
    ] = None,
    passphrase_env: Annotated[
        str | None,
        typer.Option("--passphrase-env", help="Environment variable with your passphrase [asked on a terminal]."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Sign a draft with your root key; compare its digest with the other holders first."""
    from nwmctl.app.ceremony import sign

    view, count = sign(draft, keys, out, previous, passphrase_env)
    _show(view, f"signed with {count} key(s): {out}", json_)


@group.command("finish")
def finish(
    draft: _DraftArgument,
    signatures: Annotated[list[Path], typer.Argument(help="The holders' signatures.")],
    keys: Annotated[Path, typer.Option("--keys", help="The key folder that shall keep the finished root.")],
    previous: _PreviousOption = None,
    json_: JsonOption = False,
) -> None:
    """Put draft and signatures together; refuses fewer than the thresholds of the old and the new root."""
    from nwmctl.app.ceremony import finish
    from nwmctl.domain.keys import KeyRole

    done = finish(draft, signatures, keys, previous)
    director = done.view.holders is KeyRole.DIRECTOR_ROOT
    then = "nwmctl director root" if director else "nwmctl keys refresh RELEASE"
    _show(done.view, f"the root is finished and kept: {done.path}; next: `{then}`", json_)


def _show(view: RootView, said: str, json_: bool) -> None:
    from nwmctl.cli.keytables import day

    if json_:
        emit(
            {
                "version": view.version,
                "holders": str(view.holders),
                "digest": str(view.digest),
                "expires": day(view.expires_us),
                "roles": {role.name: {"threshold": role.threshold, "keys": list(role.keys)} for role in view.roles},
            }
        )
        return
    console = talk()
    console.print(f"root version {view.version} of the holders of '{view.holders}', until {day(view.expires_us)}")
    for role in view.roles:
        console.print(f"  {role.name}: {role.threshold} of {len(role.keys)} must sign")
        for key in role.keys:
            console.print(f"    {key}", soft_wrap=True)
    console.print(f"digest to compare: {view.digest}", soft_wrap=True)
    if said:
        console.print(said, soft_wrap=True)
