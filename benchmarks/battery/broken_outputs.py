"""Artifacts whose outputs are wrong: the network is whole, and what comes out of it is changed on the way.

A change is made inside the graph, so what executes is one ordinary ONNX file; only the last two kinds of ``OUTPUTS``
are a runtime that misbehaves with a whole graph.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from benchmarks.battery.kinds import Kind, affine
from benchmarks.battery.shop import Artifact, Shop
from benchmarks.battery.surgery import Change, Weaver
from nwmctl.driving import constants as k

LOW, HIGH = (-k.STEER_LIMIT, k.ACCEL_MIN), (k.STEER_LIMIT, k.ACCEL_MAX)
_NOW = k.HISTORY - 1


def limited(weave: Weaver, control: str) -> str:
    """Controls within the physical limits, as a careful integration would leave them."""
    return weave("Max", weave("Min", control, weave.const(HIGH)), weave.const(LOW))


def on_control(shop: Shop, dice: Generator, change: Change, said: str) -> Artifact:
    """Controls changed before or after the graph derives everything else from them."""
    graph, inside = shop.base.copy(), bool(dice.integers(2))
    graph.before_output("control", lambda weave, raw: limited(weave, change(weave, raw)), inside=inside)
    return Artifact(graph.bytes(), f"{said}, {'before' if inside else 'after'} the rollout")


def gain(channel: int, factor: float) -> Kind:
    """One control channel too weak or too strong."""

    def build(shop: Shop, dice: Generator) -> Artifact:
        factors = [factor if index == channel else 1.0 for index in range(2)]
        return on_control(shop, dice, affine(factors), f"x {factor:g}")

    return build


def gain_off(shop: Shop, dice: Generator) -> Artifact:
    """A control channel 5 % too weak or too strong: a quarter of what the loop's feedback can hide."""
    channel, factor = int(dice.integers(2)), float(dice.choice([0.95, 1.05]))
    made = gain(channel, factor)(shop, dice)
    return Artifact(made.graph, f"{('steer', 'acceleration')[channel]} {made.detail}")


def bias(channel: int, size: float) -> Kind:
    """One control channel off by a constant, to either side."""

    def build(shop: Shop, dice: Generator) -> Artifact:
        offset = [0.0, 0.0]
        offset[channel] = float(size * dice.choice([-1.0, 1.0]))
        return on_control(shop, dice, affine((1.0, 1.0), offset), f"{offset[channel]:+g}")

    return build


def weak_brakes(shop: Shop, dice: Generator) -> Artifact:
    """Braking at 0.85, everything else as it should be."""
    return on_control(shop, dice, _where_negative, "negative accelerations x 0.85")


def _where_negative(weave: Weaver, raw: str) -> str:
    negative = weave("Less", raw, weave.const([-9.0, 0.0]))
    return weave("Where", negative, weave("Mul", raw, weave.const(0.85)), raw)


def weak_brakes_when_close(shop: Shop, dice: Generator) -> Artifact:
    """Brakes at a half, but only while a vehicle is near ahead: a fault that few rows show."""
    reach = float(dice.uniform(12.0, 25.0))

    def change(weave: Weaver, raw: str) -> str:
        now = weave.pick("agents", [_NOW], 2)
        x, y = weave.pick(now, [1], 3), weave.pick(now, [2], 3)
        ahead = weave("And", weave("Greater", x, weave.const(0.5)), weave("Less", x, weave.const(reach)))
        near = weave("And", ahead, weave("Less", weave("Abs", y), weave.const(2.0)))
        some = weave("ReduceMax", weave("Cast", near, to=1), axes=[1, 2], keepdims=0)
        brake = weave("Less", raw, weave.const([-9.0, 0.0]))
        share = weave("Sub", weave.const(1.0), weave("Mul", weave("Unsqueeze", some, weave.const([1], np.int64)),
                                                      weave.const(0.5)))  # fmt: skip
        return weave("Where", brake, weave("Mul", raw, share), raw)

    return on_control(shop, dice, change, f"within {reach:.0f} m")


def sign_swapped(shop: Shop, dice: Generator) -> Artifact:
    """Left is right."""
    return on_control(shop, dice, affine((-1.0, 1.0)), "steer x -1")


def outputs_swapped(shop: Shop, dice: Generator) -> Artifact:
    """Steer and acceleration in each other's place."""
    return on_control(shop, dice, lambda weave, raw: weave.pick(raw, [1, 0], 2), "channels 1, 0")


def horizon_truncated(shop: Shop, dice: Generator) -> Artifact:
    """Zeros after the third step of the plan."""
    kept = (np.arange(k.HORIZON) < 3).astype(np.float32)[:, None]
    return on_control(shop, dice, lambda weave, raw: weave("Mul", raw, weave.const(kept)), "3 steps kept")


def plan_reversed(shop: Shop, dice: Generator) -> Artifact:
    """The last step of the plan comes first."""
    order = list(range(k.HORIZON))[::-1]
    return on_control(shop, dice, lambda weave, raw: weave.pick(raw, order, 1), "steps 9..0")


def one_step_late(shop: Shop, dice: Generator) -> Artifact:
    """The command of the decision before comes first and the plan follows a step late; in a stateless graph."""

    def change(weave: Weaver, raw: str) -> str:
        last = weave.pick(weave.pick("ego", [_NOW], 1), [1, 2], 2)
        return weave("Concat", last, weave.pick(raw, list(range(k.HORIZON - 1)), 1), axis=1)

    return on_control(shop, dice, change, "last command first")


