"""How each attack is staged: from the honest house to the acts of a scene.

Everything here is served on the loopback by a drill; nothing in it works against a repository whose keys one does not
have. Pure but for the key files of the house.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.keys import KeyRole
from nwmctl.trust.attacks import archives
from nwmctl.trust.attacks.files import forged, older_lists, prolonged, signed_again
from nwmctl.trust.attacks.scene import Act, Drip, Duty, Endless, House, MadeBundle, World
from nwmctl.trust.client import MAX_LEAP
from nwmctl.trust.metadata import MAX_TIMESTAMP, TIMESTAMP_PATH, moment

DAY_US = 86_400_000_000
_ENDLESS = 48 << 20
_DRIP = 64
OLDER, CURRENT, NEWER = 3, 4, 5
"""Release sequences: every client has accepted the current one before an attack."""
STALE, SEEN, FRESH, LAST = 5, 10, 20, 30
"""Versions of the director's metadata; every client of it has seen the second."""
ESCAPE = "../../drill-escaped"


def tampered_payload(house: House) -> tuple[Act, ...]:
    bundle = house.bundles[NEWER]
    bad = archives.with_flipped_payload(bundle.data)
    return (_refuse(house.world(house.newer, bundle, FRESH, served=bad), "changed weights are installed"),)


def payload_swapped_by_insiders(house: House) -> tuple[Act, ...]:
    return _relisted(house, archives.with_flipped_payload(house.bundles[NEWER].data), "changed weights are installed")


def tampered_description(house: House) -> tuple[Act, ...]:
    data = house.bundles[NEWER].data
    description = archives.description_of(data)
    name = house.bundles[NEWER].listed.about.release.encode()
    bad = archives.with_description(data, forged(description, name, b"x" + name[1:]))
    return _relisted(house, bad, "the installer does what an unsigned description says")


def tampered_metadata(house: House) -> tuple[Act, ...]:
    bundle = house.bundles[NEWER]
    name, length = bundle.listed.name.encode(), str(bundle.listed.length)
    lists = {path: data for path, data in house.newer.files.items() if name in data}
    image = {path: forged(data, length.encode(), str(int(length) + 1).encode()) for path, data in lists.items()}
    world = house.world(house.newer, bundle, FRESH, image=image)
    return (_refuse(world, "whoever sits on a mirror decides what is a release"),)


def wrong_authority(house: House) -> tuple[Act, ...]:
    data = house.bundles[NEWER].data
    bad = archives.with_description(data, d := archives.description_of(data), house.stranger_cms(d))
    return _relisted(house, bad, "anybody's bundle is installed")


def expired_leaf(house: House) -> tuple[Act, ...]:
    data = house.bundles[NEWER].data
    bad = archives.with_description(data, d := archives.description_of(data), house.expired_cms(d))
    return _relisted(house, bad, "a key that leaked after its time signs for ever")


def freeze(house: House) -> tuple[Act, ...]:
    world = house.world(house.current, house.bundles[CURRENT], SEEN)
    why = "the vehicle is told for ever that there is nothing newer"
    return (replace(_refuse(world, why), ahead_us=40 * DAY_US),)


def rollback(house: House) -> tuple[Act, ...]:
    return (_refuse(house.world(house.factory, house.bundles[OLDER], FRESH), "old metadata bring back old faults"),)


def bundle_rollback(house: House) -> tuple[Act, ...]:
    """Everything is signed and fresh; only the release is older than what the vehicle has committed."""
    old = house.bundles[OLDER]
    listed = house.relist(house.current, old, house.clock.now_us())
    return (_refuse(house.world(listed, old, FRESH), "what was repaired comes back"),)


def mix_and_match(house: House) -> tuple[Act, ...]:
    mixed = older_lists(house.current, house.newer)
    world = house.world(house.newer, house.bundles[CURRENT], FRESH, image=mixed)
    return (_refuse(world, "parts of different days are installed together"),)


def fast_forward(house: House) -> tuple[Act, ...]:
    world = house.world(house.newer, house.bundles[NEWER], FRESH, image={TIMESTAMP_PATH: _leapt(house, (1 << 31) - 2)})
    honest = house.world(house.newer, house.bundles[NEWER], FRESH)
    return (
        _refuse(world, "no honest version can follow any more: updates have ended"),
        Act(honest, Duty.ACCEPT, "the honest repository is refused as too old"),
    )


def fast_forward_then_rotation(house: House) -> tuple[Act, ...]:
    """As far as any vehicle goes along; then the owner replaces the key."""
    stamp = _leapt(house, MAX_LEAP - 1000)
    world = house.world(house.newer, house.bundles[NEWER], FRESH, image={TIMESTAMP_PATH: stamp})
    rotated = house.rotated()
    honest = house.world(rotated, house.bundles[NEWER], FRESH)
    again = house.world(rotated, house.bundles[NEWER], LAST, image={TIMESTAMP_PATH: stamp})
    return (
        Act(world, Duty.ANY, ""),
        Act(honest, Duty.ACCEPT, "the repository is refused although its stolen key was replaced"),
        _refuse(again, "a key that was replaced is still believed"),
    )


