"""onnxruntime and OpenVINO on this processor: what is found is what executes, rows stay rows, bytes stay bytes."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nwmctl.domain.artifact import Option, Precision, Quantisation, Recipe
from nwmctl.errors import PlaceUnavailableError, QuantisationLostError, RecipeOptionError, UnsupportedRecipeError
from nwmctl.toolchains import onnxruntime, openvino, processor
from nwmctl.toolchains.onnxruntime import OnnxRuntime
from nwmctl.toolchains.openvino import OpenVino
from nwmctl.toolchains.process import Command, Limits, own_path, python_module, run_tool
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Effort, Place, Tensors, Toolchain
from tests.real import require_real
from tests.toolchains.models import expected, inputs, request, worst

HINT = ("--inference-precision-hint=f32",)
Make = Callable[..., Compiled]


@pytest.fixture(scope="module")
def make(model: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Compiles a recipe once."""
    kept: dict[str, Compiled] = {}

    def of(driver: Toolchain, precision: Precision = Precision.FP32, **options: Option) -> Compiled:
        require_real(driver.name, driver.probe().available, driver.probe().install)
        key = json.dumps([driver.name, precision, options])
        if key not in kept:
            scratch = tmp_path_factory.mktemp("host") / "s"
            kept[key] = driver.compile(ask(model, calibration, scratch, driver.name, precision, **options))
        return kept[key]

    return of


def ask(
    model: Path, calibration: Path, scratch: Path, driver: str, precision: Precision, **options: Option
) -> CompileRequest:
    asked = request(model, scratch, driver, precision, "host")
    recipe = Recipe(driver, precision, dict(options))
    return dataclasses.replace(asked, recipe=recipe, calibration=calibration)


def answers(driver: Toolchain, compiled: Compiled, rows: Mapping[str, NDArray[np.generic]]) -> Tensors:
    with driver.open(compiled.payload, compiled.manifest, Place.HOST) as session:
        return dict(session.run(rows))


def test_openvinos_precision_is_always_asked_for_and_recorded(make: Make) -> None:
    compiled = make(OpenVino())
    manifest = compiled.manifest
    assert manifest.needs.flags == HINT
    assert HINT[0] in manifest.argv
    assert (manifest.found_precision, manifest.found["FullyConnected.f32"]) == (Precision.FP32, 2)
    assert worst(answers(OpenVino(), compiled, inputs(3)), expected(inputs(3))) < 1e-4


def test_openvino_refuses_a_payload_without_a_hint(make: Make) -> None:
    compiled = make(OpenVino())
    bare = dataclasses.replace(compiled.manifest, needs=dataclasses.replace(compiled.manifest.needs, flags=()))
    with pytest.raises(Exception, match="openvino failed") as caught:
        OpenVino().open(compiled.payload, bare, Place.HOST)
    assert "names no precision hint" in caught.value.why  # type: ignore[attr-defined]


def test_openvinos_payload_is_one_plain_file_that_names_nobody(make: Make) -> None:
    compiled = make(OpenVino())
    with tarfile.open(compiled.payload) as archive:
        entries = archive.getmembers()
        assert [entry.name for entry in entries] == ["model.xml", "model.bin"]
        assert all((entry.uid, entry.gid, entry.mtime, entry.uname) == (0, 0, 0, "") for entry in entries)
    whole = compiled.payload.read_bytes()
    for word in (b"Runtime_version", b"conversion_parameters", b"/tmp", b"somebody", str(compiled.payload).encode()):
        assert word not in whole


