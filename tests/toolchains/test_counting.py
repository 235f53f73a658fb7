"""Executed instructions under emulation: the log that is counted, and a tiny block that is."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import instructions
from benchmarks.instructions import A78AE, Block, Line, build, missed
from nwmctl.domain.artifact import Option, Precision
from nwmctl.errors import InspectionFailedError, RuntimeFailedError
from nwmctl.toolchains import emulation
from nwmctl.toolchains.counting import Executed, count_executed, image_of
from nwmctl.toolchains.counting_log import LogCount
from nwmctl.toolchains.protocol import Compiled
from tests.real import require_real
from tests.toolchains.models import inputs

FMLA, SDOT, LDR, RET, NOP, BIC = 0x4E22CC20, 0x4E829420, 0x3DC00000, 0xD65F03C0, 0xD503201F, 0x0A220020
NAMES = {FMLA: "fmla", SDOT: ".byte", LDR: "ldr", RET: "ret", NOP: "nop", BIC: "bic"}
CODE = (FMLA, FMLA, SDOT, SDOT, LDR, BIC, RET)
AT, ELSEWHERE = 0x5502000000, 0x5500000000


def block(address: int, words: tuple[int, ...]) -> str:
    lines = [f"0x{address + 4 * i:x}:  {word:08x}  {NAMES[word]}  x0" for i, word in enumerate(words)]
    return "----------------\nIN: \n" + "\n".join(lines) + "\n\n"


def trace(address: int, times: int = 1) -> str:
    return f"Trace 0: 0x7f658c000100 [0000000000001001/{address:016x}/00000001/00000200] \n" * times


def counted(log: str, piece: int = 1 << 20) -> LogCount:
    count = LogCount()
    data = log.encode()
    for at in range(0, len(data), piece):
        count.feed(data[at : at + piece])
    count.finish()
    return count


LOG = (
    block(ELSEWHERE, (NOP, RET))
    + trace(ELSEWHERE, 3)
    + block(AT, CODE)
    + trace(AT, 5)
    + trace(ELSEWHERE)
    + trace(AT)
    + f"Stopped execution of TB chain before 0x7f658c000100 [{AT:016x}] \n"
)


@given(st.integers(1, len(LOG)))
def test_the_log_may_be_cut_anywhere(piece: int) -> None:
    split = counted(LOG, piece).within(struct.pack(f"<{len(CODE)}I", *CODE), 0)
    assert split.outside == 4 * 2
    assert split.inside == {
        ("fmla.4s", "float products"): 10,
        ("sdot", "matrix products"): 10,
        ("ldr", "loads and stores"): 5,
        ("bic", "other"): 5,
        ("ret", "branches"): 5,
    }


def test_an_address_that_becomes_other_code_keeps_both_counts() -> None:
    log = block(AT, (NOP,)) + trace(AT, 2) + block(AT, (NOP, RET)) + trace(AT, 3)
    assert counted(log).within(struct.pack("<I", SDOT), 0).outside == 2 + 6


@pytest.mark.parametrize(
    "log",
    [trace(AT), "nonsense\n", block(AT, CODE).replace("0x", "zz"), block(AT, CODE) + "Trace 0: nothing\n"],
)
def test_a_log_that_does_not_hold_together_is_refused(log: str) -> None:
    with pytest.raises(InspectionFailedError):
        counted(log)


def test_code_that_is_not_there_as_it_is_counts_as_outside() -> None:
    """Changed in memory, at another place of its page, or a library's block of the same words."""
    code = struct.pack(f"<{len(CODE)}I", *CODE)
    changed = LOG + block(AT + 8, (FMLA, RET)) + trace(AT + 8)
    assert not counted(changed).within(code, 0).inside
    assert not counted(LOG).within(code, 64).inside
    assert counted(LOG).within(code, 64).outside == 4 * 2 + 5 * len(CODE)


def test_the_image_is_found_in_the_payload(arm_fp32: Compiled) -> None:
    image = next((arm_fp32.payload.parent / "model-binaries").iterdir()).read_bytes()
    assert image_of(arm_fp32.payload) == image


def test_a_payload_without_machine_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"nothing")
    with pytest.raises(InspectionFailedError):
        image_of(tmp_path / "p")


def test_an_artifact_executes_what_its_layers_say(arm_fp32: Compiled) -> None:
    """Two products of 16 x 32 x 64: every multiplication is executed, four at a time; twice the same count. The
    runtime beside the kernels waits for its threads, and what that takes varies."""
    require_real("qemu-aarch64", not emulation.missing(), emulation.missing())
    row = inputs(1)
    first = count_executed(arm_fp32.payload, arm_fp32.manifest, row)
    again = count_executed(arm_fp32.payload, arm_fp32.manifest, row)
    assert dataclasses.replace(again, runtime=first.runtime) == first
    assert 2 * 16 * 32 * 64 / 4 <= first.products["fmla.4s"] <= 1.1 * 2 * 16 * 32 * 64 / 4
    assert first.kernels == sum(first.kinds.values())
    assert first.runtime > 0


def test_several_rows_are_refused(arm_fp32: Compiled) -> None:
    with pytest.raises(RuntimeFailedError, match="one row"):
        count_executed(arm_fp32.payload, arm_fp32.manifest, inputs(2))


@pytest.mark.long
def test_int8_executes_less_in_a_tiny_block(tmp_path: Path) -> None:
    """The benchmark's own block, small: numbers and counts of the artifacts that it builds."""
    require_real("qemu-aarch64", not emulation.missing(), emulation.missing())
    tiny = Block(tokens=32, width=96, heads=2, hidden=384)
    recipes: tuple[tuple[str, Precision, dict[str, Option]], ...] = (
        ("fp32", Precision.FP32, {"opt_level": "O1"}),
        ("int8", Precision.INT8, {"opt_level": "O1", "microkernels": True}),
    )
    lines = [
        instructions.look(tiny, A78AE, name, build(tiny, A78AE, precision, options, tmp_path))
        for name, precision, options in recipes
    ]
    whole, small = (line.executed for line in lines)
    assert lines[0].error < 5e-5, "the compiler approximates exp and tanh"
    assert 1e-4 < lines[1].error < 0.02
    assert small.kernels < whole.kernels
    assert small.products["sdot"] * 16 == 32 * (4 * 96 * 96 + 2 * 96 * 384), "every layer's product is integers"


def test_a_missed_goal_is_said() -> None:
    def line(core: str, name: str, count: int, error: float = 0.0) -> Line:
        return Line(core, name, Executed(count, 0, 0, {}, {}), 1, error)

    good = [
        line(A78AE, "fp32, O1", 100),
        line(A78AE, "fp32, O3", 150),
        line(A78AE, "int8 weights", 20),
        line(A78AE, "int8", 50),
        line(instructions.ARMV9, "fp32, O1", 100),
        line(instructions.ARMV9, "int8", 49),
    ]
    assert missed(good) == []
    assert "0.510" in missed([*good[:3], line(A78AE, "int8", 51), *good[4:]])[0]
    assert "no less" in missed([*good[:-1], line(instructions.ARMV9, "int8", 50)])[0]
    assert "numbers" in missed([*good[:-1], dataclasses.replace(good[-1], error=0.1)])[0]
