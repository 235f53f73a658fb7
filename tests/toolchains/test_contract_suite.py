"""What every driver promises, asked of each of them (see ``drivers``): all of ours and the documentation's example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import ArtifactManifest, Precision, Quantisation
from nwmctl.errors import (
    CalibrationMismatchError,
    GraphUnreadableError,
    RecipeOptionError,
    RuntimeFailedError,
    TensorMismatchError,
    ToolchainError,
    ToolchainTimeoutError,
    UnsupportedRecipeError,
)
from nwmctl.formats import documents
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.protocol import Capability, Compiled, Effort, Place
from tests.sshd import Sshd
from tests.toolchains.drivers import LISTED, SETS, Case, Given, Listed, capability_cases, write_calibration
from tests.toolchains.models import expected, inputs, worst

INT8 = Precision.INT8


@pytest.fixture(scope="module")
def make(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Listed], Case]:
    """Makes each driver once."""
    made: dict[str, Case] = {}
    calibration = write_calibration(tmp_path_factory.mktemp("calibration") / "calibration.npz")

    def sshd() -> Sshd:
        server = request.getfixturevalue("sshd")
        assert isinstance(server, Sshd)
        return server

    def make_one(listed: Listed) -> Case:
        if listed.name not in made:
            driver = listed.make(Given(tmp_path_factory.mktemp(listed.name), sshd))
            made[listed.name] = Case(listed, driver, model, calibration)
        return made[listed.name]

    return make_one


@pytest.fixture(scope="module", params=LISTED, ids=lambda listed: listed.name)
def case(request: pytest.FixtureRequest, make: Callable[[Listed], Case]) -> Case:
    return make(request.param)


@pytest.fixture(scope="module")
def compiled(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_build(case.driver, case.ask(tmp_path_factory.mktemp("compiled") / "s"))


# --- what it says of itself ---------------------------------------------------------------------------------------


def test_the_probe_says_that_it_works(case: Case) -> None:
    probe = case.driver.probe()
    assert (probe.name, probe.available) == (case.driver.name, True)
    assert probe.capabilities == case.listed.capabilities()
    assert Capability(case.listed.unit, Precision.FP32) in probe.capabilities
    for able in probe.capabilities:
        assert bool(able.quantisations) == (able.precision is INT8)
        assert not able.mixed or able.precision is INT8


def test_the_fingerprint_is_stable_and_names_versions(case: Case) -> None:
    recipe = case.recipe(Capability(case.listed.unit, Precision.FP32), None)
    first = case.driver.fingerprint(recipe)
    assert first == case.driver.fingerprint(recipe)
    assert any(character.isdigit() for character in first)
    assert "/" not in first.replace("s/", ""), "no folder of this machine decides what is built"


@pytest.mark.parametrize("effort", Effort)
def test_what_is_worth_trying_is_what_it_can_build(case: Case, effort: Effort) -> None:
    able = {(each.unit, each.precision): each for each in case.driver.probe().capabilities}
    for unit, choices in SETS.items():
        for sets in choices:
            recipes = case.driver.variations(unit, sets, effort)
            assert len({repr(recipe) for recipe in recipes}) == len(recipes), "nothing is tried twice"
            for recipe in recipes:
                assert recipe.toolchain == case.driver.name
                assert "keep" not in recipe.options, "mixing precisions is the search's work"
                forms = able[unit, recipe.precision].quantisations
                assert recipe.options.get("quantisation") in (None, *forms)
    assert case.driver.variations("dsp", (), effort) == ()


# --- what it builds -----------------------------------------------------------------------------------------------


def test_the_manifest_describes_the_payload(case: Case, compiled: Compiled) -> None:
    manifest = compiled.manifest
    assert manifest.payload == file_digest(compiled.payload)
    assert manifest.size == compiled.payload.stat().st_size > 0
    assert manifest.model == file_digest(case.model)
    assert manifest.sources["weights"] == file_digest(case.model)
    assert manifest.found_precision is Precision.FP32
    assert sum(manifest.found.values()) > 0
    assert manifest.operators_before["MatMul.float32"] + manifest.operators_before.get("MatMul", 0) == 2
    assert manifest.operators_after["MatMul.float32"] == 2
    assert [port.name for port in manifest.inputs] == ["tokens", "gain"]
    assert [port.name for port in manifest.outputs] == ["features", "level"]


def test_the_manifest_is_a_document_without_places(case: Case, compiled: Compiled) -> None:
    data = documents.encode(compiled.manifest)
    assert documents.decode(ArtifactManifest, data, "manifest") == compiled.manifest
    _no_places(case, compiled)


def _no_places(case: Case, compiled: Compiled) -> None:
    data, payload = documents.encode(compiled.manifest), compiled.payload.read_bytes()
    for place in (compiled.payload.parent, Path.home() / "x", case.model.parent, Path(__file__).parents[2], "somebody"):
        text = str(place).removesuffix("x").encode()
        assert text not in data
        assert text not in payload


def test_two_scratch_folders_give_the_same_bytes(case: Case, compiled: Compiled, tmp_path: Path) -> None:
    again = case.driver.compile(case.ask(tmp_path / "quite another" / "folder"))
    assert again.payload.read_bytes() == compiled.payload.read_bytes()
    assert again.manifest == compiled.manifest


@pytest.mark.long
@pytest.mark.parametrize(("listed", "able", "how"), capability_cases())
def test_a_capability_is_one(
    make: Callable[[Listed], Case], tmp_path: Path, listed: Listed, able: Capability, how: Quantisation | None
) -> None:
    """It compiles, twice to the same bytes, and the manifest says what came out, also where that is something else
    (whether such an artifact may go on is not the driver's to say)."""
    case = make(listed)
    recipe = case.recipe(able, how)
    first, second = (
        case.driver.compile(case.order(recipe, able.unit, tmp_path / name)) for name in ("first", "the second")
    )
    assert first.payload.read_bytes() == second.payload.read_bytes()
    assert first.manifest == second.manifest
    _no_places(case, first)
    manifest = first.manifest
    # Weights alone are int8, or the code widens before it multiplies: then the manifest does not claim int8.
    honest = how is Quantisation.WEIGHTS or manifest.found_precision is able.precision or manifest.notes
    assert honest, f"{manifest.found_precision} and no word about it"
    assert manifest.recipe == recipe
    if how is Quantisation.STATIC:
        assert manifest.sources["calibration"] == file_digest(case.calibration)


# --- what it executes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.long), 2])
def test_it_computes_what_the_network_says(case: Case, compiled: Compiled, rows: int) -> None:
    given = inputs(rows, seed=rows)
    with case.open(compiled) as session:
        got = session.run(given)
        assert worst(got, expected(given)) < 1e-5
        told = session.seconds
        assert len(told) in ((1, rows) if case.listed.tells else (0,)), "once for the batch, or for each row"
        assert all(0 < each < 10 for each in told)
        assert worst(session.run(inputs(rows, seed=9)), expected(given)) > 1e-2, "another input, another answer"


def test_wrong_tensors_are_refused_and_the_session_goes_on(case: Case, compiled: Compiled) -> None:
    given = inputs(1)
    with case.open(compiled) as session:
        for wrong in (
            {"tokens": given["tokens"]},
            {**given, "more": given["gain"]},
            {**given, "tokens": given["tokens"].astype(np.float64)},
            {**given, "tokens": given["tokens"][:, :-1]},
            {**given, "gain": np.ones((2, 1), np.float32)},
            {**given, "gain": np.float32(1)},
            {name: values[:0] for name, values in given.items()},
        ):
            with pytest.raises(TensorMismatchError):
                session.run(wrong)
        assert worst(session.run(given), expected(given)) < 1e-5


def test_a_closed_session_says_so(case: Case, compiled: Compiled) -> None:
    session = case.open(compiled)
    session.close()
    session.close()
    with pytest.raises(RuntimeFailedError, match="is closed"):
        session.run(inputs(1))


def test_a_payload_of_other_bytes_is_an_error_of_ours(case: Case, compiled: Compiled, tmp_path: Path) -> None:
    broken = tmp_path / "payload"
    broken.write_bytes(b"\x00" * 64 + compiled.payload.read_bytes()[64:])
    with pytest.raises(ToolchainError):
        with case.open(compiled, broken) as session:
            session.run(inputs(1))


def test_a_place_that_is_not_possible_has_a_reason(case: Case, compiled: Compiled) -> None:
    from nwmctl.errors import MissingError

    places = case.driver.places(compiled.manifest)
    for place in Place:
        if places[place]:
            with pytest.raises(MissingError):
                case.driver.open(compiled.payload, compiled.manifest, place)


# --- what it refuses ----------------------------------------------------------------------------------------------


def test_an_unknown_option_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    with pytest.raises(RecipeOptionError, match="'speed' is not possible") as caught:
        case.driver.compile(case.ask(tmp_path / "s", speed="maximum"))
    assert caught.value.next


def test_a_unit_or_precision_that_it_does_not_build_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedRecipeError):
        case.driver.compile(case.ask(tmp_path / "unit", unit="dsp"))
    able = {each.precision for each in case.listed.capabilities() if each.unit == case.listed.unit}
    for precision in set(Precision) - able:
        with pytest.raises(UnsupportedRecipeError):
            case.driver.compile(case.ask(tmp_path / precision, precision))


