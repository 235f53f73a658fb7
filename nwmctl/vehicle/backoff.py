"""How long a vehicle waits before it tries again: exponential, bounded, with a jitter that spreads a fleet out.

The jitter comes from a seed (a vehicle's own), so that vehicles which fail at the same moment do not come back at the
same moment, and so that a test can say what must happen. Pure; whoever uses it sleeps.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """``first`` and ``most`` in seconds; ``attempts``: how often something is tried in a row before giving up."""

    seed: str
    first: float = 0.5
    most: float = 60.0
    attempts: int = 5

    def delay(self, failures: int) -> float:
        """Seconds to wait after the ``failures``-th failure in a row (from 1): between half and all of a bound."""
        bound = min(self.most, self.first * 2.0 ** min(failures - 1, 60))
        return bound * (0.5 + 0.5 * self.jitter(failures))

    def jitter(self, number: int) -> float:
        """A number in [0, 1) for the seed and ``number``."""
        found = hashlib.sha256(f"nwmctl.backoff/1 {self.seed} {number}".encode()).digest()
        return int.from_bytes(found[:8], "big") / 2**64
