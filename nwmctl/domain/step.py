"""Steps of a run: what is planned, what came out. The runner moves these; it never looks inside the values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from nwmctl.domain.digest import Digest

Scalar = str | int | float | bool
Json = object
"""What a step's parameters are made of: the plain JSON form of a dataclass of ``domain/work``, never looked into."""


class StepState(StrEnum):
    """Where a step of a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    CACHED = "cached"
    """Found in the content store; nothing ran."""
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    """A step it needs has failed."""


@dataclass(frozen=True, slots=True)
class OutputRef:
    """Output ``output`` of the step ``step``."""

    step: str
    output: str


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A node of the plan. ``inputs`` name digests known now or outputs of earlier steps; ``reason`` says why it is
    in the plan. ``adjustable`` lists the alternatives of a parameter that the agent may choose from, in order: a
    remedy is a new attempt with another value, never a looser one. ``raises`` are parameters that count how often an
    amount has been raised, with the most; a higher one is stricter. ``repair`` names the earlier step whose
    alternatives may be tried when this step's outcome raises a concern."""

    id: str
    step: str
    parameters: Json
    inputs: dict[str, Digest | OutputRef]
    reason: str
    after: tuple[str, ...] = ()
    """Steps that must have ended well although nothing of theirs is an input."""
    platform: str = ""
    adjustable: dict[str, tuple[Json, ...]] = field(default_factory=dict)
    raises: dict[str, int] = field(default_factory=dict)
    repair: str = ""

    @property
    def needs(self) -> frozenset[str]:
        """The steps that must have ended well before this one."""
        return frozenset(ref.step for ref in self.inputs.values() if isinstance(ref, OutputRef)) | frozenset(self.after)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step leaves: digests in the content store, and a few scalars for people.

    ``concern`` is set where the step ended well but what it found is not good (a check failed): the agent may then
    repair an earlier step. ``fleeting`` is set where the world was out of reach: what was found counts for this run and
    is not kept, so that the next one asks again. ``wanted`` says which of the step's own ``raises`` would settle the
    concern, and how high.
    """

    outputs: dict[str, Digest]
    summary: dict[str, Scalar] = field(default_factory=dict)
    concern: str = ""
    fleeting: bool = False
    wanted: dict[str, int] = field(default_factory=dict)
