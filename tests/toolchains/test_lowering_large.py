"""Large models: the lowering's memory stays far below the model's size. Long: it writes 2.4 GB and removes them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from benchmarks.large import FORMS, lower_measured, write_large
from nwmctl.errors import GraphTooLargeError
from nwmctl.toolchains.lowering import GraphFiles

pytestmark = pytest.mark.long
_GIB = 1 << 30


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    return write_large(tmp_path_factory.mktemp("large"), "0.6B")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("form", "most_mib", "share"), [("fp32", 700, 1.0), ("int8 weights", 1800, 0.252)])
def test_a_model_over_two_gibibytes_is_lowered_within_bounded_memory(
    files: GraphFiles, tmp_path: Path, form: str, most_mib: int, share: float
) -> None:
    assert files.data is not None
    size = files.data.stat().st_size
    assert size > 2 * _GIB
    peak, _ = lower_measured(files, tmp_path / "s", FORMS[form], 4 * _GIB)
    written = sorted((tmp_path / "s").glob("lowered.onnx*"))
    assert sum(path.stat().st_size for path in written) == pytest.approx(share * size, rel=0.03)
    assert peak < most_mib
    onnx.checker.check_model(str(tmp_path / "s" / "lowered.onnx"))
    for path in written:
        path.unlink()


def test_what_cannot_be_bounded_is_refused_at_once(files: GraphFiles, tmp_path: Path) -> None:
    with pytest.raises(GraphTooLargeError) as caught:
        lower_measured(files, tmp_path / "s", FORMS["int8 static"], 4 * _GIB)
    assert "of memory here, and 4.0 GiB are allowed" in caught.value.why
    assert "'quantisation: weights'" in caught.value.next
