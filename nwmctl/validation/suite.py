"""All checks of one artifact, in one call.

Whatever the artifact does (crash, hang, answer nonsense) becomes a failed result; a way that is not available here
becomes ``not_run`` with its reason. Faults of the *inputs* (golden data, reference model) are raised: without them
nothing can be said about the artifact. The same arguments give the same results, except for latency, which is measured
only on request. Decides no policy: which results suffice is for ``domain.policy.judge``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.errors import ContractBrokenError, MissingError
from nwmctl.validation.budget import check_budget
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.closed_loop import check_closed_loop
from nwmctl.validation.contract import check_contract, check_graph, check_ports
from nwmctl.validation.figures import not_demanded, not_run
from nwmctl.validation.inputs import Golden, read_golden
from nwmctl.validation.instruction_set import check_instruction_set
from nwmctl.validation.latency import check_latency
from nwmctl.validation.negative_control import check_negative_control
from nwmctl.validation.parity import check_parity
from nwmctl.validation.recording import RECORDINGS, Recording, drivable
from nwmctl.validation.subject import OpenSession, Pace, Progress, Settings, StepCost, Subject, Unreachable, Way

__all__ = [
    "OpenSession",
    "Pace",
    "Progress",
    "Settings",
    "StepCost",
    "Subject",
    "Unreachable",
    "Way",
    "execute_checks",
    "validate_artifact",
]

_EXECUTING = (Check.CONTRACT, Check.NEGATIVE_CONTROL, Check.PARITY, Check.CLOSED_LOOP)
"""The checks that need the artifact to run, in the order in which they run."""


def validate_artifact(
    subject: Subject, settings: Settings, progress: Progress, executed: tuple[CheckResult, ...] | None = None
) -> tuple[CheckResult, ...]:
    """Run every check, each way. Raises GoldenDataError and the reference's errors, nothing of the artifact's.

    ``executed`` are results of ``execute_checks`` for the same artifact, ways, rules and settings, where the caller
    has them already (several builds may share an artifact).
    """
    results = list(execute_checks(subject, settings, progress) if executed is None else executed)
    if not any(result.check is Check.LATENCY for result in results):
        results.append(check_latency(subject, settings, None, read_golden(subject.golden, subject.contract)))
    results += _without_a_way(subject, _graph_fault(subject))
    results.append(_instruction_set(subject, results))
    results.append(check_budget(subject, settings))
    progress("checked", 1.0)
    return tuple(sorted(results, key=lambda result: list(Check).index(result.check)))


def execute_checks(subject: Subject, settings: Settings, progress: Progress) -> tuple[CheckResult, ...]:
    """The checks that execute the artifact, each way. Of the profile and the build they depend on nothing but the
    rules that hold for the platform. Raises as ``validate_artifact``."""
    golden = read_golden(subject.golden, subject.contract)
    results: list[CheckResult] = []
    graph = _graph_fault(subject)
    with ExitStack() as stack:
        candidates = [stack.enter_context(Candidate(subject.contract, way)) for way in subject.ways]
        total = len(candidates) * len(_EXECUTING) + 1
        for index, candidate in enumerate(candidates):
            for place, check in enumerate(_EXECUTING):
                progress(f"{check}, {candidate.way.label}", (index * len(_EXECUTING) + place) / total)
                results += _one(check, graph, _runner(check, subject, settings, candidate, golden))
        here = next((c for c in candidates if c.obtained is Obtained.MEASURED), None)
        if settings.measure_latency:
            progress(f"{Check.LATENCY}", (total - 1) / total)
            results += _one(Check.LATENCY, None, lambda: check_latency(subject, settings, here, golden))
    return tuple(results)


def _graph_fault(subject: Subject) -> ContractBrokenError | None:
    try:
        check_graph(subject.weights, subject.contract)
        check_ports(subject.manifest, subject.contract)
    except ContractBrokenError as problem:
        return problem
    return None


def _one(
    check: Check, graph: ContractBrokenError | None, run: Callable[[], CheckResult | None]
) -> Iterator[CheckResult]:
    """The result of one check, whatever happens while it runs."""
    if check is Check.CONTRACT and graph is not None:
        # Read out of the file, so nothing executed; a failure counts with any word.
        yield CheckResult(check, Verdict.FAILED, Obtained.ESTIMATED, f"{graph.what}: {graph.why}", (), graph.next)
        return
    try:
        result = run()
    except MissingError as problem:
        result = not_run(check, f"{problem.what}: {problem.why}", problem.next)
    if result is not None:
        yield result


def _runner(
    check: Check, subject: Subject, settings: Settings, candidate: Candidate, golden: Golden
) -> Callable[[], CheckResult | None]:
    platform, pace = subject.profile.name, candidate.way.pace
    rows = golden.head(settings.crawl_rows) if pace is Pace.CRAWL else golden

    def run() -> CheckResult | None:
        rule = settings.rule(platform, check)
        match check:
            case Check.CONTRACT:
                return check_contract(candidate, rows, settings.random_inputs, settings.seed)
            case Check.NEGATIVE_CONTROL:
                margins = settings.margins(platform, Check.PARITY)
                return check_negative_control(candidate, rows, margins, _recording(subject, settings, pace))
            case Check.PARITY:
                if rule is None:
                    return not_demanded(check, platform)
                return check_parity(candidate, rows, rule, _recording(subject, settings, pace))
            case _:
                if pace is Pace.CRAWL:
                    return _too_slow(candidate, subject)
                if rule is None:
                    return not_demanded(check, platform)
                count = settings.scenarios if pace is Pace.BATCH else settings.row_scenarios
                digest = subject.weights_digest
                return check_closed_loop(candidate, subject.reference, digest, count, settings.seed, rule)

    return run


def _recording(subject: Subject, settings: Settings, pace: Pace) -> Recording | None:
    """Drives of the model as trained, where it can be driven and the way is fast enough to be asked along them."""
    if pace is Pace.CRAWL or not drivable(subject.contract):
        return None
    control = subject.contract.control_output
    return RECORDINGS.get(subject.weights_digest, control, subject.reference, settings.seed)


def _too_slow(candidate: Candidate, subject: Subject) -> CheckResult | None:
    """A closed loop under emulation takes minutes; it is reported as missing only where no other way drives."""
    if any(way.pace is not Pace.CRAWL for way in subject.ways):
        return None
    return not_run(
        Check.CLOSED_LOOP,
        f"{candidate.way.label} is too slow for a closed loop",
        f"drive it on a bench that carries {subject.build.chip}, or build a host twin",
    )


def _without_a_way(subject: Subject, graph: ContractBrokenError | None) -> list[CheckResult]:
    """What nothing could be executed for."""
    results: list[CheckResult] = []
    for place in subject.unreachable:
        text = f"{place.label}: {place.reason}"
        results += [not_run(check, text, place.next) for check in (Check.PARITY, Check.CLOSED_LOOP)]
    if not subject.ways:
        results += _one(Check.CONTRACT, graph, lambda: _nothing(Check.CONTRACT, subject))
        results.append(_nothing(Check.NEGATIVE_CONTROL, subject))
        if not subject.unreachable:
            results += [_nothing(check, subject) for check in (Check.PARITY, Check.CLOSED_LOOP)]
    return results


def _nothing(check: Check, subject: Subject) -> CheckResult:
    chip = subject.build.chip
    return not_run(check, "this artifact cannot be executed here", f"run it on a bench that carries {chip}")


def _instruction_set(subject: Subject, results: list[CheckResult]) -> CheckResult:
    ran = any(
        result.check is Check.CONTRACT and result.verdict is Verdict.PASSED and result.obtained is Obtained.MEASURED
        for result in results
    )
    chip = subject.profile.chip(subject.build.chip)
    return check_instruction_set(subject.manifest, subject.build, chip, ran_on_chip=ran)
