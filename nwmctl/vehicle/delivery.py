"""A vehicle as it leaves the factory.

The folder gets who the vehicle is, what it trusts, and on every computer slot a with the software of its sequence: the
vehicle's own files of a signed bundle, verified like any other, or nothing where no bundle of that time exists (then
the slots cannot be proven and no way leads back to them). The factory also puts in the runtimes that its bundle
requires. The car's record is written last: before that there is no vehicle.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nwmctl.domain.clock import Clock
from nwmctl.errors import DeliveryError
from nwmctl.trust.cms import verify_cms
from nwmctl.vehicle import disk, record
from nwmctl.vehicle.car import Car, is_delivered
from nwmctl.vehicle.opening import open_bundle
from nwmctl.vehicle.record import PinnedTrust, VehicleRecord
from nwmctl.vehicle.timefloor import TimeFloor

__all__ = ["deliver", "is_delivered"]


def deliver(
    folder: Path,
    who: VehicleRecord,
    trust: PinnedTrust,
    previous: Path | None,
    clock: Clock,
    key: bytes | None = None,
) -> bool:
    """Make the vehicle ``who`` in ``folder``; False if it was delivered before, in which case nothing changes.

    ``previous`` is the signed bundle that the factory installed; ``key`` opens its encrypted payloads. Raises
    DeliveryError if that has another sequence than the vehicle or if another vehicle lives in the folder, and what
    ``open_bundle`` and ``verify_cms`` raise.
    """
    if is_delivered(folder):
        known = record.load_record(folder)
        if known.vin != who.vin:
            raise DeliveryError(
                f"'{folder.name}' belongs to another vehicle",
                why=f"it holds {known.vin}, not {who.vin}",
                next="choose another folder",
            )
        return False
    with disk.translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
    record.keep(folder, who, trust)
    # The factory's clock is right: no later one of this vehicle shows less.
    TimeFloor(folder).held_at(clock, clock.now_us())
    if previous is None:
        Car.create(folder, who.computers, who.sequence, {})
        return True
    opened = open_bundle(
        previous, who, 0, lambda data, signature: verify_cms(data, signature, trust.ca_pem, clock.now_us()), key=key
    )
    if opened.manifest.sequence != who.sequence:
        raise DeliveryError(
            f"vehicle {who.vin} shall leave the factory with sequence {who.sequence}",
            why=f"the bundle for it has sequence {opened.manifest.sequence}",
            next="correct the inventory's sequence, or give the bundle of that sequence",
        )
    fitted = {
        each.name: each.versions.least for each in opened.manifest.requires.runtimes if who.variant in each.variants
    }
    if fitted and not who.runtimes:
        record.keep(folder, replace(who, runtimes=fitted), trust)
    Car.create(folder, who.computers, who.sequence, opened.files)
    return True
