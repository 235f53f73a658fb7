"""What every driver promises, asked of each of them: IREE on this host, onnxruntime, a vendor's SDK."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe
from nwmctl.errors import (
    GraphUnreadableError,
    RecipeOptionError,
    RuntimeFailedError,
    TensorMismatchError,
    ToolchainError,
    UnsupportedRecipeError,
)
from nwmctl.formats import documents
from nwmctl.toolchains.external import External
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.iree import Iree
from nwmctl.toolchains.onnxruntime import OnnxRuntime
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Place, Toolchain
from tests.toolchains import vendor
from tests.toolchains.models import expected, inputs, request, worst


@dataclass(frozen=True)
class Case:
    """One driver, and how a test asks it for an artifact that executes here."""

    driver: Toolchain
    unit: str
    options: dict[str, str | bool | int]
    model: Path

    def ask(self, scratch: Path, precision: Precision = Precision.FP32, **more: str | bool | int) -> CompileRequest:
        return request(self.model, scratch, self.driver.name, precision, self.unit, **{**self.options, **more})


@pytest.fixture(scope="module", params=["iree", "onnxruntime", "external"])
def case(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    match request.param:
        case "iree":
            driver: Iree = request.getfixturevalue("iree")
            return Case(driver, "host", {}, model)
        case "onnxruntime":
            return Case(OnnxRuntime(), "host", {}, model)
        case _:
            folder = vendor.install(tmp_path_factory.mktemp("vendor"))
            return Case(External((folder,)), "npu", {"template": "tiny"}, model)


@pytest.fixture(scope="module")
def compiled(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_build(case.driver, case.ask(tmp_path_factory.mktemp("compiled") / "s"))


def test_the_probe_says_that_it_works(case: Case) -> None:
    probe = case.driver.probe()
    assert (probe.name, probe.available) == (case.driver.name, True)


def test_the_fingerprint_is_stable_and_names_versions(case: Case) -> None:
    recipe = Recipe(case.driver.name, Precision.FP32, dict(case.options))
    first = case.driver.fingerprint(recipe)
    assert first == case.driver.fingerprint(recipe)
    assert any(character.isdigit() for character in first)


def test_the_manifest_describes_the_payload(case: Case, compiled: Compiled) -> None:
    manifest = compiled.manifest
    assert manifest.payload == file_digest(compiled.payload)
    assert manifest.size == compiled.payload.stat().st_size > 0
    assert manifest.model == file_digest(case.model)
    assert manifest.found_precision is Precision.FP32
    assert sum(manifest.found.values()) > 0
    assert [port.name for port in manifest.inputs] == ["tokens", "gain"]
    assert [port.name for port in manifest.outputs] == ["features", "level"]


def test_the_manifest_is_a_document_without_places(case: Case, compiled: Compiled, tmp_path: Path) -> None:
    data = documents.encode(compiled.manifest)
    assert documents.decode(ArtifactManifest, data, "manifest") == compiled.manifest
    for place in (str(compiled.payload.parent), str(Path.home()), str(case.model.parent), "somebody"):
        assert place.encode() not in data
        assert place.encode() not in compiled.payload.read_bytes()


def test_two_scratch_folders_give_the_same_bytes(case: Case, compiled: Compiled, tmp_path: Path) -> None:
    again = case.driver.compile(case.ask(tmp_path / "quite" / "another" / "folder"))
    assert again.payload.read_bytes() == compiled.payload.read_bytes()
    assert again.manifest == compiled.manifest


@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.long), 2])
def test_it_computes_what_the_network_says(case: Case, compiled: Compiled, rows: int) -> None:
    given = inputs(rows, seed=rows)
    with case.driver.open(compiled.payload, compiled.manifest, Place.HOST) as session:
        got = session.run(given)
        assert worst(got, expected(given)) < 1e-5
        assert worst(session.run(inputs(rows, seed=9)), expected(given)) > 1e-2, "another input, another answer"


def test_wrong_tensors_are_refused_and_the_session_goes_on(case: Case, compiled: Compiled) -> None:
    given = inputs(1)
    with case.driver.open(compiled.payload, compiled.manifest, Place.HOST) as session:
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
    session = case.driver.open(compiled.payload, compiled.manifest, Place.HOST)
    session.close()
    session.close()
    with pytest.raises(RuntimeFailedError, match="is closed"):
        session.run(inputs(1))


def test_a_payload_of_other_bytes_is_an_error_of_ours(case: Case, compiled: Compiled, tmp_path: Path) -> None:
    broken = tmp_path / "payload"
    broken.write_bytes(b"\x00" * 64 + compiled.payload.read_bytes()[64:])
    with pytest.raises(ToolchainError):
        with case.driver.open(broken, compiled.manifest, Place.HOST) as session:
            session.run(inputs(1))


def test_an_unknown_option_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    with pytest.raises(RecipeOptionError, match="'speed' is not possible") as caught:
        case.driver.compile(case.ask(tmp_path / "s", speed="maximum"))
    assert caught.value.next


def test_a_unit_or_precision_that_it_does_not_build_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedRecipeError):
        case.driver.compile(case.ask(tmp_path / "a", Precision.INT8))
    ask = request(case.model, tmp_path / "b", case.driver.name, Precision.FP32, "dsp", **case.options)
    with pytest.raises(UnsupportedRecipeError):
        case.driver.compile(ask)


@pytest.mark.parametrize(
    "damage", [b"not a graph", pytest.param(b"", marks=pytest.mark.long), pytest.param(b"\x08", marks=pytest.mark.long)]
)
def test_a_file_that_is_no_graph(case: Case, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(damage)
    ask: Callable[[], CompileRequest] = lambda: request(  # noqa: E731
        tmp_path / "model.onnx", tmp_path / "s", case.driver.name, Precision.FP32, case.unit, **case.options
    )
    with pytest.raises(GraphUnreadableError):
        case.driver.compile(ask())
