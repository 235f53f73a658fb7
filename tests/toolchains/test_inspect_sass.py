"""The names of machine instructions, against the assembler that writes them; and bytes that are no machine code."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.artifact import Precision
from nwmctl.errors import InspectionFailedError
from nwmctl.toolchains import ptxas
from nwmctl.toolchains.cubin import Cubin, read_cubin
from nwmctl.toolchains.inspect_sass import inspect_cubins, inspect_sass, mix, operation
from nwmctl.toolchains.process import Limits
from tests.real import require_real
from tests.toolchains.kernels import FOREIGN, PLAIN, TENSOR, source

FP16, BF16, FP32, INT8 = Precision.FP16, Precision.BF16, Precision.FP32, Precision.INT8


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One cubin with every known instruction in a kernel of its own, and a kernel without any of them."""
    require_real("ptxas", not ptxas.missing(), ptxas.INSTALL)
    return assemble(tmp_path_factory.mktemp("sass"), {"": "", **TENSOR, **FOREIGN, **PLAIN}, "sm_87")


def assemble(folder: Path, bodies: dict[str, str], chip: str) -> bytes:
    path = folder / f"{chip}.ptx"
    path.write_text(source({_plain(name): body for name, body in bodies.items()}, chip), "utf-8")
    return ptxas.assemble(path, chip, folder, Limits()).cubin


def _plain(name: str) -> str:
    return "k_" + name.replace(".", "_").replace("?", "x")


@pytest.fixture(scope="module")
def kernels(image: bytes) -> dict[str, Cubin]:
    """The same as cubins of one kernel each."""
    whole = read_cubin(image)
    names = {name: _plain(name) for name in ("", *TENSOR, *FOREIGN, *PLAIN)}
    return {name: Cubin(whole.chip, {own: whole.code[own]}, (own,)) for name, own in names.items()}


@pytest.mark.parametrize("name", [*TENSOR, *FOREIGN, *PLAIN])
def test_an_instruction_is_known_by_the_name_that_the_assembler_has_for_it(
    kernels: dict[str, Cubin], name: str
) -> None:
    without, found = (mix([kernels[which]]) for which in ("", name))
    assert found["unknown"] == without["unknown"] == 0
    assert found[name] == without[name] + 1
    others = {other for other in (*TENSOR, *FOREIGN) if other != name}
    assert not others & found.keys()


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, INT8 if name.startswith("IMMA") else FP16) for name in TENSOR if name.count(".") == 2 or "S8" in name),
        ("HMMA.16816.F32.BF16", BF16),
        ("HMMA.1688.F32.TF32", FP32),
        ("FFMA", FP32),
        ("DFMA", FP32),
        ("HFMA2", FP16),
        ("HFMA2.BF16", BF16),
        ("IDP.4A", INT8),
    ],
)
def test_the_precision_is_that_of_the_operands(kernels: dict[str, Cubin], name: str, precision: Precision) -> None:
    inspection, chip = inspect_cubins([kernels[name]])
    assert (chip, inspection.precision) == ("sm_87", precision)
    assert inspection.found[name] == 1
    assert inspection.found["kernels"] == 1
    assert any("no tensor-core instruction" in note for note in inspection.notes) == (name not in TENSOR)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_precision_that_no_recipe_has_is_refused(kernels: dict[str, Cubin], name: str) -> None:
    with pytest.raises(InspectionFailedError) as caught:
        inspect_cubins([kernels[name]])
    assert f"'{name}'" in caught.value.why


def test_code_without_a_multiplication_has_no_precision(kernels: dict[str, Cubin]) -> None:
    with pytest.raises(InspectionFailedError, match="cannot be told") as caught:
        inspect_cubins([kernels[""]])
    assert "no multiplication" in caught.value.why


def test_a_constant_is_no_multiplication(kernels: dict[str, Cubin]) -> None:
    """ptxas loads constants with a half-precision multiply-add of zeros; counted, they would make fp32 code fp16."""
    load_constant, multiply = (0x00000007FF147435, 0x1FF), (0x0000000F0E0E7235, 0x10)
    assert operation(*load_constant) == "MOV"
    assert operation(*multiply) == "HFMA2"


def test_widened_halves_are_half_precision(kernels: dict[str, Cubin]) -> None:
    """fp16 weights that are widened and multiplied in fp32: the operands are fp16, whatever the unit."""
    inspection, _ = inspect_cubins([kernels["FFMA"], kernels["HADD2.F32"]])
    assert inspection.precision is FP16


def test_tensor_cores_outweigh_what_is_around_them(kernels: dict[str, Cubin]) -> None:
    inspection, _ = inspect_cubins([kernels["HMMA.16816.F32"], *[kernels["FFMA"]] * 20])
    assert inspection.precision is FP16
    assert inspection.found["kernels"] == 21


def test_unknown_instructions_end_the_inspection(kernels: dict[str, Cubin]) -> None:
    own = kernels["FFMA"]
    code = bytearray(next(iter(own.code.values())))
    for place in range(0, len(code), 16):
        code[place : place + 2] = b"\xfe\x01"  # an operation that nobody has seen
    with pytest.raises(InspectionFailedError) as caught:
        inspect_cubins([own, Cubin(own.chip, {"strange": bytes(code)}, ("strange",))])
    assert "are unknown" in caught.value.why


def test_one_chip_and_one_that_is_known(image: bytes, tmp_path: Path) -> None:
    other = assemble(tmp_path, {"k": PLAIN["FFMA"]}, "sm_86")
    assert inspect_sass([other])[1] == "sm_86"
    with pytest.raises(InspectionFailedError) as caught:
        inspect_sass([other, image])
    assert "sm_86, sm_87" in caught.value.why
    with pytest.raises(InspectionFailedError) as caught:
        inspect_sass([assemble(tmp_path, {"k": PLAIN["FFMA"]}, "sm_90")])
    assert "it is for sm_90" in caught.value.why


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_machine_code_is_refused_or_read_and_never_crashes(image: bytes, data: st.DataObject) -> None:
    header = len(image) - len(image) // 8
    damaged = bytearray(image)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 255) | st.integers(header, len(image) - 1) | st.integers(0, len(image) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = damaged[: data.draw(st.integers(0, len(image)))] if data.draw(st.booleans()) else damaged
    try:
        cubin = read_cubin(bytes(cut))
        assert mix([cubin]).total() > 0
    except InspectionFailedError:
        return


@given(st.binary(max_size=200))
def test_bytes_that_are_no_cubin_are_refused(noise: bytes) -> None:
    for each in (noise, b"\x7fELF" + noise):
        with pytest.raises(InspectionFailedError):
            read_cubin(each)
