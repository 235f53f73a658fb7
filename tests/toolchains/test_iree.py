"""What IREE builds for chips that are not here, read out of the artifacts; and what it must not get away with."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.errors import (
    CompileFailedError,
    InspectionFailedError,
    PlaceUnavailableError,
    RecipeOptionError,
    ToolchainTimeoutError,
    UnsupportedRecipeError,
)
from nwmctl.toolchains import emulation, iree_options, lowering
from nwmctl.toolchains import iree as driver_module
from nwmctl.toolchains.files import packaged_program
from nwmctl.toolchains.iree import Iree
from nwmctl.toolchains.process import Command, Limits, run_tool
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Place
from tests.real import require_real
from tests.toolchains.models import DRIVER, expected, inputs, request, worst

FP16, FP32, BF16, INT8 = Precision.FP16, Precision.FP32, Precision.BF16, Precision.INT8
LONG_BF16 = pytest.param("arm_bf16", 5e-2, marks=pytest.mark.long)
MMA = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"


def compiler() -> str:
    path = packaged_program("iree.compiler", "_mlir_libs/iree-compile")
    assert path is not None
    return str(path)


# --- what is in an artifact ---------------------------------------------------------------------------------------


def test_fp16_for_the_gpu_uses_the_tensor_cores(gpu_fp16: Compiled) -> None:
    manifest = gpu_fp16.manifest
    assert manifest.instruction_set == "sm_87"
    assert manifest.found[MMA] > 0
    assert manifest.found_precision is FP16
    assert manifest.jit_in_vehicle
    assert manifest.needs.driver == DRIVER
    assert any("compiles it further in the vehicle" in note for note in manifest.notes)


def test_fp32_labelled_fp16_is_found_out(
    iree: Iree, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversion is left out, as a defect would leave it out; everything after it is real."""
    monkeypatch.setattr(iree_options, "_order", lambda recipe, options, unit: lowering.LoweringOrder(FP32))
    compiled = iree.compile(request(model, tmp_path / "s", "iree", FP16, "gpu"))
    manifest = compiled.manifest
    assert manifest.recipe.precision is FP16
    assert manifest.found_precision is FP32
    assert not any(name.startswith("mma") for name in manifest.found)
    assert any("no tensor-core instruction" in note for note in manifest.notes)
    assert any("asks for fp16 and the code is fp32" in note for note in manifest.notes)
    assert compiled.twin is not None
    assert compiled.twin.manifest.found_precision is FP32


def test_the_arm_artifact_names_core_and_extensions(arm_fp32: Compiled) -> None:
    manifest = arm_fp32.manifest
    machine, core, features = manifest.instruction_set.split(" ")
    assert (machine, core) == ("aarch64", "cortex-a78ae")
    assert {"+dotprod", "+fullfp16"} <= set(features.split(","))
    assert not {"+bf16", "+i8mm", "+sve"} & set(features.split(","))
    assert manifest.found_precision is FP32
    assert manifest.found["fmla.4s"] > 0
    assert not manifest.jit_in_vehicle
    assert manifest.needs.driver == ""


@pytest.mark.long
def test_bf16_reaches_the_matrix_unit(arm_bf16: Compiled) -> None:
    assert arm_bf16.manifest.found["bfmmla"] > 0
    assert arm_bf16.manifest.found_precision is BF16
    assert any("needs the extensions bf16" in note for note in arm_bf16.manifest.notes)


