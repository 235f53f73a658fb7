"""The budget check: what one control step takes of the chip's memory and bandwidth, ``estimated`` from the profile.

Every step reads all weights and moves all activations once; that over the model's rate is a share of the chip's
bandwidth, and payload plus activations is what it holds in memory (an upper estimate: activations do not all live at
once). The roofline latency is the larger of the time for the bytes and the time for the operations. It is a lower
bound that no chip beats, not a latency. A figure that the profile marks unknown is named and never replaced. Which
layers the bytes belong to is said as well: see ``layers``.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.artifact import ArtifactManifest, Precision
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Figure, Obtained, ResultFigure
from nwmctl.domain.platform import Build, PlatformProfile
from nwmctl.domain.roofline import balance, per_second, roof
from nwmctl.validation.figures import against, figure, not_run
from nwmctl.validation.layers import HUNGER, heaviest, hunger_figures, layer_figures
from nwmctl.validation.subject import Settings, StepCost, Subject

MEMORY, SHARE, ROOFLINE = "memory_mb", "bandwidth_share", "roofline_latency_ms"
_ESTIMATED = Obtained.ESTIMATED


@dataclass(frozen=True, slots=True)
class _Known:
    """The profile's figures that this check needs; None where unknown."""

    bandwidth: float | None
    share: float | None
    memory: float | None
    latency: float | None
    peak: float | None
    unknown: tuple[str, ...]
    surely: tuple[str, ...]

    @property
    def balance(self) -> float | None:
        """Operations per byte at which this part of the chip is as busy computing as it is waiting for memory."""
        if not self.peak or not self.bandwidth or not self.share:
            return None
        return balance(self.peak, self.bandwidth * self.share)


def check_budget(subject: Subject, settings: Settings) -> CheckResult:
    """Memory and bandwidth per step against the profile's budget and the policy's margins."""
    if subject.cost is None:
        return not_run(
            Check.BUDGET,
            "the cost of one control step could not be counted for this artifact",
            "hand in weight bytes, activation bytes and operations of the lowered graph",
        )
    known = _look_up(subject.profile, subject.build, subject.manifest.found_precision)
    figures = _figures(subject.cost, subject.manifest, subject.contract.rate_hz, known)
    limits = {name: limit for name, limit in _limits(known) if limit is not None}
    for name, margin in settings.margins(subject.profile.name, Check.BUDGET).items():
        limits[name] = min(margin, limits.get(name, margin))
    judged = against(limits, figures)
    chip = subject.build.chip
    if judged.exceeded:
        summary = f"{'; '.join(judged.exceeded)} ({chip}, roofline){_eaters(subject.cost, judged.figures)}"
        next = "use a smaller precision, or a smaller model on this chip"
        return CheckResult(Check.BUDGET, Verdict.FAILED, _ESTIMATED, summary, judged.figures, next)
    needed = [name for name in known.unknown if not name.startswith("peak")]
    if needed:
        summary = f"the profile does not know the {', '.join(needed)} of {chip}"
        return not_run(Check.BUDGET, summary, "fill the figure in, with its source", judged.figures)
    if judged.missing:
        summary = f"{', '.join(judged.missing)} cannot be estimated: the profile lacks {', '.join(known.unknown)}"
        next = "fill the figure in, with its source, or measure the latency on a bench"
        return CheckResult(Check.BUDGET, Verdict.INCONCLUSIVE, _ESTIMATED, summary, judged.figures, next)
    summary = _summary(judged.figures, known, chip) + _eaters(subject.cost, judged.figures)
    return CheckResult(Check.BUDGET, Verdict.PASSED, _ESTIMATED, summary, judged.figures)


def _eaters(cost: StepCost, figures: tuple[ResultFigure, ...]) -> str:
    """Where the bytes go, for a summary; empty where nobody counted by layer."""
    if not cost.layers or not cost.moved_bytes:
        return ""
    most = heaviest(cost, 2)[:2]
    said = " and ".join(f"{layer.name} {100 * layer.moved_bytes / cost.moved_bytes:.0f} %" for layer in most)
    hunger = next((item.value for item in figures if item.name == HUNGER), None)
    asks = f"; it asks for {hunger:.0f} times the bandwidth that its arithmetic balances" if hunger else ""
    return f"; most of its bytes: {said}{asks}"


def _summary(figures: tuple[ResultFigure, ...], known: _Known, chip: str) -> str:
    value = {item.name: item.value for item in figures}
    text = f"{value[MEMORY]:.3g} MB and {100 * value[SHARE]:.2g} % of the bandwidth of {chip}"
    unknown = f", no roofline: {known.unknown[0]} unknown" if known.unknown else ""
    text += f", roofline {value[ROOFLINE]:.2g} ms" if ROOFLINE in value else unknown
    return f"{text} (profile figures: {', '.join(known.surely)})"


def _look_up(profile: PlatformProfile, build: Build, precision: Precision) -> _Known:
    chip, budget = profile.chip(build.chip), profile.budget
    peak = chip.peaks.get(f"{build.unit}.{precision}")
    named: dict[str, Figure | None] = {
        "memory bandwidth": chip.memory_bandwidth,
        "bandwidth share": budget.bandwidth_share,
        "memory budget": budget.memory,
        "latency budget": budget.latency,
        f"peak of {build.unit} in {precision}": peak,
    }
    values = {name: entry.value if entry else None for name, entry in named.items()}
    unknown = tuple(name for name, value in values.items() if value is None)
    surely = sorted({str(entry.confidence) for entry in named.values() if entry and entry.value is not None})
    bandwidth, share, memory, latency, top = values.values()
    return _Known(bandwidth, share, memory, latency, top, unknown, tuple(surely))


def _limits(known: _Known) -> tuple[tuple[str, float | None], ...]:
    return (MEMORY, known.memory), (SHARE, known.share), (ROOFLINE, known.latency if known.peak else None)


def _figures(cost: StepCost, manifest: ArtifactManifest, rate_hz: float, known: _Known) -> tuple[ResultFigure, ...]:
    moved = cost.moved_bytes
    held = max(manifest.size, cost.weight_bytes) + cost.activation_bytes
    made = [
        figure("weight_mb", cost.weight_bytes / 1e6, "MB", _ESTIMATED),
        figure("activation_mb", cost.activation_bytes / 1e6, "MB", _ESTIMATED),
        figure("operations_m", cost.flops / 1e6, "M", _ESTIMATED),
        figure(MEMORY, held / 1e6, "MB", _ESTIMATED),
        figure("bandwidth_gb_per_s", per_second(moved, rate_hz), "GB/s", _ESTIMATED),
        *hunger_figures(cost, known.balance, _ESTIMATED),
        *layer_figures(cost, _ESTIMATED),
    ]
    if known.bandwidth is not None:
        made.append(figure(SHARE, per_second(moved, rate_hz) / known.bandwidth, "", _ESTIMATED))
        if known.share is not None and known.peak is not None:
            least = roof(cost.flops, moved, known.peak, known.bandwidth * known.share)
            made.append(figure(ROOFLINE, least.ms, "ms", _ESTIMATED))
    return tuple(made)
