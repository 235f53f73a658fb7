"""Reading machine code and PTX: known words, unknown words, and a disassembler as the judge."""

from __future__ import annotations

import contextlib
import re
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.artifact import Precision
from nwmctl.errors import InspectionFailedError
from nwmctl.toolchains.inspect_arm64 import PATTERNS, inspect_arm64, loop_depths
from nwmctl.toolchains.inspect_ptx import inspect_ptx
from nwmctl.toolchains.inspect_spirv import inspect_spirv
from nwmctl.toolchains.inspect_x86 import inspect_x86
from nwmctl.toolchains.process import Command, Limits, run_tool
from nwmctl.toolchains.protocol import Compiled
from tests.real import require_program

# Encodings as an assembler writes them.
FMLA_4S = 0x4E22CC20  # fmla v0.4s, v1.4s, v2.4s
FMLA_4S_ELEMENT = 0x4F821020  # fmla v0.4s, v1.4s, v2.s[0]
FMLA_8H = 0x4E420C20  # fmla v0.8h, v1.8h, v2.8h
FCVTL = 0x0E217820  # fcvtl v0.4s, v1.4h
SDOT = 0x4E829420  # sdot v0.4s, v1.16b, v2.16b
SMMLA = 0x4E82A420  # smmla v0.4s, v1.16b, v2.16b
BFMMLA = 0x6E42EC20  # bfmmla v0.4s, v1.8h, v2.8h
FMLAL = 0x4E22EC20  # fmlal v0.4s, v1.4h, v2.4h
RET = 0xD65F03C0
SVE_FMLA = 0x65A20020  # fmla z0.s, p0/m, z1.s, z2.s


def elf(*words: int, machine: int = 183) -> bytes:
    """The smallest image with one section of code."""
    code = struct.pack(f"<{len(words)}I", *words)
    fields = (3, machine, 1, 0, 0, 64, 0, 64, 0, 0, 64, 2, 0)
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", *fields)
    start = 64 + 2 * 64
    null = bytes(64)
    text = struct.pack("<IIQQQQIIQQ", 0, 1, 0x6, 0, start, len(code), 0, 0, 4, 0)
    return header + null + text + code


@pytest.mark.parametrize(
    ("words", "precision", "name"),
    [
        ([FMLA_4S, RET], Precision.FP32, "fmla.4s"),
        ([FMLA_4S_ELEMENT, RET], Precision.FP32, "fmla.4s"),
        ([FMLA_8H, FMLA_4S, RET], Precision.FP16, "fmla.8h"),
        ([FMLAL, RET], Precision.FP16, "fmlal"),
        ([FCVTL, FMLA_4S, FMLA_4S, FMLA_4S], Precision.FP16, "fcvtl"),
        ([FCVTL] + [FMLA_4S] * 40, Precision.FP32, "fcvtl"),
        ([SDOT, FMLA_4S, FMLA_4S], Precision.INT8, "sdot"),
        ([SMMLA] + [FMLA_4S] * 4, Precision.INT8, "smmla"),
        ([BFMMLA] + [FMLA_4S] * 3, Precision.BF16, "bfmmla"),
        ([BFMMLA] + [FMLA_4S] * 9, Precision.FP32, "bfmmla"),
    ],
)
def test_the_precision_is_that_of_most_multiplications(words: list[int], precision: Precision, name: str) -> None:
    inspection = inspect_arm64(elf(*words))
    assert inspection.precision is precision
    assert inspection.found[name] == 1 or words.count(words[0]) == inspection.found[name]
    assert inspection.found["instructions"] == len(words)


@pytest.mark.parametrize("word", [SVE_FMLA, 0x80000000 | 0x00100000, 0xC0800000])
def test_unknown_instruction_spaces_are_refused(word: int) -> None:
    with pytest.raises(InspectionFailedError) as caught:
        inspect_arm64(elf(FMLA_4S, word))
    assert f"{word:#010x}" in caught.value.why


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "not a 64-bit AArch64"),
        (b"\x7fELF\x02\x01" + bytes(80), "not a 64-bit AArch64"),
        (elf(FMLA_4S, machine=62), "not a 64-bit AArch64"),
        (elf(FMLA_4S)[:-4], "cut off"),
        (elf(RET), "no multiplication"),
    ],
)
def test_what_is_no_arm_code_is_refused(image: bytes, words: str) -> None:
    with pytest.raises(InspectionFailedError) as caught:
        inspect_arm64(image)
    assert words in caught.value.why


@settings(max_examples=200)
@given(st.binary(max_size=400), st.integers(0, 300))
def test_damaged_images_raise_only_our_error(noise: bytes, at: int) -> None:
    image = elf(FMLA_4S, FMLA_8H, RET)
    with contextlib.suppress(InspectionFailedError):
        inspect_arm64(image[:at] + noise + image[at + len(noise) :])


def test_no_word_belongs_to_two_patterns() -> None:
    for index, one in enumerate(PATTERNS):
        for other in PATTERNS[index + 1 :]:
            both = one.mask & other.mask
            assert one.value & both != other.value & both or one.name == other.name, (one, other)


