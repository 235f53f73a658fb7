"""int8 through IREE on Arm cores, read out of artifacts and executed under emulation; Vulkan; what is worth a try."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import Precision, Quantisation, Recipe
from nwmctl.errors import (
    CalibrationMismatchError,
    GroupUnknownError,
    NothingToQuantiseError,
    PromiseBrokenError,
    UnsupportedRecipeError,
)
from nwmctl.toolchains import emulation, iree_options, lowering
from nwmctl.toolchains import iree as driver_module
from nwmctl.toolchains.inspection import Inspection
from nwmctl.toolchains.iree import Iree
from nwmctl.toolchains.iree_variations import CAPABILITIES, variations
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Effort, Place
from tests.real import require_real
from tests.toolchains.models import expected, inputs, request, worst

FP32, FP16, BF16, INT8 = Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8
V9 = {"cpu": "generic", "features": "+v9a,+dotprod,+i8mm,+bf16,+fullfp16,+fp16fml"}
ORIN, NX = ("sm_87", "armv8.2-a"), ("armv9-a", "bf16", "i8mm")
CHIPS = [("gpu", ORIN), ("vulkan", ORIN), ("cpu", ORIN), ("cpu", NX), ("host", ("host",))]


@pytest.fixture(scope="module")
def armv9_int8(iree: Iree, model: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    ask = request(model, tmp_path_factory.mktemp("v9") / "s", "iree", INT8, "cpu", **V9)
    return iree.compile(dataclasses.replace(ask, calibration=calibration))


@pytest.fixture(scope="module")
def mixed(iree: Iree, model: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The first product int8, the second fp32. The model's exporter named no layers, so that its products are one
    group; they are given layers first."""
    import onnx

    named = onnx.load(str(model))
    for node in named.graph.node:
        node.name = f"/{node.name}/{node.op_type}"
    path = tmp_path_factory.mktemp("named") / "model.onnx"
    onnx.save(named, str(path))
    ask = request(path, path.parent / "s", "iree", INT8, "cpu", cpu="cortex-a78ae", keep="down")
    return iree.compile(dataclasses.replace(ask, calibration=calibration))