def test_scales_without_calibration_data_are_refused(case: Case, tmp_path: Path) -> None:
    static = [each for each in case.listed.capabilities() if Quantisation.STATIC in each.quantisations]
    for index, able in enumerate(static):
        ask = case.order(case.recipe(able, Quantisation.STATIC), able.unit, tmp_path / str(index))
        with pytest.raises(CalibrationMismatchError):
            case.driver.compile(dataclasses.replace(ask, calibration=None))


@pytest.mark.parametrize(
    "damage", [b"not a graph", pytest.param(b"", marks=pytest.mark.long), pytest.param(b"\x08", marks=pytest.mark.long)]
)
def test_a_file_that_is_no_graph(case: Case, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(damage)
    with pytest.raises(GraphUnreadableError):
        case.driver.compile(case.ask(tmp_path / "s", model=tmp_path / "model.onnx"))


def test_the_time_limit_holds(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ToolchainTimeoutError, match=r"within 0\.2 s"):
        case.driver.compile(dataclasses.replace(case.ask(tmp_path / "s"), timeout_s=0.2))


def test_the_memory_limit_holds(case: Case, tmp_path: Path) -> None:
    with pytest.raises((ToolchainError, GraphUnreadableError)):
        case.driver.compile(dataclasses.replace(case.ask(tmp_path / "s"), memory_bytes=48 << 20))


# --- how it is found ----------------------------------------------------------------------------------------------


def test_every_driver_of_the_registry_is_in_this_suite() -> None:
    from nwmctl.toolchains.registry import Registry

    assert {name.partition("-")[0] for name in Registry().names()} <= {each.name.partition("-")[0] for each in LISTED}
