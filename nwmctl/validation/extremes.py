"""Extreme inputs with names: what a sensor, a map or a tracker can send at the very end of its range.

Each case changes one thing in a recorded input and says which: a channel at either limit in every place at once (no
vehicle present, all present, standing still, the largest speed), a channel without limits far beyond what was ever
recorded, a tensor that is all zero (nobody there), a tensor whose history stands still. A model may answer anything
within its own limits, and has to answer. Pure; the same contract and golden data give the same cases.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.model import ModelContract, TensorSpec
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.inputs import Golden, bounds

FAR = 6.0
"""A channel without limits is taken this many times as far from its middle as it was ever recorded."""
_Change = tuple[str, str, NDArray[np.generic]]
"""What is said about a case, the tensor that it changes, and the tensor's row."""


def named_extremes(contract: ModelContract, golden: Golden) -> tuple[tuple[str, ...], Tensors]:
    """What each case is, and the cases as rows: all inputs but one are those of the first golden case."""
    changes: list[_Change] = []
    for spec in contract.inputs:
        seen = golden.inputs[spec.name]
        if not spec.channels or seen.ndim < 2:
            continue
        changes += _channels(spec, seen)
        changes += _whole(spec, seen)
    names = tuple(name for name, _, _ in changes)
    rows = {
        spec.name: np.stack([row if tensor == spec.name else golden.inputs[spec.name][0] for _, tensor, row in changes])
        for spec in contract.inputs
    }
    return names, rows


def _channels(spec: TensorSpec, seen: NDArray[np.generic]) -> list[_Change]:
    """One channel at one end, everywhere in its tensor."""
    made: list[_Change] = []
    low, high = bounds(spec, seen)
    for index, channel in enumerate(spec.channels):
        middle, half = (low[index] + high[index]) / 2.0, (high[index] - low[index]) / 2.0
        ends = {
            "lowest": low[index] if channel.low is not None else middle - FAR * half,
            "highest": high[index] if channel.high is not None else middle + FAR * half,
        }
        if low[index] < 0.0 < high[index]:
            ends["zero"] = 0.0
        for end, value in ends.items():
            row = seen[0].astype(np.float64)
            row[..., index] = value
            made.append((f"{spec.name}.{channel.name} is {value:.4g} ({end})", spec.name, _as(row, seen)))
    return made


def _whole(spec: TensorSpec, seen: NDArray[np.generic]) -> list[_Change]:
    """A tensor that holds nothing, and one that does not change along its last but one axis (history, or a line)."""
    made: list[_Change] = [(f"{spec.name} is all zero", spec.name, np.zeros_like(seen[0]))]
    if seen.ndim >= 3:
        held = np.repeat(seen[0][..., -1:, :], seen.shape[-2], axis=-2)
        made.append((f"{spec.name} stands still", spec.name, held))
        made.append((f"{spec.name} runs backwards", spec.name, np.ascontiguousarray(seen[0][..., ::-1, :])))
    return made


def _as(values: NDArray[np.float64], like: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.rint(values).astype(like.dtype) if like.dtype.kind in "iub" else values.astype(like.dtype)
