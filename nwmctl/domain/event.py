"""What a run's journal tells: who asked for what, when, what was decided and why, what came out.

Events carry times (microseconds UTC) because they are a log; nothing here is ever hashed into content.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.digest import Digest
from nwmctl.domain.step import PlannedStep, Scalar, StepState


class Remedy(StrEnum):
    """What the agent does about a failure."""

    RETRY = "retry"
    ADJUST = "adjust"
    ASK = "ask"
    ABORT = "abort"


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    WAITING = "waiting"
    """A person must decide."""
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class RunStarted:
    """First record of a journal. ``command`` is what the user asked for, ``plan`` the whole plan with reasons,
    ``release_path`` where the release file was (a resumed run reads it again, and it must not have changed)."""

    at_us: int
    run: str
    command: str
    release: Digest
    version: str
    requested_by: str
    release_path: str
    plan: tuple[PlannedStep, ...]


@dataclass(frozen=True, slots=True)
class RunResumed:
    """The run goes on after an interruption; ``finished`` steps are not done again."""

    at_us: int
    requested_by: str
    finished: int


@dataclass(frozen=True, slots=True)
class StepStarted:
    """An attempt at a step begins."""

    at_us: int
    step: str
    attempt: int
    key: Digest


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step ended well: ``state`` is done or cached; ``duration_s`` is the attempt's own time."""

    at_us: int
    step: str
    attempt: int
    key: Digest
    state: StepState
    duration_s: float
    outputs: dict[str, Digest]
    summary: dict[str, Scalar] = field(default_factory=dict)
    concern: str = ""
    wanted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepFailed:
    """An attempt failed. ``error`` is the class of the refusal."""

    at_us: int
    step: str
    attempt: int
    error: str
    what: str
    why: str
    next: str


@dataclass(frozen=True, slots=True)
class Decided:
    """What the agent does about a failure, by which rule, and why. ``value`` is an adjusted parameter's index."""

    at_us: int
    step: str
    attempt: int
    remedy: Remedy
    rule: str
    reason: str
    wait_s: float = 0.0
    parameter: str = ""
    choice: int = 0


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Last record so far."""

    at_us: int
    state: RunState
    reason: str


Event = RunStarted | RunResumed | StepStarted | StepFinished | StepFailed | Decided | RunEnded