@pytest.mark.parametrize("driver", [OnnxRuntime(), OpenVino()], ids=["onnxruntime", "openvino"])
@pytest.mark.parametrize("quantisation", list(Quantisation))
def test_integers_are_multiplied_where_they_are_promised(
    make: Make, driver: Toolchain, quantisation: Quantisation
) -> None:
    if driver.name == "openvino" and quantisation is Quantisation.DYNAMIC:
        with pytest.raises(UnsupportedRecipeError, match="dynamic int8"):
            make(driver, Precision.INT8, quantisation=quantisation.value)
        return
    compiled = make(driver, Precision.INT8, quantisation=quantisation.value)
    weights_only = quantisation is Quantisation.WEIGHTS
    assert compiled.manifest.found_precision is (Precision.FP32 if weights_only else Precision.INT8)
    off = worst(answers(driver, compiled, inputs(4)), expected(inputs(4)))
    assert 1e-4 < off < 0.2, "quantised, and still the same network"


@pytest.mark.parametrize("driver", [OnnxRuntime(), OpenVino()], ids=["onnxruntime", "openvino"])
def test_a_kept_group_stays_float(driver: Toolchain, model: Path, calibration: Path, tmp_path: Path) -> None:
    import onnx

    named = onnx.load(str(model))
    for node in named.graph.node:
        node.name = f"/{node.name}/{node.op_type}"
    path = tmp_path / "named.onnx"
    onnx.save(named, str(path))
    products = ("executed.MatMulIntegerToFloat", "executed.QLinearMatMul", "FullyConnected.u8", "MatMul.u8")

    def quantised(keep: str) -> tuple[int, float]:
        options = {"quantisation": "static", **({"keep": keep} if keep else {})}
        scratch = tmp_path / f"s{keep}"
        compiled = driver.compile(ask(path, calibration, scratch, driver.name, Precision.INT8, **options))
        rows = inputs(8)
        off = worst(answers(driver, compiled, rows), expected(rows))
        return sum(compiled.manifest.found.get(name, 0) for name in products), off

    whole, mixed = quantised(""), quantised("up")
    assert (whole[0], mixed[0]) == (2, 1)
    assert mixed[1] < whole[1]


def test_dynamic_rows_do_not_depend_on_their_neighbours(make: Make) -> None:
    compiled = make(OnnxRuntime(), Precision.INT8, quantisation="dynamic")
    assert compiled.manifest.inputs[0].shape[0] == 1
    assert "row by row" in compiled.manifest.notes[0]
    rows = {name: values.copy() for name, values in inputs(3).items()}
    rows["tokens"][1] *= 50.0
    with OnnxRuntime().open(compiled.payload, compiled.manifest, Place.HOST) as session:
        together = session.run(rows)
        assert len(session.seconds) == 3
        alone = session.run({name: values[2:] for name, values in rows.items()})
    np.testing.assert_array_equal(together["features"][2:], alone["features"])


@pytest.mark.parametrize("driver", [OnnxRuntime(), OpenVino()], ids=["onnxruntime", "openvino"])
def test_the_same_bytes_in_another_folder(
    make: Make, driver: Toolchain, model: Path, calibration: Path, tmp_path: Path
) -> None:
    first = make(driver, Precision.INT8, quantisation="static")
    scratch = tmp_path / "quite" / "another place"
    again = driver.compile(ask(model, calibration, scratch, driver.name, Precision.INT8, quantisation="static"))
    assert again.payload.read_bytes() == first.payload.read_bytes()
    assert again.manifest == first.manifest


