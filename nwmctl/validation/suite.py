"""All checks of one artifact, in one call.

Whatever the artifact does (crash, hang, answer nonsense) becomes a failed result; a way that is not available here
becomes ``not_run`` with its reason. Faults of the *inputs* (golden data, reference model) are raised: without them
nothing can be said about the artifact. The same arguments give the same results, except for latency, which is measured
only on request. Decides no policy: which results suffice is for ``domain.policy.judge``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.errors import ContractBrokenError, MissingError
from nwmctl.validation.budget import check_budget
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.closed_loop import check_closed_loop
from nwmctl.validation.commands import Commands, command
from nwmctl.validation.contract import check_contract, check_graph, check_ports
from nwmctl.validation.envelope import check_envelope
from nwmctl.validation.figures import not_demanded, not_run
from nwmctl.validation.inputs import Golden, read_golden
from nwmctl.validation.instruction_set import check_instruction_set
from nwmctl.validation.latency import check_latency
from nwmctl.validation.negative_control import check_negative_control
from nwmctl.validation.non_inferiority import check_non_inferiority
from nwmctl.validation.parity import check_parity
from nwmctl.validation.recording import RECORDINGS, Recording, drivable
from nwmctl.validation.subject import (
    Looks,
    OpenSession,
    Pace,
    Progress,
    Released,
    Settings,
    StepCost,
    Subject,
    Unreachable,
    Way,
)
from nwmctl.validation.traps import check_traps

__all__ = [
    "Executed",
    "Looks",
    "OpenSession",
    "Pace",
    "Progress",
    "Released",
    "Settings",
    "StepCost",
    "Subject",
    "Unreachable",
    "Way",
    "execute",
    "execute_checks",
    "validate_artifact",
]

_EXECUTING = (Check.CONTRACT, Check.NEGATIVE_CONTROL, Check.PARITY, Check.CLOSED_LOOP, Check.TRAP_SUITE)
"""The checks that need the artifact to run, in the order in which they run."""
_LAST = 0.99
"""The share of the suite that is done when only the models are left to compare."""
_COMPARING = (Check.PARITY, Check.CLOSED_LOOP, Check.TRAP_SUITE)
"""Those that compare it with the model, and are told apart by where it ran."""


@dataclass(frozen=True, slots=True)
class Executed:
    """What executing an artifact gave: results, and the commands that every platform judges by its own vehicles."""

    results: tuple[CheckResult, ...]
    commands: tuple[Commands, ...] = ()


def validate_artifact(
    subject: Subject, settings: Settings, progress: Progress, executed: Executed | None = None
) -> tuple[CheckResult, ...]:
    """Run every check, each way. Raises GoldenDataError and the reference's errors, nothing of the artifact's.

    ``executed`` is what ``execute`` gave for the same artifact, ways, rules and settings, where the caller
    has them already (several builds may share an artifact).
    """
    ran = execute(subject, settings, progress) if executed is None else executed
    results = [*ran.results, *_envelope(subject, settings, ran.commands)]
    if not any(result.check is Check.LATENCY for result in results):
        results.append(check_latency(subject, settings, None, read_golden(subject.golden, subject.contract)))
    results += _without_a_way(subject, _graph_fault(subject))
    results.append(_instruction_set(subject, results))
    results.append(check_budget(subject, settings))
    results.append(_non_inferiority(subject, settings, progress))
    progress("checked", 1.0)
    return tuple(sorted(results, key=lambda result: list(Check).index(result.check)))


def _non_inferiority(subject: Subject, settings: Settings, progress: Progress) -> CheckResult:
    """About the model, so it executes no artifact; all builds share its drives."""
    check, platform = Check.NON_INFERIORITY, subject.profile.name
    rule = settings.rule(platform, check)
    if rule is None:
        return not_demanded(check, platform)
    return check_non_inferiority(
        subject, settings, rule, lambda share: progress(f"{check}, {share:.0%} of the drives", _LAST)
    )


def execute_checks(subject: Subject, settings: Settings, progress: Progress) -> tuple[CheckResult, ...]:
    """Only the checks that execute the artifact, each way, for this subject's vehicles. Raises as
    ``validate_artifact``."""
    ran = execute(subject, settings, progress)
    return (*ran.results, *_envelope(subject, settings, ran.commands))


def execute(subject: Subject, settings: Settings, progress: Progress) -> Executed:
    """Execute the artifact, each way. Of the profile and the build the outcome depends on nothing but the rules that
    hold for the platform. Raises as ``validate_artifact``."""
    golden = read_golden(subject.golden, subject.contract)
    results: list[CheckResult] = []
    commands: list[Commands] = []
    graph = _graph_fault(subject)
    with ExitStack() as stack:
        candidates = [stack.enter_context(Candidate(subject.contract, way)) for way in subject.ways]
        total = len(candidates) * len(_EXECUTING) + 1
        for index, candidate in enumerate(candidates):
            for place, check in enumerate(_EXECUTING):
                progress(f"{check}, {candidate.way.label}", (index * len(_EXECUTING) + place) / total)
                results += _one(check, graph, _runner(check, subject, settings, candidate, golden))
            commands += _commands(subject, settings, candidate)
        here = next((c for c in candidates if c.obtained is Obtained.MEASURED), None)
        if settings.measure_latency or any(way.measure for way in subject.ways):
            progress(f"{Check.LATENCY}", (total - 1) / total)
            results += _one(Check.LATENCY, None, lambda: check_latency(subject, settings, here, golden))
    return Executed(tuple(results), tuple(commands))


def _commands(subject: Subject, settings: Settings, candidate: Candidate) -> list[Commands]:
    """What the artifact commands along recorded drives, where somebody will judge it."""
    if settings.rule(subject.profile.name, Check.CONTROL_ENVELOPE) is None:
        return []
    recording = _recording(subject, settings, candidate.way.pace)
    try:
        return [] if recording is None else [command(candidate, recording)]
    except MissingError:
        return []  # the other checks say what is not installed here


def _envelope(subject: Subject, settings: Settings, commands: tuple[Commands, ...]) -> list[CheckResult]:
    """The commands of every way, judged for the vehicle models of this build's variant."""
    check, platform = Check.CONTROL_ENVELOPE, subject.profile.name
    rule = settings.rule(platform, check)
    if rule is None:
        return [not_demanded(check, platform)]
    if not commands:
        text = "nothing here drives this artifact along recorded drives"
        return [not_run(check, text, f"run it on a bench that carries {subject.build.chip}, or build a host twin")]
    rate, envelope = subject.contract.rate_hz, subject.profile.envelope
    return [check_envelope(each, subject.vehicles, envelope, rate, rule) for each in commands]


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
        rule = rule and replace(rule, margins=rule.limits(candidate.obtained))
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
            case Check.CLOSED_LOOP | Check.TRAP_SUITE:
                if pace is Pace.CRAWL and not (check is Check.CLOSED_LOOP and settings.emulated_scenarios):
                    return _too_slow(check, candidate, subject)
                if rule is None:
                    return not_demanded(check, platform)
                drive = check_closed_loop if check is Check.CLOSED_LOOP else check_traps
                return drive(candidate, subject, settings, rule)
            case _:
                raise AssertionError(f"{check} does not execute an artifact")

    return run


