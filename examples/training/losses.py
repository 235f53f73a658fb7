"""What the network is trained on: the expert's controls, and the recorded future of everyone.

Targets of the future are computed from recorded drives alone (self-supervised): later observations are turned back
into the ego frame of now with the recorded poses. Samples whose future was cut off by the episode's end are masked,
never padded with made-up values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from examples.training.network import FUTURES, GIVEN, Driver, steady
from nwmctl.driving import constants as k

_LATER_CONTROLS: Final = 0.7
_FIRST_CONTROL: Final = 4.0
_STEER_WEIGHT: Final = 1.5
_IMPLAUSIBLE: Final = 40.0
"""A vehicle cannot be this many metres off constant velocity after a second; such a target is a slot's artefact."""


@dataclass(frozen=True, slots=True, eq=False)
class Drives:
    """Recorded drives as tensors; names and shapes as ``collect.Arrays``."""

    ego: Tensor
    agents: Tensor
    route: Tensor
    label: Tensor
    action: Tensor
    pose: Tensor
    live: Tensor

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Drives:
        return cls(**{name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()})

    def joined(self, other: Drives) -> Drives:
        return Drives(**{n: torch.cat([getattr(self, n), getattr(other, n)]) for n in self.__slots__})

    def samples(self, first_drive: int = 0) -> Tensor:
        """[S,2] drive and step of every live decision from ``first_drive`` on."""
        found = self.live[first_drive:].nonzero()
        return found + torch.tensor([first_drive, 0])

    def observation(self, d: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.ego[d, t], self.agents[d, t], self.route[d, t]

    def given(self, d: Tensor, t: Tensor) -> Tensor:
        """The executed controls [S,5,2] from now on, in SI units."""
        steps = (t[:, None] + torch.arange(GIVEN)).clamp(max=k.EPISODE_STEPS - 1)
        return self.action[d[:, None], steps]


def imitation_loss(model: Driver, tokens: Tensor, drives: Drives, d: Tensor, t: Tensor) -> Tensor:
    """Smooth L1 to the expert's controls along the drive; the executed one weighs most."""
    ahead = t[:, None] + torch.arange(k.HORIZON)
    inside = ahead < k.EPISODE_STEPS
    ahead = ahead.clamp(max=k.EPISODE_STEPS - 1)
    known = inside & drives.live[d[:, None], ahead]
    wanted = drives.label[d[:, None], ahead] / model.control_scale
    error = F.smooth_l1_loss(model.plan(tokens), wanted, beta=0.3, reduction="none")
    return weigh(error, known)


def weigh(error: Tensor, known: Tensor) -> Tensor:
    """The mean of an error of plans [S,10,2] where ``known`` [S,10]; the executed control weighs most."""
    weight = torch.tensor([_FIRST_CONTROL] + [_LATER_CONTROLS] * (k.HORIZON - 1)) * known
    return (error * torch.tensor([_STEER_WEIGHT, 1.0]) * weight[..., None]).sum() / weight.sum()


@dataclass(frozen=True, slots=True, eq=False)
class Future:
    """True states at one of ``FUTURES``, in the ego frame of now, and where they are known."""

    agents: Tensor
    agents_known: Tensor
    ego: Tensor
    ego_known: Tensor


def future(drives: Drives, d: Tensor, t: Tensor, ahead: int) -> Future:
    """The recorded future ``ahead`` decisions later: agents [S,8,5], ego [S,5], SI units."""
    later = (t + ahead).clamp(max=k.EPISODE_STEPS - 1)
    known = (t + ahead < k.EPISODE_STEPS) & drives.live[d, later]
    before, after = drives.pose[d, t], drives.pose[d, later]
    moved, turned = after[:, :2] - before[:, :2], after[:, 2] - before[:, 2]
    cos, sin = torch.cos(before[:, 2]), torch.sin(before[:, 2])
    dx, dy = moved[:, 0] * cos + moved[:, 1] * sin, moved[:, 1] * cos - moved[:, 0] * sin
    c, s = torch.cos(turned)[:, None], torch.sin(turned)[:, None]
    now, then = drives.agents[d, t][:, :, -1], drives.agents[d, later][:, :, -1]
    x, y, vx, vy, sin_h = (then[..., i] for i in range(1, 6))
    forward = torch.sign(torch.where(vx == 0, torch.ones_like(vx), vx)) * torch.sqrt((1 - sin_h**2).clamp(min=0))
    agents = torch.stack(
        [x * c - y * s + dx[:, None], x * s + y * c + dy[:, None], vx * c - vy * s, vx * s + vy * c,
         sin_h * c + forward * s], dim=-1,
    )  # fmt: skip
    near = (agents[..., :2] - now[..., 1:3]).abs().amax(-1) < _IMPLAUSIBLE
    own = drives.ego[d, later][:, -1]
    ego = torch.stack([dx, dy, turned, own[:, 0].double(), own[:, 3].double()], dim=-1)
    return Future(agents.float(), (now[..., 0] > 0) & (then[..., 0] > 0) & known[:, None] & near, ego.float(), known)


def prediction_loss(model: Driver, tokens: Tensor, drives: Drives, d: Tensor, t: Tensor) -> Tensor:
    """Smooth L1 of the scaled corrections to constant velocity, agents and ego, both horizons."""
    agent_fix, ego_fix = model.corrections(tokens, drives.given(d, t) / model.control_scale)
    ego, agents, _ = drives.observation(d, t)
    steady_agents, steady_ego = steady(ego, agents)
    total = torch.zeros(())
    for i, ahead in enumerate(FUTURES):
        true = future(drives, d, t, ahead)
        agent_goal = (true.agents - steady_agents[:, :, i]) / model.agent_residual[i]
        ego_goal = (true.ego - steady_ego[:, i]) / model.ego_residual[i]
        agent_error = F.smooth_l1_loss(agent_fix[:, :, i], agent_goal, reduction="none").mean(-1)
        ego_error = F.smooth_l1_loss(ego_fix[:, i], ego_goal, reduction="none").mean(-1)
        total = total + (agent_error * true.agents_known).sum() / true.agents_known.sum().clamp(min=1)
        total = total + (ego_error * true.ego_known).sum() / true.ego_known.sum().clamp(min=1)
    return total


@torch.no_grad()
def prediction_errors(model: Driver, drives: Drives, samples: Tensor) -> dict[str, float]:
    """Mean position errors in m at +0.2 s and +1.0 s, of the model and of constant velocity, given true controls."""
    d, t = samples[:, 0], samples[:, 1]
    ego, agents, route = drives.observation(d, t)
    tokens = model.encode(ego, agents, route)
    seen_agents, seen_ego = model.futures(ego, agents, tokens, drives.given(d, t) / model.control_scale)
    steady_agents, steady_ego = steady(ego, agents)
    errors: dict[str, float] = {}
    for i, ahead in enumerate(FUTURES):
        true = future(drives, d, t, ahead)
        at = f"{ahead * k.CONTROL_DT:.1f}s"
        for who, mine, plain, goal, known in (
            ("agent", seen_agents[:, :, i], steady_agents[:, :, i], true.agents, true.agents_known),
            ("ego", seen_ego[:, i], steady_ego[:, i], true.ego, true.ego_known),
        ):
            errors[f"{who}_error_{at}_m"] = float((mine - goal)[..., :2][known].norm(dim=-1).mean())
            errors[f"{who}_error_{at}_constant_velocity_m"] = float((plain - goal)[..., :2][known].norm(dim=-1).mean())
    return errors
