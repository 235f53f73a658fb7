"""What the kinds of broken artifact have in common: the shape of a kind, and changes channel by channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numpy.random import Generator

from benchmarks.battery.shop import Artifact, Shop
from benchmarks.battery.surgery import Change, Weaver

Kind = Callable[[Shop, Generator], Artifact]
"""Makes one artifact; the dice choose the one realisation of a trial: which layer, which side, which condition."""


def affine(gain: Sequence[float], offset: Sequence[float] = (0.0, 0.0)) -> Change:
    """Channel by channel gain x value + offset."""

    def change(weave: Weaver, raw: str) -> str:
        return weave("Add", weave("Mul", raw, weave.const(gain)), weave.const(offset))

    return change
