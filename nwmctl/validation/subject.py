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

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.clock import Clock
from nwmctl.domain.cost import StepCost as StepCost
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.measurement import Latency
from nwmctl.domain.model import ModelContract
from nwmctl.domain.platform import Build, PlatformProfile, VehicleModel
from nwmctl.domain.policy import BRAKING, FleetRules, Rule
from nwmctl.toolchains.protocol import BenchOrder
from nwmctl.validation.drives import MODEL_DRIVES, DrivenModel, ModelDrives
from nwmctl.validation.drives import OpenSession as OpenSession

Progress = Callable[[str, float], None]
"""Told what is being done and the share (0..1) of the suite that is done."""


class Pace(StrEnum):
    """How fast a way is, which decides how much of each check it is given."""

    BATCH = "batch"
    """Whole batches at host speed: everything runs."""
    ROWS = "rows"
    """One row after the other at host speed: fewer scenarios."""
    CRAWL = "crawl"
    """Emulation: a few golden rows, and few scenarios or none."""


@dataclass(frozen=True, slots=True)
class Released:
    """The model that vehicles drive with today, as trained; ``contract`` is its own."""

    contract: ModelContract
    weights: Digest
    reference: OpenSession

    @property
    def model(self) -> DrivenModel:
        """As something that drives."""
        return DrivenModel(self.weights, self.contract.control_output, self.reference)


@dataclass(frozen=True, slots=True)
class Way:
    """One way of executing the artifact here. ``label`` is for people, as in "host twin through IREE". ``measure``
    times one row there, where the hardware is elsewhere: a clock here would time the connection."""

    obtained: Obtained
    label: str
    pace: Pace
    open: OpenSession
    measure: Callable[[Mapping[str, NDArray[np.generic]], BenchOrder], Latency] | None = None

    def __post_init__(self) -> None:
        if self.obtained not in (Obtained.MEASURED, Obtained.BENCH, Obtained.EMULATED, Obtained.PROXY):
            raise ValueError(f"nothing executes in a way that is '{self.obtained}'")


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A way that exists in principle and not here. ``reason`` and ``next`` go into the evidence as they are.
    ``passing``: it is only out of reach now, so evidence without it is not kept for the next run."""

    label: str
    reason: str
    next: str
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """One artifact of one build, with everything that the checks need to know about it.

    ``weights`` is the model's ONNX file and ``weights_digest`` its digest; ``golden`` the package's golden data.
    ``reference`` opens the model as trained (any batch). ``cost`` is None where nobody could count it, ``released``
    where there is no released model. ``drives`` keeps how models as trained drove.
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
    released: Released | None = None
    drives: ModelDrives = MODEL_DRIVES
    vehicles: tuple[VehicleModel, ...] = ()
    """The vehicle models that carry this build's variant."""

    @property
    def model(self) -> DrivenModel:
        """The model as trained, as something that drives."""
        return DrivenModel(self.weights_digest, self.contract.control_output, self.reference)


@dataclass(frozen=True, slots=True)
class Looks:
    """How often the number of scenarios has been raised, by what they are for; see ``statistics.spent``."""

    scenarios: int = 0
    traps: int = 0
    pairs: int = 0
    emulated: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Amounts and seeds. ``rules`` are the policy's for this kind of fleet, with the release's tightening applied.

    The default seed is far from every seed that the example models were trained or tuned on.
    ``scenarios`` drive a way of pace ``batch``, ``row_scenarios`` one of pace ``rows``, ``emulated_scenarios`` one of
    pace ``crawl`` (0: none), which have ``emulated_budget_s`` seconds by ``clock``. ``crawl_rows`` golden rows go
    through a way of pace ``crawl``. ``traps`` traps are driven on a way of pace ``batch`` or ``rows``. ``pairs``
    compare the model with the released one; 0 means as many as the margins need, and never more than ``most_pairs``.
    Latency is the one figure that differs from run to run, so it is measured only on request, with ``clock``.
    """

    rules: FleetRules
    seed: int = 6_000_000
    scenarios: int = 100
    row_scenarios: int = 80
    emulated_scenarios: int = 0
    emulated_budget_s: float = 180.0
    traps: int = 80
    pairs: int = 0
    most_pairs: int = 5_000
    looks: Looks = Looks()
    crawl_rows: int = 6
    random_inputs: int = 64
    measure_latency: bool = False
    latency_runs: int = 200
    clock: Clock | None = None

    def __post_init__(self) -> None:
        amounts = (self.scenarios, self.row_scenarios, self.traps, self.most_pairs)
        if min(*amounts, self.crawl_rows, self.random_inputs, self.latency_runs) < 1:
            raise ValueError("every amount must be at least 1")
        if self.emulated_scenarios < 0 or self.pairs < 0:
            raise ValueError("an amount cannot be negative")
        if self.measure_latency and self.clock is None:
            raise ValueError("latency cannot be measured without a clock")
        if self.emulated_scenarios and self.clock is None:
            raise ValueError("a time budget cannot be kept without a clock")

    @property
    def braking(self) -> float | None:
        """The hardest braking in m/s2 that a drive carries out, as the policy says; None: all that the car can."""
        return self.rules.braking.value if self.rules.braking else None

    def braking_figures(self, obtained: Obtained) -> tuple[ResultFigure, ...]:
        """The same as a figure of a drive; none where the policy says nothing."""
        return () if self.braking is None else (ResultFigure(BRAKING, self.braking, "m/s2", obtained),)

    @property
    def said_braking(self) -> str:
        """The same for a check's summary; '' where the policy says nothing."""
        limit = self.rules.braking
        return f", braking held to {limit.value:g} m/s2 ({limit.confidence})" if limit else ""

    def rule(self, platform: str, check: Check) -> Rule | None:
        """The rule for a check on a platform; None where the policy does not ask for it."""
        return self.rules.rule(platform, check)

    def margins(self, platform: str, check: Check) -> Mapping[str, float]:
        """The policy's upper limits by figure name; empty where it names none."""
        rule = self.rule(platform, check)
        return rule.margins if rule else {}
