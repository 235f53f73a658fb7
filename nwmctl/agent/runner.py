"""Executes a plan: independent steps in parallel, results from the store, every decision journalled.

Invariants: an event is in the journal before its consequence happens; a pure step with a stored result never runs;
after a kill at any moment the same journal and store continue the run without redoing a finished step. The runner
moves digests and never looks at what they mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

from nwmctl.agent.graph import downstream, ordered, remaining
from nwmctl.agent.journal import Journal, fold
from nwmctl.agent.policy import Decision, Guard, Situation
from nwmctl.domain.clock import Clock, Sleep
from nwmctl.domain.digest import Digest
from nwmctl.domain.event import Decided, Event, Remedy, RunEnded, RunState, StepFailed, StepFinished, StepStarted
from nwmctl.domain.step import Json, Outcome, OutputRef, PlannedStep, StepState
from nwmctl.errors import InternalError, NwmError
from nwmctl.storage.full import refuse_full_disk

Progress = Callable[[str, float], None]


class StepCode(Protocol):
    """A step's code as the runner needs it (``steps.base.Step``)."""

    @property
    def pure(self) -> bool: ...

    def key(self, parameters: Json, inputs: Mapping[str, Digest]) -> Digest: ...

    def run(self, parameters: Json, inputs: Mapping[str, Digest], progress: Progress) -> Outcome: ...

    def alternatives(self, parameters: Json, inputs: Mapping[str, Digest]) -> Mapping[str, int]: ...


class ResultStore(Protocol):
    """Where results of pure steps are found and kept."""

    def load(self, key: Digest) -> Outcome | None: ...

    def save(self, key: Digest, outcome: Outcome) -> None: ...


class Listener(Protocol):
    """Told of everything, from several threads; must be quick and must not raise."""

    def event(self, event: Event) -> None: ...

    def progress(self, step: str, text: str, share: float) -> None: ...


@dataclass(slots=True)
class RunResult:
    """How a run ended. ``problem`` is the refusal that ended it, by step."""

    state: RunState
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    states: dict[str, StepState] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    problems: dict[str, NwmError] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    """Running steps whose input has been replaced under them."""


class _GivenUp(Exception):
    """A step ended without a result; the decision says why."""

    def __init__(self, decision: Decision, problem: NwmError) -> None:
        super().__init__(decision.reason)
        self.decision = decision
        self.problem = problem


