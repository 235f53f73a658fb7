"""`nwmctl keys`: key folders and the signatures that people make."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nwmctl.cli.common import JsonOption, emit, talk

group = typer.Typer(help="Keys and signatures.", rich_markup_mode=None, no_args_is_help=True)

PassphraseOption = Annotated[
    str | None, typer.Option("--passphrase-env", help="Environment variable that holds the keys' passphrase.")
]


class Document(StrEnum):
    """What a person signs."""

    POLICY = "policy"
    MODEL_CARD = "model-card"


@group.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder, outside every workspace.")],
    development: Annotated[
        bool, typer.Option("--development", help="Mark the keys: good for virtual fleets only.")
    ] = False,
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Make a key folder with one key per role."""
    from nwmctl.app.keys import make_keys

    ring = make_keys(folder, development=development, passphrase_env=passphrase_env)
    keys = {str(entry.role): entry.public for entry in ring.document.keys}
    if json_:
        emit({"folder": str(folder), "development": ring.development, "keys": keys})
        return
    console = talk()
    console.print(f"made {len(keys)} keys in {folder} (private parts readable by you alone)")
    for role, public in keys.items():
        console.print(f"  {role:10} {public}")
    console.print("next: put the public keys of 'model' and 'safety' under 'trust:' in your release, and make a backup")


@group.command("sign")
def sign(
    document: Annotated[Document, typer.Argument(help="What kind of document it is.")],
    path: Annotated[Path, typer.Argument(help="The document; its signature is written beside it as NAME.sig.")],
    keys: Annotated[Path, typer.Option("--keys", help="The key folder with the role's key.")],
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Sign a policy (role safety) or a model card (role model)."""
    from nwmctl.app.keys import sign_document

    written, public = sign_document(document.value, path, keys, passphrase_env)
    if json_:
        emit({"signature": str(written), "key": public})
        return
    talk().print(f"signed {path.name} with {public}: {written}")


@group.command("approve")
def approve(
    bundle: Annotated[str, typer.Argument(help="The bundle's digest, as the waiting run names it (sha256:...).")],
    keys: Annotated[Path, typer.Option("--keys", help="Your key folder, with a safety key.")],
    out: Annotated[Path, typer.Option("--out", help="Where the approval is written.")],
    note: Annotated[str, typer.Option("--note", help="What you looked at, in your words.")] = "",
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Approve one bundle as a person of the safety role."""
    from nwmctl.app.keys import approve_bundle

    public = approve_bundle(bundle, note, keys, out, passphrase_env)
    if json_:
        emit({"approval": str(out), "bundle": bundle, "key": public})
        return
    talk().print(f"approved {bundle} with {public}: {out}", soft_wrap=True)