def test_code_that_is_not_in_the_payload_is_not_believed(arm_fp32: Compiled, model: Path, tmp_path: Path) -> None:
    """The compiler's own folder, with one byte of the code that it left to look at changed."""
    shutil.copytree(arm_fp32.payload.parent, tmp_path / "s")
    ask = dataclasses.replace(request(model, tmp_path / "fresh", "iree", FP32, "cpu"), scratch=tmp_path / "s")
    how = iree_options.plan(arm_fp32.manifest.recipe, "cpu")
    lowered = lowering.Lowered(tmp_path / "s" / lowering.LOWERED, (), (), {})
    build = driver_module._Build(ask, how, lowered, Path(compiler()), "model")
    inspection, _ = build._inspect()
    assert inspection.found == arm_fp32.manifest.found
    code = next(build.binaries.iterdir())
    code.write_bytes(code.read_bytes()[:-1] + b"\xff")
    with pytest.raises(InspectionFailedError, match="cannot be told") as caught:
        build._inspect()
    assert "is not the code in it" in caught.value.why


# --- reproducible bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [pytest.param("gpu_fp16", marks=pytest.mark.long), "arm_fp32"])
def test_the_same_bytes_from_another_folder(
    iree: Iree, model: Path, tmp_path: Path, which: str, request: pytest.FixtureRequest
) -> None:
    first: Compiled = request.getfixturevalue(which)
    recipe = first.manifest.recipe
    unit = "gpu" if which == "gpu_fp16" else "cpu"
    scratch = tmp_path / "elsewhere" / "deep"
    scratch.mkdir(parents=True)
    again = iree.compile(CompileRequest(model, first.manifest.model, recipe, unit, DRIVER, scratch))
    assert again.payload.read_bytes() == first.payload.read_bytes()
    assert again.manifest == first.manifest
    assert again.twin is not None
    assert first.twin is not None
    assert again.twin.payload.read_bytes() == first.twin.payload.read_bytes()


# --- where artifacts execute --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("which", "tolerance"), [("gpu_fp16", 5e-3), ("arm_fp32", 1e-5), LONG_BF16])
def test_the_host_twin_computes_what_the_network_says(
    iree: Iree, which: str, tolerance: float, request: pytest.FixtureRequest
) -> None:
    twin = request.getfixturevalue(which).twin
    given = inputs(3)
    with iree.open(twin.payload, twin.manifest, Place.HOST) as session:
        difference = worst(session.run(given), expected(given))
    assert difference < tolerance
    if which != "arm_fp32":
        assert difference > 1e-6, "reduced precision must show, or the twin is not of that precision"


@pytest.mark.parametrize(("which", "tolerance"), [("arm_fp32", 1e-5), LONG_BF16])
def test_the_arm_artifact_computes_it_under_emulation(
    iree: Iree, which: str, tolerance: float, request: pytest.FixtureRequest
) -> None:
    require_real("qemu-aarch64", not emulation.missing(), emulation.missing())
    compiled: Compiled = request.getfixturevalue(which)
    given = inputs(2)
    with iree.open(compiled.payload, compiled.manifest, Place.EMULATED) as session:
        got = session.run(given)
    assert worst(got, expected(given)) < tolerance
    assert compiled.twin is not None
    with iree.open(compiled.twin.payload, compiled.twin.manifest, Place.HOST) as session:
        assert worst(got, session.run(given)) < tolerance / 5, "twin and artifact come from one graph"


@pytest.mark.long
def test_the_emulated_core_lacks_what_the_chip_lacks(iree: Iree, arm_bf16: Compiled, arm_fp32: Compiled) -> None:
    """An artifact with bf16 instructions, passed off as one for a core without them, does not survive."""
    require_real("qemu-aarch64", not emulation.missing(), emulation.missing())
    assert emulation.emulated_core(arm_fp32.manifest.instruction_set) == "cortex-a76"
    passed_off = dataclasses.replace(arm_bf16.manifest, instruction_set=arm_fp32.manifest.instruction_set)
    with pytest.raises(Exception) as caught:
        with iree.open(arm_bf16.payload, passed_off, Place.EMULATED) as session:
            session.run(inputs(1))
    assert "SIGILL" in str(caught.value) or "llegal instruction" in str(caught.value)


