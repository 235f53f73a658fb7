"""A driver's answer is checked against what it was asked."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import CompileFailedError
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

    def __init__(self, answer: Compiled, defect: str, payload: Path) -> None:
        shutil.copy(answer.payload, payload)
        self.answer, self.defect = dataclasses.replace(answer, payload=payload), defect

    def compile(self, request: CompileRequest) -> Compiled:
        compiled, manifest = self.answer, self.answer.manifest
        match self.defect:
            case "model":
                manifest = dataclasses.replace(manifest, model=digest_bytes(b"another"))
            case "recipe":
                manifest = dataclasses.replace(manifest, recipe=Recipe("iree", Precision.FP16))
            case "payload":
                compiled.payload.write_bytes(compiled.payload.read_bytes() + b"x")
            case "digest":
                manifest = dataclasses.replace(manifest, payload=digest_bytes(b"another"))
            case "gone":
                compiled.payload.unlink()
            case "path":
                manifest = dataclasses.replace(manifest, argv=("compile", "--in=/home/somebody/model.onnx"))
            case "twin":
                bad = dataclasses.replace(manifest, size=1)
                return dataclasses.replace(compiled, twin=dataclasses.replace(compiled, manifest=bad))
        return dataclasses.replace(compiled, manifest=manifest)


@pytest.mark.parametrize("defect", ["model", "recipe", "payload", "digest", "gone", "path", "twin"])
def test_a_driver_that_answers_wrongly_is_found_out(
    sound: tuple[CompileRequest, Compiled], tmp_path: Path, defect: str
) -> None:
    ask, answer = sound
    with pytest.raises(CompileFailedError, match="answered wrongly"):
        compile_build(Wrong(answer, defect, tmp_path / "payload"), ask)


def test_a_sound_driver_passes(sound: tuple[CompileRequest, Compiled], tmp_path: Path) -> None:
    ask, answer = sound
    assert compile_build(Wrong(answer, "", tmp_path / "payload"), ask).manifest == answer.manifest