def disassembled(image: Path) -> Counter[str]:
    """What Debian's disassembler counts; it must know every instruction."""
    features = "--mattr=+v8.6a,+dotprod,+i8mm,+bf16,+fullfp16,+fp16fml"
    program = require_program("llvm-objdump", "llvm")
    said = run_tool(Command("llvm-objdump", (program, "-d", features, str(image)), image.parent, Limits(60)))
    assert "<unknown>" not in said.stdout
    found: Counter[str] = Counter()
    for mnemonic, first in re.findall(r"^\s+[0-9a-f]+:(?: [0-9a-f]{2}){4}\s+\t?([a-z0-9]+)\s+(\S*)", said.stdout, re.M):
        lanes = first.rstrip(",").partition(".")[2]
        if mnemonic in ("fmla", "fmls", "fmul"):
            found[f"{mnemonic}.{lanes}" if lanes else f"{mnemonic} scalar"] += 1
        elif mnemonic == "fmadd":
            found[f"fmadd.{first[0]}"] += 1
        else:
            found[mnemonic] += 1
    return found


@pytest.mark.parametrize("which", ["arm_fp32", pytest.param("arm_bf16", marks=pytest.mark.long)])
def test_a_disassembler_counts_the_same(which: str, request: pytest.FixtureRequest) -> None:
    compiled: Compiled = request.getfixturevalue(which)
    image = next((compiled.payload.parent / "model-binaries").glob("*.so"))
    judge = disassembled(image)
    names = {pattern.name for pattern in PATTERNS}
    assert {name: judge[name] for name in names if judge[name]} == {
        name: count for name, count in compiled.manifest.found.items() if name in names
    }


PTX = ".version 7.6\n.target sm_87\n.address_size 64\n.visible .entry k(\n)\n{{\n{body}\n\tret;\n}}\n"
MMA = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"


@pytest.mark.parametrize(
    ("body", "precision", "note"),
    [
        (f"\t{MMA}\n\t\t{{ %f1 }},\n\t\t{{ %r1 }};\n" + "\tfma.rn.f32 \t%f1, %f2, %f3, %f4;\n" * 9, Precision.FP16, ""),
        ("\tfma.rn.f32 \t%f1, %f2, %f3, %f4;", Precision.FP32, "no tensor-core"),
        ("\t@%p1 fma.rn.f16x2 \t%r1, %r2, %r3, %r4;", Precision.FP16, "no tensor-core"),
        ("\tfma.rn.bf16x2 \t%r1, %r2, %r3, %r4;", Precision.BF16, "no tensor-core"),
        ("\tcvt.f32.f16 \t%f1, %h1;\n\tfma.rn.f32 \t%f1, %f2, %f3, %f4;", Precision.FP16, "no tensor-core"),
        ("\tmma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 \t{%r1}, {%r2};", Precision.INT8, ""),
        ("\tmma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 \t{%f1}, {%r2};", Precision.FP32, ""),
    ],
)
def test_ptx(body: str, precision: Precision, note: str) -> None:
    inspection, chip = inspect_ptx(PTX.format(body=body))
    assert (chip, inspection.precision) == ("sm_87", precision)
    assert inspection.found["kernels"] == 1
    assert any("no tensor-core" in said for said in inspection.notes) is bool(note)


@pytest.mark.parametrize(
    "text",
    ["", "hello", PTX.format(body=""), PTX.format(body="\tmma.sync.aligned.m9.new.kind \t{%f1};"),
     PTX.format(body="\tmma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 \t{%f1};")],
)  # fmt: skip
def test_ptx_that_it_does_not_understand_is_refused(text: str) -> None:
    with pytest.raises(InspectionFailedError):
        inspect_ptx(text)


def test_x86_listing() -> None:
    plain = inspect_x86("\tvfmadd213ps\t%ymm0, %ymm1, %ymm2\n\tvmovaps\t%ymm0, (%rax)\n")
    assert (plain.precision, plain.found) == (Precision.FP32, {"instructions": 2, "vfmadd213ps": 1})
    assert inspect_x86("\tvcvtph2ps\t%xmm0, %ymm1\n\tvfmadd213ps\t%ymm0, %ymm1, %ymm2\n").precision is Precision.FP16
    assert inspect_x86("\tvdpbf16ps\t%zmm0, %zmm1, %zmm2\n").precision is Precision.BF16
    with pytest.raises(InspectionFailedError):
        inspect_x86("\tvmovaps\t%ymm0, (%rax)\n")


NOP = 0xD503201F
BACK: dict[str, Callable[[int], int]] = {
    "b.ne": lambda by: 0x54000001 | (-by & 0x7FFFF) << 5,
    "cbnz": lambda by: 0xB5000000 | (-by & 0x7FFFF) << 5,
    "tbz": lambda by: 0x36000000 | (-by & 0x3FFF) << 5,
    "b": lambda by: 0x14000000 | (-by & 0x3FFFFFF),
}


