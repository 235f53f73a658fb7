"""External toolchains: a real tiny compiler process, and declarations that are wrong."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from nwmctl.domain.artifact import Precision, Quantisation, Recipe
from nwmctl.errors import (
    CalibrationMismatchError,
    CompileFailedError,
    GroupUnknownError,
    HostUndeclaredError,
    InspectionFailedError,
    NwmError,
    PlaceUnavailableError,
    RecipeOptionError,
    SchemaError,
    ToolchainMissingError,
    ToolchainTemplateError,
    ToolchainTimeoutError,
)
from nwmctl.toolchains.external import External
from nwmctl.toolchains.external_compile import commands_of
from nwmctl.toolchains.external_hosts import Hosts
from nwmctl.toolchains.external_recipe import read
from nwmctl.toolchains.protocol import Capability, Compiled, Effort, Place
from tests.sshd import make_key
from tests.toolchains import vendor
from tests.toolchains.drivers import write_calibration
from tests.toolchains.models import request

FP32, FP16 = Precision.FP32, Precision.FP16
EXAMPLES = Path(__file__).parents[2] / "templates" / "toolchains"
DOCUMENT = Path(__file__).parents[2] / "docs" / "toolchains.md"


@pytest.fixture
def declarations(tmp_path: Path) -> Path:
    return vendor.install(tmp_path / "vendor")


def build(
    declarations: Path, model: Path, scratch: Path, precision: Precision = FP32, **options: str | int
) -> Compiled:
    ask = request(model, scratch, "external", precision, "npu", template="tiny", **options)
    return External((declarations,)).compile(ask)


def edit(declarations: Path, old: str, new: str) -> None:
    path = declarations / "tiny.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_arguments_are_rendered_one_by_one(declarations: Path, model: Path, tmp_path: Path) -> None:
    compiled = build(declarations, model, tmp_path / "s", FP16, level=5)
    rendered = ("--model=lowered.onnx", "--out=model.tiny", "--format=fp16", "--level=5")
    assert compiled.manifest.argv == ("tinycc", *rendered)
    assert compiled.payload.read_bytes()[:5] == b"TINY\x05"
    assert compiled.manifest.found == {"reported.fp16": 2}
    assert compiled.manifest.found_precision is FP16
    assert compiled.manifest.toolchain_version.startswith("tiny 4.2, declaration ")


@pytest.mark.long
def test_there_is_no_shell(declarations: Path, model: Path, tmp_path: Path) -> None:
    """What looks like a command stays one argument; the compiler just does not know this mode."""
    build(declarations, model, tmp_path / "s", mode="x; touch ../broken-in; echo")
    assert not (tmp_path / "broken-in").exists()


@pytest.mark.long
def test_what_stays_fp32_is_not_called_fp16(declarations: Path, model: Path, tmp_path: Path) -> None:
    compiled = build(declarations, model, tmp_path / "s", FP16, mode="stay-fp32")
    assert compiled.manifest.found_precision is FP32


@pytest.mark.long
def test_without_patterns_nothing_was_found(declarations: Path, model: Path, tmp_path: Path) -> None:
    edit(declarations, "inspect: {fp16: 'mac=fp16', fp32: 'mac=fp32'}\n", "")
    compiled = build(declarations, model, tmp_path / "s", FP16)
    assert compiled.manifest.found == {}
    assert "only what was asked for" in compiled.manifest.notes[0]


@pytest.mark.long
def test_patterns_that_match_nothing_are_no_inspection(declarations: Path, model: Path, tmp_path: Path) -> None:
    edit(declarations, "'mac=fp16', fp32: 'mac=fp32'", "'tensor core', fp32: 'scalar'")
    with pytest.raises(InspectionFailedError):
        build(declarations, model, tmp_path / "s")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        pytest.param("fail", "failed with exit status 1", marks=pytest.mark.long),
        ("lie", r"exited 0 and yet said '\[E\] could not build the engine'"),
        pytest.param("nothing", "exited 0 and left no payload", marks=pytest.mark.long),
        pytest.param("empty", "exited 0 and left no payload", marks=pytest.mark.long),
        pytest.param("copy", "exited 0 and compiled nothing", marks=pytest.mark.long),
        pytest.param("signal", "was ended by SIGSEGV", marks=pytest.mark.long),
    ],
)
def test_a_compiler_that_fails_in_its_own_way(
    declarations: Path, model: Path, tmp_path: Path, mode: str, words: str
) -> None:
    with pytest.raises(CompileFailedError, match=words):
        build(declarations, model, tmp_path / "s", mode=mode)


@pytest.mark.long
def test_a_compiler_that_hangs(declarations: Path, model: Path, tmp_path: Path) -> None:
    ask = request(model, tmp_path / "s", "external", FP32, "npu", template="tiny", mode="hang")
    with pytest.raises(ToolchainTimeoutError, match="tiny did not end within 8 s"):
        External((declarations,)).compile(dataclasses.replace(ask, timeout_s=8.0))


def test_the_fingerprint_follows_the_declaration_and_the_program(declarations: Path) -> None:
    driver, recipe = External((declarations,)), Recipe("external", FP32, {"template": "tiny"})
    first = driver.fingerprint(recipe)
    edit(declarations, "level: 3", "level: 4")
    second = driver.fingerprint(recipe)
    program = declarations.parent / "tinycc"
    program.write_text(program.read_text().replace("tinycc 4.2", "tinycc 4.3"))
    assert len({first, second, driver.fingerprint(recipe)}) == 3


def test_a_program_that_is_not_installed(declarations: Path, model: Path, tmp_path: Path) -> None:
    os.unlink(declarations.parent / "tinycc")
    driver = External((declarations,))
    with pytest.raises(ToolchainMissingError, match="is not installed here") as caught:
        build(declarations, model, tmp_path / "s")
    assert caught.value.next == "copy tinycc from the test's folder"
    assert not driver.probe().available
    assert "copy tinycc" in driver.probe().install


@pytest.mark.long
def test_without_a_runtime_an_artifact_executes_on_a_bench(declarations: Path, model: Path, tmp_path: Path) -> None:
    compiled = build(declarations, model, tmp_path / "s")
    text = (declarations / "tiny.yaml").read_text()
    (declarations / "tiny.yaml").write_text(text[: text.index("run:")])
    driver = External((declarations,))
    assert "execute on a bench" in driver.places(compiled.manifest)[Place.HOST]
    for place in Place:
        with pytest.raises(PlaceUnavailableError):
            driver.open(compiled.payload, compiled.manifest, place)


@pytest.mark.parametrize(
    ("old", "new", "kind", "words"),
    [
        ("--level={{ level }}", "--level={{ lvel }}", ToolchainTemplateError, "'lvel' is undefined"),
        ("--level={{ level }}", "--level={{ level", ToolchainTemplateError, "cannot be rendered"),
        ("--level={{ level }}", "{{ ''.__class__.__mro__ }}", ToolchainTemplateError, "cannot be rendered"),
        ("name: tiny", "name: small", ToolchainTemplateError, "the two must agree"),
        ("units: [npu]", "unit: [npu]", SchemaError, "unknown key 'unit'"),
        ("options: {level: 3", "values: {level: [high]}\noptions: {level: 3", SchemaError, "and of its type"),
        ("options: {level: 3", "options: {model: 3", SchemaError, "'model' cannot be the name"),
        ("run: {program", "report: ../x\nrun: {program", SchemaError, "plain path inside"),
        (
            "run: {program",
            "bench: {chip: x, pattern: y, identify: {program: z, arguments: []}}\nrun: {program",
            SchemaError,
            "a bench needs a host",
        ),
        ("payload: model.tiny", "payload: ../model.tiny", SchemaError, "plain file name"),
        ("version_pattern: 'tinycc (\\S+)'", "version_pattern: 'tinycc'", SchemaError, "exactly one group"),
        ("version_pattern: 'tinycc (\\S+)'", "version_pattern: 'cc9 (\\S+)'", ToolchainTemplateError, "version"),
        ("inspect: {fp16: 'mac=fp16'", "inspect: {fp9: 'mac=fp16'", SchemaError, "'fp9' is no precision"),
        ("error_pattern: '\\[E\\]'", "error_pattern: '['", SchemaError, "does not parse"),
    ],
)
def test_a_wrong_declaration_names_what_is_wrong(
    declarations: Path, model: Path, tmp_path: Path, old: str, new: str, kind: type[NwmError], words: str
) -> None:
    edit(declarations, old, new)
    with pytest.raises(kind) as caught:
        build(declarations, model, tmp_path / "s")
    assert words in str(caught.value)


def test_an_option_of_another_kind_is_refused(declarations: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeOptionError, match="'level' is not possible with tiny"):
        build(declarations, model, tmp_path / "s", level="high")


@pytest.mark.parametrize("options", [{}, {"template": "huge"}])
def test_a_recipe_names_a_declaration(declarations: Path, options: dict[str, str]) -> None:
    with pytest.raises(RecipeOptionError) as caught:
        External((declarations,)).fingerprint(Recipe("external", FP32, dict(options)))
    assert "declared are tiny" in caught.value.why


def test_the_examples_are_sound_and_say_that_they_are_examples(model: Path, tmp_path: Path) -> None:
    driver = External((EXAMPLES,))
    known = driver.declarations()
    assert set(known) == {"example-trtexec", "example-npu"}
    for name, (declared, _) in known.items():
        assert declared.description.startswith("Example")
        assert (EXAMPLES / f"{name}.yaml").read_text().startswith("# EXAMPLE")
    ask = request(model, tmp_path / "s", "external", Precision.INT8, "npu", template="example-npu", cores=8)
    with pytest.raises(CalibrationMismatchError, match="'example-npu' needs calibration data for int8"):
        driver.compile(ask)
    with pytest.raises(HostUndeclaredError, match="no host is called 'npu-builder'"):
        driver.compile(dataclasses.replace(ask, calibration=model))
    assert driver.variations("npu", (), Effort.FULL) == (), "what cannot be used is not worth trying"


def test_the_arguments_of_the_examples(model: Path, tmp_path: Path) -> None:
    known = External((EXAMPLES,)).declarations()

    def rendered(name: str, precision: Precision, unit: str, calibration: Path | None = None, **options: str) -> str:
        declared, scratch = known[name][0], tmp_path / f"{name}{precision}{len(options)}"
        ask = request(model, scratch, "external", precision, unit, template=name, **options)
        ask = dataclasses.replace(ask, calibration=calibration)
        return "\n".join(part for argv in commands_of(declared, ask, read(declared, ask)) for part in argv)

    plain = rendered("example-trtexec", FP32, "gpu")
    assert "--fp16" not in plain
    assert "--int8" not in plain
    assert "--fp16" in rendered("example-trtexec", FP16, "gpu")
    mixed = rendered("example-trtexec", Precision.INT8, "gpu", quantisation="static", rest="fp16", keep="head")
    assert "--int8" in mixed
    assert "--fp16" in mixed
    with pytest.raises(RecipeOptionError, match="'quantisation' is not possible"):
        rendered("example-trtexec", Precision.INT8, "gpu", quantisation="dynamic")
    assert "--calibration=calibration.npz" in rendered("example-npu", Precision.INT8, "npu", model)
    assert "--calibration" not in rendered("example-npu", FP16, "npu")
    text = (EXAMPLES / "example-trtexec.yaml").read_text()
    for word in ("--timingCacheFile=", "--calib=", "--dumpProfile", "--exportTimes="):
        assert word in text


def test_what_the_documentation_shows_is_read(declarations: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    [hosts] = [block for block in blocks if block.startswith("hosts:")]
    [bench] = [block for block in blocks if block.startswith("bench:")]
    (tmp_path / "hosts.yml").write_text(hosts.replace("AAAA...", make_key(tmp_path / "key").split()[1]))
    login = Hosts(tmp_path / "hosts.yml").login("orin-builder")
    assert (str(login.address), login.identity) == ("builder@10.0.0.7:22", tmp_path / "builder.key")
    path = declarations / "tiny.yaml"
    path.write_text(path.read_text() + bench)
    declared, _ = External((declarations,)).declarations()["tiny"]
    assert declared.bench_host == "orin-bench"
    assert declared.measure is not None


def test_what_a_declaration_is_worth_trying(declarations: Path) -> None:
    edit(declarations, "options: {level: 3", "values: {level: [3, 1, 5]}\noptions: {level: 3")
    driver = External((declarations,))
    quick = driver.variations("npu", (), Effort.QUICK)
    assert [(each.precision, each.options) for each in quick] == [
        (FP16, {"template": "tiny"}),
        (FP32, {"template": "tiny"}),
    ]
    full = [each.options["level"] for each in driver.variations("npu", ("tiny-npu",), Effort.FULL)]
    assert full == [3, 1, 5, 3, 1, 5], "the default comes first"
    assert driver.variations("gpu", (), Effort.FULL) == ()
    assert driver.variations("npu", ("sm_87",), Effort.FULL) == ()
    assert [(each.unit, each.precision) for each in driver.probe().capabilities] == [("npu", FP32), ("npu", FP16)]


def test_a_compiler_that_takes_quantised_graphs(declarations: Path, model: Path, tmp_path: Path) -> None:
    """nwmctl quantises with the package's data; the program gets the graph, and `keep` is understood."""
    edit(declarations, "precisions: [fp32, fp16]", "precisions: [fp32, fp16, int8]\nquantisations: [static, weights]")
    edit(declarations, "'mac=fp16', fp32", "'mac=fp16', int8: 'mac=int8', fp32")
    driver = External((declarations,))
    [able] = [each for each in driver.probe().capabilities if each.precision is Precision.INT8]
    assert able == Capability("npu", Precision.INT8, (Quantisation.STATIC, Quantisation.WEIGHTS), mixed=True)
    quick = driver.variations("npu", (), Effort.QUICK)[0]
    assert quick.options == {"template": "tiny", "quantisation": "static"}
    ask = dataclasses.replace(
        request(model, tmp_path / "s", "external", Precision.INT8, "npu", template="tiny"),
        calibration=write_calibration(tmp_path / "calibration.npz"),
    )
    manifest = driver.compile(ask).manifest
    assert manifest.operators_after["MatMul.int8"] == 2
    assert set(manifest.sources) == {"calibration", "declaration", "weights"}
    assert manifest.found_precision is Precision.INT8
    with pytest.raises(CalibrationMismatchError):
        driver.compile(dataclasses.replace(ask, calibration=None))
    kept = dataclasses.replace(ask.recipe, options={**ask.recipe.options, "keep": "no-such-layer"})
    with pytest.raises(GroupUnknownError):
        driver.compile(dataclasses.replace(ask, recipe=kept))


def test_files_beside_a_declaration_go_along_and_count(declarations: Path, model: Path, tmp_path: Path) -> None:
    (declarations / "tiny.cache").write_text("first")
    edit(declarations, "options: {level: 3", "files: {cache: tiny.cache}\noptions: {level: 3")
    driver, recipe = External((declarations,)), Recipe("external", FP32, {"template": "tiny"})
    first = driver.fingerprint(recipe)
    (declarations / "tiny.cache").write_text("second")
    assert driver.fingerprint(recipe) != first
    build(declarations, model, tmp_path / "s")
    assert (tmp_path / "s" / "tiny.cache").read_text() == "second"
    (declarations / "tiny.cache").unlink()
    with pytest.raises(ToolchainTemplateError, match=r"tiny\.cache cannot be read"):
        driver.fingerprint(recipe)
