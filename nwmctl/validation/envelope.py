"""The control envelope: what each vehicle model's chassis would be asked to do, against the platform's limits.

The universal commands of recorded drives go through the chassis law of every vehicle model. From what is left follow
curvature, lateral acceleration and jerk, longitudinal acceleration and jerk; each is compared with the profile's
limit, averaged as the limit's source averages it. Three shares say what a limiter would have to do, and none of it is
clipped away: commands that the chassis itself cannot follow (``limited_share``), commands that a guard within the
limits would change (``guarded_share``), and decisions at which acceleration and jerk limits leave such a guard no
command at all (``infeasible_share``). The same is computed for the model as trained: an artifact must not need more
of it than its model does. Open loop, so it judges commands and not drives. Limits are the profile's, margins the
policy's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.chassis import Chassis, adapt
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.platform import Envelope, VehicleModel
from nwmctl.domain.policy import Rule
from nwmctl.validation.commands import Commands, Drive
from nwmctl.validation.figures import against, figure, no_margins, not_run

QUANTITIES: Mapping[str, str] = {
    "curvature": "1/m",
    "lateral_acceleration": "m/s2",
    "lateral_jerk": "m/s3",
    "acceleration": "m/s2",
    "deceleration": "m/s2",
    "longitudinal_jerk": "m/s3",
}
"""What is compared with a limit, and its unit. The names are the envelope's."""
LIMITED, GUARDED, INFEASIBLE, EXCESS = "limited_share", "guarded_share", "infeasible_share", "excess_share"
_STANDING = 0.1
"""m/s below which a brake command slows nothing down."""
_SLACK = 1e-6
_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Limits:
    """The envelope in plain numbers, ``over`` in decisions."""

    most: Mapping[str, float]
    over: Mapping[str, int]
    dt: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What one vehicle model is asked to do along all drives: per quantity the largest value and the share of
    decisions beyond its limit, and the three shares of ``LIMITED``, ``GUARDED`` and ``INFEASIBLE``."""

    largest: Mapping[str, float]
    shares: Mapping[str, float]


def check_envelope(
    commands: Commands, vehicles: tuple[VehicleModel, ...], envelope: Envelope | None, rate_hz: float, rule: Rule
) -> CheckResult:
    """Judge the commands for every vehicle model of one build's variant."""
    check, obtained = Check.CONTROL_ENVELOPE, commands.obtained
    if commands.fault:
        return CheckResult(check, Verdict.FAILED, obtained, commands.fault, (), commands.next, (commands.seed,))
    unasked = _unasked(vehicles, envelope)
    if unasked is not None or envelope is None:
        return unasked or not_run(check, "there are no limits", "")
    limits = _limits(envelope, rate_hz)
    demands = {v.code: (demand(v.chassis, commands.drives, limits, own=True),
                        demand(v.chassis, commands.drives, limits, own=False)) for v in vehicles}  # fmt: skip
    figures = _figures(demands, obtained)
    if not rule.margins:
        return no_margins(check, obtained, figures)
    judged = against(rule.margins, figures)
    decisions = sum(len(drive.speed) for drive in commands.drives)
    where = f"{len(vehicles)} vehicle models, {decisions} decisions of recorded drives, {commands.label}"
    if judged.exceeded:
        summary = f"{'; '.join(judged.exceeded[:4])} ({where})"
        next = "compile again closer to the model; where the model itself asks for it, train it or its guard"
        return CheckResult(check, Verdict.FAILED, obtained, summary, judged.figures, next, (commands.seed,))
    if judged.missing:
        summary = f"the policy limits {', '.join(judged.missing)}, which this check does not measure"
        next = "have the safety role name margins for figures that exist"
        return CheckResult(check, Verdict.INCONCLUSIVE, obtained, summary, judged.figures, next, (commands.seed,))
    summary = f"{_said(judged.figures)} ({where})"
    return CheckResult(check, Verdict.PASSED, obtained, summary, judged.figures, "", (commands.seed,))


def _unasked(vehicles: tuple[VehicleModel, ...], envelope: Envelope | None) -> CheckResult | None:
    """Why nothing can be judged; a limit that nobody knows is named and never made up."""
    check = Check.CONTROL_ENVELOPE
    if not vehicles:
        next = "name the vehicle models of this variant in the catalogue"
        return not_run(check, "no vehicle model carries this variant, so there is no chassis to adapt to", next)
    if envelope is None:
        next = "name limits under 'envelope:', each with its source"
        return not_run(check, "the platform's profile names no limits for commands", next)
    unknown = [name for name in QUANTITIES if getattr(envelope, name).limit.value is None]
    if unknown:
        said = ", ".join(unknown).replace("_", " ")
        return not_run(check, f"the profile does not know the limit of {said}", "fill it in, with its source")
    return None


def _limits(envelope: Envelope, rate_hz: float) -> _Limits:
    entries = {name: getattr(envelope, name) for name in QUANTITIES}
    over = {name: max(1, math.ceil(entry.over_s * rate_hz - _SLACK)) for name, entry in entries.items()}
    return _Limits({name: float(entry.limit.value) for name, entry in entries.items()}, over, 1.0 / rate_hz)


