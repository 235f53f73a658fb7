"""The computers of a vehicle: one per chip in a seat of its compute variant, named by role and number.

The order of a restart is a law of its own: what does not drive goes first, then the backup, then the mains one by one,
so that while a driving computer restarts into new software another one stands by with software that is proven. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nwmctl.domain.platform import Role, Variant

_NAME = re.compile(r"(main|backup|fleet_learning)-[1-9][0-9]?\Z")
_RANK = {Role.FLEET_LEARNING: 0, Role.BACKUP: 1, Role.MAIN: 2}
DRIVING = frozenset({Role.MAIN, Role.BACKUP})
"""Roles that drive, or must be able to at once."""


def is_computer(text: str) -> bool:
    """Whether this is how a computer is called."""
    return bool(_NAME.match(text))


@dataclass(frozen=True, slots=True)
class Computer:
    """One computer; its name is its role and its number from 1, such as ``main-2``."""

    name: str
    role: Role

    def __post_init__(self) -> None:
        if not is_computer(self.name) or self.name.rpartition("-")[0] != self.role:
            raise ValueError(f"a computer in the role {self.role} is not called {self.name[:40]!r}")


ONE_COMPUTER = (Computer("main-1", Role.MAIN),)
"""A vehicle with a single computer."""


def computers_of(variant: Variant) -> tuple[Computer, ...]:
    """The computers of a compute variant, in the order of its seats."""
    counts: dict[Role, int] = {}
    found = []
    for seat in variant.seats:
        for _ in range(seat.count):
            counts[seat.role] = counts.get(seat.role, 0) + 1
            found.append(Computer(f"{seat.role}-{counts[seat.role]}", seat.role))
    return tuple(found)


def in_restart_order(computers: Iterable[Computer]) -> tuple[Computer, ...]:
    """The order in which computers restart into new software."""
    return tuple(sorted(computers, key=lambda each: (_RANK[each.role], each.name)))
