"""int8 graphs: what becomes integer, how far it is off, what is refused, and the same numbers as onnxruntime's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper

from nwmctl.domain.artifact import Precision, Quantisation
from nwmctl.errors import CalibrationMismatchError, GroupUnknownError, NothingToQuantiseError, NwmError
from nwmctl.toolchains.lowering import GraphFiles, Integers, Lowered
from nwmctl.toolchains.quantising import count_quantised
from nwmctl.toolchains.quantising_ranges import _outward
from nwmctl.toolchains.quantising_surgery import Range, activation_scale, channel_scales, to_int8
from tests.toolchains.graphs import GROUPS, TOKENS, answer, block, calibration, lowered, relative, rows

STATIC, DYNAMIC, WEIGHTS = Quantisation.STATIC, Quantisation.DYNAMIC, Quantisation.WEIGHTS
PRODUCTS = {
    STATIC: {"Conv": 1, "Gemm": 1, "MatMul": 4},
    DYNAMIC: {"Conv": 1, "MatMul": 5},
    WEIGHTS: {"Conv": 1, "Gemm": 1, "MatMul": 4},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    folder = tmp_path_factory.mktemp("block")
    return GraphFiles(block(folder / "model.onnx"), None, calibration(folder / "calibration.npz"))


@pytest.fixture(scope="module")
def forms(files: GraphFiles, tmp_path_factory: pytest.TempPathFactory) -> dict[Quantisation, Lowered]:
    folder = tmp_path_factory.mktemp("forms")
    return {how: lowered(files, folder / how, how) for how in Quantisation}


@pytest.mark.parametrize("how", Quantisation)
def test_every_product_with_constant_weights_becomes_integer_and_stays_close(
    files: GraphFiles, forms: dict[Quantisation, Lowered], how: Quantisation
) -> None:
    made, x = forms[how], rows(8)
    assert made.quantised == PRODUCTS[how]
    assert made.groups == GROUPS
    for got, wanted in zip(answer(made.path, x), answer(files.model, x), strict=True):
        assert 1e-4 < relative(got, wanted) < 0.1


def test_arithmetic_is_counted_as_what_it_is(forms: dict[Quantisation, Lowered]) -> None:
    # Two products of activations and the tiny one stay float in every form.
    assert forms[STATIC].products == {"uint8": 6, "float32": 3}
    assert forms[DYNAMIC].products == {"uint8": 6, "float32": 3}
    assert forms[WEIGHTS].products == {"float32": 9}
    assert forms[WEIGHTS].operators["DequantizeLinear.int8"] == 6
    assert forms[STATIC].before == forms[WEIGHTS].before
    assert {name: forms[STATIC].before[name] for name in ("MatMul.float32", "Gemm.float32", "Conv.float32")} == {
        "MatMul.float32": 7,
        "Gemm.float32": 1,
        "Conv.float32": 1,
    }


def test_weights_are_stored_in_a_quarter(files: GraphFiles, forms: dict[Quantisation, Lowered]) -> None:
    whole = files.model.stat().st_size
    assert all(made.path.stat().st_size < 0.4 * whole for made in forms.values())


@pytest.mark.parametrize("how", Quantisation)
def test_a_kept_group_stays_float(files: GraphFiles, tmp_path: Path, how: Quantisation) -> None:
    made = lowered(files, tmp_path / "s", how, keep=("block.value", "head"))
    assert sum(made.quantised.values()) == 4
    assert made.groups == GROUPS
    constants = {value.name: value.data_type for value in onnx.load(str(made.path)).graph.initializer}
    assert constants["value.weight"] == constants["head.weight"] == onnx.TensorProto.FLOAT
    assert not {"query.weight", "key.weight", "eye.weight"} & set(constants)


def test_fewer_integers_are_closer(files: GraphFiles, forms: dict[Quantisation, Lowered], tmp_path: Path) -> None:
    x = rows(16)
    few = lowered(files, tmp_path / "s", STATIC, keep=GROUPS[1:])
    exact = answer(files.model, x)[0]
    assert relative(answer(few.path, x)[0], exact) < relative(answer(forms[STATIC].path, x)[0], exact)


def test_the_rest_in_fp16_casts_what_is_not_integer(files: GraphFiles, tmp_path: Path) -> None:
    made = lowered(files, tmp_path / "s", STATIC, keep=("head",), rest=Precision.FP16)
    assert made.products == {"uint8": 5, "float16": 4}
    assert {port.dtype for port in (*made.inputs, *made.outputs)} == {"float32"}
    x = rows(4)
    assert relative(answer(made.path, x)[0], answer(files.model, x)[0]) < 0.1


def test_weights_only_with_an_fp16_rest_is_fp16_arithmetic(files: GraphFiles, tmp_path: Path) -> None:
    made = lowered(files, tmp_path / "s", WEIGHTS, rest=Precision.FP16)
    assert made.products == {"float16": 9}
    assert sum(made.quantised.values()) == 6


def test_bf16_as_the_rest_is_left_to_the_compiler(files: GraphFiles, tmp_path: Path) -> None:
    assert "bfloat16" not in lowered(files, tmp_path / "s", STATIC, rest=Precision.BF16).products


@pytest.mark.parametrize(
    ("integers", "activations"), [("signed", "int8"), ("unsigned", "uint8"), ("narrow", "uint8"), ("wide", "uint8")]
)
def test_the_kind_of_integers(files: GraphFiles, tmp_path: Path, integers: str, activations: str) -> None:
    made = lowered(files, tmp_path / "s", STATIC, integers=Integers(integers))
    assert made.products == {activations: 6, "float32": 3}
    most = 63 if integers == "narrow" else 127
    steps = [numpy_helper.to_array(v) for v in onnx.load(str(made.path)).graph.initializer if "__i8" in v.name]
    kind, middle = (np.uint8, 128) if integers == "wide" else (np.int8, 0)
    whole = [array.astype(int) - middle for array in steps if array.dtype == kind]
    assert len(whole) == 6
    assert {int(np.abs(array).max()) for array in whole} == {most}


@pytest.mark.parametrize("how", Quantisation)
def test_wide_integers_are_as_close_as_eight_bits_are(files: GraphFiles, tmp_path: Path, how: Quantisation) -> None:
    made = lowered(files, tmp_path / "wide", how, integers=Integers.WIDE)
    coarse = lowered(files, tmp_path / "narrow", how, integers=Integers.NARROW)
    x = rows(16)
    exact = answer(files.model, x)[0]
    assert relative(answer(made.path, x)[0], exact) < relative(answer(coarse.path, x)[0], exact)


def test_the_same_bytes_from_everywhere(files: GraphFiles, forms: dict[Quantisation, Lowered], tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    assert files.calibration is not None
    moved = GraphFiles(tmp_path / "moved" / "m.onnx", None, tmp_path / "moved" / "c.npz")
    moved.model.write_bytes(files.model.read_bytes())
    (tmp_path / "moved" / "c.npz").write_bytes(files.calibration.read_bytes())
    again = lowered(moved, tmp_path / "deeper" / "s", STATIC)
    content = again.path.read_bytes()
    assert content == forms[STATIC].path.read_bytes()
    assert b"/tmp" not in content
    assert str(tmp_path).encode() not in content


def test_an_unknown_group_is_named(files: GraphFiles, tmp_path: Path) -> None:
    with pytest.raises(GroupUnknownError) as caught:
        lowered(files, tmp_path / "s", STATIC, keep=("head", "blok.query"))
    assert "'blok.query'" in caught.value.why
    assert "block.query" in caught.value.why


def test_keeping_everything_is_refused(files: GraphFiles, tmp_path: Path) -> None:
    with pytest.raises(NothingToQuantiseError):
        lowered(files, tmp_path / "s", WEIGHTS, keep=GROUPS)


def wrong_data() -> dict[str, tuple[Callable[[Path], None], str]]:
    def save(**tensors: NDArray[np.generic]) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, **tensors)  # type: ignore[arg-type]

        return write

    def write(content: bytes) -> Callable[[Path], None]:
        def put(path: Path) -> None:
            path.write_bytes(content)

        return put

    good, broken = rows(16), rows(16)
    broken[3, 2, 1] = np.nan
    return {
        "other input": (save(**{"in/y": good}), "lacks the input 'x'"),
        "other shape": (save(**{"in/x": good[:, :, :5]}), f"rows of shape [8, 5], the model takes [8, {TOKENS}]"),
        "other type": (save(**{"in/x": good.astype(np.float64)}), "is float64, the model takes float32"),
        "not finite": (save(**{"in/x": broken}), "not finite"),
        "too few": (save(**{"in/x": good[:3]}), "it has 3 rows, at least 8"),
        "no rows": (save(**{"in/x": np.asarray(1, np.float32)}), "it has 0 rows"),
        "no archive": (write(b"PK\x03\x04 nonsense"), "it is no archive"),
        "pickled": (save(**{"in/x": np.array([{"a": 1}], dtype=object)}), "it is no archive"),
        "empty": (write(b""), "it is no archive"),
    }


@pytest.mark.parametrize("case", wrong_data())
def test_calibration_that_does_not_fit_is_refused(files: GraphFiles, tmp_path: Path, case: str) -> None:
    write, why = wrong_data()[case]
    write(tmp_path / "c.npz")
    with pytest.raises(CalibrationMismatchError) as caught:
        lowered(GraphFiles(files.model, None, tmp_path / "c.npz"), tmp_path / "s", STATIC)
    assert why in caught.value.why
    assert not (tmp_path / "s" / "lowered.onnx").exists()


def test_static_without_calibration_is_refused_and_weights_need_none(files: GraphFiles, tmp_path: Path) -> None:
    bare = GraphFiles(files.model)
    with pytest.raises(CalibrationMismatchError):
        lowered(bare, tmp_path / "a", STATIC)
    assert lowered(bare, tmp_path / "b", WEIGHTS).quantised


def test_a_lost_quantisation_is_seen(forms: dict[Quantisation, Lowered]) -> None:
    model = ir.from_proto(onnx.load(str(forms[STATIC].path)))
    before = sum(count_quantised(model).values())
    node = next(node for node in model.graph if node.op_type == "Gemm")
    weights = ir.Value(name="w", const_value=ir.tensor(np.zeros((4, 4), np.float32)))
    model.graph.register_initializer(weights)
    node.replace_input_with(1, weights)
    assert sum(count_quantised(model).values()) == before - 1


def test_the_weights_are_those_of_onnxruntimes_quantiser(
    files: GraphFiles, forms: dict[Quantisation, Lowered], tmp_path: Path
) -> None:
    """Its dynamic quantiser, where it quantises the same products, has the same integers."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    theirs = tmp_path / "theirs.onnx"
    quantize_dynamic(str(files.model), str(theirs), per_channel=True, weight_type=QuantType.QInt8)
    ours = lowered(files, tmp_path / "s", DYNAMIC, integers=Integers.UNSIGNED)
    found = {v.name: numpy_helper.to_array(v) for v in onnx.load(str(theirs)).graph.initializer}
    mine = {v.name: numpy_helper.to_array(v) for v in onnx.load(str(ours.path)).graph.initializer}
    for name in ("query.weight", "key.weight", "value.weight", "project"):
        assert np.abs(found[f"{name}_quantized"].astype(int) - mine[f"{name}__i8_1"].astype(int)).max() <= 1
        np.testing.assert_allclose(found[f"{name}_scale"], mine[f"{name}__i8_1_scale"], rtol=2e-5)


