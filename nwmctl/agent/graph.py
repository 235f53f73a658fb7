"""Questions about a plan's graph: is it sound, what comes first, which path is critical. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from nwmctl.domain.step import PlannedStep
from nwmctl.errors import PlanError


def ordered(plan: Sequence[PlannedStep]) -> list[PlannedStep]:
    """The plan, every step after what it needs. Raises PlanError for a hole, a double or a circle."""
    by_id = {step.id: step for step in plan}
    if len(by_id) != len(plan):
        raise _unsound("two steps have the same name")
    done: dict[str, PlannedStep] = {}
    waiting = list(plan)
    while waiting:
        ready = [step for step in waiting if step.needs <= done.keys()]
        if not ready:
            missing = sorted({need for step in waiting for need in step.needs} - by_id.keys())
            raise _unsound(f"steps are missing: {', '.join(missing)}" if missing else "the steps need one another")
        done.update((step.id, step) for step in ready)
        waiting = [step for step in waiting if step.id not in done]
    return list(done.values())


def upstream(plan: Sequence[PlannedStep], wanted: Iterable[str]) -> tuple[PlannedStep, ...]:
    """The steps named and all that they need, in the plan's order."""
    by_id = {step.id: step for step in plan}
    keep: set[str] = set()
    open_ = list(wanted)
    while open_:
        name = open_.pop()
        if name not in keep:
            keep.add(name)
            open_ += by_id[name].needs
    return tuple(step for step in plan if step.id in keep)


def downstream(plan: Sequence[PlannedStep], step: str) -> set[str]:
    """The steps that need ``step``, directly or not (without itself)."""
    found: set[str] = set()
    for candidate in ordered(plan):
        if candidate.needs & (found | {step}):
            found.add(candidate.id)
    return found


def remaining(plan: Sequence[PlannedStep], seconds: Callable[[PlannedStep], float]) -> dict[str, float]:
    """For each step the longest time from its start to the end of the plan: the scheduler's priority."""
    result: dict[str, float] = {}
    for step in reversed(ordered(plan)):
        after = [result[other.id] for other in plan if step.id in other.needs]
        result[step.id] = seconds(step) + max(after, default=0.0)
    return result


def critical_path(plan: Sequence[PlannedStep], durations: Mapping[str, float]) -> list[str]:
    """The chain of steps that took longest."""
    longest: dict[str, tuple[float, str | None]] = {}
    for step in ordered(plan):
        before = max(step.needs, key=lambda need: (longest[need][0], need), default=None)
        start = longest[before][0] if before else 0.0
        longest[step.id] = (start + durations.get(step.id, 0.0), before)
    if not longest:
        return []
    current: str | None = max(longest, key=lambda name: (longest[name][0], name))
    path: list[str] = []
    while current is not None:
        path.append(current)
        current = longest[current][1]
    return path[::-1]


def _unsound(why: str) -> PlanError:
    return PlanError("the plan is not sound", why=why, next="this is a defect of nwmctl; report the release file")
