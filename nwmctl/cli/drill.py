"""`nwmctl drill`: attacks on our vehicle client, on tuf-js and on swupdate, and a signed report of the outcomes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.common import JsonOption, KeysOption, emit, page, talk

if TYPE_CHECKING:
    from nwmctl.app.drill.run import Drilled
    from nwmctl.domain.drill import Cell


class ClientName(StrEnum):
    """The domain's clients, once more: `--help` imports nothing of the domain."""

    VEHICLE = "vehicle"
    TUF_JS = "tuf-js"
    SWUPDATE = "swupdate"


def drill(
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("drill"),
    attack: Annotated[list[str] | None, typer.Option("--attack", help="Only this attack; repeatable [all].")] = None,
    client: Annotated[
        list[ClientName] | None, typer.Option("--client", help="Only this client; repeatable [all].")
    ] = None,
    tuf_js: Annotated[
        Path | None,
        typer.Option("--tuf-js", envvar="NWMCTL_TUF_JS", help="npm folder that has tuf-js [not run without it]."),
    ] = None,
    keys: KeysOption = None,
    passphrase_env: Annotated[
        str | None, typer.Option("--passphrase-env", help="Environment variable that holds the keys' passphrase.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Attack the vehicle client and its neighbours on the loopback; sign what came of it."""
    from nwmctl.app.drill.run import DrillOrder, hold_drill
    from nwmctl.domain.drill import Client

    clients = [Client(one.value) for one in client or ()]
    order = DrillOrder(out, tuple(attack or ()), clients, tuf_js, keys, passphrase_env)
    held = hold_drill(order, _follow)
    if json_:
        emit(_plain(held))
    else:
        _show(held)
    _refuse_failures(held)


def _follow(cell: Cell) -> None:
    talk().print(f"  {cell.client:9} {cell.attack:24} {cell.outcome.replace('_', ' ')}", markup=False)


def _plain(held: Drilled) -> dict[str, object]:
    return {
        "report": str(held.written[0]),
        "key": held.key,
        "development": held.report.development,
        "clients": {str(party.client): party.version or party.missing for party in held.report.counterparties},
        "cells": [
            {
                "attack": cell.attack,
                "client": str(cell.client),
                "outcome": str(cell.outcome),
                "error": cell.error,
                "words": cell.words,
            }
            for cell in held.report.cells
        ],
    }


def _show(held: Drilled) -> None:
    from rich.table import Table

    from nwmctl.domain.drill import Outcome

    styles = {Outcome.REFUSED: "green", Outcome.UNHARMED: "green", Outcome.EXPOSED: "bold red"}
    cells = {(cell.attack, cell.client): cell for cell in held.report.cells}
    clients = [party.client for party in held.report.counterparties]
    table = Table("attack", *clients, "our refusal")
    for threat in held.report.threats:
        found = [cells[threat.name, one].outcome for one in clients]
        marks = [f"[{styles.get(outcome, 'dim')}]{outcome.replace('_', ' ')}[/]" for outcome in found]
        table.add_row(threat.title, *marks, threat.refusal)
    console = page()
    console.print(table)
    for party in held.report.counterparties:
        console.print(f"{party.client}: {party.version or 'not run: ' + party.missing}", markup=False)
    console.print(f"report: {held.written[0]}, signed by {held.key}", markup=False, soft_wrap=True)
    if held.report.development:
        console.print("the key was made for trying out: the signature protects nothing")


def _refuse_failures(held: Drilled) -> None:
    from nwmctl.errors import DrillFailedError

    failures = held.report.failures
    if not failures:
        return
    due = {threat.name: threat.refusal for threat in held.report.threats}
    said = [
        f"{cell.attack}: {cell.outcome} {cell.error or cell.words} instead of {due[cell.attack]}" for cell in failures
    ]
    raise DrillFailedError(
        f"the vehicle client did not refuse {len(failures)} of {len(due)} attacks as it must",
        why="; ".join(said),
        next=f"read {held.written[-1]}; do not ship a vehicle client that fails its drill",
    )
