"""Small artifacts for deltas: safetensors files whose tensors are given as bits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nwmctl.formats.delta import Kind
from nwmctl.formats.delta_elements import UNSIGNED

NAMES = {Kind.FP32: "F32", Kind.FP16: "F16", Kind.BF16: "BF16", Kind.INT8: "I8"}
Bits = NDArray[Any]


def safetensors(tensors: Mapping[str, tuple[Kind, Bits]]) -> bytes:
    """A file with these tensors, each given by the unsigned form of its elements."""
    header = {}
    data = b""
    for name, (kind, bits) in tensors.items():
        raw = np.ascontiguousarray(bits, UNSIGNED[kind]).tobytes()
        header[name] = {
            "dtype": NAMES[kind],
            "shape": list(bits.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def bits_of(kind: Kind, values: NDArray[np.float32]) -> Bits:
    """Floats as the bits of a kind; 8-bit integers are 1000 per unit."""
    if kind is Kind.FP16:
        return values.astype(np.float16).view(np.uint16)
    if kind is Kind.BF16:
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    if kind is Kind.INT8:
        return np.clip(np.rint(values * 1000), -128, 127).astype(np.int8).view(np.uint8)
    return values.view(np.uint32)


def grid(kind: Kind, rows: int, columns: int, seed: int) -> tuple[Bits, Bits]:
    """A matrix before and after: how far a weight moves depends on its row, and more on its column."""
    draw = np.random.default_rng(seed)
    old = (draw.standard_normal((rows, columns)) * 0.03).astype(np.float32)
    step = 3e-4 * np.exp2(draw.uniform(-3, 3, columns))[None, :] * np.exp2(draw.uniform(-1, 1, rows))[:, None]
    new = (old + draw.standard_normal((rows, columns)) * step).astype(np.float32)
    return bits_of(kind, old), bits_of(kind, new)


def tuned(kind: Kind, count: int, seed: int, step: float = 3e-4) -> tuple[Bits, Bits]:
    """Weights before and after a light fine-tune."""
    draw = np.random.default_rng(seed)
    old = (draw.standard_normal(count) * 0.03).astype(np.float32)
    new = (old + draw.standard_normal(count) * step).astype(np.float32)
    return bits_of(kind, old), bits_of(kind, new)
