"""Artifacts whose numbers are wrong: quantised badly, weights lost, swapped or of another model, ranges overflown.

Each kind is a function of the material and of dice, which choose the one realisation of a trial: which layer, which
scale, which noise.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.battery import precision
from benchmarks.battery.kinds import Kind
from benchmarks.battery.shop import UNPACK, Artifact, Shop, observed
from benchmarks.battery.surgery import Graph
from nwmctl.driving import constants as k

LAYERS = 3
_SCALES = {"ego": (0, 3, 4, 5), "agents": (1, 2, 3), "route": (0, 1)}
"""Channels whose scale matters; presence and last commands say little."""
_BIASES = ("query", "key", "value", "mix", "up", "down")


def layer(dice: Generator) -> int:
    """One of the attention layers."""
    return int(dice.integers(LAYERS))


def calibration_too_narrow(shop: Shop, dice: Generator) -> Artifact:
    """Static int8 calibrated on inputs of another scale: everyday activations leave the range."""
    factor = float(dice.uniform(0.03, 0.2))
    scaled = {
        name: (values.astype(np.float32) * factor).astype(np.float32) for name, values in shop.calibration.items()
    }
    return Artifact(precision.static_int8(shop.base, scaled).bytes(), f"inputs x {factor:.2f}")


def calibration_too_wide(shop: Shop, dice: Generator) -> Artifact:
    """Static int8 calibrated on values that never occur: everyday activations share a few steps."""
    factor = float(dice.uniform(20.0, 60.0))
    scaled = {
        name: (values.astype(np.float32) * factor).astype(np.float32) for name, values in shop.calibration.items()
    }
    return Artifact(precision.static_int8(shop.base, scaled).bytes(), f"inputs x {factor:.0f}")


def four_bits(shop: Shop, dice: Generator) -> Artifact:
    """All weights in 4 bits with one scale per matrix."""
    graph, clip = shop.base.copy(), float(dice.uniform(0.7, 1.0))
    for weight in graph.weights():
        precision.integer_weight(graph, weight, 4, per_channel=False, clip=clip)
    return Artifact(graph.bytes(), f"range x {clip:.2f}", session=UNPACK)


def noise(shop: Shop, dice: Generator) -> Artifact:
    """Weights off by 3 % each."""
    graph = shop.base.copy()
    for weight in graph.weights():
        values = graph.floats(weight.name)
        graph.put(weight.name, (values * (1.0 + 0.03 * dice.standard_normal(values.shape))).astype(np.float32))
    return Artifact(graph.bytes(), "3 % of each")


def feed_forward_zeroed(shop: Shop, dice: Generator) -> Artifact:
    """One feed-forward layer adds nothing."""
    graph, at = shop.base.copy(), layer(dice)
    return Artifact(zeroed(graph, f"blocks.{at}/down/").bytes(), f"layer {at}")


def attention_zeroed(shop: Shop, dice: Generator) -> Artifact:
    """One attention layer adds nothing."""
    graph, at = shop.base.copy(), layer(dice)
    return Artifact(zeroed(graph, f"blocks.{at}/mix/").bytes(), f"layer {at}")


def prediction_zeroed(shop: Shop, dice: Generator) -> Artifact:
    """One prediction head says nothing; the controls are right."""
    graph, head = shop.base.copy(), ("agent_head.2", "ego_head.2")[int(dice.integers(2))]
    return Artifact(zeroed(graph, f"{head}/").bytes(), head)


def zeroed(graph: Graph, part: str) -> Graph:
    """One matrix is zero."""
    weight = graph.weight(part)
    graph.put(weight.name, np.zeros_like(graph.constant(weight.name)))
    return graph


def transposed(shop: Shop, dice: Generator) -> Artifact:
    """One square matrix lies the wrong way."""
    graph = shop.base.copy()
    part = f"blocks.{layer(dice)}/{('query', 'key', 'value', 'mix')[int(dice.integers(4))]}/"
    weight = graph.weight(part)
    graph.put(weight.name, graph.constant(weight.name).T)
    return Artifact(graph.bytes(), part.strip("/"))


def layers_swapped(shop: Shop, dice: Generator) -> Artifact:
    """Two layers have each other's matrix."""
    graph, part = shop.base.copy(), ("up", "down", "mix", "value")[int(dice.integers(4))]
    one, other = (int(at) for at in dice.choice(LAYERS, 2, replace=False))
    names = [graph.weight(f"blocks.{at}/{part}/").name for at in (one, other)]
    values = [graph.constant(name) for name in names]
    for name, value in zip(names, reversed(values), strict=True):
        graph.put(name, value)
    return Artifact(graph.bytes(), f"{part} of {one} and {other}")


def biases_dropped(shop: Shop, dice: Generator) -> Artifact:
    """One layer has no biases, as a compiler leaves it that forgets the addition after a product."""
    graph, at = shop.base.copy(), layer(dice)
    for part in _BIASES:
        name = f"blocks.{at}.{part}.bias"
        graph.put(name, np.zeros_like(graph.constant(name)))
    return Artifact(graph.bytes(), f"layer {at}")


