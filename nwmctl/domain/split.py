"""One graph over two chips of one kind: where it was cut, what crosses the cut, and what that gives. Nouns only.

Two chips in a row work on two control steps at once: the slower stage decides how many steps per second they finish,
while one single step takes both stages and the transfer and so never becomes faster. Both are said. A time or bandwidth
that nobody knows is None, and ``why`` says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.artifact import Port, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Figure, Obtained
from nwmctl.domain.prediction import PredictionError
from nwmctl.domain.roofline import Bound


@dataclass(frozen=True, slots=True)
class Crossing:
    """A tensor that the first chip hands to the second one in every control step."""

    tensor: Port
    bytes: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One part. ``graph`` is the digest of its ONNX file; ``payload`` and ``manifest`` of its artifact, None where none
    was built. ``ms`` is predicted, None where a figure is missing."""

    graph: Digest
    layers: tuple[str, ...]
    flops: int
    weight_bytes: int
    activation_bytes: int
    ms: float | None
    bound: Bound | None
    payload: Digest | None = None
    manifest: Digest | None = None


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """A cut and its consequences.

    ``forwarded_bytes``: inputs of the model that the second chip reads too, per control step; whether they come over
    the link or from the sensors themselves is the vehicle's wiring, so they are no part of ``bytes_per_frame``.
    ``whole_ms``: the same model on one chip. ``latency_ms``: one control step through both chips. ``throughput_hz``:
    control steps per second when both chips work at once. ``balanced_by``: what the two stages were balanced by.
    ``shared_weight_bytes``: weights that both parts hold.
    """

    model: Digest
    chip: str
    unit: str
    recipe: Recipe
    rate_hz: float
    crossings: tuple[Crossing, ...]
    bytes_per_frame: int
    forwarded_bytes: int
    shared_weight_bytes: int
    stages: tuple[Stage, ...]
    link: Figure
    balanced_by: str
    whole_ms: float | None
    transfer_ms: float | None
    latency_ms: float | None
    throughput_hz: float | None
    error: PredictionError
    source: str
    why: tuple[str, ...] = ()
    obtained: Obtained = Obtained.ESTIMATED
    identical: bool | None = None
    """Whether both parts one after the other gave the whole model's outputs bit for bit; None where nobody compared."""

    def __post_init__(self) -> None:
        if len(self.stages) != 2 or not self.crossings:
            raise ValueError("a split has two stages and at least one tensor between them")

    @property
    def gb_per_s(self) -> float:
        """What crosses the cut at the model's rate."""
        return self.bytes_per_frame * self.rate_hz / 1e9
