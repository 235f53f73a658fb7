"""What a vehicle downloads over, and how many bytes a campaign may move. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LinkClass(StrEnum):
    """What a vehicle hangs on. A vehicle that does not say counts as cellular: bytes that somebody pays for are never
    spent by mistake."""

    WIFI = "wifi"
    """Wireless or wired, nobody pays by the byte."""
    CELLULAR = "cellular"

    @classmethod
    def of(cls, said: str) -> LinkClass:
        """The class of what a vehicle says about itself; '' where it says nothing."""
        return cls.WIFI if said.strip().lower() in _UNMETERED else cls.CELLULAR


_UNMETERED = frozenset({"wifi", "ethernet", "wired"})


@dataclass(frozen=True, slots=True)
class ByteBudget:
    """How many bytes all downloads of a campaign may take together; None: as many as they need.

    ``cellular_budget`` counts what goes over cellular links, ``total_budget`` everything. Without ``full_on_cellular``
    a vehicle on a cellular link that no delta reaches waits for another link; it never gets the full bundle instead.
    """

    cellular_budget: int | None = None
    total_budget: int | None = None
    full_on_cellular: bool = False

    def __post_init__(self) -> None:
        for name in ("cellular_budget", "total_budget"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}, it cannot be negative")


@dataclass(frozen=True, slots=True)
class DeltaOrder:
    """Which deltas a release builds for the versions that its vehicles have: all that are worth while, within limits.

    At most ``most`` of them, for ``cpu_s`` CPU-seconds of encoding together and ``storage`` bytes on each mirror;
    none that saves less than the share ``least_saving`` of the full download.
    """

    most: int | None = None
    cpu_s: float | None = None
    storage: int | None = None
    least_saving: float = 0.05

    def __post_init__(self) -> None:
        for name in ("most", "cpu_s", "storage"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}, it cannot be negative")
        if not 0 <= self.least_saving <= 1:
            raise ValueError(f"least_saving is {self.least_saving:g}, a share lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class Spent:
    """Bytes that a campaign's offers have reserved so far, over cellular links and over all."""

    cellular: int = 0
    total: int = 0


def refusal(budget: ByteBudget, spent: Spent, link: LinkClass, size: int, *, full: bool) -> str:
    """Why a vehicle on ``link`` must not be sent ``size`` more bytes now, ``full``: of a whole bundle; '' if it may."""
    cellular = link is LinkClass.CELLULAR
    if cellular and full and not budget.full_on_cellular:
        return "no delta reaches this vehicle, and a full download is not sent over a cellular link"
    if cellular and budget.cellular_budget is not None and spent.cellular + size > budget.cellular_budget:
        return f"the cellular budget of {budget.cellular_budget} bytes is used up"
    if budget.total_budget is not None and spent.total + size > budget.total_budget:
        return f"the total budget of {budget.total_budget} bytes is used up"
    return ""
