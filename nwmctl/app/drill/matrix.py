"""Runs every attack on every client and says what came of it.

Each client first gets an honest release through the same line, anew for every attack: one that refuses everything
proves nothing. A client that is not here is ``not_run`` and never counts as having refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import assert_never

from nwmctl.app.drill.clients import Adapter, Answer, Did
from nwmctl.app.drill.server import Stand, serving
from nwmctl.domain.drill import Cell, Client, Outcome
from nwmctl.trust.attacks.scene import Act, Attack, Duty, House
from nwmctl.trust.attacks.staging import CURRENT, SEEN

Watch = Callable[[Cell], None]
"""Told each cell when it is known."""


def run_matrix(
    house: House, attacks: Sequence[Attack], adapters: Sequence[Adapter], folder: Path, watch: Watch
) -> tuple[Cell, ...]:
    """One cell per attack and adapter, attack by attack. Clients go side by side, each at a stand of its own."""
    scenes = {attack.name: attack.stage(house) for attack in attacks}

    def one_client(adapter: Adapter) -> list[Cell]:
        cells = []
        with serving() as stand:
            for attack in attacks:
                place = folder / f"{adapter.party.client}-{attack.name}"
                cells.append(run_cell(house, attack, scenes[attack.name], adapter, place, stand))
                watch(cells[-1])
        return cells

    with ThreadPoolExecutor(max(1, len(adapters))) as pool:
        columns = list(pool.map(one_client, adapters))
    return tuple(cell for row in zip(*columns, strict=True) for cell in row)


def run_cell(house: House, attack: Attack, acts: Sequence[Act], adapter: Adapter, folder: Path, stand: Stand) -> Cell:
    """One attack, staged as ``acts``, on a new client."""
    client = adapter.party.client
    if client in attack.apart:
        return attack.not_for(client)
    if adapter.party.missing:
        return Cell(attack.name, client, Outcome.NOT_RUN, adapter.party.missing)
    folder.mkdir(parents=True)
    session = adapter.begin(house, folder)
    honest = Act(house.world(house.current, house.bundles[CURRENT], SEEN), Duty.ACCEPT, "")
    stand.show(honest.world)
    answer = session.see(honest, stand)
    if answer.did is not Did.ACCEPTED:
        return _not_run(attack, client, answer, "it did not take an honest release before the attack")
    seen = []
    for act in acts:
        stand.show(act.world)
        seen.append(session.see(act, stand))
        if seen[-1].did is Did.HELD and not stand.hostile.is_set():
            return _not_run(attack, client, seen[-1], "it did not finish, and nothing held it up but this machine")
    return _judge(attack, client, acts, seen)


def _not_run(attack: Attack, client: Client, answer: Answer, why: str) -> Cell:
    return Cell(attack.name, client, Outcome.NOT_RUN, f"{why}: {answer.words}", answer.error)


def _judge(attack: Attack, client: Client, acts: Sequence[Act], seen: Sequence[Answer]) -> Cell:
    """The first duty that was not done decides; if all were, the last refusal speaks."""
    said = seen[0]
    skipped = False
    for act, answer in zip(acts, seen, strict=True):
        match act.duty:
            case Duty.ANY:
                continue
            case Duty.ACCEPT:
                if answer.did is not Did.ACCEPTED:
                    return Cell(attack.name, client, Outcome.EXPOSED, f"{act.why}: {answer.words}", answer.error)
            case Duty.REFUSE:
                if answer.did in (Did.ACCEPTED, Did.HELD):
                    return Cell(attack.name, client, Outcome.EXPOSED, answer.words)
                skipped = skipped or answer.did is Did.SKIPPED
                said = answer
            case _:
                assert_never(act.duty)
    return Cell(attack.name, client, Outcome.UNHARMED if skipped else Outcome.REFUSED, said.words, said.error)