def _recording(subject: Subject, settings: Settings, pace: Pace) -> Recording | None:
    """Drives of the model as trained, where it can be driven and the way is fast enough to be asked along them."""
    if pace is Pace.CRAWL or not drivable(subject.contract):
        return None
    control = subject.contract.control_output
    return RECORDINGS.get(subject.weights_digest, control, subject.reference, settings.seed)


def _too_slow(check: Check, candidate: Candidate, subject: Subject) -> CheckResult | None:
    """Driving under emulation takes minutes; it is reported as missing only where no other way drives."""
    if any(way.pace is not Pace.CRAWL for way in subject.ways):
        return None
    return not_run(
        check,
        f"{candidate.way.label} is too slow for a closed loop",
        f"drive it on a bench that carries {subject.build.chip}, or build a host twin",
    )


def _without_a_way(subject: Subject, graph: ContractBrokenError | None) -> list[CheckResult]:
    """What nothing could be executed for."""
    results: list[CheckResult] = []
    for place in subject.unreachable:
        text = f"{place.label}: {place.reason}"
        results += [not_run(check, text, place.next) for check in _COMPARING]
    if not subject.ways:
        results += _one(Check.CONTRACT, graph, lambda: _nothing(Check.CONTRACT, subject))
        results.append(_nothing(Check.NEGATIVE_CONTROL, subject))
        if not subject.unreachable:
            results += [_nothing(check, subject) for check in _COMPARING]
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