def previous_answer(shop: Shop, dice: Generator) -> Artifact:
    """The whole graph, and a runtime that hands out the answer to the question before."""
    return Artifact(shop.base.bytes(), "double buffer", late=True)


def freezes(shop: Shop, dice: Generator) -> Artifact:
    """The whole graph, and a runtime that stops computing after a while."""
    after = int(dice.integers(20, 2_000))
    return Artifact(shop.base.bytes(), f"after {after} answers", freezes=after)


def saturated(shop: Shop, dice: Generator) -> Artifact:
    """Controls that stop far short of their limits."""
    steer, accel = float(dice.uniform(0.05, 0.12)), float(dice.uniform(0.8, 1.5))

    def change(weave: Weaver, raw: str) -> str:
        return weave("Max", weave("Min", raw, weave.const([steer, accel])), weave.const([-steer, -accel]))

    return on_control(shop, dice, change, f"at {steer:.2f} rad and {accel:.1f} m/s2")


def constant(shop: Shop, dice: Generator) -> Artifact:
    """The same controls whatever is seen."""
    value = [float(dice.uniform(-0.02, 0.02)), float(dice.uniform(-0.5, 0.5))]
    return on_control(shop, dice, affine((0.0, 0.0), value), f"{value[0]:.3f} rad, {value[1]:.2f} m/s2")


def coarse_output(shop: Shop, dice: Generator) -> Artifact:
    """Controls rounded to coarse steps, as an 8-bit output with the wrong scale gives them."""
    steps = [float(dice.uniform(0.016, 0.03)), float(dice.uniform(0.4, 0.8))]

    def change(weave: Weaver, raw: str) -> str:
        return weave("Mul", weave("Round", weave("Div", raw, weave.const(steps))), weave.const(steps))

    return on_control(shop, dice, change, f"{steps[0]:.3f} rad, {steps[1]:.2f} m/s2")


def unsteady(shop: Shop, dice: Generator) -> Artifact:
    """Another answer each time: noise far below what parity forgives."""
    graph, size = shop.base.copy(), float(dice.uniform(2e-4, 1e-3))

    def change(weave: Weaver, raw: str) -> str:
        noise = weave("RandomNormalLike", raw, mean=0.0, scale=size)
        return limited(weave, weave("Add", raw, noise))

    graph.before_output("control", change)
    return Artifact(graph.bytes(), f"sigma {size:.4f}")


def nan_on_rare_input(shop: Shop, dice: Generator) -> Artifact:
    """Not a number where something seldom is so."""
    name, channel, above = (
        ("speed above {:.0f} m/s", 0, float(dice.uniform(30.0, 50.0))),
        ("last command steers more than {:.2f} rad", 1, float(dice.uniform(0.35, 0.48))),
        ("cruise speed above {:.0f} m/s", 5, float(dice.uniform(35.0, 55.0))),
        ("lateral offset above {:.1f} m", 3, float(dice.uniform(1.0, 2.0))),
        ("standing still (speed below {:.2f} m/s)", 0, -float(dice.uniform(0.02, 0.1))),
    )[int(dice.integers(5))]

    def change(weave: Weaver, raw: str) -> str:
        value = weave.pick(weave.pick("ego", [_NOW], 1), [channel], 2)
        rare = weave("Greater", value, weave.const(above)) if above > 0 else weave("Less", value, weave.const(-above))
        return weave("Where", rare, weave.const(np.nan), raw)

    graph = shop.base.copy()
    graph.before_output("control", change, inside=bool(dice.integers(2)))
    return Artifact(graph.bytes(), name.format(abs(above)))


def trajectory_wrong(shop: Shop, dice: Generator) -> Artifact:
    """Controls as they should be, and a trajectory that is not theirs."""
    graph, which = shop.base.copy(), int(dice.integers(2))
    gains = ((1.0, -1.0, -1.0), (0.9, 0.9, 1.0))[which]
    graph.before_output("trajectory", affine(gains, (0.0, 0.0, 0.0)))
    return Artifact(graph.bytes(), ("mirrored", "10 % short")[which])


OUTPUTS: dict[str, Kind] = {
    "steer sign swapped": sign_swapped,
    "steer x 0.8": gain(0, 0.8),
    "steer x 1.2": gain(0, 1.2),
    "acceleration x 0.8": gain(1, 0.8),
    "acceleration x 1.2": gain(1, 1.2),
    "a gain 5 % off": gain_off,
    "steer bias 0.01 rad": bias(0, 0.01),
    "acceleration bias 0.2 m/s2": bias(1, 0.2),
    "brakes x 0.85": weak_brakes,
    "brakes x 0.5 near a vehicle": weak_brakes_when_close,
    "outputs swapped": outputs_swapped,
    "horizon truncated": horizon_truncated,
    "plan reversed": plan_reversed,
    "commands one step late": one_step_late,
    "saturated output": saturated,
    "constant output": constant,
    "coarse output": coarse_output,
    "another answer each time": unsteady,
    "NaN on rare input": nan_on_rare_input,
    "trajectory not the controls'": trajectory_wrong,
    "the answer before": previous_answer,
    "freezes after a while": freezes,
}
"""By the name under which they are counted."""
