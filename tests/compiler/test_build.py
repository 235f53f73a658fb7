"""A driver's answer is checked against what it was asked, and a compiler's payload against what compilers did."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import (
    CompileFailedError,
    DriverAnswerError,
    PathInArtifactError,
    PayloadNotPlainError,
    PayloadUnchangedError,
    PromiseBrokenError,
)
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.onnxruntime import OnnxRuntime
from nwmctl.toolchains.protocol import Compiled, CompileRequest
from tests.toolchains.models import request, write_model


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompileRequest, Compiled]:
    folder = tmp_path_factory.mktemp("build")
    ask = request(write_model(folder / "model.onnx"), folder / "s", "onnxruntime", Precision.FP32, "host")
    return ask, OnnxRuntime().compile(ask)


class Wrong(OnnxRuntime):
    """Gives a real answer with one defect in it."""

    def __init__(self, answer: Compiled, defect: str) -> None:
        self.answer, self.defect = answer, defect

    def compile(self, request: CompileRequest) -> Compiled:
        payload = request.scratch / "payload"
        shutil.copy(self.answer.payload, payload)
        manifest = self.answer.manifest
        match self.defect:
            case "model":
                manifest = dataclasses.replace(manifest, model=digest_bytes(b"another"))
            case "recipe":
                manifest = dataclasses.replace(manifest, recipe=Recipe("iree", Precision.FP16))
            case "payload":
                payload.write_bytes(payload.read_bytes() + b"x")
            case "digest":
                manifest = dataclasses.replace(manifest, payload=digest_bytes(b"another"))
            case "gone":
                payload.unlink()
            case "twin":
                bad = dataclasses.replace(manifest, size=1)
                return Compiled(payload, manifest, Compiled(payload, bad))
            case "argv":
                manifest = dataclasses.replace(manifest, argv=("compile", "--in=/data/models/model.onnx"))
            case "environment":
                manifest = dataclasses.replace(manifest, environment={"CACHE": "/home/somebody/cache"})
            case "notes":
                manifest = dataclasses.replace(manifest, notes=(f"built in {request.scratch}",))
            case "scratch":
                manifest = self._rewritten(payload, payload.read_bytes() + str(payload.parent).encode())
            case "debug":
                manifest = self._rewritten(payload, payload.read_bytes() + b"\0\x01-I/usr/local/include/vendor.h\0")
            case "link":
                target = request.scratch / "elsewhere"
                payload.rename(target)
                payload.symlink_to(target)
            case "folder":
                payload.unlink()
                payload.mkdir()
            case "outside":
                payload = self.answer.payload
            case "way out":
                (request.scratch / "out").symlink_to(self.answer.payload.parent)
                payload = request.scratch / "out" / self.answer.payload.name
            case "unmodified":
                manifest = self._rewritten(payload, request.model.read_bytes())
            case "only lowered":
                (request.scratch / "lowered.onnx").write_bytes(payload.read_bytes())
                manifest = dataclasses.replace(manifest, format="engine")
            case "crash":
                raise KeyError("tile")
        return Compiled(payload, manifest)

    def _rewritten(self, payload: Path, data: bytes) -> ArtifactManifest:
        payload.write_bytes(data)
        made = dataclasses.replace(self.answer.manifest, payload=file_digest(payload), size=len(data))
        return dataclasses.replace(made, format="engine")


@pytest.mark.parametrize(
    ("defect", "kind", "said"),
    [
        ("model", DriverAnswerError, "of another model or recipe"),
        ("recipe", DriverAnswerError, "of another model or recipe"),
        ("payload", DriverAnswerError, "does not describe the payload"),
        ("digest", DriverAnswerError, "does not describe the payload"),
        ("gone", DriverAnswerError, "is not there"),
        ("twin", DriverAnswerError, "does not describe the payload"),
        ("argv", PathInArtifactError, "--in=/data/models/model.onnx"),
        ("environment", PathInArtifactError, "/home/somebody/cache"),
        ("notes", PathInArtifactError, "it holds '/"),
        ("scratch", PathInArtifactError, "it holds '/"),
        ("debug", PathInArtifactError, "/usr/local/include/vendor.h"),
        ("link", PayloadNotPlainError, "symbolic link"),
        ("folder", PayloadNotPlainError, "is no file"),
        ("outside", PayloadNotPlainError, "outside of the scratch folder"),
        ("way out", PayloadNotPlainError, "outside of the scratch folder"),
        ("unmodified", PayloadUnchangedError, "a file of the model"),
        ("only lowered", PayloadUnchangedError, "the graph"),
        ("crash", CompileFailedError, "KeyError: 'tile'"),
    ],
)
def test_an_answer_that_is_wrong_has_a_refusal_of_its_own(
    sound: tuple[CompileRequest, Compiled], tmp_path: Path, defect: str, kind: type[CompileFailedError], said: str
) -> None:
    ask, answer = sound
    with pytest.raises(kind) as caught:
        compile_build(Wrong(answer, defect), dataclasses.replace(ask, scratch=tmp_path))
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert caught.value.next


def test_a_sound_driver_passes(sound: tuple[CompileRequest, Compiled], tmp_path: Path) -> None:
    ask, answer = sound
    assert compile_build(Wrong(answer, ""), dataclasses.replace(ask, scratch=tmp_path)).manifest == answer.manifest


@pytest.mark.long
def test_a_graph_that_needs_nothing_stays_as_it_is(sound: tuple[CompileRequest, Compiled], tmp_path: Path) -> None:
    """Lowering what is lowered already gives the same bytes: no lie, since fp32 was asked and fp32 is there."""
    ask = request(sound[1].payload, tmp_path / "s", "onnxruntime", Precision.FP32, "host")
    assert compile_build(OnnxRuntime(), ask).manifest.payload == ask.model_digest


@pytest.mark.parametrize("asked", [Precision.FP16, Precision.BF16, Precision.INT8])
def test_the_payload_of_another_recipe_is_refused(
    sound: tuple[CompileRequest, Compiled], tmp_path: Path, asked: Precision
) -> None:
    """The name of another precision on what was built: a flag that changes nothing."""
    ask, answer = sound
    recipe = Recipe("onnxruntime", asked)
    labelled = Compiled(answer.payload, dataclasses.replace(answer.manifest, recipe=recipe))
    with pytest.raises(PromiseBrokenError, match="did not build what the recipe asks for") as caught:
        compile_build(Wrong(labelled, ""), dataclasses.replace(ask, recipe=recipe, scratch=tmp_path))
    assert f"{asked} is asked for, and nothing of it is in the payload, which has" in caught.value.why