@pytest.fixture(scope="module")
def vulkan_fp32(iree: Iree, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return iree.compile(request(model, tmp_path_factory.mktemp("vulkan") / "s", "iree", FP32, "vulkan"))


# --- what is in an artifact ---------------------------------------------------------------------------------------


def test_int8_on_an_a78ae_is_dot_products(arm_int8: Compiled) -> None:
    manifest = arm_int8.manifest
    assert manifest.found["sdot"] > 0
    assert "smlal" not in manifest.found
    assert manifest.found_precision is INT8
    assert manifest.operators_after["MatMul.int8"] == 2
    assert "2 products are int8, what stays float is fp32" in manifest.notes
    assert "calibration" in manifest.sources


def test_int8_on_armv9_is_matrix_instructions(armv9_int8: Compiled) -> None:
    found = armv9_int8.manifest.found
    assert found["smmla"] > 0
    assert not {"sdot", "smlal"} & found.keys()
    assert armv9_int8.manifest.found_precision is INT8
    assert any("needs the extensions i8mm" in note for note in armv9_int8.manifest.notes)


@pytest.mark.long
def test_integers_that_the_compiler_drops_are_refused(
    iree: Iree, model: Path, calibration: Path, tmp_path: Path
) -> None:
    """Demoting the rest to bf16 reaches a product without a bias before it has become integers."""
    ask = request(model, tmp_path / "s", "iree", INT8, "cpu", rest="bf16", **V9)
    with pytest.raises(PromiseBrokenError):
        compile_build(iree, dataclasses.replace(ask, calibration=calibration))


def test_mixed_precision_has_both_kinds_of_products(mixed: Compiled) -> None:
    manifest = mixed.manifest
    assert manifest.operators_after["MatMul.int8"] == 1
    assert manifest.operators_after["MatMul.float32"] == 1
    assert manifest.found["sdot"] > 0
    assert manifest.found["fmla.4s"] > 0
    assert "1 products are int8, what stays float is fp32" in manifest.notes


def test_weights_alone_stay_small_and_multiply_floats(
    iree: Iree, model: Path, arm_fp32: Compiled, tmp_path: Path
) -> None:
    options = {"cpu": "cortex-a78ae", "quantisation": "weights", "opt_level": "O1"}
    compiled = iree.compile(request(model, tmp_path / "s", "iree", INT8, "cpu", **options))
    manifest = compiled.manifest
    assert manifest.found_precision is FP32
    assert any("weights of 2 products are int8; the arithmetic is fp32" in note for note in manifest.notes)
    given = inputs(2)
    with iree.open(compiled.twin.payload, compiled.twin.manifest, Place.HOST) as session:  # type: ignore[union-attr]
        assert 1e-4 < worst(session.run(given), expected(given)) < 0.1
    weights = 2 * 32 * 64
    assert arm_fp32.manifest.size - manifest.size > 2 * weights, "they are stored as integers"


def test_a_gpu_widens_integer_weights_inside_its_kernels(iree: Iree, model: Path, tmp_path: Path) -> None:
    """Without its flag this compiler stores them as fp16 again, or widens them once at the start."""
    options = {"arch": "sm_87", "quantisation": "weights", "rest": "fp16"}
    compiled = iree.compile(request(model, tmp_path / "s", "iree", INT8, "gpu", **options))
    assert "--iree-opt-const-expr-hoisting=false" in compiled.manifest.argv
    code = compiled.payload.read_bytes()
    assert re.search(rb"cvt\.rn\.f(16|32)\.s(8|16|32)", code), "integers become floats in a kernel"
    assert b"_initializer_" not in code
    assert any("weights of 2 products are int8" in note for note in compiled.manifest.notes)


def test_code_without_dot_products_is_named() -> None:
    """What the compiler makes of unsigned activations, as it was measured: widening multiplications."""
    how = iree_options.plan(Recipe("iree", INT8, {"cpu": "cortex-a78ae"}), "cpu")
    graph = lowering.Lowered(Path("lowered.onnx"), (), (), {}, quantised={"MatMul": 6})
    notes = driver_module.about(how, graph, Inspection({"smlal": 80, "fmla.4s": 9}, INT8))
    assert any("no dot-product or matrix instruction" in note for note in notes)
    assert not any("dot-product" in note for note in driver_module.about(how, graph, Inspection({"sdot": 1}, INT8)))


def test_vulkan_code_is_read_out_of_spirv(vulkan_fp32: Compiled) -> None:
    manifest = vulkan_fp32.manifest
    assert manifest.instruction_set.startswith("spirv-1.")
    assert manifest.instruction_set.endswith(" ampere")
    assert manifest.found["Fma fp32"] > 0
    assert manifest.found["kernels"] >= 2
    assert manifest.found_precision is FP32
    assert manifest.jit_in_vehicle
    assert manifest.needs.driver
    assert any("no cooperative-matrix instruction" in note for note in manifest.notes)


def test_fp16_for_vulkan_is_named_what_it_is(iree: Iree, model: Path, tmp_path: Path) -> None:
    """This compiler widens fp16 before it multiplies: a known defect of it, which no flag and no exit status tells."""
    manifest = iree.compile(request(model, tmp_path / "s", "iree", FP16, "vulkan")).manifest
    half = sum(count for name, count in manifest.found.items() if name.endswith("fp16"))
    assert (manifest.found_precision is FP16) == (half > 0)
    assert any("asks for fp16 and the code is fp32" in note for note in manifest.notes) == (not half)


# --- what it computes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["arm_int8", pytest.param("mixed", marks=pytest.mark.long), "armv9_int8"])
def test_the_int8_artifact_computes_what_its_twin_computes(
    iree: Iree, which: str, request: pytest.FixtureRequest
) -> None:
    require_real("qemu-aarch64", not emulation.missing(), emulation.missing())
    compiled: Compiled = request.getfixturevalue(which)
    given = inputs(2)
    assert compiled.twin is not None
    with iree.open(compiled.twin.payload, compiled.twin.manifest, Place.HOST) as session:
        twin = session.run(given)
    with iree.open(compiled.payload, compiled.manifest, Place.EMULATED) as session:
        got = session.run(given)
    assert 1e-4 < worst(twin, expected(given)) < 0.1, "integers must show, and must not show much"
    assert worst(got, twin) < 1e-2, "a rounding may fall to the other side; more than that is another graph"


@pytest.mark.parametrize("which", ["arm_int8", pytest.param("vulkan_fp32", marks=pytest.mark.long)])
def test_the_same_bytes_from_another_folder(
    iree: Iree, calibration: Path, tmp_path: Path, which: str, model: Path, request: pytest.FixtureRequest
) -> None:
    first: Compiled = request.getfixturevalue(which)
    unit = "cpu" if which == "arm_int8" else "vulkan"
    scratch = tmp_path / "else" / "where"
    scratch.mkdir(parents=True)
    ask = CompileRequest(model, first.manifest.model, first.manifest.recipe, unit, "540.4.0", scratch)
    ask = dataclasses.replace(ask, calibration=calibration if unit == "cpu" else None)
    again = iree.compile(ask)
    assert again.payload.read_bytes() == first.payload.read_bytes()
    assert again.manifest == first.manifest
    assert again.twin is not None
    assert first.twin is not None
    assert again.twin.payload.read_bytes() == first.twin.payload.read_bytes()


# --- what is refused ----------------------------------------------------------------------------------------------


def test_static_int8_without_calibration_is_refused(iree: Iree, model: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationMismatchError):
        iree.compile(request(model, tmp_path / "s", "iree", INT8, "cpu", cpu="cortex-a78ae"))


@pytest.mark.parametrize("keep", ["nowhere", "all"])
def test_groups_that_are_not_there_and_nothing_left_are_refused(
    iree: Iree, model: Path, calibration: Path, tmp_path: Path, keep: str
) -> None:
    groups = {"nowhere": "nowhere", "all": "(outside any module)"}[keep]
    refusal = {"nowhere": GroupUnknownError, "all": NothingToQuantiseError}[keep]
    ask = request(model, tmp_path / "s", "iree", INT8, "cpu", cpu="cortex-a78ae", keep=groups)
    with pytest.raises(refusal):
        iree.compile(dataclasses.replace(ask, calibration=calibration))


def test_a_vulkan_artifact_without_a_driver_version_is_refused(iree: Iree, model: Path, tmp_path: Path) -> None:
    ask = dataclasses.replace(request(model, tmp_path / "s", "iree", FP32, "vulkan"), driver="")
    with pytest.raises(UnsupportedRecipeError, match="driver version"):
        iree.compile(ask)


# --- what is worth trying -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "chip"), CHIPS)
def test_every_variation_is_a_recipe_that_it_takes(unit: str, chip: tuple[str, ...]) -> None:
    full, quick = variations(unit, chip, Effort.FULL), variations(unit, chip, Effort.QUICK)
    assert quick == full[: len(quick)]
    assert 2 <= len(quick) <= 3
    able = {(each.unit, each.precision): each for each in CAPABILITIES}
    assert len({(recipe.precision, tuple(recipe.options.items())) for recipe in full}) == len(full)
    for recipe in full:
        how = iree_options.plan(recipe, unit)
        capability = able[unit, recipe.precision]
        assert "keep" not in recipe.options
        assert how.order.quantisation is None or how.order.quantisation in capability.quantisations
    # What it makes of fp16 for Vulkan multiplies fp32.
    assert ({FP32} if unit == "vulkan" else {FP32, FP16}) <= {recipe.precision for recipe in full}


def test_machine_code_comes_first_where_it_can_be_made() -> None:
    with_it, without = (variations("gpu", ORIN, Effort.FULL, assembler=here) for here in (True, False))
    half = len(with_it) // 2
    assert with_it[half:] == without
    for made, translated in zip(with_it[:half], without, strict=True):
        assert made.precision is translated.precision
        assert made.options == {**translated.options, "machine_code": True}
    assert not iree_options.plan(with_it[0], "gpu").in_vehicle


def test_what_is_tried_follows_the_chip() -> None:
    def said(chip: tuple[str, ...]) -> str:
        return str(variations("cpu", chip, Effort.FULL))

    assert "bf16" in said(NX)
    assert "i8mm" in said(NX)
    assert "bf16" not in said(ORIN)
    assert "bf16" not in said(("armv9-a", "i8mm")), "a matrix instruction that the profile does not list is not used"
    assert "+i8mm" not in said(("armv9-a", "bf16"))
    assert variations("npu", NX, Effort.FULL) == ()
    assert variations("gpu", NX, Effort.FULL) == ()
    assert variations("vulkan", NX, Effort.FULL) == ()


def test_the_probe_says_what_it_can_build(iree: Iree) -> None:
    capabilities = iree.probe().capabilities
    static = next(each for each in capabilities if (each.unit, each.precision) == ("cpu", INT8))
    assert static.mixed
    assert Quantisation.DYNAMIC not in static.quantisations
    for each in capabilities:
        options = {"cpu": "generic"} if each.unit == "cpu" else {}
        iree_options.plan(Recipe("iree", each.precision, dict(options)), each.unit)
