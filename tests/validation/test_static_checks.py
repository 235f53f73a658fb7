"""Budget, instruction set and JUnit: nothing executes, and unknown figures stay unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.policy import FleetRules, Rule
from nwmctl.validation.budget import check_budget
from nwmctl.validation.instruction_set import check_instruction_set
from nwmctl.validation.junit import junit
from nwmctl.validation.suite import Settings, StepCost, Subject
from tests.validation import plant

SETTINGS = Settings(plant.RULES)


@pytest.fixture
def clean(tmp_path: Path) -> Subject:
    return plant.subject(tmp_path, plant.half_precision)


def test_the_example_fits_and_the_arithmetic_is_plain(clean: Subject) -> None:
    result = check_budget(clean, SETTINGS)
    value = {f.name: f.value for f in result.figures}
    assert result.verdict is Verdict.PASSED
    assert result.obtained is Obtained.ESTIMATED
    assert value["memory_mb"] == pytest.approx(3.4)
    assert value["bandwidth_gb_per_s"] == pytest.approx(3.1e6 * 5 / 1e9)
    assert value["bandwidth_share"] == pytest.approx(3.1e6 * 5 / 200e9)
    # 3.1 MB at half of 200 GB/s take longer than 20 Mop at 1 TFLOPS.
    assert value["roofline_latency_ms"] == pytest.approx(3.1e6 / 100e9 * 1e3)
    assert "assumed" in result.summary


def test_a_model_that_needs_more_than_its_share_fails(clean: Subject) -> None:
    result = check_budget(replace(clean, cost=StepCost(14_000_000_000, 0, 0)), SETTINGS)
    assert result.verdict is Verdict.FAILED
    assert "memory_mb is 1.4e+04 MB, at most 100 is allowed" in result.summary
    assert "roofline_latency_ms" in result.summary


def test_the_policy_may_be_stricter_than_the_profile(clean: Subject) -> None:
    strict = FleetRules({"*": {"budget": Rule(Obtained.ESTIMATED, margins={"memory_mb": 1.0})}})
    assert check_budget(clean, Settings(strict)).verdict is Verdict.FAILED
    loose = FleetRules({"*": {"budget": Rule(Obtained.ESTIMATED, margins={"memory_mb": 1e9})}})
    heavy = replace(clean, cost=StepCost(200_000_000, 0, 0))
    assert check_budget(heavy, Settings(loose)).verdict is Verdict.FAILED


def test_unknown_figures_are_named_and_never_guessed(clean: Subject) -> None:
    unknown = check_budget(replace(clean, profile=plant.profile(bandwidth=None)), SETTINGS)
    assert unknown.verdict is Verdict.NOT_RUN
    assert unknown.summary == "the profile does not know the memory bandwidth of chip"
    assert {f.name for f in unknown.figures} >= {"memory_mb"}
    uncounted = check_budget(replace(clean, cost=None), SETTINGS)
    assert uncounted.verdict is Verdict.NOT_RUN
    no_peak = check_budget(replace(clean, manifest=plant.manifest(found_precision=Precision.BF16)), SETTINGS)
    assert no_peak.verdict is Verdict.PASSED
    assert "no roofline: peak of cpu in bf16 unknown" in no_peak.summary


def test_an_unknown_budget_does_not_hide_an_exceeded_one(clean: Subject) -> None:
    profile = plant.profile()
    blind = replace(profile, budget=replace(profile.budget, bandwidth_share=plant.known(None, "")))
    heavy = replace(clean, profile=blind, cost=StepCost(1_000_000_000, 0, 0))
    assert check_budget(heavy, SETTINGS).verdict is Verdict.FAILED


# --- instruction set ----------------------------------------------------------------------------------------------


def judged(unit: str, listed: tuple[str, ...], ran: bool = False, **changes: object) -> CheckResult:
    profile = plant.profile(unit=unit)
    chip = replace(profile.chips[0], instruction_sets=listed)
    return check_instruction_set(plant.manifest(**changes), profile.variants[0].builds[0], chip, ran_on_chip=ran)


FP16 = {"recipe": Recipe("iree", Precision.FP16), "found_precision": Precision.FP16, "instruction_set": "sm_87"}


def test_fp16_on_a_gpu_must_reach_the_tensor_cores() -> None:
    name = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
    good = judged("gpu", ("sm_87",), found={name: 568, "fma.rn.f32": 10}, **FP16)
    assert (good.verdict, good.obtained) == (Verdict.PASSED, Obtained.ESTIMATED)
    assert "568 tensor-core instructions" in good.summary
    bad = judged("gpu", ("sm_87",), found={"fma.rn.f32": 7538}, **FP16)
    assert bad.verdict is Verdict.FAILED
    assert "without a single tensor-core instruction" in bad.summary


def test_only_an_assembler_makes_ptx_assembled() -> None:
    found = {"mma.sync": 5, "ptxas": 3}
    assert judged("gpu", ("sm_87",), found=found, **FP16).obtained is Obtained.ASSEMBLED


def test_code_for_another_gpu_fails() -> None:
    assert "code is for sm_87, chip has sm_90" in judged("gpu", ("sm_90",), found={"mma.sync": 1}, **FP16).summary


def test_the_label_is_not_believed() -> None:
    result = judged("cpu", ("armv8.2-a",), recipe=Recipe("iree", Precision.INT8))
    assert result.verdict is Verdict.FAILED
    assert "asks for int8 and the payload holds fp32 code" in result.summary


def test_weights_alone_in_int8_promise_the_arithmetic_of_the_rest() -> None:
    weights = Recipe("openvino", Precision.INT8, {"quantisation": "weights"})
    assert judged("host", ("host",), ran=True, recipe=weights).verdict is Verdict.PASSED
    half = Recipe("openvino", Precision.INT8, {"quantisation": "weights", "rest": "bf16"})
    assert "asks for bf16 and the payload holds fp32" in judged("host", ("host",), ran=True, recipe=half).summary
    static = Recipe("openvino", Precision.INT8, {"quantisation": "static"})
    assert judged("host", ("host",), ran=True, recipe=static).verdict is Verdict.FAILED


def test_mixed_precision_is_mostly_what_it_is() -> None:
    mixed = Recipe("onnxruntime", Precision.INT8, {"keep": "head"})
    assert judged("host", ("host",), ran=True, recipe=mixed).verdict is Verdict.PASSED
    half = judged("host", ("host",), ran=True, recipe=mixed, found_precision=Precision.FP16)
    assert "asks for int8 and the payload holds fp16" in half.summary


def test_cpu_features_must_be_the_chips() -> None:
    found = {"fmla.4s": 4, "sdot": 7, "bfmmla": 2}
    old = judged("cpu", ("armv8.2-a",), found=found)
    assert old.verdict is Verdict.INCONCLUSIVE
    assert "2 bfmmla, 7 sdot need bf16, dotprod" in old.summary
    assert judged("cpu", ("armv9-a",), found=found).summary.startswith("2 bfmmla need bf16")
    new = judged("cpu", ("armv9-a", "bf16"), found=found)
    assert (new.verdict, new.obtained) == (Verdict.PASSED, Obtained.ASSEMBLED)


def test_code_that_ran_on_this_chip_is_measured_and_an_unread_payload_is_not_run() -> None:
    assert judged("host", ("host",), ran=True).obtained is Obtained.MEASURED
    assert judged("npu", ("npu",), found={}).verdict is Verdict.NOT_RUN


# --- JUnit --------------------------------------------------------------------------------------------------------


def pack(*results: CheckResult, build: str = "gpu") -> Evidence:
    return Evidence(digest_bytes(b"m"), digest_bytes(b"a"), "nt2.0", build, results)


RESULTS = (
    CheckResult(Check.CONTRACT, Verdict.PASSED, Obtained.PROXY, "fine"),
    CheckResult(Check.PARITY, Verdict.FAILED, Obtained.PROXY, "steer \x1b[31m& <accel>\ud800 off", (), "recompile"),
    CheckResult(Check.CLOSED_LOOP, Verdict.INCONCLUSIVE, Obtained.PROXY, "too few", (), "about 120 scenarios"),
    CheckResult(Check.LATENCY, Verdict.NOT_RUN, Obtained.NOT_RUN, "no orin-x within reach", (), "a bench"),
)


def test_junit_draws_every_verdict() -> None:
    data = junit([pack(*RESULTS), pack(RESULTS[0], build="cpu")])
    root = ElementTree.fromstring(data)
    first, second = root.findall("testsuite")
    assert (first.get("name"), second.get("name")) == ("nt2.0/gpu", "nt2.0/cpu")
    assert [first.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    cases = first.findall("testcase")
    assert cases[0].find("failure") is None
    assert cases[1].find("failure") is not None
    assert cases[2].find("error") is not None
    skipped = cases[3].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "no orin-x within reach"
    assert skipped.text == "next: a bench"
    assert data == junit([pack(*RESULTS), pack(RESULTS[0], build="cpu")])


@given(st.text())
def test_junit_is_well_formed_whatever_a_compiler_says(text: str) -> None:
    odd = CheckResult(Check.PARITY, Verdict.FAILED, Obtained.PROXY, text, (), text)
    ElementTree.fromstring(junit([pack(odd, build=text)]))
