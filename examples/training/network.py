"""The network: twelve tokens, three attention layers, four outputs; SI units outside, normalised inside.

Tokens: one for the ego's history, three for the route, one per other vehicle. Heads: ten controls from the ego's
token; and, given controls, where everyone will be 0.2 s and 1.0 s from now, as corrections to constant velocity.
The trajectory is not learned: it is the bicycle rollout of the controls, computed in the graph, so it can be checked
against them. Only plain operators are used (no CumSum, no Tan or Atan), for compilers of every kind. Parameters:
about 0.7 million.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nwmctl.driving import constants as k
from nwmctl.driving.episode import Policy

WIDTH: Final = 128
LAYERS: Final = 3
HEADS: Final = 4
FEED: Final = 384
FUTURES: Final = (1, 5)
"""Decisions ahead at which the future is predicted: 0.2 s and 1.0 s."""
GIVEN: Final = 5
"""Controls that the prediction is conditioned on."""
_HIDDEN_FROM_ATTENTION: Final = 100.0
"""Taken off the logit of an absent vehicle: e-100 is nothing in any precision, and small enough for half precision."""

CONTROL_SCALE: Final = (0.15, 2.0)
AGENT_RESIDUAL: Final = ((0.3, 0.3, 0.6, 0.6, 0.1), (3.0, 2.0, 3.0, 3.0, 0.4))
"""Typical corrections to constant velocity per future: x m, y m, vx m/s, vy m/s, sin(heading difference)."""
EGO_RESIDUAL: Final = ((0.1, 0.1, 0.05, 0.5, 0.2), (1.5, 1.0, 0.25, 2.0, 0.7))
"""The same for the ego: x m, y m, heading rad, speed m/s, lateral offset m."""


class Block(nn.Module):
    """Pre-norm self-attention and a ReLU feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_a, self.norm_b = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, FEED), nn.Linear(FEED, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B,12,WIDTH]; mask [B,1,1,12] is added to the attention's logits."""
        tokens, depth = x.shape[1], WIDTH // HEADS
        y = self.norm_a(x)

        def heads(layer: nn.Linear) -> Tensor:
            return torch.transpose(layer(y).reshape(-1, tokens, HEADS, depth), 1, 2)

        q, key, v = heads(self.query), heads(self.key), heads(self.value)
        weights = torch.softmax(q @ key.transpose(-1, -2) * depth**-0.5 + mask, dim=-1)
        x = x + self.mix((weights @ v).transpose(1, 2).reshape(-1, tokens, WIDTH))
        out: Tensor = x + self.down(F.relu(self.up(self.norm_b(x))))
        return out


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, outputs))


