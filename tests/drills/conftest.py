"""One honest house for all drills of a test run: its RSA keys take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nwmctl.app.clock import SystemClock
from nwmctl.app.drill.clients import Adapter
from nwmctl.app.drill.house import Car, make_car, make_house
from nwmctl.app.drill.matrix import run_cell
from nwmctl.app.drill.server import Stand, serving
from nwmctl.domain.drill import Cell
from nwmctl.trust.attacks.catalogue import ATTACKS
from nwmctl.trust.attacks.scene import Attack, House


@dataclass(frozen=True)
class Grounds:
    """Where drills are held."""

    house: House
    car: Car
    clock: SystemClock
    stand: Stand

    def hold(self, attack: Attack, adapter: Adapter, folder: Path) -> Cell:
        """One attack on a new client."""
        return run_cell(self.house, attack, attack.stage(self.house), adapter, folder / attack.name, self.stand)


def attack_named(name: str) -> Attack:
    """The attack of that name."""
    return next(attack for attack in ATTACKS if attack.name == name)


@pytest.fixture(scope="session")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    folder = tmp_path_factory.mktemp("drill")
    clock = SystemClock()
    car = make_car(folder / "car")
    with serving() as stand:
        yield Grounds(make_house(folder / "house", car, clock), car, clock, stand)