def test_a_gpu_artifact_executes_nowhere_here(iree: Iree, gpu_fp16: Compiled) -> None:
    places = iree.places(gpu_fp16.manifest)
    assert all(places.values())
    for place in Place:
        with pytest.raises(PlaceUnavailableError) as caught:
            iree.open(gpu_fp16.payload, gpu_fp16.manifest, place)
        assert "sm_87" in caught.value.why


def test_emulation_says_what_to_install(
    iree: Iree, arm_fp32: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(emulation.ENVIRONMENT, str(tmp_path))
    reason = iree.places(arm_fp32.manifest)[Place.EMULATED]
    assert "python -m nwmctl.toolchains.emulation install" in reason or "apt-get install" in reason
    with pytest.raises(PlaceUnavailableError):
        iree.open(arm_fp32.payload, arm_fp32.manifest, Place.EMULATED)


# --- what the driver refuses --------------------------------------------------------------------------------------


def test_a_bad_pass_pipeline_exits_0_and_is_a_failure_all_the_same(iree: Iree, tmp_path: Path) -> None:
    """The real compiler: it prints an error, exits 0 and emits an artifact."""
    source = "func.func @f(%a: tensor<4xf32>) -> tensor<4xf32> { return %a : tensor<4xf32> }"
    (tmp_path / "model.mlir").write_text(source)
    flags = iree_options.host_flags()
    argv = (compiler(), "model.mlir", "-o", "model.vmfb", *flags)
    run_tool(Command("iree-compile", argv, tmp_path, Limits(60)))
    (tmp_path / "model.vmfb").unlink()
    pipeline = "--iree-preprocessing-pass-pipeline=builtin.module(nonsense)"
    with pytest.raises(CompileFailedError, match="exited 0 and yet said"):
        run_tool(Command("iree-compile", (*argv, pipeline), tmp_path, Limits(60)))
    assert (tmp_path / "model.vmfb").exists(), "the compiler did emit an artifact, which is why the words count"


def test_a_compiler_that_is_too_slow_is_stopped(iree: Iree, model: Path, tmp_path: Path) -> None:
    ask = dataclasses.replace(request(model, tmp_path / "s", "iree", FP32, "host"), timeout_s=0.05)
    with pytest.raises(ToolchainTimeoutError):
        iree.compile(ask)


def test_a_compiler_without_memory_is_a_failure(iree: Iree, model: Path, tmp_path: Path) -> None:
    ask = dataclasses.replace(request(model, tmp_path / "s", "iree", FP32, "host"), memory_bytes=40 << 20)
    with pytest.raises(CompileFailedError):
        iree.compile(ask)


@pytest.mark.parametrize(
    ("precision", "unit", "options", "words"),
    [
        (FP32, "cpu", {}, "it must be given"),
        (FP32, "cpu", {"cpu": "cortex; rm -rf /"}, "must be the core's name"),
        (FP32, "cpu", {"cpu": "generic", "features": "v9a"}, "must be extensions"),
        (FP32, "cpu", {"cpu": "generic", "data_tiling": "yes"}, "must be true or false"),
        (FP32, "cpu", {"cpu": "generic", "arch": "sm_87"}, "iree knows"),
        (FP32, "gpu", {"arch": "gfx942"}, "must be the GPU's architecture"),
        (FP32, "gpu", {"opt_level": "O9"}, "must be O0"),
        (FP32, "gpu", {"fp16_scope": "all"}, "iree knows"),
        (FP16, "gpu", {"fp16_scope": "some"}, "must be matmul"),
        (BF16, "cpu", {"cpu": "generic", "opt_level": "O3"}, "would be fp32"),
        (FP32, "vulkan", {"arch": "../x"}, "must be the GPU's architecture"),
        (FP32, "cpu", {"cpu": "generic", "keep": "head"}, "iree knows"),
        (INT8, "cpu", {"cpu": "generic", "quantisation": "dynamic"}, "does not compile scales"),
        (INT8, "cpu", {"cpu": "generic", "quantisation": "some"}, "must be dynamic, static or weights"),
        (INT8, "cpu", {"cpu": "generic", "data_tiling": False}, "smlal"),
        (INT8, "cpu", {"cpu": "generic", "integers": "unsigned"}, "stay scalar on Arm"),
        (INT8, "cpu", {"cpu": "generic", "rest": "bf16", "opt_level": "O2"}, "would be fp32"),
        (INT8, "cpu", {"cpu": "generic", "rest": "int8"}, "must be fp32"),
        (INT8, "gpu", {"quantisation": "static"}, "slower than fp16"),
        (INT8, "gpu", {"rest": "fp32"}, "only fp16 reaches the tensor cores"),
    ],
)
def test_options_are_a_closed_set(precision: Precision, unit: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(RecipeOptionError) as caught:
        iree_options.plan(Recipe("iree", precision, dict(options)), unit)
    assert words in caught.value.why


@pytest.mark.parametrize(
    ("precision", "unit"),
    [(BF16, "gpu"), (BF16, "vulkan"), (FP32, "npu"), (INT8, "vulkan"), (INT8, "host"), (BF16, "host")],
)
def test_what_it_does_not_build_is_refused(precision: Precision, unit: str) -> None:
    with pytest.raises(UnsupportedRecipeError):
        iree_options.plan(Recipe("iree", precision), unit)


def test_a_gpu_artifact_without_a_driver_version_is_refused(iree: Iree, model: Path, tmp_path: Path) -> None:
    ask = dataclasses.replace(request(model, tmp_path / "s", "iree", FP16, "gpu"), driver="")
    with pytest.raises(UnsupportedRecipeError, match="driver version"):
        iree.compile(ask)


@pytest.mark.parametrize("tiling", [True, False])
def test_whole_layers_in_one_kernel_say_what_the_runtime_then_needs(tiling: bool) -> None:
    """From O2 on a kernel may need more stack than the runtime's workers have: they would crash without the flag."""
    options = {"cpu": "cortex-a78ae", "data_tiling": tiling}
    for level in ("O2", "O3"):
        fused = iree_options.plan(Recipe("iree", FP32, {**options, "opt_level": level}), "cpu")
        assert fused.runtime_flags == ("--task_worker_stack_size=1048576",)
        assert "--iree-llvmcpu-stack-allocation-limit=262144" in fused.flags
    assert iree_options.plan(Recipe("iree", FP32, {**options, "opt_level": "O1"}), "cpu").runtime_flags == ()


@pytest.mark.long
def test_the_example_model_for_every_unit(iree: Iree, tmp_path: Path) -> None:
    package = Path(__file__).parents[2] / "examples" / "nwm-2.0" / "model"
    golden = np.load(package / "golden.npz")
    given = {name.removeprefix("in/"): golden[name][:2] for name in golden if name.startswith("in/")}
    wanted = {name.removeprefix("out/"): golden[name][:2] for name in golden if name.startswith("out/")}
    features = "+v9a,+dotprod,+i8mm,+bf16,+fullfp16,+fp16fml"
    for precision, unit, options, tolerance in (
        (FP16, "gpu", {"arch": "sm_87"}, 0.05),
        (FP32, "cpu", {"cpu": "cortex-a78ae"}, 1e-3),
        (BF16, "cpu", {"cpu": "generic", "features": features, "data_tiling": True}, 0.5),
    ):
        scratch = tmp_path / f"{unit}-{precision}"
        ask = request(package / "model.onnx", scratch, "iree", precision, unit, **options)
        compiled = iree.compile(dataclasses.replace(ask, timeout_s=300))
        assert compiled.manifest.found_precision is precision
        assert compiled.twin is not None
        with iree.open(compiled.twin.payload, compiled.twin.manifest, Place.HOST) as session:
            assert worst({name: session.run(given)[name] for name in wanted}, wanted) < tolerance
