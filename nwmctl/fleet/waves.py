"""How a campaign's vehicles fall into waves. Pure: counts in, quotas out.

Vehicles of one model are ranked by a stable hash of the VIN; a wave takes a range of ranks of every model. So the plan
needs the number of vehicles per model and nothing else, the database can apply it in one statement, and every wave
carries every model in proportion. The same fleet and the same release give the same waves.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nwmctl.domain.release import WaveSpec

_MASK = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Quota:
    """Wave ``wave`` (from 1) takes the vehicles of a model whose rank is above ``above`` and at most ``upto``."""

    wave: int
    vehicle_model: str
    above: int
    upto: int


def vin_hash(vin: str) -> int:
    """A stable number in 0..2**63-1 that orders vehicles in a way no one chose."""
    return int.from_bytes(hashlib.sha256(vin.encode()).digest()[:8], "big") & _MASK


def plan_quotas(specs: Sequence[WaveSpec], counts: Mapping[str, int]) -> tuple[Quota, ...]:
    """The quotas of all waves; models in a wave's quota take at least one vehicle.

    ``per_model`` takes that many of each model, as far as there are. ``share`` takes that share of all that are left,
    rounded up, spread over the models in proportion; the largest remainders get the odd ones.
    """
    taken = dict.fromkeys(sorted(counts), 0)
    quotas: list[Quota] = []
    for number, spec in enumerate(specs, start=1):
        left = {model: counts[model] - taken[model] for model in taken}
        for model, size in _sizes(spec, left).items():
            if size:
                quotas.append(Quota(number, model, taken[model], taken[model] + size))
                taken[model] += size
    return tuple(quotas)


def split(specs: Sequence[WaveSpec], vehicles: Iterable[tuple[str, str]]) -> dict[str, int]:
    """VIN -> wave number for (VIN, vehicle model) pairs; those that no wave takes are absent.

    The plain form of what the database does with the quotas.
    """
    ranked: dict[str, list[tuple[int, str]]] = {}
    for vin, model in vehicles:
        ranked.setdefault(model, []).append((vin_hash(vin), vin))
    quotas = plan_quotas(specs, {model: len(listed) for model, listed in ranked.items()})
    for listed in ranked.values():
        listed.sort()
    return {vin: quota.wave for quota in quotas for _, vin in ranked[quota.vehicle_model][quota.above : quota.upto]}


def _sizes(spec: WaveSpec, left: Mapping[str, int]) -> dict[str, int]:
    if spec.per_model is not None:
        return {model: min(spec.per_model, count) for model, count in left.items()}
    share = spec.share
    assert share is not None
    # Rounding first to 9 digits: 0.07 * 100 must not become 8 vehicles.
    wanted = math.ceil(round(share * sum(left.values()), 9))
    sizes = {model: math.floor(round(share * count, 9)) for model, count in left.items()}
    odd = wanted - sum(sizes.values())
    by_remainder = sorted(left, key=lambda model: (sizes[model] - share * left[model], model))
    for model in by_remainder[:odd]:
        sizes[model] += 1
    return sizes
