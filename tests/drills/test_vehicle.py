"""Our vehicle client meets every attack of the catalogue, and refuses each with the class that is due."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nwmctl.app.drill.clients import Answer, Did
from nwmctl.app.drill.replay import replay_report
from nwmctl.app.drill.server import Stand
from nwmctl.app.drill.vehicle import VehicleAdapter
from nwmctl.domain.drill import Client, Counterparty, Outcome
from nwmctl.trust.attacks.catalogue import ATTACKS, REPLAYED_REPORT
from nwmctl.trust.attacks.scene import Act, Attack, Duty, House
from nwmctl.trust.attacks.staging import CURRENT, FRESH, NEWER
from tests.drills.conftest import Grounds, attack_named

STAGED = [attack for attack in ATTACKS if attack is not REPLAYED_REPORT]
QUICK = {
    "tampered-payload", "swapped-payload", "mix-and-match", "fast-forward", "endless-bundle", "arbitrary-software",
    "zip-slip",
}  # fmt: skip
"""Those of which every run of the tests is a sample; `make test-long` holds the whole matrix."""


def cases() -> list[object]:
    marks = {False: (pytest.mark.long,), True: ()}
    return [pytest.param(attack, id=attack.name, marks=marks[attack.name in QUICK]) for attack in STAGED]


@pytest.mark.parametrize("attack", cases())
def test_each_attack_is_refused_with_its_own_class(grounds: Grounds, attack: Attack, tmp_path: Path) -> None:
    cell = grounds.hold(attack, VehicleAdapter(grounds.car, grounds.clock), tmp_path)
    assert (cell.outcome, cell.error) == (Outcome.REFUSED, attack.refusal.__name__), cell.words


def test_a_replayed_report_is_refused(grounds: Grounds) -> None:
    cell = replay_report(grounds.house)
    assert (cell.outcome, cell.error) == (Outcome.REFUSED, "ReportReplayedError")


def test_what_is_no_attack_counts_as_exposed(grounds: Grounds, tmp_path: Path) -> None:
    """The drill can fail: an honest release that is taken for an attack is one that was not refused."""

    def honest(house: House) -> tuple[Act, ...]:
        return (Act(house.world(house.newer, house.bundles[NEWER], FRESH), Duty.REFUSE, "an honest release"),)

    attack = replace(attack_named("freeze"), stage=honest)
    cell = grounds.hold(attack, VehicleAdapter(grounds.car, grounds.clock), tmp_path)
    assert cell.outcome is Outcome.EXPOSED


def test_a_client_that_refuses_everything_proves_nothing(grounds: Grounds, tmp_path: Path) -> None:
    house = replace(grounds.house, bundles={**grounds.house.bundles, CURRENT: grounds.house.bundles[NEWER]})
    cell = replace(grounds, house=house).hold(
        attack_named("rollback"), VehicleAdapter(grounds.car, grounds.clock), tmp_path
    )
    assert cell.outcome is Outcome.NOT_RUN
    assert "did not take an honest release" in cell.words


def test_every_listed_attack_of_the_catalogue_has_a_class_and_a_name_of_its_own() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)
    classes = [attack.refusal for attack in ATTACKS]
    assert len(set(classes)) == len(classes)
    assert all(Client.VEHICLE not in attack.apart for attack in ATTACKS)


@dataclass(frozen=True)
class Sleeper:
    """A client that takes the honest release and falls asleep, or what is sent without end keeps it awake."""

    asks: str = ""

    @property
    def party(self) -> Counterparty:
        return Counterparty(Client.TUF_JS, "a sleeper")

    def begin(self, house: House, folder: Path) -> Sleeper:
        return self

    def see(self, act: Act, stand: Stand) -> Answer:
        if act.duty is Duty.ACCEPT:
            return Answer(Did.ACCEPTED, "taken")
        if self.asks:
            with urllib.request.urlopen(f"{stand.url}{self.asks}") as answer:
                answer.read(1)
        return Answer(Did.HELD, "it sleeps")


@pytest.mark.parametrize(("asks", "outcome"), [("", Outcome.NOT_RUN), ("/bundle.swu", Outcome.EXPOSED)])
def test_only_an_attack_can_hold_a_client_up(grounds: Grounds, asks: str, outcome: Outcome, tmp_path: Path) -> None:
    """A client that does not finish on a busy machine is no victim."""
    cell = grounds.hold(attack_named("slow-transfer"), Sleeper(asks), tmp_path)
    assert cell.outcome is outcome, cell.words
