"""How the agent decides: the protocol, the default playbook, and the guard around any policy.

A policy sees a failure and the alternatives that the step itself declared; it answers with a remedy and a reason.
The guard lets only declared, not yet tried alternatives through and bounds every loop, so a policy that is wrong
(a language model, say) can waste attempts and never loosen anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nwmctl.domain.event import Remedy
from nwmctl.errors import (
    CandidateRefusedError,
    ConflictError,
    InputError,
    MissingError,
    NwmError,
    PersonNeededError,
    RefusedError,
    RemoteError,
    ToolchainError,
    VerificationError,
)

MAX_RETRIES = 3
MAX_ATTEMPTS = 12
_FIRST_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Situation:
    """What went wrong, and what may be done about it.

    ``problem`` is a refusal, or None where a step ended well with a ``concern``. ``alternatives`` counts, for each
    adjustable parameter, its declared values; ``choices`` says which is in use. ``raises`` says how often an amount
    may be raised, ``wanted`` how often the step asks for it. ``retries`` counts consecutive attempts with the same
    choices.
    """

    step: str
    attempt: int
    retries: int
    problem: NwmError | None
    concern: str
    alternatives: Mapping[str, int]
    choices: Mapping[str, int]
    raises: Mapping[str, int] = field(default_factory=dict)
    wanted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, by which rule, and why. ``choice`` is the index of the alternative for ``parameter``, or how often
    it is raised."""

    remedy: Remedy
    rule: str
    reason: str
    wait_s: float = 0.0
    parameter: str = ""
    choice: int = 0


class AgentPolicy(Protocol):
    """Decides about failures."""

    def decide(self, situation: Situation) -> Decision:
        """Must answer without effects."""
        ...


class Playbook:
    """The default policy: a short list of rules, first match wins."""

    def decide(self, situation: Situation) -> Decision:
        """See the rules' names in the decisions."""
        problem = situation.problem
        if problem is None:
            return (
                self._more(situation)
                or self._next(situation, f"the checks are not satisfied: {situation.concern}")
                or Decision(
                    Remedy.ABORT, "no-alternative", f"no other declared alternative is left: {situation.concern}"
                )
            )
        match problem:
            case PersonNeededError():
                return Decision(Remedy.ASK, "person-decides", problem.why)
            case RemoteError():
                return self._retry(situation, "the other side may recover")
            case ToolchainError():
                return self._next(situation, f"{problem.what}") or Decision(
                    Remedy.ABORT, "no-alternative", "the toolchain failed and no other declared recipe is left"
                )
            case CandidateRefusedError():
                return self._next(situation, f"{problem.what}") or Decision(
                    Remedy.ABORT, "needs-the-user", "no other declared recipe is left, and this one cannot be built"
                )
            case RefusedError():
                return Decision(Remedy.ABORT, "refused", "a refusal is not repaired by trying again")
            case InputError() | VerificationError() | ConflictError() | MissingError():
                return Decision(Remedy.ABORT, "needs-the-user", "the same input gives the same refusal")
            case _:
                return Decision(Remedy.ABORT, "unknown-problem", "no rule covers this failure")

    def _more(self, situation: Situation) -> Decision | None:
        """What is only uncertain is driven more often; the step wants nothing where something is bad for sure."""
        for parameter, wanted in situation.wanted.items():
            most, now = situation.raises.get(parameter, 0), situation.choices.get(parameter, 0)
            if now < wanted <= most:
                reason = f"too few scenarios to say: {situation.concern}; raised {wanted} of at most {most} times"
                return Decision(Remedy.ADJUST, "order-more-scenarios", reason, parameter=parameter, choice=wanted)
        return None

    def _retry(self, situation: Situation, why: str) -> Decision:
        if situation.retries >= MAX_RETRIES:
            return Decision(Remedy.ABORT, "retries-spent", f"{situation.retries} retries did not help")
        wait = _FIRST_WAIT_S * 2.0**situation.retries
        return Decision(Remedy.RETRY, "retry-with-backoff", why, wait_s=wait)

    def _next(self, situation: Situation, why: str) -> Decision | None:
        for parameter, count in situation.alternatives.items():
            choice = situation.choices.get(parameter, 0) + 1
            if choice < count:
                reason = f"{why}; alternative {choice + 1} of {count} is next"
                return Decision(Remedy.ADJUST, "next-alternative", reason, parameter=parameter, choice=choice)
        return None


class Guard:
    """Stands between any policy and the runner."""

    def __init__(self, policy: AgentPolicy) -> None:
        self._policy = policy

    def decide(self, situation: Situation) -> Decision:
        """The policy's decision, or an abort that says which bound it broke."""
        decision = self._policy.decide(situation)
        broken = self._broken(decision, situation)
        if broken is None:
            return decision
        return Decision(Remedy.ABORT, "guard", f"the policy's '{decision.rule}' is not allowed: {broken}")

    @staticmethod
    def _broken(decision: Decision, situation: Situation) -> str | None:
        match decision.remedy:
            case Remedy.RETRY if situation.problem is None:
                return "a concern does not go away by repeating"
            case Remedy.RETRY | Remedy.ADJUST if situation.attempt >= MAX_ATTEMPTS:
                return f"{MAX_ATTEMPTS} attempts are spent"
            case Remedy.ADJUST:
                count = situation.alternatives.get(decision.parameter, 0)
                count = max(count, situation.raises.get(decision.parameter, -1) + 1)
                if not situation.choices.get(decision.parameter, 0) < decision.choice < count:
                    return f"alternative {decision.choice} of '{decision.parameter}' is not declared or was tried"
                return None
            case _:
                return None
