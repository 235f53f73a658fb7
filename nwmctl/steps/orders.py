"""How much a validate step drives, and what it wants more of: work order -> settings, results -> wishes.

Whether a wish is granted is for the agent; that an order was granted is in the work order, and thus in the step's key.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from nwmctl.domain.amounts import orders_needed, raised
from nwmctl.domain.clock import Clock
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.work import ValidateWork
from nwmctl.validation.subject import Looks, Settings

_COUNTED = {
    Check.CLOSED_LOOP: ("more_scenarios", "scenarios"),
    Check.TRAP_SUITE: ("more_traps", "traps"),
    Check.NON_INFERIORITY: ("more_pairs", "pairs"),
}
"""For each check that may want more: the work order's parameter, and the figure that says how many there were."""
_EMULATED = "more_emulated"


def settings_of(work: ValidateWork, clock: Clock | None) -> Settings:
    """The suite's settings for a work order. Without a clock no time budget can be kept: nothing is emulated then."""
    amounts, most = work.amounts, work.amounts.most_scenarios
    scenarios = raised(amounts.scenarios, work.more_scenarios, most)
    emulated = raised(amounts.emulated_scenarios, work.more_emulated, most) if amounts.emulated_scenarios else 0
    return Settings(
        rules=work.rules,
        seed=work.seed,
        scenarios=scenarios,
        row_scenarios=scenarios,
        emulated_scenarios=emulated if clock else 0,
        emulated_budget_s=amounts.emulated_budget_s,
        traps=raised(amounts.traps, work.more_traps, most),
        pairs=amounts.pairs,
        most_pairs=amounts.most_pairs,
        looks=Looks(work.more_scenarios, work.more_traps, work.more_pairs, work.more_emulated),
        clock=clock,
    )


def wanted(work: ValidateWork, results: Sequence[CheckResult]) -> dict[str, int]:
    """How often each amount must have been raised to settle what is open; empty where something is bad for sure, or
    where driving more does not help: then another recipe has to, or a person."""
    if any(result.verdict is Verdict.FAILED for result in results):
        return {}
    granted = work.amounts.orders()
    wishes: dict[str, int] = {}
    for result in results:
        if result.verdict is not Verdict.INCONCLUSIVE or result.judge:
            continue
        name, times = _wish(work, result)
        if not name or times > granted.get(name, 0):
            return {}
        wishes[name] = max(times, wishes.get(name, 0))
    return wishes


def _wish(work: ValidateWork, result: CheckResult) -> tuple[str, int]:
    if result.check not in _COUNTED or result.needs is None:
        return "", 0
    name, counted = _COUNTED[result.check]
    if result.check is Check.CLOSED_LOOP and result.obtained is Obtained.EMULATED:
        name = _EMULATED
    count = next(int(figure.value) for figure in result.figures if figure.name == counted)
    now: int = getattr(work, name)
    return name, now + max(1, orders_needed(count, result.needs))


def about_the_artifact(results: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """Results that another recipe could change; what is said about the model alone, none can."""
    return tuple(result for result in results if result.check is not Check.NON_INFERIORITY)


def cut_short(results: Sequence[CheckResult]) -> bool:
    """Whether a time budget ended a check: on an idle machine it might have come further, so this is not kept."""
    return any(
        result.check is Check.CLOSED_LOOP
        and result.obtained is Obtained.EMULATED
        and result.verdict is Verdict.INCONCLUSIVE
        and not result.figures
        for result in results
    )