class Driver(nn.Module):
    """The whole model. ``forward`` is what is exported; the other methods are what training looks at."""

    ego_scale: Tensor
    agent_scale: Tensor
    route_scale: Tensor
    control_scale: Tensor
    agent_residual: Tensor
    ego_residual: Tensor
    sum_up: Tensor

    def __init__(self) -> None:
        super().__init__()
        constants = {
            "ego_scale": (15.0, 0.2, 2.0, 1.0, 0.2, 15.0),
            "agent_scale": (1.0, 30.0, 15.0, 12.0, 8.0, 1.0),
            "route_scale": (40.0, 20.0),
            "control_scale": CONTROL_SCALE,
            "agent_residual": AGENT_RESIDUAL,
            "ego_residual": EGO_RESIDUAL,
        }
        for name, values in constants.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.register_buffer("sum_up", torch.tril(torch.ones(k.HORIZON, k.HORIZON)).T.contiguous(), persistent=False)
        self.ego_in = nn.Linear(k.HISTORY * k.EGO_CHANNELS, WIDTH)
        self.agent_in = nn.Linear(k.HISTORY * k.AGENT_CHANNELS, WIDTH)
        self.route_in = nn.Linear(10, WIDTH)
        self.kind = nn.Parameter(torch.randn(5, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.control_head = _head(WIDTH, k.HORIZON * 2)
        self.action_in = nn.Linear(GIVEN * 2, WIDTH)
        self.agent_head = _head(2 * WIDTH, len(FUTURES) * 5)
        self.ego_head = _head(2 * WIDTH, len(FUTURES) * 5)

    def encode(self, ego: Tensor, agents: Tensor, route: Tensor) -> Tensor:
        """Observations in SI units -> tokens [B,12,WIDTH]."""
        present = agents[:, :, -1, 0]
        own = self.ego_in((ego / self.ego_scale).reshape(-1, k.HISTORY * k.EGO_CHANNELS)) + self.kind[0]
        way = self.route_in((route / self.route_scale).reshape(-1, 3, 10)) + self.kind[1:4]
        history = (agents / self.agent_scale).reshape(-1, k.AGENTS, k.HISTORY * k.AGENT_CHANNELS)
        others = self.agent_in(history) + self.kind[4]
        x = torch.cat([own.unsqueeze(1), way, others], dim=1)
        hidden = (present - 1.0) * _HIDDEN_FROM_ATTENTION
        mask = torch.cat([present[:, :4] * 0.0, hidden], dim=1).reshape(-1, 1, 1, 12)
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.norm(x)
        return out

    def plan(self, tokens: Tensor) -> Tensor:
        """Controls [B,10,2] over ``control_scale``, not yet limited."""
        out: Tensor = self.control_head(tokens[:, 0]).reshape(-1, k.HORIZON, 2)
        return out

    def corrections(self, tokens: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled corrections to constant velocity: agents [B,8,2,5], ego [B,2,5]; ``controls`` [B,5,2] scaled."""
        given = self.action_in(controls.reshape(-1, GIVEN * 2))
        each = torch.cat([tokens[:, 4:], torch.cat([given.unsqueeze(1)] * k.AGENTS, dim=1)], dim=-1)
        agents = self.agent_head(each).reshape(-1, k.AGENTS, len(FUTURES), 5)
        ego = self.ego_head(torch.cat([tokens[:, 0], given], dim=-1)).reshape(-1, len(FUTURES), 5)
        return agents, ego

    def futures(self, ego: Tensor, agents: Tensor, tokens: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted states in SI units, the ego's frame of now: agents [B,8,2,5] (zero if absent), ego [B,2,5]."""
        agent_fix, ego_fix = self.corrections(tokens, controls)
        steady_agents, steady_ego = steady(ego, agents)
        present = agents[:, :, -1, 0].reshape(-1, k.AGENTS, 1, 1)
        return (steady_agents + agent_fix * self.agent_residual) * present, steady_ego + ego_fix * self.ego_residual

    def limited(self, plan: Tensor) -> Tensor:
        """The plan in rad and m/s2, within the physical limits."""
        steer = torch.clamp(plan[..., 0] * CONTROL_SCALE[0], -k.STEER_LIMIT, k.STEER_LIMIT)
        accel = torch.clamp(plan[..., 1] * CONTROL_SCALE[1], k.ACCEL_MIN, k.ACCEL_MAX)
        return torch.stack([steer, accel], dim=-1)

    def rollout(self, control: Tensor, speed: Tensor) -> Tensor:
        """The bicycle's trajectory [B,10,3] (x m, y m, heading rad) from ``speed`` [B] m/s.

        Per step: speed first (never negative), then heading at that speed, then position along heading plus slip.
        """
        speeds = [speed.reshape(-1, 1)]
        for push in torch.split(control[..., 1] * k.CONTROL_DT, 1, dim=1):
            speeds.append(F.relu(speeds[-1] + push))
        way = torch.cat(speeds[1:], dim=1) * k.CONTROL_DT
        slope = 0.5 * torch.sin(control[..., 0]) / torch.cos(control[..., 0])
        cos_slip = 1.0 / torch.sqrt(1.0 + slope * slope)
        sin_slip = slope * cos_slip
        heading = (way * sin_slip / (k.WHEELBASE / 2.0)) @ self.sum_up
        cos, sin = torch.cos(heading), torch.sin(heading)
        x = (way * (cos * cos_slip - sin * sin_slip)) @ self.sum_up
        y = (way * (sin * cos_slip + cos * sin_slip)) @ self.sum_up
        return torch.stack([x, y, heading], dim=-1)

    def forward(self, ego: Tensor, agents: Tensor, route: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Observation -> control [B,10,2], trajectory [B,10,3], next_agents [B,8,2,5], next_ego [B,2,5]."""
        tokens = self.encode(ego, agents, route)
        control = self.limited(self.plan(tokens))
        next_agents, next_ego = self.futures(ego, agents, tokens, control[:, :GIVEN] / self.control_scale)
        return control, self.rollout(control, ego[:, -1, 0]), next_agents, next_ego


def steady(ego: Tensor, agents: Tensor) -> tuple[Tensor, Tensor]:
    """Constant velocity: agents [B,8,2,5] and ego [B,2,5] at ``FUTURES``, in the ego's frame of now."""
    now, own = agents[:, :, -1], ego[:, -1]
    place, motion, kept = now[..., 1:3], now[..., 3:5], now[..., 3:6]
    speed, lateral = own[:, 0:1], own[:, 3:4]
    straight = speed * 0.0
    times = [ahead * k.CONTROL_DT for ahead in FUTURES]
    others = torch.stack([torch.cat([place + motion * t, kept], dim=-1) for t in times], dim=2)
    itself = torch.stack([torch.cat([speed * t, straight, straight, speed, lateral], dim=-1) for t in times], dim=1)
    return others, itself


def policy_of(model: Driver) -> Policy:
    """The model as a policy (torch, one call per decision)."""

    def policy(seen: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.floating]:
        with torch.inference_mode():
            tokens = model.encode(*(torch.from_numpy(seen[name]) for name in ("ego", "agents", "route")))
            return model.limited(model.plan(tokens)).numpy()

    return policy
