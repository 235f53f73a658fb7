"""What is known of a model's files before anything reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.domain.artifact import Option, Precision, Quantisation, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import UnsupportedRecipeError
from nwmctl.toolchains.graph_files import check_single_message
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder
from nwmctl.toolchains.protocol import CompileRequest
from nwmctl.toolchains.registry import toolchain


def sparse(folder: Path, size: int) -> GraphFiles:
    """Files of these sizes that hold nothing."""
    (folder / "model.onnx").write_bytes(b"not even looked at")
    with (folder / "model.onnx.data").open("wb") as file:
        file.truncate(size)
    return GraphFiles(folder / "model.onnx", folder / "model.onnx.data")


@pytest.mark.parametrize(("name", "unit"), [("onnxruntime", "host"), ("iree", "cpu")])
def test_weights_that_no_single_file_holds_are_refused_at_once(tmp_path: Path, name: str, unit: str) -> None:
    files = sparse(tmp_path, 4 << 30)
    options: dict[str, Option] = {"cpu": "generic"} if unit == "cpu" else {}
    scratch = tmp_path / "s"
    scratch.mkdir()
    recipe = Recipe(name, Precision.FP32, options)
    request = CompileRequest(files.model, digest_bytes(b""), recipe, unit, "", scratch, data=files.data)
    with pytest.raises(UnsupportedRecipeError, match="does not build weights of this size") as caught:
        toolchain(name).compile(request)
    assert "4.0 GiB in this precision" in caught.value.why
    assert list(scratch.iterdir()) == [], "nothing was lowered"


def test_smaller_weights_may_try(tmp_path: Path) -> None:
    files = sparse(tmp_path, 3 << 30)
    for order in (
        LoweringOrder(Precision.FP16),
        LoweringOrder(Precision.INT8, quantisation=Quantisation.WEIGHTS),
    ):
        check_single_message("t", files, order, "one file")
    with pytest.raises(UnsupportedRecipeError):
        check_single_message("t", files, LoweringOrder(Precision.FP32), "one file")
