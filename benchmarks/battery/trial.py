"""One trial: make an artifact, run the checks that a release would run, keep what they said.

A broken artifact is first given the cheap checks (everything but the driving); it drives only if they let it through,
or if the trial asks for the whole matrix. A clean one is given everything. Whoever is in doubt drives more, as often
as a release's agent may order it. The platform is ``virtual``: the artifact executes on this machine, so figures are
``measured``.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.battery.broken_inputs import INPUTS
from benchmarks.battery.broken_outputs import OUTPUTS
from benchmarks.battery.broken_weights import WEIGHTS
from benchmarks.battery.clean import CLEAN, GREY
from benchmarks.battery.kinds import Kind
from benchmarks.battery.shop import POLICY, Artifact, OnnxSession, Shop, open_artifact, shop
from nwmctl.domain.amounts import Validation
from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe, RuntimeNeeds
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.platform import Catalogue, PlatformProfile, VehicleModel
from nwmctl.domain.policy import FleetRules, Policy
from nwmctl.domain.work import ValidateWork
from nwmctl.formats.documents import decode_yaml
from nwmctl.steps.orders import settings_of, wanted
from nwmctl.validation.drives import OpenSession
from nwmctl.validation.subject import Pace, Subject, Way
from nwmctl.validation.suite import execute_checks

BROKEN: Mapping[str, Kind] = {**WEIGHTS, **OUTPUTS, **INPUTS}
KINDS: Mapping[str, Kind] = {**BROKEN, **CLEAN, **GREY}
TWIN = "IREE twin at batch 1"
"""A clean kind that is no graph: compiled by another toolchain (see ``twin``)."""
SCENARIOS = Validation().amounts().scenarios
"""What a release begins with that names no amounts."""
DRIVING = frozenset({Check.CLOSED_LOOP, Check.TRAP_SUITE, Check.NON_INFERIORITY, Check.LOG_REPLAY})
_PLATFORMS = Path(__file__).parents[2] / "platforms"
_PLATFORM = "virtual"
_VEHICLES = "virtual-vehicles.yaml"


@dataclass(frozen=True, slots=True)
class Order:
    """Which trial: its kind, its number and its seed (of scenarios, random inputs and the dice). ``whole`` asks for
    every check even where one has failed."""

    kind: str
    number: int
    seed: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Said:
    """What one check said. ``summary`` only where it did not pass. ``used`` is the largest share of a margin that a
    figure took (above 1: too much; an interval counts with its far end), and ``by`` that figure's name."""

    check: str
    verdict: str
    summary: str = ""
    needs: int | None = None
    used: float = 0.0
    by: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One finished trial; ``said`` in the order in which the checks ran. ``scenarios`` is how many were driven at the
    end, ``first`` what the checks said before more scenarios were ordered."""

    kind: str
    number: int
    seed: int
    whole: bool
    detail: str
    said: tuple[Said, ...]
    cpu_s: float
    scenarios: int
    first: tuple[Said, ...] = ()

    def plain(self) -> dict[str, Any]:
        """For a line of JSON."""
        return asdict(self)

    @staticmethod
    def read(plain: Mapping[str, Any]) -> Trial:
        """The inverse of ``plain``."""
        said, first = (tuple(Said(**entry) for entry in plain[name]) for name in ("said", "first"))
        return Trial(**{**plain, "said": said, "first": first})


@cache
def policy() -> Policy:
    """The example policy."""
    return decode_yaml(Policy, POLICY.read_bytes(), POLICY.name)


@cache
def _profile() -> PlatformProfile:
    path = _PLATFORMS / f"{_PLATFORM}.yaml"
    return decode_yaml(PlatformProfile, path.read_bytes(), path.name)


@cache
def _vehicles() -> tuple[VehicleModel, ...]:
    return decode_yaml(Catalogue, (_PLATFORMS / _VEHICLES).read_bytes(), _VEHICLES).on(_PLATFORM)


@cache
def _reference() -> OnnxSession:
    """The model as trained; opened once per process."""
    return OnnxSession(shop().weights.read_bytes())


def run(order: Order, twin: OpenSession | None = None) -> Trial:
    """Run one trial. ``twin`` opens the artifact of ``TWIN``."""
    began = time.process_time()
    if order.kind == TWIN:
        assert twin is not None
        artifact, detail, pace, opener = b"twin", "the CPU build's twin", Pace.ROWS, twin
    else:
        made = make(order)
        artifact, detail, opener = made.graph, made.detail, _opener(made)
        pace = Pace.ROWS if made.rows else Pace.BATCH
    subject = _subject(shop(), artifact, Way(Obtained.MEASURED, "this host", pace, opener))
    work = _work(order.seed, policy().virtual)
    results: tuple[CheckResult, ...] = ()
    if order.kind in BROKEN and not order.whole:
        results = _checked(subject, replace(work, rules=without_driving(work.rules)))
    if all(result.verdict is Verdict.PASSED for result in _ran(results)):
        results = _checked(subject, work)
    first = results
    while wishes := wanted(work, results):
        work = _raised(work, **wishes)
        results = _checked(subject, work)
    cpu, driven = time.process_time() - began, settings_of(work, None).scenarios
    ordered = _said(first) if first is not results else ()
    return Trial(order.kind, order.number, order.seed, order.whole, detail, _said(results), cpu, driven, ordered)


def _work(seed: int, rules: FleetRules) -> ValidateWork:
    """The work order of a release that names no amounts."""
    profile = _profile()
    variant = profile.variants[0]
    return ValidateWork(_PLATFORM, variant.name, variant.builds[0].name, rules, Validation().amounts(), seed)


def _raised(work: ValidateWork, more_scenarios: int = 0, more_traps: int = 0) -> ValidateWork:
    more_scenarios, more_traps = max(more_scenarios, work.more_scenarios), max(more_traps, work.more_traps)
    return replace(work, more_scenarios=more_scenarios, more_traps=more_traps)


def _checked(subject: Subject, work: ValidateWork) -> tuple[CheckResult, ...]:
    return execute_checks(subject, settings_of(work, None), _quiet)


def make(order: Order) -> Artifact:
    """The artifact of a trial: the same order makes the same bytes."""
    return KINDS[order.kind](shop(), np.random.default_rng([order.seed, zlib.crc32(order.kind.encode())]))


def without_driving(rules: FleetRules) -> FleetRules:
    """The rules less those of the checks that drive, which then do not run."""
    kept = {
        platform: {name: rule for name, rule in table.items() if Check(name) not in DRIVING}
        for platform, table in rules.platforms.items()
    }
    return FleetRules(kept, rules.approvals)


def _opener(made: Artifact) -> OpenSession:
    return lambda: open_artifact(made)


def _subject(material: Shop, artifact: bytes, way: Way) -> Subject:
    profile = _profile()
    return Subject(
        contract=material.card.contract,
        weights=material.weights,
        weights_digest=material.weights_digest,
        golden=material.golden,
        manifest=_manifest(material, artifact),
        profile=profile,
        build=profile.variants[0].builds[0],
        reference=_reference,
        ways=(way,),
        vehicles=_vehicles(),
    )


def _manifest(material: Shop, artifact: bytes) -> ArtifactManifest:
    """What the checks read of it are its tensors, and those are the contract's, so none are named."""
    return ArtifactManifest(
        model=material.weights_digest,
        recipe=Recipe("onnxruntime", Precision.FP32),
        payload=digest_bytes(artifact),
        size=len(artifact),
        format="onnx",
        argv=("battery",),
        toolchain_version="battery",
        instruction_set="onnx",
        found={},
        found_precision=Precision.FP32,
        needs=RuntimeNeeds("onnxruntime", ""),
    )


def _ran(results: tuple[CheckResult, ...]) -> list[CheckResult]:
    return [result for result in results if result.verdict is not Verdict.NOT_RUN]


def _said(results: tuple[CheckResult, ...]) -> tuple[Said, ...]:
    return tuple(_one(result) for result in _ran(results))


def _one(result: CheckResult) -> Said:
    summary = "" if result.verdict is Verdict.PASSED else result.summary
    used, by = max((entry for entry in map(_used, result.figures) if entry), default=(0.0, ""))
    return Said(str(result.check), str(result.verdict), summary, result.needs, used, by)


def _used(figure: ResultFigure) -> tuple[float, str] | None:
    if not figure.limit:
        return None
    reach = max(abs(end) for end in (figure.value, figure.low, figure.high) if end is not None)
    return min(reach / figure.limit, 1e6), figure.name


def _quiet(what: str, share: float) -> None:
    """Progress of a single trial, which nobody watches."""
