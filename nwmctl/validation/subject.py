"""What is validated, and how thoroughly: the two plain arguments of the suite.

A subject names one artifact and every way in which it can, or cannot, be executed from here. What the artifact is
compared with is always the model as trained. Settings hold seeds and amounts; the margins are in the policy's rules
and nowhere else. Nothing in this module executes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import ModelContract
from nwmctl.domain.platform import Build, PlatformProfile
from nwmctl.domain.policy import FleetRules, Rule
from nwmctl.toolchains.protocol import Session

Progress = Callable[[str, float], None]
"""Told what is being done and the share (0..1) of the suite that is done."""

OpenSession = Callable[[], Session]
"""Loads an artifact or the reference; called at most once per suite and closed by it."""


class Pace(StrEnum):
    """How fast a way is, which decides how much of each check it is given."""

    BATCH = "batch"
    """Whole batches at host speed: everything runs."""
    ROWS = "rows"
    """One row after the other at host speed: fewer scenarios."""
    CRAWL = "crawl"
    """Emulation: a few golden rows, no closed loop."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of executing the artifact here. ``label`` is for people, as in "host twin through IREE"."""

    obtained: Obtained
    label: str
    pace: Pace
    open: OpenSession

    def __post_init__(self) -> None:
        if self.obtained not in (Obtained.MEASURED, Obtained.BENCH, Obtained.EMULATED, Obtained.PROXY):
            raise ValueError(f"nothing executes in a way that is '{self.obtained}'")


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A way that exists in principle and not here. ``reason`` and ``next`` go into the evidence as they are."""

    label: str
    reason: str
    next: str


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one control step (batch 1) reads and computes: bytes of weights, bytes of activations, operations."""

    weight_bytes: int
    activation_bytes: int
    flops: int

    def __post_init__(self) -> None:
        if min(self.weight_bytes, self.activation_bytes, self.flops) < 0:
            raise ValueError("a cost cannot be negative")


@dataclass(frozen=True, slots=True)
class Subject:
    """One artifact of one build, with everything that the checks need to know about it.

    ``weights`` is the model's ONNX file and ``weights_digest`` its digest; ``golden`` the package's golden data.
    ``reference`` opens the model as trained (any batch). ``cost`` is None where nobody could count it.
    """

    contract: ModelContract
    weights: Path
    weights_digest: Digest
    golden: Path
    manifest: ArtifactManifest
    profile: PlatformProfile
    build: Build
    reference: OpenSession
    ways: tuple[Way, ...]
    unreachable: tuple[Unreachable, ...] = ()
    cost: StepCost | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Amounts and seeds. ``rules`` are the policy's for this kind of fleet, with the release's tightening applied.

    The default seed is far from every seed that the example models were trained or tuned on.
    ``scenarios`` drive a way of pace ``batch``, ``row_scenarios`` one of pace ``rows``; ``crawl_rows`` golden rows go
    through a way of pace ``crawl``. Latency is the one figure that differs from run to run, so it is measured only on
    request, with ``clock``.
    """

    rules: FleetRules
    seed: int = 6_000_000
    scenarios: int = 100
    row_scenarios: int = 80
    crawl_rows: int = 6
    random_inputs: int = 64
    measure_latency: bool = False
    latency_runs: int = 200
    clock: Clock | None = None

    def __post_init__(self) -> None:
        amounts = (self.scenarios, self.row_scenarios, self.crawl_rows, self.random_inputs, self.latency_runs)
        if min(amounts) < 1:
            raise ValueError("every amount must be at least 1")
        if self.measure_latency and self.clock is None:
            raise ValueError("latency cannot be measured without a clock")

    def rule(self, platform: str, check: Check) -> Rule | None:
        """The rule for a check on a platform; None where the policy does not ask for it."""
        return self.rules.rule(platform, check)

    def margins(self, platform: str, check: Check) -> Mapping[str, float]:
        """The policy's upper limits by figure name; empty where it names none."""
        rule = self.rule(platform, check)
        return rule.margins if rule else {}