def demand(chassis: Chassis, drives: tuple[Drive, ...], limits: _Limits, *, own: bool) -> Demand:
    """What this chassis is asked to do by the artifact (``own``) or by the model as trained."""
    parts: dict[str, list[_Values]] = {name: [] for name in QUANTITIES}
    counts = np.zeros(3)
    decisions = 0
    for drive in drives:
        speed = np.array(drive.speed)
        steer, acceleration = (
            (drive.steer, drive.acceleration) if own else (drive.reference_steer, drive.reference_acceleration)
        )
        adapted = [adapt(chassis, s, a) for s, a in zip(steer, acceleration, strict=True)]
        ratio, wheelbase = _known(chassis.steering_ratio.value), _known(chassis.wheelbase.value)
        curvature = np.tan(np.array([each.steering_wheel for each in adapted]) / ratio) / wheelbase
        pedal = np.array([each.acceleration for each in adapted])
        pedal = np.where(speed < _STANDING, np.maximum(pedal, 0.0), pedal)
        for name, values in _motion(speed, curvature, pedal, limits).items():
            parts[name].append(values)
        guarded, infeasible = _guard(speed, curvature, pedal, limits)
        counts += (sum(each.limited for each in adapted), guarded, infeasible)
        decisions += len(speed)
    joined = {name: np.abs(np.concatenate(values)) if values else np.zeros(0) for name, values in parts.items()}
    shares = {
        f"{name}.{EXCESS}": float((values > limits.most[name] + _SLACK).mean()) if values.size else 0.0
        for name, values in joined.items()
    }
    shares |= dict(zip((LIMITED, GUARDED, INFEASIBLE), (counts / max(decisions, 1)).tolist(), strict=True))
    return Demand({name: float(values.max(initial=0.0)) for name, values in joined.items()}, shares)


def _motion(speed: _Values, curvature: _Values, pedal: _Values, limits: _Limits) -> dict[str, _Values]:
    """Every quantity along one drive; one that is averaged is defined from the first full window on."""
    lateral = speed**2 * curvature
    levels = {
        "curvature": curvature,
        "lateral_acceleration": lateral,
        "acceleration": np.maximum(pedal, 0.0),
        "deceleration": np.maximum(-pedal, 0.0),
    }
    found = {name: _averaged(values, limits.over[name]) for name, values in levels.items()}
    for name, values in (("lateral_jerk", lateral), ("longitudinal_jerk", pedal)):
        over = limits.over[name]
        found[name] = (values[over:] - values[:-over]) / (over * limits.dt)
    return found


def _averaged(values: _Values, over: int) -> _Values:
    if over == 1 or len(values) < over:
        return values if over == 1 else values[:0]
    return np.convolve(values, np.full(over, 1.0 / over), mode="valid")


def _guard(speed: _Values, curvature: _Values, pedal: _Values, limits: _Limits) -> tuple[int, int]:
    """Decisions that a guard within the limits would change, and those at which it would find no command.

    The guard starts from the first command. Where the window that jerk allows around what it let through before and
    the window of accelerations do not meet (the car became faster in a bend), it takes the nearest acceleration.
    """
    most, dt = limits.most, limits.dt
    changed = stuck = 0
    held, pushed = float(curvature[0]) if len(curvature) else 0.0, float(pedal[0]) if len(pedal) else 0.0
    for v, k, a in zip(speed.tolist(), curvature.tolist(), pedal.tolist(), strict=True):
        square = max(v * v, _SLACK)
        bend = min(most["lateral_acceleration"], most["curvature"] * square)
        side, ok_side = _within(k * square, held * square, most["lateral_jerk"] * dt, -bend, bend)
        push, ok_push = _within(a, pushed, most["longitudinal_jerk"] * dt, -most["deceleration"], most["acceleration"])
        changed += abs(side - k * square) > _SLACK or abs(push - a) > _SLACK
        stuck += not (ok_side and ok_push)
        held, pushed = side / square, push
    return changed, stuck


def _within(wish: float, before: float, step: float, low: float, high: float) -> tuple[float, bool]:
    """The allowed value nearest to the wish, and whether any value satisfies both windows."""
    least, most = max(before - step, low), min(before + step, high)
    if least > most:
        return min(max(before, low), high), False
    return min(max(wish, least), most), True


def _figures(demands: Mapping[str, tuple[Demand, Demand]], obtained: Obtained) -> tuple[ResultFigure, ...]:
    """Of the vehicle model for which each is largest; ``_shift`` is the artifact's share minus the model's."""
    made: list[ResultFigure] = []
    for name, unit in QUANTITIES.items():
        largest = max(own.largest[name] for own, _ in demands.values())
        made.append(figure(f"{name}.max", largest, unit, obtained))
    for name in next(iter(demands.values()))[0].shares:
        pairs = [(own.shares[name], model.shares[name]) for own, model in demands.values()]
        made.append(figure(name, max(own for own, _ in pairs), "", obtained))
        shift = max((own - model for own, model in pairs), key=abs)
        made.append(figure(name.replace("_share", "_shift"), shift, "", obtained))
    made += [figure(f"{LIMITED}.{code}", own.shares[LIMITED], "", obtained) for code, (own, _) in demands.items()]
    return tuple(made)


def _said(figures: tuple[ResultFigure, ...]) -> str:
    value = {item.name: item.value for item in figures}
    return (
        f"{100 * value[LIMITED]:.2g} % of commands beyond the chassis, {100 * value[GUARDED]:.2g} % beyond the limits, "
        f"{100 * value[INFEASIBLE]:.2g} % without a feasible command"
    )


def _known(value: float | None) -> float:
    assert value is not None  # Chassis.__post_init__ refuses unknown figures
    return value
