"""Artifacts whose inputs are wired wrongly: the network is whole, and it sees another world than the one outside."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from benchmarks.battery.kinds import Kind, affine
from benchmarks.battery.shop import Artifact, Shop
from benchmarks.battery.surgery import Change, Weaver
from nwmctl.driving import constants as k

_NOW = k.HISTORY - 1


def on_inputs(shop: Shop, changes: dict[str, Change], said: str) -> Artifact:
    """Inputs changed before the network sees them."""
    graph = shop.base.copy()
    for name, change in changes.items():
        graph.behind_input(name, change)
    return Artifact(graph.bytes(), said)


def frames(order: list[int]) -> dict[str, Change]:
    """History in another order, of the ego and of the others."""
    return {
        "ego": lambda weave, raw: weave.pick(raw, order, 1),
        "agents": lambda weave, raw: weave.pick(raw, order, 2),
    }


def newest_frame_lost(shop: Shop, dice: Generator) -> Artifact:
    """The history is shifted by one: what is seen is 0.2 s old."""
    changes, which = frames([0, 0, 1, 2]), int(dice.integers(3))
    kept = {name: changes[name] for name in (("ego", "agents"), ("ego",), ("agents",))[which]}
    return on_inputs(shop, kept, " and ".join(kept))


def history_frozen(shop: Shop, dice: Generator) -> Artifact:
    """Every frame of the history is the same one."""
    frame = int(dice.choice([0, _NOW]))
    return on_inputs(shop, frames([frame] * k.HISTORY), f"frame {frame} only")


def history_reversed(shop: Shop, dice: Generator) -> Artifact:
    """Newest first."""
    return on_inputs(shop, frames([3, 2, 1, 0]), "newest first")


def agents_permuted(shop: Shop, dice: Generator) -> Artifact:
    """Two channels of the others in each other's place."""
    one, other = [(1, 2), (3, 4), (1, 3)][int(dice.integers(3))]
    order = list(range(k.AGENT_CHANNELS))
    order[one], order[other] = order[other], order[one]
    return on_inputs(shop, {"agents": lambda weave, raw: weave.pick(raw, order, 3)}, f"channels {one} and {other}")


def agents_mirrored(shop: Shop, dice: Generator) -> Artifact:
    """Who is left is seen right."""
    return on_inputs(shop, {"agents": affine((1, 1, -1, 1, -1, -1), (0.0,) * 6)}, "y, vy and heading x -1")


def agents_lost(shop: Shop, dice: Generator) -> Artifact:
    """Half of the slots are empty."""
    kept = np.zeros(k.AGENTS, np.float32)
    kept[4 * int(dice.integers(2)) :][:4] = 1.0
    change: Change = lambda weave, raw: weave("Mul", raw, weave.const(kept[:, None, None]))  # noqa: E731
    return on_inputs(shop, {"agents": change}, f"slots {'0-3' if kept[4] else '4-7'} empty")


def agents_unmasked(shop: Shop, dice: Generator) -> Artifact:
    """Slots without a vehicle count as vehicles."""
    return on_inputs(shop, {"agents": affine((0, 1, 1, 1, 1, 1), (1, 0, 0, 0, 0, 0))}, "presence 1 everywhere")


def inputs_clipped(shop: Shop, dice: Generator) -> Artifact:
    """One channel of the ego, quantised too tightly, stops at what a good part of everyday situations goes beyond."""
    channel, share = int(dice.choice([0, 3, 4])), float(dice.uniform(0.5, 0.8))
    seen = shop.calibration["ego"].reshape(-1, k.EGO_CHANNELS).astype(np.float64)
    low, high = np.full(k.EGO_CHANNELS, -1e3), np.full(k.EGO_CHANNELS, 1e3)
    high[channel] = np.quantile(np.abs(seen[:, channel]), share)
    low[channel] = -high[channel]

    def change(weave: Weaver, raw: str) -> str:
        return weave("Max", weave("Min", raw, weave.const(high)), weave.const(low))

    return on_inputs(shop, {"ego": change}, f"{('speed', '', '', 'offset', 'heading')[channel]} at {high[channel]:.2f}")


def kilometres_per_hour(shop: Shop, dice: Generator) -> Artifact:
    """Speeds that are too large by 3.6."""
    changes: dict[str, Change] = {"ego": affine((3.6, 1, 1, 1, 1, 1), (0.0,) * 6)}
    everything = bool(dice.integers(2))
    if everything:
        changes = {
            "ego": affine((3.6, 1, 1, 1, 1, 3.6), (0.0,) * 6),
            "agents": affine((1, 1, 1, 3.6, 3.6, 1), (0.0,) * 6),
        }
    return on_inputs(shop, changes, "all speeds" if everything else "the ego's speed")


def route_mirrored(shop: Shop, dice: Generator) -> Artifact:
    """The route bends the other way."""
    return on_inputs(shop, {"route": affine((1.0, -1.0))}, "y x -1")


INPUTS: dict[str, Kind] = {
    "newest frame lost": newest_frame_lost,
    "history frozen": history_frozen,
    "history reversed": history_reversed,
    "agents' channels permuted": agents_permuted,
    "agents mirrored": agents_mirrored,
    "half of the agents lost": agents_lost,
    "absent agents present": agents_unmasked,
    "inputs clipped": inputs_clipped,
    "km/h as m/s": kilometres_per_hour,
    "route mirrored": route_mirrored,
}
"""By the name under which they are counted."""
