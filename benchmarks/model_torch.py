"""The generated driving transformer in torch, with the weights of its ONNX file: a peer for benchmarks, nothing else.

Written as its users would write it (linear layers, fused attention), so that torch shows its best. Imports torch: only
benchmarks import this, and only where a peer is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.model_graph import (
    CAMERAS,
    COLUMNS,
    CONTROL_SCALE,
    CONTROL_SHIFT,
    EGO,
    HEAD_WIDTH,
    HORIZON,
    MOTION_SCALE,
    PATCHES,
    RATE_HZ,
    ROWS,
    WHEELBASE,
    Size,
)


class Attention(nn.Module):
    """Multi-head attention with its output projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))

    def forward(self, asks: Tensor, told: Tensor) -> Tensor:
        """[B, asks, width]."""

        def headed(values: Tensor) -> Tensor:
            return values.reshape(len(values), -1, values.shape[-1] // HEAD_WIDTH, HEAD_WIDTH).transpose(1, 2)

        query = headed(self.query(asks)).expand(len(told), -1, -1, -1)
        mixed = functional.scaled_dot_product_attention(query, headed(self.key(told)), headed(self.value(told)))
        return self.mix(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Feed(nn.Module):
    """The two-layer perceptron of a block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, seen: Tensor) -> Tensor:
        """The shape of ``seen``."""
        return self.down(functional.gelu(self.up(seen)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A block; with ``told`` it reads another sequence than its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_a, self.norm_b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feed = Attention(width), Feed(width)

    def forward(self, hidden: Tensor, told: Tensor | None = None) -> Tensor:
        """[B, tokens, width]."""
        seen = self.norm_a(hidden)
        hidden = hidden + self.attention(seen, seen if told is None else told)
        return hidden + self.feed(self.norm_b(hidden))  # type: ignore[no-any-return]


class _Embed(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(depth, width)


class _Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 3)


class DrivingTransformer(nn.Module):
    """The whole network."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width, (high, wide) = size.width, size.patch
        self.patch, self.tokens = (high, wide), size.tokens
        self.image_in = _Embed(high * wide * 3, width)
        self.history_in, self.ego_in, self.navigation_in = _Embed(EGO, width), _Embed(EGO, width), _Embed(2, width)
        self.places = nn.Parameter(torch.zeros(1, size.sequence, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(size.layers))
        self.norm, self.decoder, self.head = nn.LayerNorm(width), Block(width), _Head(width)
        self.queries = nn.Parameter(torch.zeros(1, HORIZON, width))
        for name, values in (("motion", MOTION_SCALE), ("scale", CONTROL_SCALE), ("shift", CONTROL_SHIFT)):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def forward(self, images: Tensor, history: Tensor, ego: Tensor, navigation: Tensor) -> tuple[Tensor, Tensor]:
        """Control and trajectory, [B, 20, 3] each."""
        high, wide = self.patch
        patches = ((images - 0.5) * 3.0).reshape(-1, CAMERAS, ROWS // high, high, COLUMNS // wide, wide * 3)
        patches = patches.transpose(3, 4).reshape(len(images), self.tokens, -1)
        motion: Any = self.motion
        parts = [
            self.image_in.embed(patches),
            self.history_in.embed(history / motion),
            self.ego_in.embed(ego[:, None] / motion),
            self.navigation_in.embed(navigation / 30.0),
        ]
        hidden = torch.cat(parts, dim=1) + self.places
        for block in self.blocks:
            hidden = block(hidden)
        planned = self.decoder(self.queries, self.norm(hidden))
        raw = self.head.out(self.head.norm(planned))
        control = torch.tanh(raw) * self.scale + self.shift  # type: ignore[operator]
        return control, _trajectory(control, ego)


def _trajectory(control: Tensor, ego: Tensor) -> Tensor:
    def integral(values: Tensor) -> Tensor:
        return (values / RATE_HZ).cumsum(dim=1)

    speed = torch.relu(ego[:, :1] + integral(control[..., 1]))
    heading = integral(speed * torch.tan(control[..., 0]) / WHEELBASE)
    return torch.stack([integral(speed * heading.cos()), integral(speed * heading.sin()), heading], dim=-1)


def load(model: Path) -> DrivingTransformer:
    """The network of a generated file."""
    import onnx
    from onnx import numpy_helper

    held = {each.name: numpy_helper.to_array(each).copy() for each in onnx.load(str(model)).graph.initializer}
    width = held["norm.weight"].shape[0]
    layers = sum(name.endswith("attention.mix.weight") for name in held) - 1
    depth = held["image_in.embed.weight"].shape[0]
    tokens = next(count for count, (high, wide) in PATCHES.items() if high * wide * 3 == depth)
    network = DrivingTransformer(Size(width, layers, tokens))
    state = {name: torch.from_numpy(held[name]) for name in network.state_dict()}
    linear = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    network.load_state_dict({n: v.t().contiguous() if n in linear else v for n, v in state.items()})
    return network.eval()
