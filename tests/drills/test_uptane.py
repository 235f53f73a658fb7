"""A vehicle with a pinned director believes no order without it: neither for a bundle nor for its own slot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.app.drill.vehicle import VehicleAdapter
from nwmctl.domain.drill import Outcome
from nwmctl.errors import MetadataFormatError, NotDirectedError
from nwmctl.trust.attacks.scene import Act, Attack, Duty, House
from nwmctl.trust.attacks.staging import CURRENT, FRESH, NEWER
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.machine import Machine, Senses
from nwmctl.vehicle.metadata import Repository
from nwmctl.vehicle.order import SlotOrder
from nwmctl.vehicle.record import PinnedTrust, load_trust
from tests.drills.conftest import Grounds, attack_named


def staged(refusal: type[Exception], change: dict[str, object], *, drop: tuple[str, ...] = ()) -> Attack:
    def stage(house: House) -> tuple[Act, ...]:
        world = house.world(house.newer, house.bundles[NEWER], FRESH, **change)  # type: ignore[arg-type]
        left = {name: data for name, data in world.director.items() if name not in drop}
        return (Act(replace(world, director=left), Duty.REFUSE, ""),)

    return replace(attack_named("old-order"), stage=stage, refusal=refusal)  # type: ignore[arg-type]


def test_leaving_the_director_out_is_no_way_around_it(grounds: Grounds, tmp_path: Path) -> None:
    attack = staged(MetadataFormatError, {}, drop=("targets.json",))
    cell = grounds.hold(attack, VehicleAdapter(grounds.car, grounds.clock), tmp_path)
    assert (cell.outcome, cell.error) == (Outcome.REFUSED, "MetadataFormatError"), cell.words


def test_a_director_that_orders_another_bundle(grounds: Grounds, tmp_path: Path) -> None:
    house = grounds.house
    other = house.director(house.bundles[CURRENT], FRESH, house.hardware)
    cell = grounds.hold(
        staged(NotDirectedError, {"director": other}), VehicleAdapter(grounds.car, grounds.clock), tmp_path
    )
    assert (cell.outcome, cell.error) == (Outcome.REFUSED, "NotDirectedError"), cell.words


def test_a_way_back_needs_the_director_too(grounds: Grounds, tmp_path: Path) -> None:
    house = grounds.house
    VehicleAdapter(grounds.car, grounds.clock).begin(house, tmp_path)
    grounds.stand.show(house.world(house.newer, house.bundles[NEWER], FRESH))
    url = grounds.stand.url
    repository = Repository(f"{url}/image", url, grounds.clock, f"{url}/director")
    machine = Machine(tmp_path / grounds.car.record.vin, Senses(grounds.clock), Trouble())
    with pytest.raises(NotDirectedError, match="does not tell this vehicle to go back"):
        repository.allow(machine, SlotOrder(7, 3))
    machine.trust = PinnedTrust(machine.trust.root_metadata, machine.trust.ca_pem)
    repository.allow(machine, SlotOrder(7, 3))


def test_the_pinned_director_is_kept(grounds: Grounds, tmp_path: Path) -> None:
    VehicleAdapter(grounds.car, grounds.clock).begin(grounds.house, tmp_path)
    assert load_trust(tmp_path / grounds.car.record.vin).director_root is not None