def endless_metadata(house: House) -> tuple[Act, ...]:
    world = house.world(house.newer, house.bundles[NEWER], FRESH)
    body = Endless(house.newer.timestamp[:-1] + b" " * MAX_TIMESTAMP, _ENDLESS)
    return (_refuse(replace(world, image={**world.image, TIMESTAMP_PATH: body}), "memory or disk fill up"),)


def endless_bundle(house: House) -> tuple[Act, ...]:
    bundle = house.bundles[NEWER]
    body = Endless(archives.endless_head(bundle.data), _ENDLESS)
    return (_refuse(house.world(house.newer, bundle, FRESH, served=body), "the disk fills up, the line is paid for"),)


def slow_transfer(house: House) -> tuple[Act, ...]:
    bundle = house.bundles[NEWER]
    body = Drip(bundle.data, _DRIP)
    return (_refuse(house.world(house.newer, bundle, FRESH, served=body), "the vehicle waits and never learns why"),)


def arbitrary_software(house: House) -> tuple[Act, ...]:
    """Software of the attacker's own: signed by his own authority, named by the stolen director key."""
    data = house.bundles[NEWER].data
    evil = archives.with_flipped_payload(data)
    evil = archives.with_description(evil, d := archives.description_of(evil), house.stranger_cms(d))
    named = replace(house.bundles[NEWER].listed, digest=digest_bytes(evil))
    world = house.world(house.newer, MadeBundle(named, evil), FRESH)
    return (_refuse(world, "whoever has one online key installs what he likes"),)


def unlisted_release(house: House) -> tuple[Act, ...]:
    """A genuine bundle that the owner has not published, or has withdrawn, ordered with the stolen director key."""
    world = house.world(house.current, house.bundles[NEWER], FRESH)
    return (_refuse(world, "what was never released is driven"),)


def wrong_hardware(house: House) -> tuple[Act, ...]:
    world = house.world(house.relist(house.current, house.foreign, house.clock.now_us()), house.foreign, FRESH)
    return (_refuse(world, "code for other chips is installed; the vehicle stands still"),)


def foreign_vehicle(house: House) -> tuple[Act, ...]:
    """The director's genuine answer to another vehicle, replayed to this one."""
    bundle = house.bundles[NEWER]
    other = {f"other-{serial}": hardware for serial, hardware in house.hardware.items()}
    world = house.world(house.newer, bundle, FRESH, director=house.director(bundle, FRESH, other))
    return (_refuse(world, "a vehicle gets what was meant for a test vehicle"),)


def old_director(house: House) -> tuple[Act, ...]:
    """The director's older answer to this very vehicle, replayed."""
    bundle = house.bundles[NEWER]
    replayed = house.director(house.bundles[CURRENT], STALE, house.hardware)
    return (
        _refuse(house.world(house.newer, bundle, FRESH, director=replayed), "an assignment that was taken back acts"),
    )


def expired_role(house: House) -> tuple[Act, ...]:
    """The lists were last signed 400 days ago; only the online roles were renewed."""
    now_us = house.clock.now_us()
    stale = house.relist(house.current, house.bundles[NEWER], now_us - 400 * DAY_US)
    fresh = prolonged(stale, house.ring, moment(now_us + 7 * DAY_US))
    world = house.world(stale, house.bundles[NEWER], FRESH, image=fresh)
    return (_refuse(world, "keys that nobody looks after any more go on deciding"),)


def zip_slip(house: House) -> tuple[Act, ...]:
    entry = archives.Part(ESCAPE, b"written outside\n")
    return _relisted(house, archives.with_entry(house.bundles[NEWER].data, entry), "files are written outside the slot")


def link_in_archive(house: House) -> tuple[Act, ...]:
    data = house.bundles[NEWER].data
    name = archives.last_payload(data)
    link = archives.Part(name, b"../../drill-escaped-by-link", archives.LINK)
    return _relisted(house, archives.with_entry(data, link, name), "a payload is written through a link")


def _refuse(world: World, why: str) -> Act:
    return Act(world, Duty.REFUSE, why)


def _relisted(house: House, data: bytes, why: str) -> tuple[Act, ...]:
    """``data`` in the place of the newer bundle, listed with the stolen keys of both repositories."""
    listed = replace(house.bundles[NEWER].listed, length=len(data), digest=digest_bytes(data))
    bad = MadeBundle(listed, data)
    return (_refuse(house.world(house.relist(house.current, bad, house.clock.now_us()), bad, FRESH), why),)


def _leapt(house: House, version: int) -> bytes:
    def leap(signed: Any) -> None:
        signed.version = version

    return signed_again(house.newer.timestamp, KeyRole.TIMESTAMP, house.ring, leap)
