"""How much is driven: the release's ``validation:`` section, and by how much the agent may raise it.

More scenarios are never looser: a check passes on whole intervals, and each time the number is raised they must be
surer than before. So a person chooses where to begin and where to stop, and the agent may go there in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

RAISE = 4
"""By how much one more order multiplies a number of scenarios: it halves the width of an interval."""
MOST_ORDERS = 2
"""How often the agent may raise one number."""


class Profile(StrEnum):
    """How thorough validation is where the release names no number."""

    CI = "ci"
    FULL = "full"


_SCENARIOS = {Profile.CI: 100, Profile.FULL: 250}
_TRAPS = {Profile.CI: 40, Profile.FULL: 80}


@dataclass(frozen=True, slots=True)
class Validation:
    """``scenarios`` and ``traps`` per artifact (None: as the profile says). ``pairs`` of drives that compare the model
    with the released one (0: as many as the policy's margins need). ``emulated_scenarios`` are driven under emulation,
    within ``emulated_budget_s`` seconds; 0 drives none there. The agent raises none of them above ``most_scenarios``,
    or ``most_pairs`` for pairs."""

    profile: Profile = Profile.CI
    scenarios: int | None = None
    traps: int | None = None
    pairs: int = 0
    emulated_scenarios: int = 0
    emulated_budget_s: float = 900.0
    most_scenarios: int = 1_600
    most_pairs: int = 5_000

    def __post_init__(self) -> None:
        for name in ("scenarios", "traps", "most_scenarios", "most_pairs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, it must be at least 1")
        for name in ("pairs", "emulated_scenarios"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, it cannot be negative")
        if not 0.0 < self.emulated_budget_s < float("inf"):
            raise ValueError(f"emulated_budget_s is {self.emulated_budget_s:g}, it must be positive")

    def amounts(self) -> Amounts:
        """The numbers themselves."""
        return Amounts(
            self.scenarios or _SCENARIOS[self.profile],
            self.traps or _TRAPS[self.profile],
            self.pairs,
            self.emulated_scenarios,
            self.emulated_budget_s,
            self.most_scenarios,
            self.most_pairs,
        )


@dataclass(frozen=True, slots=True)
class Amounts:
    """What validation begins with and where it stops; fields as in ``Validation``."""

    scenarios: int
    traps: int
    pairs: int = 0
    emulated_scenarios: int = 0
    emulated_budget_s: float = 900.0
    most_scenarios: int = 1_600
    most_pairs: int = 5_000

    def orders(self) -> dict[str, int]:
        """How often each number may be raised, by the work order's parameter; without those that may not be."""
        counts = {
            "more_scenarios": _times(self.scenarios, self.most_scenarios),
            "more_traps": _times(self.traps, self.most_scenarios),
            "more_pairs": _times(self.pairs or 1, self.most_pairs),
            "more_emulated": _times(self.emulated_scenarios, self.most_scenarios) if self.emulated_scenarios else 0,
        }
        return {name: count for name, count in counts.items() if count}


def raised(count: int, times: int, most: int) -> int:
    """A number of scenarios that was raised so often."""
    return max(count, min(count * int(RAISE**times), most))


def orders_needed(count: int, needs: int) -> int:
    """How often a number must be raised to reach another."""
    times = 0
    while count * RAISE**times < needs:
        times += 1
    return times


def _times(count: int, most: int) -> int:
    """How often a number can be raised before it reaches the most."""
    return min(MOST_ORDERS, orders_needed(count, most))
