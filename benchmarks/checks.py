"""What the checks cost: one artifact with 250 scenarios, one with the CI profile, and 5,000 pairs of two models.

``python -m benchmarks.checks`` prints a table and writes it into ``benchmarks/RESULTS.md``. CPU seconds of this process
and of the workers it started, on the example models; wall-clock beside them. "with the model's drives" counts those of
the model as trained, which every artifact of that model shares; "without" is what each further artifact costs.
Compiling is not counted. ``--pairs N`` for fewer pairs while trying.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.results import write_section
from nwmctl.domain.amounts import Profile, Validation
from nwmctl.domain.artifact import Port
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.evidence import Check, CheckResult
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import CARD_NAME, ModelContract
from nwmctl.domain.platform import HOST_UNIT, PlatformProfile
from nwmctl.domain.policy import FleetRules, Policy, Rule
from nwmctl.formats import documents, model_card
from nwmctl.toolchains.protocol import CompileRequest, Place, Session
from nwmctl.toolchains.registry import registry
from nwmctl.toolchains.sessions import open_worker
from nwmctl.validation.drives import ModelDrives
from nwmctl.validation.non_inferiority import CRASHES, check_non_inferiority
from nwmctl.validation.subject import Pace, Released, Settings, StepCost, Subject, Way
from nwmctl.validation.suite import validate_artifact

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
_SEED = 20_260_000


@dataclass(frozen=True)
class Cost:
    """One measurement: CPU and wall-clock seconds, and what they must stay under."""

    name: str
    cpu_s: float
    wall_s: float
    limit_s: float | None = None


@dataclass(frozen=True)
class Model:
    """A model as trained, opened by onnxruntime."""

    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def contract(self) -> ModelContract:
        return model_card.decode((self.folder / CARD_NAME).read_bytes(), CARD_NAME).contract

    @property
    def digest(self) -> Digest:
        return digest_bytes(self.weights.read_bytes())

    def open(self) -> Session:
        contract = self.contract
        inputs, outputs = (
            tuple(Port(spec.name, spec.dtype, spec.shape) for spec in side)
            for side in (contract.inputs, contract.outputs)
        )
        return open_worker("onnxruntime", self.weights, inputs, outputs, 60.0)

    def released(self) -> Released:
        return Released(self.contract, self.digest, self.open)


NEW, OLD = Model(EXAMPLES / "nwm-2.5" / "model"), Model(EXAMPLES / "nwm-2.0" / "model")


def rules() -> FleetRules:
    """The example policy's, with the checks that drive demanded everywhere."""
    policy = documents.decode_yaml(Policy, (EXAMPLES / "nwm-2.5" / "policy.yaml").read_bytes(), "policy.yaml").virtual
    more = {str(Check.TRAP_SUITE): Rule(Obtained.PROXY, margins={"recovery_loss": 0.15})}
    return replace(policy, platforms={name: {**more, **table} for name, table in policy.platforms.items()})


def subject(name: str, variant: str, build: str, scratch: Path) -> Subject:
    """The example model compiled for one build, with the way in which it executes on this host."""
    path = ROOT / "platforms" / f"{name}.yaml"
    profile = documents.decode_yaml(PlatformProfile, path.read_bytes(), path.name)
    found = profile.variant(variant)
    assert found is not None
    chosen = next(each for each in found.builds if each.name == build)
    recipe = chosen.recipes[0]
    driver = registry().get(recipe.toolchain)
    scratch.mkdir()
    made = driver.compile(CompileRequest(NEW.weights, NEW.digest, recipe, chosen.unit, profile.runtime_driver, scratch))
    here = chosen.unit == HOST_UNIT
    ran = made if here else made.twin
    assert ran is not None

    def open_() -> Session:
        return driver.open(ran.payload, ran.manifest, Place.HOST)

    way = Way(Obtained.MEASURED if here else Obtained.PROXY, "this host", Pace.BATCH if here else Pace.ROWS, open_)
    return Subject(
        contract=NEW.contract,
        weights=NEW.weights,
        weights_digest=NEW.digest,
        golden=NEW.folder / "golden.npz",
        manifest=made.manifest,
        profile=profile,
        build=chosen,
        reference=NEW.open,
        ways=(way,),
        cost=StepCost(2_760_000, 500_000, 20_000_000),
    )


def costs(name: str, work: Callable[[], object], limit: float | None = None) -> Cost:
    """Do something and say what it cost."""
    began, wall = _cpu(), time.monotonic()
    work()
    return Cost(name, _cpu() - began, time.monotonic() - wall, limit)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def artifact_costs(label: str, one: Subject) -> list[Cost]:
    """Both profiles, each with and without the drives of the model as trained."""
    found = []
    for profile, limit in ((Profile.FULL, 10.0), (Profile.CI, 4.0)):
        amounts = Validation(profile).amounts()
        count = amounts.scenarios
        settings = Settings(rules(), _SEED, count, count, traps=amounts.traps)
        told = f"{label}: {count} scenarios, {amounts.traps} traps"
        fresh = replace(one, drives=ModelDrives())
        run = _validating(fresh, settings)
        found.append(costs(f"{told}, with the model's drives", run))
        found.append(costs(f"{told}, without", run, limit))
    return found


def _validating(one: Subject, settings: Settings) -> Callable[[], tuple[CheckResult, ...]]:
    return lambda: validate_artifact(one, settings, lambda what, share: None)


def pair_costs(pairs: int, one: Subject) -> Cost:
    """The new example model against the released one, nothing driven before."""
    fresh = replace(one, released=OLD.released(), drives=ModelDrives())
    settings = Settings(rules(), _SEED, pairs=pairs, most_pairs=pairs)
    rule = Rule(Obtained.PROXY, margins={CRASHES: 0.01})

    def work() -> None:
        result = check_non_inferiority(fresh, settings, rule, lambda share: None)
        print(f"{result.verdict}: {result.summary}")

    return costs(f"{pairs} pairs, both models' drives", work, 180.0)


def main() -> None:
    """Run, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pairs", type=int, default=5_000)
    pairs = options.parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        host = subject("virtual", "host", "host", Path(name) / "host")
        arm = subject("nt2.0", "quad-orin", "cpu", Path(name) / "arm")
        found = [*artifact_costs("onnxruntime artifact", host), *artifact_costs("IREE host twin, row by row", arm)]
        found.append(pair_costs(pairs, host))
    lines = ["| checks | CPU s | wall s | must stay under CPU s |", "|---|---|---|---|"]
    for cost in found:
        lines.append(f"| {cost.name} | {cost.cpu_s:.1f} | {cost.wall_s:.1f} | {cost.limit_s or ''} |")
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, onnxruntime "
        f"{version('onnxruntime')}, IREE {version('iree-base-compiler')}, {datetime.now(UTC):%Y-%m-%d}; load average "
        f"at the end {os.getloadavg()[0]:.1f}."
    )
    lines += ["", machine]
    print("\n".join(lines))
    write_section("The checks", "python -m benchmarks.checks", "\n".join(lines))


if __name__ == "__main__":
    main()
