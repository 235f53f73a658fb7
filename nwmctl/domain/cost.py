"""What one control step of a model reads and computes, layer by layer. Counted elsewhere; these are the nouns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer at batch 1: bytes of weights and of activations that it moves, operations that it does."""

    name: str
    weight_bytes: int
    activation_bytes: int
    flops: int

    def __post_init__(self) -> None:
        _refuse_negative(self.weight_bytes, self.activation_bytes, self.flops)

    @property
    def moved_bytes(self) -> int:
        """Bytes between memory and the arithmetic units."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one control step (batch 1) reads and computes: bytes of weights, bytes of activations, operations.

    ``layers`` say which part of the network they belong to; empty where nobody counted by layer.
    """

    weight_bytes: int
    activation_bytes: int
    flops: int
    layers: tuple[LayerCost, ...] = ()

    def __post_init__(self) -> None:
        _refuse_negative(self.weight_bytes, self.activation_bytes, self.flops)

    @property
    def moved_bytes(self) -> int:
        """Bytes between memory and the arithmetic units."""
        return self.weight_bytes + self.activation_bytes


def _refuse_negative(*counts: int) -> None:
    if min(counts) < 0:
        raise ValueError("a cost cannot be negative")
