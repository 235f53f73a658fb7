"""Real compilers and runtimes: what they build from the example model passes its policy, on every way there is here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.app.clock import SystemClock
from nwmctl.domain.artifact import Port
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import TensorSpec
from nwmctl.domain.platform import Build, PlatformProfile
from nwmctl.domain.policy import Rule, judge
from nwmctl.formats.documents import decode_yaml
from nwmctl.toolchains.onnxruntime import open_model
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Place, Session
from nwmctl.toolchains.registry import Registry
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.closed_loop import check_closed_loop
from nwmctl.validation.suite import Pace, Settings, StepCost, Subject, Way, validate_artifact
from tests.real import require_real
from tests.validation import plant
from tests.validation.example import MODEL, artifact_rules, contract

PLATFORMS = Path(__file__).parents[2] / "platforms"
RULES = artifact_rules()
DRIVERS = Registry()
WEIGHTS = MODEL / "model.onnx"


def ports(specs: tuple[TensorSpec, ...]) -> tuple[Port, ...]:
    return tuple(Port(spec.name, spec.dtype, spec.shape) for spec in specs)


def reference() -> Session:
    promised = contract()
    return open_model(WEIGHTS, ports(promised.inputs), ports(promised.outputs))


def profile_of(platform: str, variant: str, name: str) -> tuple[PlatformProfile, Build]:
    profile = decode_yaml(PlatformProfile, (PLATFORMS / f"{platform}.yaml").read_bytes(), f"{platform}.yaml")
    found = profile.variant(variant)
    assert found is not None
    return profile, next(build for build in found.builds if build.name == name)


def compiled(profile: PlatformProfile, build: Build, scratch: Path) -> Compiled:
    recipe = build.recipes[0]
    driver = DRIVERS.get(recipe.toolchain)
    probe = driver.probe()
    require_real(recipe.toolchain, probe.available, probe.install)
    digest = digest_bytes(WEIGHTS.read_bytes())
    scratch.mkdir()
    return driver.compile(CompileRequest(WEIGHTS, digest, recipe, build.unit, profile.runtime_driver, scratch))


def subject(profile: PlatformProfile, build: Build, built: Compiled, ways: tuple[Way, ...]) -> Subject:
    return Subject(
        contract=contract(),
        weights=WEIGHTS,
        weights_digest=digest_bytes(WEIGHTS.read_bytes()),
        golden=MODEL / "golden.npz",
        manifest=built.manifest,
        profile=profile,
        build=build,
        reference=reference,
        ways=ways,
        cost=StepCost(2_760_000, 500_000, 20_000_000),
        vehicles=(plant.vehicle(),),
    )


def opened(built: Compiled, place: Place) -> Session:
    return DRIVERS.get(built.manifest.recipe.toolchain).open(built.payload, built.manifest, place)


def quiet(what: str, share: float) -> None:
    """Progress that nobody watches."""


def evidence(profile: PlatformProfile, build: Build, results: tuple[CheckResult, ...]) -> Evidence:
    return Evidence(digest_bytes(b"model"), digest_bytes(b"artifact"), profile.name, build.name, results)


def verdicts(results: tuple[CheckResult, ...], check: Check) -> dict[Obtained, Verdict]:
    return {result.obtained: result.verdict for result in results if result.check is check}


def test_the_virtual_platform_is_measured_and_satisfies_its_policy(tmp_path: Path) -> None:
    profile, build = profile_of("virtual", "host", "host")
    built = compiled(profile, build, tmp_path / "scratch")
    way = Way(Obtained.MEASURED, "this host through onnxruntime", Pace.BATCH, lambda: opened(built, Place.HOST))
    results = validate_artifact(subject(profile, build, built, (way,)), Settings(RULES), quiet)
    short = judge(RULES, [evidence(profile, build, results)])
    assert {each.check for each in short} == {Check.REBUILD}, "a step of its own builds again"
    for check in (Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL, Check.CLOSED_LOOP, Check.INSTRUCTION_SET):
        assert verdicts(results, check) == {Obtained.MEASURED: Verdict.PASSED}


def test_a_payload_that_no_runtime_takes_fails_and_does_not_end_the_run(tmp_path: Path) -> None:
    profile, build = profile_of("virtual", "host", "host")
    built = compiled(profile, build, tmp_path / "scratch")
    damaged = tmp_path / "damaged.onnx"
    data = bytearray(built.payload.read_bytes())
    data[len(data) // 2 :] = b"\xff" * 64
    damaged.write_bytes(data)
    broken = replace(built, payload=damaged)
    way = Way(Obtained.MEASURED, "this host", Pace.BATCH, lambda: opened(broken, Place.HOST))
    results = validate_artifact(subject(profile, build, broken, (way,)), Settings(RULES, scenarios=5), quiet)
    for check in (Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL, Check.CLOSED_LOOP):
        assert verdicts(results, check) == {Obtained.MEASURED: Verdict.FAILED}
    assert judge(RULES, [evidence(profile, build, results)])


@pytest.mark.long
@pytest.mark.parametrize(
    ("platform", "variant", "name"), [("nt2.0", "quad-orin", "cpu"), ("nt2.5", "nx9031-single", "cpu")]
)
def test_an_arm_artifact_passes_as_twin_and_under_emulation(
    tmp_path: Path, platform: str, variant: str, name: str
) -> None:
    profile, build = profile_of(platform, variant, name)
    built = compiled(profile, build, tmp_path / "scratch")
    twin = built.twin
    assert twin is not None
    reason = DRIVERS.get("iree").places(built.manifest)[Place.EMULATED]
    require_real("qemu-aarch64", not reason, reason)
    ways = (
        Way(Obtained.PROXY, "host twin through iree", Pace.ROWS, lambda: opened(twin, Place.HOST)),
        Way(Obtained.EMULATED, "under QEMU", Pace.CRAWL, lambda: opened(built, Place.EMULATED)),
    )
    results = validate_artifact(subject(profile, build, built, ways), Settings(RULES), quiet)
    both = {Obtained.PROXY: Verdict.PASSED, Obtained.EMULATED: Verdict.PASSED}
    for check in (Check.CONTRACT, Check.PARITY, Check.NEGATIVE_CONTROL):
        assert verdicts(results, check) == both
    assert verdicts(results, Check.CLOSED_LOOP) == {Obtained.PROXY: Verdict.PASSED}
    code = next(result for result in results if result.check is Check.INSTRUCTION_SET)
    listed = profile.chip(build.chip).instruction_sets
    # bf16 is optional in Armv9.0: the check is open for as long as nobody says that the chip has it.
    if built.manifest.found.get("bfmmla") and "bf16" not in listed:
        assert code.verdict is Verdict.INCONCLUSIVE
        assert "need bf16" in code.summary
        assert [s.check for s in judge(RULES, [evidence(profile, build, results)])] == [Check.INSTRUCTION_SET]
    else:
        assert (code.verdict, code.obtained) == (Verdict.PASSED, Obtained.ASSEMBLED)
        short = judge(RULES, [evidence(profile, build, results)])
    assert {each.check for each in short} == {Check.REBUILD}, "a step of its own builds again"


@pytest.mark.long
def test_a_gpu_artifact_passes_as_twin_and_reaches_the_tensor_cores(tmp_path: Path) -> None:
    profile, build = profile_of("nt2.0", "quad-orin", "gpu")
    built = compiled(profile, build, tmp_path / "scratch")
    twin = built.twin
    assert twin is not None
    way = Way(Obtained.PROXY, "host twin through iree", Pace.ROWS, lambda: opened(twin, Place.HOST))
    results = validate_artifact(subject(profile, build, built, (way,)), Settings(RULES), quiet)
    short = judge(RULES, [evidence(profile, build, results)])
    assert {each.check for each in short} == {Check.REBUILD}, "a step of its own builds again"
    code = next(result for result in results if result.check is Check.INSTRUCTION_SET)
    assert next(f.value for f in code.figures if f.name == "tensor_core_instructions") > 100
    assert code.obtained is Obtained.ASSEMBLED, "machine code of a pinned assembler"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_an_arm_artifact_drives_under_emulation_like_its_model(tmp_path: Path) -> None:
    profile, build = profile_of("nt2.0", "quad-orin", "cpu")
    built = compiled(profile, build, tmp_path / "scratch")
    reason = DRIVERS.get("iree").places(built.manifest)[Place.EMULATED]
    require_real("qemu-aarch64", not reason, reason)
    way = Way(Obtained.EMULATED, "under QEMU", Pace.CRAWL, lambda: opened(built, Place.EMULATED))
    few = Settings(RULES, emulated_scenarios=6, emulated_budget_s=1000.0, clock=SystemClock())
    margins = {"median_path_deviation_m": 0.4, "failure_rate_shift": 0.5}
    made = subject(profile, build, built, (way,))
    with Candidate(made.contract, way) as candidate:
        result = check_closed_loop(candidate, made, few, Rule(Obtained.EMULATED, margins=margins))
    assert (result.verdict, result.obtained) == (Verdict.PASSED, Obtained.EMULATED), result.summary
    assert "6 paired scenarios, under QEMU" in result.summary
