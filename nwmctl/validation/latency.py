"""The latency check: measured where the chip is, and nowhere else.

Only the virtual platform's chip is this machine. An emulator's or a host twin's time says nothing about a vehicle, so
every other build is measured on a bench that tells the time itself, or is ``not_run`` and told which bench would settle
it. Measured latency differs from run to run; here it is therefore measured on request only, so that the other evidence
keeps its bytes. Who connects a bench has requested it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.measurement import NO_CO_LOAD, Latency
from nwmctl.errors import MissingError, ToolchainError
from nwmctl.toolchains.measure import MeasureOrder, measure
from nwmctl.toolchains.protocol import BenchOrder, Tensors
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.figures import against, figure, not_run
from nwmctl.validation.inputs import Golden, take
from nwmctl.validation.subject import Settings, Subject, Way

P50, P99 = "latency_p50_ms", "latency_p99_ms"
_WARM_UP = 10


def check_latency(subject: Subject, settings: Settings, here: Candidate | None, golden: Golden) -> CheckResult:
    """Batch-1 latency in the runtime; ``here`` is the candidate that runs on the platform's own chip."""
    chip = subject.build.chip
    on_bench = next((way for way in subject.ways if way.obtained is Obtained.BENCH and way.measure), None)
    if on_bench is not None:
        return _on_bench(subject, settings, on_bench, golden)
    if not any(way.obtained is Obtained.MEASURED for way in subject.ways):
        return not_run(
            Check.LATENCY,
            f"no {chip} within reach; neither an emulator nor this host tells its latency",
            f"measure on a bench that carries {chip}, as in {subject.profile.title}",
        )
    if here is None or not settings.measure_latency:
        return not_run(
            Check.LATENCY,
            "not asked for: a measured latency differs from run to run and would change the evidence's bytes",
            "validate again with latency measurement switched on",
        )
    rows = [take(golden.inputs, slice(row, row + 1)) for row in range(golden.rows)]
    order = MeasureOrder(settings.latency_runs, 1e3 / subject.contract.rate_hz, _WARM_UP, obtained=here.obtained)
    return _told(subject, settings, here.way, lambda: _measured(here.way, rows, order), "this machine")


def _on_bench(subject: Subject, settings: Settings, way: Way, golden: Golden) -> CheckResult:
    """What programs on the bench say. Raises RemoteError subclasses where it goes away."""
    measure_there, row = way.measure, take(golden.inputs, slice(0, 1))
    assert measure_there is not None
    order = BenchOrder(settings.latency_runs, _WARM_UP, 1e3 / subject.contract.rate_hz)
    return _told(subject, settings, way, lambda: measure_there(row, order), way.label)


def _measured(way: Way, rows: Sequence[Tensors], order: MeasureOrder) -> Latency:
    """In a process that has done nothing before; what that process says, without the pipe to it."""
    with way.open() as session:
        return measure({way.label: session}, rows, order)[way.label]


def _told(subject: Subject, settings: Settings, way: Way, measured: Callable[[], Latency], where: str) -> CheckResult:
    try:
        found = measured()
    except MissingError as problem:
        return not_run(Check.LATENCY, f"{problem.what}: {problem.why}", problem.next)
    except ToolchainError as problem:
        summary = f"{problem.what}: {problem.why}"
        return CheckResult(Check.LATENCY, Verdict.FAILED, way.obtained, summary, (), problem.next)
    figures = {
        "runs": (found.n, ""),
        P50: (found.p50_ms, "ms"),
        P99: (found.p99_ms, "ms"),
        "latency_p999_ms": (found.p999_ms, "ms"),
        "latency_most_ms": (found.most_ms, "ms"),
        "deadline_misses": (found.misses, ""),
    }
    told = tuple(figure(name, value, unit, way.obtained) for name, (value, unit) in figures.items())
    beside = "" if found.co_load == NO_CO_LOAD else f" beside {found.co_load}"
    return _judged(subject, settings, told, f"{found.n} runs at batch 1 on {where}{beside}, load {found.load:.2g}")


def _judged(subject: Subject, settings: Settings, figures: tuple[ResultFigure, ...], where: str) -> CheckResult:
    """The figures against the vehicle's budget and the policy's margins."""
    obtained, values = figures[0].obtained, {each.name: each.value for each in figures}
    p50, p99 = values[P50], values[P99]
    limits: Mapping[str, float] = settings.margins(subject.profile.name, Check.LATENCY)
    budget = subject.profile.budget.latency.value
    if budget is not None:
        limits = {**limits, P99: min(budget, limits.get(P99, budget))}
    judged = against(limits, figures)
    if judged.exceeded:
        return CheckResult(
            Check.LATENCY, Verdict.FAILED, obtained, f"{'; '.join(judged.exceeded)} ({where})", judged.figures
        )
    if not limits or judged.missing:
        return CheckResult(
            Check.LATENCY,
            Verdict.INCONCLUSIVE,
            obtained,
            f"no limit to compare p99 {p99:.3g} ms with ({where})",
            judged.figures,
            "name a latency budget in the profile or a margin in the policy",
        )
    return CheckResult(
        Check.LATENCY, Verdict.PASSED, obtained, f"p50 {p50:.3g} ms, p99 {p99:.3g} ms ({where})", judged.figures
    )