class Runner:
    """Runs one plan under one journal."""

    def __init__(
        self,
        steps: Mapping[str, StepCode],
        results: ResultStore,
        journal: Journal,
        guard: Guard,
        clock: Clock,
        sleep: Sleep,
        listener: Listener,
        workers: int,
    ) -> None:
        self._steps = steps
        self._results = results
        self._journal = journal
        self._guard = guard
        self._clock = clock
        self._sleep = sleep
        self._listener = listener
        self._workers = workers
        self._history = fold(journal.events)
        self._choices: dict[str, dict[str, int]] = {k: dict(v) for k, v in self._history.choices.items()}
        self._attempts = {event.step: event.attempt for event in journal.events if isinstance(event, StepStarted)}
        self._key_locks: dict[Digest, threading.Lock] = {}
        self._lock = threading.Lock()

    def run(self, plan: Sequence[PlannedStep], expected_s: Mapping[str, float]) -> RunResult:
        """Execute the plan. ``expected_s`` are durations seen earlier, for the order only."""
        plan = ordered(plan)
        by_id = {step.id: step for step in plan}
        priority = remaining(plan, lambda step: expected_s.get(step.id, 1.0))
        result = RunResult(RunState.RUNNING, states=dict.fromkeys(by_id, StepState.PENDING))
        running: dict[Future[StepFinished], str] = {}
        # Not a `with` block: its exit would wait for running steps after Ctrl-C.
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="step")
        try:
            while True:
                for step in self._ready(plan, priority, result)[: self._workers - len(running)]:
                    result.states[step.id] = StepState.RUNNING
                    running[pool.submit(self._attempts_at, step, resolve(step, result.outcomes))] = step.id
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._settle(by_id[running.pop(future)], future, plan, result)
        except KeyboardInterrupt:
            self._note(RunEnded(self._clock.now_us(), RunState.INTERRUPTED, "interrupted by the user"))
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return self._end(result)

    def _ready(
        self, plan: Sequence[PlannedStep], priority: Mapping[str, float], result: RunResult
    ) -> list[PlannedStep]:
        good = {name for name, state in result.states.items() if state in (StepState.DONE, StepState.CACHED)}
        ready = [step for step in plan if result.states[step.id] is StepState.PENDING and step.needs <= good]
        return sorted(ready, key=lambda step: -priority[step.id])

    def _settle(
        self, step: PlannedStep, future: Future[StepFinished], plan: Sequence[PlannedStep], result: RunResult
    ) -> None:
        if step.id in result.stale:
            # It worked on the output of an attempt that has been replaced since; neither end counts.
            result.stale.discard(step.id)
            result.states[step.id] = StepState.PENDING
            return
        try:
            done = future.result()
        except _GivenUp as end:
            self._fail(step, end.problem, plan, result)
            return
        result.states[step.id] = done.state
        result.durations[step.id] = result.durations.get(step.id, 0.0) + done.duration_s
        outcome = Outcome(done.outputs, done.summary, done.concern, wanted=done.wanted)
        result.outcomes[step.id] = outcome
        if outcome.concern and not self._raise(step, outcome, plan, result) and step.repair:
            self._repair(step, outcome.concern, plan, result)

    def _fail(self, step: PlannedStep, problem: NwmError, plan: Sequence[PlannedStep], result: RunResult) -> None:
        result.states[step.id] = StepState.FAILED
        result.problems[step.id] = problem
        for name in downstream(plan, step.id):
            result.states[name] = StepState.BLOCKED

    def _repair(self, step: PlannedStep, concern: str, plan: Sequence[PlannedStep], result: RunResult) -> None:
        """A concern may send an earlier step to its next alternative; everything after that step runs again."""
        cause = next(other for other in plan if other.id == step.repair)
        if self._decide(cause, resolve(cause, result.outcomes), None, concern).remedy is not Remedy.ADJUST:
            return  # the evidence stands as it is; the signer refuses it with every reason
        self._again(cause, plan, result)

    def _raise(self, step: PlannedStep, outcome: Outcome, plan: Sequence[PlannedStep], result: RunResult) -> bool:
        """A step that could say more if an amount were raised may be sent back to do so."""
        with self._lock:
            choices = self._choices.get(step.id, {})
            open_ = any(
                choices.get(name, 0) < times <= step.raises.get(name, 0) for name, times in outcome.wanted.items()
            )
        if not open_:
            return False
        decision = self._decide(step, resolve(step, result.outcomes), None, outcome.concern, 0, outcome.wanted)
        if decision.remedy is not Remedy.ADJUST:
            return False
        self._again(step, plan, result)
        return True

    def _again(self, first: PlannedStep, plan: Sequence[PlannedStep], result: RunResult) -> None:
        for name in (first.id, *downstream(plan, first.id)):
            if result.states[name] is StepState.RUNNING:
                result.stale.add(name)
            else:
                result.states[name] = StepState.PENDING
                result.outcomes.pop(name, None)

    def _end(self, result: RunResult) -> RunResult:
        asked = [problem for problem in result.problems.values() if problem.exit_code == 10]
        if not result.problems:
            result.state, reason = RunState.DONE, "every step ended well"
        elif asked:
            result.state, reason = RunState.WAITING, asked[0].what
        else:
            first = next(iter(result.problems))
            result.state, reason = RunState.FAILED, f"{first}: {result.problems[first].what}"
        self._note(RunEnded(self._clock.now_us(), result.state, reason))
        return result

    # --- one step, in a worker thread ---

    def _attempts_at(self, step: PlannedStep, inputs: dict[str, Digest]) -> StepFinished:
        retries = 0
        while True:
            code = self._steps[step.step]
            parameters = self._chosen(step)
            attempt = self._attempts[step.id] = self._attempts.get(step.id, 0) + 1
            try:
                key = code.key(parameters, inputs)
                with self._alone(key):
                    return self._attempt(step, code, parameters, inputs, key, attempt)
            except NwmError as refusal:
                problem = refusal
            except Exception as defect:
                problem = refuse_full_disk(defect, step.id) or InternalError(
                    f"step '{step.id}' met a defect of nwmctl: {type(defect).__name__}: {defect}",
                    why="the code did something that it should not do",
                    next="report this with the output of `nwmctl runs show`",
                )
                problem.__cause__ = defect
            self._note(
                StepFailed(
                    self._clock.now_us(), step.id, attempt, type(problem).__name__,
                    problem.what, problem.why, problem.next,
                )
            )  # fmt: skip
            decision = self._decide(step, inputs, problem, "", retries)
            match decision.remedy:
                case Remedy.RETRY:
                    retries += 1
                    self._sleep(decision.wait_s)
                case Remedy.ADJUST:
                    retries = 0
                case Remedy.ASK | Remedy.ABORT:
                    raise _GivenUp(decision, problem)

    def _attempt(
        self, step: PlannedStep, code: StepCode, parameters: Json, inputs: dict[str, Digest], key: Digest, attempt: int
    ) -> StepFinished:
        before = self._history.finished.get(step.id)
        if code.pure:
            begun = self._clock.monotonic()
            stored = self._results.load(key)
            if stored is not None:
                return self._finish(step, attempt, key, StepState.CACHED, begun, stored)
        elif before is not None and before.key == key:
            outcome = Outcome(before.outputs, before.summary, before.concern, wanted=before.wanted)
            return self._finish(step, attempt, key, StepState.CACHED, self._clock.monotonic(), outcome)
        self._note(StepStarted(self._clock.now_us(), step.id, attempt, key))
        begun = self._clock.monotonic()
        outcome = code.run(parameters, inputs, lambda text, share: self._listener.progress(step.id, text, share))
        if code.pure and not outcome.fleeting:
            self._results.save(key, outcome)
        return self._finish(step, attempt, key, StepState.DONE, begun, outcome)

    def _finish(
        self, step: PlannedStep, attempt: int, key: Digest, state: StepState, begun: float, outcome: Outcome
    ) -> StepFinished:
        seconds = round(self._clock.monotonic() - begun, 6)
        now = self._clock.now_us()
        event = StepFinished(
            now,
            step.id,
            attempt,
            key,
            state,
            seconds,
            outcome.outputs,
            outcome.summary,
            outcome.concern,
            outcome.wanted,
        )
        self._note(event)
        return event

    def _decide(
        self,
        step: PlannedStep,
        inputs: Mapping[str, Digest],
        problem: NwmError | None,
        concern: str,
        retries: int = 0,
        wanted: Mapping[str, int] | None = None,
    ) -> Decision:
        counts = self._alternatives(step, inputs)
        with self._lock:
            choices = self._choices.setdefault(step.id, {})
            attempt = self._attempts.get(step.id, 1)
            decision = self._guard.decide(
                Situation(step.id, attempt, retries, problem, concern, counts, dict(choices), step.raises, wanted or {})
            )
            self._note(
                Decided(
                    self._clock.now_us(), step.id, attempt, decision.remedy, decision.rule, decision.reason,
                    decision.wait_s, decision.parameter, decision.choice,
                )
            )  # fmt: skip
            if decision.remedy is Remedy.ADJUST:
                choices[decision.parameter] = decision.choice
            return decision

    def _alternatives(self, step: PlannedStep, inputs: Mapping[str, Digest]) -> dict[str, int]:
        """How many alternatives of each parameter there are: declared ones, less those that the inputs do not have."""
        declared = {name: len(values) for name, values in step.adjustable.items()}
        if not declared:
            return {}
        try:
            there = self._steps[step.step].alternatives(step.parameters, inputs)
        except NwmError:
            there = {}  # the step itself refuses such inputs, with the reason
        return {name: min(count, there.get(name, count)) for name, count in declared.items()}

    def _chosen(self, step: PlannedStep) -> Json:
        """The step's parameters with the alternatives that the agent has chosen."""
        choices = self._choices.get(step.id, {})
        if not choices or not isinstance(step.parameters, dict):
            return step.parameters
        chosen = {
            name: step.adjustable[name][index] if name in step.adjustable else index for name, index in choices.items()
        }
        return {**step.parameters, **chosen}

    def _alone(self, key: Digest) -> threading.Lock:
        # Two steps of one plan may have the same key: the second waits and then finds the first one's result.
        with self._lock:
            return self._key_locks.setdefault(key, threading.Lock())

    def _note(self, event: Event) -> None:
        self._journal.append(event)
        self._listener.event(event)


def resolve(step: PlannedStep, outcomes: Mapping[str, Outcome]) -> dict[str, Digest]:
    """Input digests of a step; an output that an earlier step did not produce is simply absent."""
    inputs: dict[str, Digest] = {}
    for name, source in step.inputs.items():
        if not isinstance(source, OutputRef):
            inputs[name] = source
        elif source.output in outcomes[source.step].outputs:
            inputs[name] = outcomes[source.step].outputs[source.output]
    return inputs