def test_a_runtime_that_turns_integers_back_into_floats_is_caught(
    model: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(model, calibration, tmp_path / "s", "x", Precision.INT8, quantisation="static")
    monkeypatch.setattr(onnxruntime, "INTEGER_KERNELS", frozenset({"NoSuchKernel"}))
    with pytest.raises(QuantisationLostError, match="does not execute") as caught:
        OnnxRuntime().compile(asked)
    assert "2 quantised products, the runtime multiplies integers in 0" in caught.value.why
    monkeypatch.setattr(openvino, "PRODUCTS", frozenset({"Convolution"}))
    monkeypatch.setattr(openvino, "_inspected", lambda found: None)
    again = ask(model, calibration, tmp_path / "t", "x", Precision.INT8, quantisation="static")
    with pytest.raises(QuantisationLostError, match="did not keep"):
        OpenVino().compile(again)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_arithmetic_that_the_processor_has_not_is_refused(
    make: Make, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "processor", lambda: frozenset({"avx2"}))
    with pytest.raises(UnsupportedRecipeError, match=f"arithmetic in {precision}") as caught:
        make(OpenVino(), precision)
    assert "this processor has none (avx2)" in caught.value.why
    with pytest.raises(UnsupportedRecipeError):
        make(OpenVino(), Precision.INT8, rest=precision.value)


def test_unknown_options_units_and_precisions_are_named(make: Make) -> None:
    for driver in (OnnxRuntime(), OpenVino()):
        with pytest.raises(RecipeOptionError, match="'colour'"):
            make(driver, Precision.FP32, colour="red")
    with pytest.raises(UnsupportedRecipeError, match="bf16"):
        make(OnnxRuntime(), Precision.BF16)
    with pytest.raises(UnsupportedRecipeError, match="rest in bf16"):
        make(OnnxRuntime(), Precision.INT8, rest="bf16")


@pytest.mark.parametrize("driver", [OnnxRuntime(), OpenVino()], ids=["onnxruntime", "openvino"])
def test_variations_are_recipes_that_its_capabilities_cover(driver: Toolchain) -> None:
    quick, full = (driver.variations("host", ("host",), effort) for effort in Effort)
    assert full[: len(quick)] == quick
    assert len(set(map(str, full))) == len(full)
    covered = {each.precision: each.quantisations for each in driver.probe().capabilities}
    for recipe in full:
        assert recipe.toolchain == driver.name
        if recipe.precision is Precision.INT8:
            assert Quantisation(str(recipe.options["quantisation"])) in covered[Precision.INT8]
        assert recipe.precision in covered
    assert Recipe(driver.name, Precision.FP32) in quick
    assert driver.variations("gpu", ("sm_87",), Effort.FULL) == ()


def test_dot_products_decide_which_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    def integers() -> set[object]:
        found = (*OnnxRuntime().variations("host", (), Effort.FULL), *OpenVino().variations("host", (), Effort.FULL))
        return {recipe.options["integers"] for recipe in found if "integers" in recipe.options}

    for has, word in ((frozenset({"avx2"}), "narrow"), (frozenset({"avx2", "avx512_vnni"}), "unsigned")):
        monkeypatch.setattr(onnxruntime, "processor", lambda has=has: has)
        monkeypatch.setattr(openvino, "processor", lambda has=has: has)
        assert integers() == {word}


def test_a_processor_says_what_it_has() -> None:
    x86 = "processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16 avx_vnni\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    has = processor.extensions(x86)
    assert processor.computes(Precision.BF16, has)
    assert not processor.computes(Precision.FP16, has)
    assert processor.has_dot_products(has)
    assert processor.named(has) == "avx2 avx512_bf16 avx_vnni"
    arm = processor.extensions("Features\t: fp asimd fphp asimddp bf16\n")
    assert all(processor.computes(precision, arm) for precision in Precision)
    assert processor.extensions("model name: a riddle\n") == frozenset()
    assert processor.named(frozenset()) == "no known extension"


def test_another_place_is_unavailable(make: Make) -> None:
    compiled = make(OpenVino())
    with pytest.raises(PlaceUnavailableError):
        OpenVino().open(compiled.payload, compiled.manifest, Place.EMULATED)


def test_what_reports_to_openvinos_maker_is_never_loaded(make: Make) -> None:
    code = (
        "import sys\n"
        "from nwmctl.toolchains import openvino_child\n"
        "openvino_child.main(['f32'])\n"
        "print(sorted(name for name, module in sys.modules.items()\n"
        "    if module is not None and name.startswith(('openvino_telemetry', 'requests'))))\n"
    )
    folder = make(OpenVino()).payload.parent
    python = python_module("x")[0]
    said = run_tool(Command("it", (python, "-c", code), folder, Limits(), own_path(), error_pattern=""))
    assert said.stdout.strip() == "[]"
    assert not list(folder.rglob("*telemetry*"))
