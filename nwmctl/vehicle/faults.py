"""Faults that a virtual vehicle is told to have, for tests and demonstrations. Off unless a plan says so.

A plan is a seed and rules; each rule names a kind of fault, which vehicles it strikes and how often. Which vehicles
a share strikes depends on the seed and the VIN alone, never on timing. ``Trouble`` is one vehicle's share of the
plan: the client asks it at the places where the world could go wrong. Faults are counted down in memory and survive
the vehicle's own power losses, not the process. A power loss here costs the vehicle all that it holds in memory.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from nwmctl.domain.computers import is_computer
from nwmctl.errors import FaultPlanError
from nwmctl.formats import yamldoc
from nwmctl.formats.codec import from_plain
from nwmctl.vehicle.pending import Stage


class FaultKind(StrEnum):
    """What can go wrong."""

    DROP = "drop"
    """The connection breaks at byte ``argument`` of the download."""
    CORRUPT = "corrupt"
    """A bit of the download flips."""
    ENDLESS = "endless"
    """The download never ends: data go on after the last byte."""
    NO_SPACE = "no_space"
    """The disk is full when the slot is written, of the computer ``argument`` or of the first."""
    HEALTH = "health"
    """The health check of a slot on trial fails, of the computer ``argument`` or of the first."""
    POWER = "power"
    """Power is lost on reaching the stage ``argument``, or after the computer ``argument`` switched its slots."""
    SILENT = "silent"
    """The vehicle says nothing more from the stage ``argument`` on."""
    GARBAGE = "garbage"
    """Reports are not what the protocol says."""


_WITH_STAGE = frozenset({FaultKind.POWER, FaultKind.SILENT})
_OF_COMPUTERS = frozenset({FaultKind.NO_SPACE, FaultKind.HEALTH, FaultKind.POWER})


@dataclass(frozen=True, slots=True)
class FaultRule:
    """``kind`` strikes ``share`` (0..1) of the vehicles whose VIN or vehicle model matches ``select``, ``times``
    times each. ``argument``: a byte offset for drop, a stage for power and silent, empty for the others; for power,
    health and no_space also a computer, such as ``backup-1``."""

    kind: FaultKind
    argument: str = ""
    select: str = "*"
    share: float = 1.0
    times: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share:g}, it lies above 0 and up to 1")
        if self.times < 1:
            raise ValueError(f"times is {self.times}, it must be at least 1")
        if self.kind in _OF_COMPUTERS and is_computer(self.argument):
            return
        if self.kind in _WITH_STAGE:
            if self.argument not in set(Stage):
                raise ValueError(f"'{self.argument}' is not a stage; {self.kind} takes one of {', '.join(Stage)}")
        elif self.kind is FaultKind.DROP:
            if not self.argument.isascii() or not self.argument.isdigit():
                raise ValueError(f"'{self.argument}' is not a byte offset, which drop takes")
        elif self.argument:
            raise ValueError(f"{self.kind} takes no argument, not '{self.argument}'")


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """All faults of a run. Without rules nothing goes wrong on purpose."""

    rules: tuple[FaultRule, ...] = ()
    seed: int = 0


def plan_from_text(text: str, seed: int = 0) -> FaultPlan:
    """Read ``kind[=argument][:select[:share%[:times]]]``, several separated by commas. Raises FaultPlanError.

    Example: ``drop=200000:*:20%:3,health:LNW*7,power=trial``.
    """
    return FaultPlan(tuple(_rule(part.strip()) for part in text.split(",") if part.strip()), seed)


def plan_from_yaml(data: bytes, where: str) -> FaultPlan:
    """Read a plan from YAML with the keys ``seed`` and ``rules``. Raises SchemaError with file, line and key."""
    plain, source = yamldoc.parse(data, where)
    return from_plain(FaultPlan, plain, source)


def _rule(text: str) -> FaultRule:
    what, *rest = text.split(":")
    kind, _, argument = what.partition("=")
    try:
        if len(rest) > 3:
            raise ValueError("there are more than four parts")
        select, share, times = (*rest, "", "", "")[:3]
        if share and not share.endswith("%"):
            raise ValueError(f"the share '{share}' does not end with %")
        return FaultRule(
            FaultKind(kind), argument, select or "*", float(share[:-1]) / 100 if share else 1.0, int(times or 1)
        )
    except ValueError as problem:
        raise FaultPlanError(
            f"'{text[:80]}' is not a fault",
            why=str(problem),
            next=f"write kind[=argument][:select[:share%[:times]]] with a kind of {', '.join(FaultKind)}",
        ) from problem


class PowerLoss(BaseException):
    """The vehicle lost power. Not an ``Exception``: whoever drives the vehicle starts it again from its disk."""


class Trouble:
    """What goes wrong for one vehicle. Without rules every question is answered as if the world were well."""

    def __init__(self, rules: Iterable[FaultRule] = ()) -> None:
        self._left = {rule: rule.times for rule in rules}
        self._silent = False

    @classmethod
    def of(cls, plan: FaultPlan, vin: str, vehicle_model: str) -> Trouble:
        """One vehicle's part of a plan."""
        return cls(
            rule
            for index, rule in enumerate(plan.rules)
            if (fnmatchcase(vin, rule.select) or fnmatchcase(vehicle_model, rule.select))
            and _draw(plan.seed, index, vin) < rule.share
        )

    @property
    def silent(self) -> bool:
        """Whether the vehicle has stopped talking."""
        return self._silent

    def reach(self, stage: Stage) -> None:
        """The vehicle has durably reached ``stage``. Raises PowerLoss if the plan says so."""
        if self._strikes(FaultKind.SILENT, stage):
            self._silent = True
        if self._strikes(FaultKind.POWER, stage):
            raise PowerLoss

    def breaks_at(self, offset: int, size: int) -> int | None:
        """How many of the ``size`` bytes at ``offset`` still arrive before the connection breaks; None: all do."""
        for rule in self._left:
            if rule.kind is FaultKind.DROP and offset <= int(rule.argument) < offset + size and self._take(rule):
                return int(rule.argument) - offset
        return None

    def corrupts(self) -> bool:
        """Whether a bit of what just arrived flips."""
        return self._strikes(FaultKind.CORRUPT)

    def endless(self) -> bool:
        """Whether more data follow after the last byte."""
        return self._strikes(FaultKind.ENDLESS)

    def writes(self, computer: str) -> None:
        """A computer's slot is about to be written. Raises OSError as a full disk would."""
        if self._strikes_at(FaultKind.NO_SPACE, computer):
            raise OSError(errno.ENOSPC, "no space left, on purpose")

    def unhealthy(self, computer: str) -> bool:
        """Whether a computer's health check fails for no reason of its own."""
        return self._strikes_at(FaultKind.HEALTH, computer)

    def switched(self, computer: str) -> None:
        """A computer has switched its slots. Raises PowerLoss."""
        if any(rule.kind is FaultKind.POWER and rule.argument == computer and self._take(rule) for rule in self._left):
            raise PowerLoss

    def garbles(self) -> bool:
        """Whether the next report is garbage."""
        return self._strikes(FaultKind.GARBAGE)

    def _strikes(self, kind: FaultKind, stage: Stage | None = None) -> bool:
        return any(
            rule.kind is kind and (stage is None or rule.argument == stage) and self._take(rule) for rule in self._left
        )

    def _strikes_at(self, kind: FaultKind, computer: str) -> bool:
        return any(rule.kind is kind and rule.argument in ("", computer) and self._take(rule) for rule in self._left)

    def _take(self, rule: FaultRule) -> bool:
        if self._left[rule] == 0:
            return False
        self._left[rule] -= 1
        return True


def _draw(seed: int, index: int, vin: str) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    found = hashlib.sha256(f"nwmctl.fault/1 {seed} {index} {vin}".encode()).digest()
    return int.from_bytes(found[:8], "big") / 2**64