def test_static_is_as_exact_as_onnxruntimes_quantiser(files: GraphFiles, tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = list(rows(32, 5)[:, None])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return {"x": self.left.pop()} if self.left else None

    theirs = tmp_path / "theirs.onnx"
    quantize_static(
        str(files.model),
        str(theirs),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        nodes_to_exclude=["/block/MatMul", "/block/MatMul_1", "/tiny/MatMul"],
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
    )
    x = rows(32, 9)
    ours = lowered(files, tmp_path / "s", STATIC)
    wanted = answer(files.model, x)[0]
    assert relative(answer(ours.path, x)[0], wanted) < 1.25 * relative(answer(theirs, x)[0], wanted)


FLOATS = st.floats(-1e4, 1e4, width=32)


@given(arrays(np.float32, (5, 7), elements=FLOATS), st.sampled_from([0, 1]), st.sampled_from([63, 127]))
def test_a_weight_is_at_most_half_a_step_off(weights: NDArray[np.float32], axis: int, most: int) -> None:
    scales = channel_scales(weights, axis, most)
    steps = to_int8(weights, axis, most)
    assert scales.shape == (weights.shape[axis],)
    assert (scales > 0).all()
    assert int(np.abs(steps.astype(int)).max()) <= most
    wide = scales.astype(np.float64).reshape((-1, 1) if axis == 0 else (1, -1))
    assert (np.abs(steps * wide - weights) <= wide * 0.5001).all()


@given(st.floats(-1e6, 0), st.floats(0, 1e6), st.sampled_from(Integers))
def test_zero_is_exact_and_the_range_is_covered(low: float, high: float, integers: Integers) -> None:
    scale, zero = activation_scale(Range(low, high), integers)
    least, most = (-128, 127) if integers is Integers.SIGNED else (0, 255)
    assert least <= zero <= most
    assert scale > 0 or low == high == 0 or high - low < 1e-36
    assert (least - zero) * float(scale) <= low + float(scale)
    assert (most - zero) * float(scale) >= high - float(scale)


@given(st.floats(0, 1e30))
def test_ranges_are_widened_a_little_and_never_narrowed(bound: float) -> None:
    assert bound <= _outward(bound) <= bound * 1.002


def test_narrow_integers_cannot_saturate_sixteen_bits() -> None:
    assert 2 * 255 * 63 < 1 << 15
    assert 2 * 255 * 127 > 1 << 15


def test_every_refusal_is_of_the_hierarchy() -> None:
    for kind in (CalibrationMismatchError, GroupUnknownError, NothingToQuantiseError):
        assert issubclass(kind, NwmError)