@pytest.mark.parametrize(("branch", "weighs"), [("b.ne", True), ("cbnz", True), ("tbz", False), ("b", False)])
def test_an_inner_loop_outweighs_what_stands_around_it(branch: str, weighs: bool) -> None:
    """Two dot products in a loop in a loop, beside the hundred multiplications of an activation's polynomial. Branches
    on one bit and unconditional ones go back from blocks out of line: they are no loops."""
    back = BACK[branch]
    words = [NOP, SDOT, SDOT, back(2), back(4), *[FMLA_4S] * 100]
    inner = [1, 2, 2, 2, 1] if weighs else [0] * 5
    assert loop_depths(np.array(words, np.uint32)).tolist() == inner + [0] * 100
    inspection = inspect_arm64(elf(*words))
    assert inspection.precision is (Precision.INT8 if weighs else Precision.FP32)
    assert inspection.found["sdot"] == 2


@given(st.lists(st.integers(0, 2**32 - 1), max_size=60))
def test_loops_of_any_words_are_counted_without_a_fault(words: list[int]) -> None:
    depths = loop_depths(np.array(words, np.uint32))
    assert len(depths) == len(words)
    assert all(0 <= depth <= 4 for depth in depths.tolist())


# --- SPIR-V -------------------------------------------------------------------------------------------------------

F32, F16, I32, SIX, A, B, ACC, LEFT, RIGHT, SUM, GLSL, VECTOR = range(1, 13)


def op(number: int, *operands: int) -> tuple[int, ...]:
    return ((len(operands) + 1) << 16 | number, *operands)


def text(words: str) -> tuple[int, ...]:
    data = words.encode() + bytes(4 - len(words) % 4)
    return struct.unpack(f"<{len(data) // 4}I", data)


def spirv(*parts: tuple[int, ...], version: int = 0x10600) -> bytes:
    """A module of these instructions behind its types."""
    types = (
        op(11, GLSL, *text("GLSL.std.450")),
        op(22, F32, 32),
        op(22, F16, 16),
        op(21, I32, 32, 0),
        op(23, VECTOR, F32, 4),
        op(43, I32, SIX, 16),
        op(15, 5, 99, *text("main")),
    )
    words = [0x07230203, version, 0, 200, 0, *(word for part in (*types, *parts) for word in part)]
    return struct.pack(f"<{len(words)}I", *words)


def matrices(element: int) -> tuple[tuple[int, ...], ...]:
    """16 x 16 cooperative matrices of that element type, and one product of them."""
    return (
        op(4456, A, element, 3, SIX, SIX, 0),
        op(4456, B, element, 3, SIX, SIX, 0),
        op(4456, ACC, F32, 3, SIX, SIX, 0),
        op(4457, A, LEFT, 50, 0),
        op(4457, B, RIGHT, 51, 0),
        op(62, 60, LEFT),  # a store has no result: the type of what it stores stays
        op(4459, ACC, SUM, LEFT, RIGHT, SUM),
    )


FMA_VECTOR = op(12, VECTOR, 70, GLSL, 50, 71, 72, 73)


@pytest.mark.parametrize(
    ("parts", "precision", "name", "cooperative"),
    [
        ((*matrices(F16), *[FMA_VECTOR] * 30), Precision.FP16, "cooperative matrices of fp16", True),
        (matrices(F32), Precision.FP32, "cooperative matrices of fp32", True),
        ((FMA_VECTOR,), Precision.FP32, "Fma fp32", False),
        ((op(133, F16, 70, 71, 72),), Precision.FP16, "OpFMul fp16", False),
        ((op(4450, I32, 70, 71, 72), op(133, F32, 73, 71, 72)), Precision.INT8, "OpSDot", False),
    ],
)
def test_spirv(parts: tuple[tuple[int, ...], ...], precision: Precision, name: str, cooperative: bool) -> None:
    inspection, version = inspect_spirv([spirv(*parts)])
    assert (inspection.precision, version) == (precision, "1.6")
    assert inspection.found[name] > 0
    assert (inspection.found["kernels"], inspection.found["modules"]) == (1, 1)
    assert any("no cooperative-matrix" in note for note in inspection.notes) is not cooperative


@pytest.mark.parametrize(
    "modules",
    [
        [],
        [b""],
        [b"\x03\x02\x23\x07" * 2],
        [spirv()],
        [spirv(FMA_VECTOR)[:-2]],
        [spirv(FMA_VECTOR)[:-4]],
        [b"\0" * 40],
        [spirv(op(4459, F32, SUM, LEFT, RIGHT, SUM))],
        [spirv(op(22, 80, 8), FMA_VECTOR)],
    ],
)
def test_what_is_no_spirv_is_refused(modules: list[bytes]) -> None:
    with pytest.raises(InspectionFailedError):
        inspect_spirv(modules)


@settings(max_examples=200)
@given(st.binary(max_size=40), st.integers(0, 400))
def test_damaged_spirv_raises_only_our_error(noise: bytes, at: int) -> None:
    module = spirv(*matrices(F16), FMA_VECTOR)
    with contextlib.suppress(InspectionFailedError):
        inspect_spirv([module[:at] + noise + module[at + len(noise) :]])