def activations_clipped(shop: Shop, dice: Generator) -> Artifact:
    """Activations of one layer stop at a share of what everyday data reach."""
    graph, at, share = shop.base.copy(), layer(dice), float(dice.uniform(0.15, 0.35))
    tensor = f"/blocks.{at}/Relu_output_0"
    most = share * float(observed(graph, tensor).max())
    graph.behind(tensor, lambda weave, raw: weave("Min", raw, weave.const(most)))
    return Artifact(graph.bytes(), f"layer {at} at {share:.2f} of the largest")


def wrong_normalisation(shop: Shop, dice: Generator) -> Artifact:
    """One channel is divided by another constant than in training."""
    graph = shop.base.copy()
    name = list(_SCALES)[int(dice.integers(len(_SCALES)))]
    channel, factor = int(dice.choice(_SCALES[name])), float(dice.choice([0.5, 0.7, 1.4, 2.0]))
    divide = next(node for node in graph.readers(name) if node.op_type == "Div")
    values = graph.floats(divide.input[1])
    values[channel] *= factor
    graph.put(divide.input[1], values)
    return Artifact(graph.bytes(), f"{name}[{channel}] scale x {factor:g}")


def attention_scale(shop: Shop, dice: Generator) -> Artifact:
    """The attention's logits are scaled wrongly in every layer."""
    graph, factor = shop.base.copy(), float(dice.choice([0.5, 2.0, k.AGENTS**0.5]))
    names = set()
    for node in graph.nodes("Softmax"):
        logits = graph.maker(node.input[0])
        names |= {maker.input[1] for maker in map(graph.maker, logits.input[:1]) if maker.op_type == "Mul"}
    for name in names:
        graph.put(name, (graph.floats(name) * factor).astype(np.float32))
    return Artifact(graph.bytes(), f"x {factor:.3g}")


def half_overflow(shop: Shop, dice: Generator) -> Artifact:
    """A feed-forward layer in fp16, rescaled as fp32 does not notice: in some situations activations overflow."""
    graph, at = shop.base.copy(), layer(dice)
    seen, share = observed(graph, f"/blocks.{at}/Relu_output_0"), float(dice.uniform(0.1, 0.9))
    factor = np.float32(65_504.0 / np.quantile(seen.max(axis=(1, 2)), share))
    up, down = graph.weight(f"blocks.{at}/up/"), graph.weight(f"blocks.{at}/down/")
    for name, by in ((up.name, factor), (f"blocks.{at}.up.bias", factor), (down.name, 1.0 / factor)):
        graph.put(name, (graph.floats(name) * by).astype(np.float32))
    graph.behind(up.reads, lambda weave, raw: precision.narrowed(weave, raw, precision.HALF))
    return Artifact(graph.bytes(), f"layer {at}, in {1.0 - share:.0%} of everyday situations")


def eight_bit_floats(shop: Shop, dice: Generator) -> Artifact:
    """All weights with three bits of mantissa and no scale."""
    graph = shop.base.copy()
    for weight in graph.weights():
        graph.put(weight.name, _three_bits(graph.floats(weight.name)))
    return Artifact(graph.bytes(), "e4m3 without scale")


def _three_bits(values: NDArray[np.float32]) -> NDArray[np.float32]:
    part, power = np.frexp(values)
    rounded = np.ldexp(np.rint(part * 16.0) / 16.0, power)
    return cast(NDArray[np.float32], np.where(np.abs(values) < 2.0**-9, 0.0, rounded).astype(np.float32))


def wrong_checkpoint(shop: Shop, dice: Generator) -> Artifact:
    """The model released before, under this one's name; sometimes only half of it."""
    if dice.integers(2):
        return Artifact(shop.previous.bytes(), "all of the model before")
    graph, at = shop.base.copy(), layer(dice)
    for weight in graph.weights():
        if f"blocks.{at}/" in weight.reads:
            graph.put(weight.name, shop.previous.constant(shop.previous.weight(weight.reads).name))
    return Artifact(graph.bytes(), f"layer {at} of the model before")


WEIGHTS: dict[str, Kind] = {
    "int8, calibrated too narrow": calibration_too_narrow,
    "int8, calibrated too wide": calibration_too_wide,
    "4-bit weights, one scale": four_bits,
    "8-bit floats, no scale": eight_bit_floats,
    "3 % weight noise": noise,
    "feed-forward layer zeroed": feed_forward_zeroed,
    "attention layer zeroed": attention_zeroed,
    "prediction head zeroed": prediction_zeroed,
    "matrix transposed": transposed,
    "layers swapped": layers_swapped,
    "biases dropped": biases_dropped,
    "activations clipped": activations_clipped,
    "wrong normalisation": wrong_normalisation,
    "attention scaled wrongly": attention_scale,
    "fp16 overflow": half_overflow,
    "wrong checkpoint": wrong_checkpoint,
}
"""By the name under which they are counted."""
