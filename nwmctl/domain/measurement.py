"""What executions took, as it was measured: the nouns. Measuring is done elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.figure import Obtained

NO_CO_LOAD = "none"


@dataclass(frozen=True, slots=True)
class Latency:
    """``n`` executions at batch 1, in ms: median, 99th and 99.9th percentile, longest.

    ``misses`` took longer than ``deadline_ms``, one period of the model's rate. ``co_load`` ran beside them on purpose
    (``none``, or ``stream:N``: N processes that stream memory); ``load`` is the machine's load average at the start,
    whoever caused it.
    """

    n: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    most_ms: float
    misses: int
    deadline_ms: float
    co_load: str
    load: float
    obtained: Obtained

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.misses <= self.n:
            raise ValueError(f"{self.misses} misses of {self.n} executions")
        if not 0 < self.p50_ms <= self.p99_ms <= self.p999_ms <= self.most_ms:
            raise ValueError("percentiles are positive and rise")
