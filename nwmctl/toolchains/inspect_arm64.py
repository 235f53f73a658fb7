"""Reads AArch64 machine code out of an ELF image: which multiplications, and which extensions they need.

Every instruction is one 32-bit word, so a table of masks is enough and no disassembler is needed. It classifies what
multiplies and what converts; anything in the scalable-vector, matrix-array or unallocated encoding space is refused,
because this table cannot say what such code computes. Does not follow control flow. The tests compare the counts
with a disassembler's.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import Precision
from nwmctl.toolchains.inspection import Inspection, dominant, uninspectable

_AARCH64 = 183
_EXECUTABLE = 0x4


@dataclass(frozen=True, slots=True)
class Pattern:
    """An instruction: the words with ``word & mask == value``. ``work``: multiplications of one instruction."""

    name: str
    mask: int
    value: int
    precision: Precision | None = None
    work: int = 0
    extension: str = ""


_F32, _F16, _BF16, _INT8 = Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8
PATTERNS: tuple[Pattern, ...] = (
    # vector multiply-add: "three same" and "by element"
    Pattern("fmla.2s", 0xFFE0FC00, 0x0E20CC00, _F32, 2),
    Pattern("fmla.4s", 0xFFE0FC00, 0x4E20CC00, _F32, 4),
    Pattern("fmla.2d", 0xFFE0FC00, 0x4E60CC00, _F32, 2),
    Pattern("fmla.2s", 0xFFC0F400, 0x0F801000, _F32, 2),
    Pattern("fmla.4s", 0xFFC0F400, 0x4F801000, _F32, 4),
    Pattern("fmla.2d", 0xFFE0F400, 0x4FC01000, _F32, 2),
    Pattern("fmls.2s", 0xFFE0FC00, 0x0EA0CC00, _F32, 2),
    Pattern("fmls.4s", 0xFFE0FC00, 0x4EA0CC00, _F32, 4),
    Pattern("fmls.2d", 0xFFE0FC00, 0x4EE0CC00, _F32, 2),
    Pattern("fmla.4h", 0xFFE0FC00, 0x0E400C00, _F16, 4, "fullfp16"),
    Pattern("fmla.8h", 0xFFE0FC00, 0x4E400C00, _F16, 8, "fullfp16"),
    Pattern("fmla.4h", 0xFFC0F400, 0x0F001000, _F16, 4, "fullfp16"),
    Pattern("fmla.8h", 0xFFC0F400, 0x4F001000, _F16, 8, "fullfp16"),
    # widening multiply-add of halves
    Pattern("fmlal", 0xBFE0FC00, 0x0E20EC00, _F16, 4, "fp16fml"),
    Pattern("fmlal2", 0xBFE0FC00, 0x2E20CC00, _F16, 4, "fp16fml"),
    Pattern("fmlal", 0xBFC0F400, 0x0F800000, _F16, 4, "fp16fml"),
    Pattern("fmlal2", 0xBFC0F400, 0x2F808000, _F16, 4, "fp16fml"),
    # bfloat16
    Pattern("bfmmla", 0xFFE0FC00, 0x6E40EC00, _BF16, 16, "bf16"),
    Pattern("bfdot", 0xBFE0FC00, 0x2E40FC00, _BF16, 8, "bf16"),
    Pattern("bfdot", 0xBFC0F400, 0x0F40F000, _BF16, 8, "bf16"),
    Pattern("bfmlalb", 0xFFE0FC00, 0x2EC0FC00, _BF16, 4, "bf16"),
    Pattern("bfmlalt", 0xFFE0FC00, 0x6EC0FC00, _BF16, 4, "bf16"),
    Pattern("bfmlalb", 0xFFC0F400, 0x0FC0F000, _BF16, 4, "bf16"),
    Pattern("bfmlalt", 0xFFC0F400, 0x4FC0F000, _BF16, 4, "bf16"),
    Pattern("bfcvtn", 0xBFFFFC00, 0x0EA16800, extension="bf16"),
    # eight-bit integers
    Pattern("sdot", 0xBFE0FC00, 0x0E809400, _INT8, 16, "dotprod"),
    Pattern("sdot", 0xBFC0F400, 0x0F80E000, _INT8, 16, "dotprod"),
    Pattern("udot", 0xBFE0FC00, 0x2E809400, _INT8, 16, "dotprod"),
    Pattern("udot", 0xBFC0F400, 0x2F80E000, _INT8, 16, "dotprod"),
    Pattern("usdot", 0xBFE0FC00, 0x0E809C00, _INT8, 16, "i8mm"),
    Pattern("smmla", 0xFFE0FC00, 0x4E80A400, _INT8, 32, "i8mm"),
    Pattern("ummla", 0xFFE0FC00, 0x6E80A400, _INT8, 32, "i8mm"),
    Pattern("usmmla", 0xFFE0FC00, 0x4E80AC00, _INT8, 32, "i8mm"),
    Pattern("smlal", 0xBF20FC00, 0x0E208000, _INT8, 4),
    Pattern("smlal", 0xBF00F400, 0x0F002000, _INT8, 4),
    # scalar multiply-add
    Pattern("fmadd.s", 0xFFE08000, 0x1F000000, _F32, 1),
    Pattern("fmadd.d", 0xFFE08000, 0x1F400000, _F32, 1),
    Pattern("fmadd.h", 0xFFE08000, 0x1FC00000, _F16, 1, "fullfp16"),
    # conversions between half and single, four or two at a time
    Pattern("fcvtl", 0xFFFFFC00, 0x0E217800),
    Pattern("fcvtl2", 0xFFFFFC00, 0x4E217800),
    Pattern("fcvtn", 0xFFFFFC00, 0x0E216800),
    Pattern("fcvtn2", 0xFFFFFC00, 0x4E216800),
    # vector multiplications without an addition
    Pattern("fmul.2s", 0xFFE0FC00, 0x2E20DC00, _F32, 2),
    Pattern("fmul.4s", 0xFFE0FC00, 0x6E20DC00, _F32, 4),
    Pattern("fmul.4h", 0xFFE0FC00, 0x2E401C00, _F16, 4, "fullfp16"),
    Pattern("fmul.8h", 0xFFE0FC00, 0x6E401C00, _F16, 8, "fullfp16"),
)
EXTENSION = {pattern.name: pattern.extension for pattern in PATTERNS if pattern.extension}
"""Extensions of the architecture that an instruction needs."""

_UNKNOWN_SPACE = {
    0b0000: "the reserved or matrix-array",
    0b0001: "the unallocated",
    0b0010: "the scalable-vector",
    0b0011: "the unallocated",
}
"""By bits 28 to 25 of the word."""
_WIDENING_SHARE = 4
"""Multiplications by fmla.4s that one widening of halves is taken to feed; fewer widenings leave the rest to fp32."""


def inspect_arm64(elf: bytes) -> Inspection:
    """What the code of an ELF image does. Raises InspectionFailedError."""
    words = _code(elf)
    _refuse_unknown(words)
    found: Counter[str] = Counter()
    work = dict.fromkeys(Precision, 0.0)
    for pattern in PATTERNS:
        count = int(np.count_nonzero((words & np.uint32(pattern.mask)) == pattern.value))
        if count:
            found[pattern.name] += count
            if pattern.precision is not None:
                work[pattern.precision] += count * pattern.work
    notes: list[str] = []
    halves = found["fcvtl"] + found["fcvtl2"]
    widened = min(work[_F32], 4.0 * _WIDENING_SHARE * halves)
    work[_F16] += widened
    work[_F32] -= widened
    precision = dominant(work, "the CPU code")
    if precision is _F16 and widened == work[_F16]:
        notes.append("fp16 is a storage format here: operands are widened and multiplied in fp32")
    found["instructions"] = len(words)
    needed = sorted({EXTENSION[name] for name in found if name in EXTENSION})
    if needed:
        notes.append(f"the code needs the extensions {', '.join(needed)}")
    return Inspection({name: count for name, count in sorted(found.items()) if count}, precision, tuple(notes))


def _refuse_unknown(words: NDArray[np.uint32]) -> None:
    spaces = (words >> np.uint32(25)) & np.uint32(0xF)
    for space, name in _UNKNOWN_SPACE.items():
        # An all-zero word is padding between functions, or the permanently undefined instruction.
        odd = words[(spaces == space) & (words > 0xFFFF)]
        if len(odd):
            why = f"{len(odd)} instructions lie in {name} encoding space, the first is {int(odd[0]):#010x}"
            raise uninspectable("the CPU code", why)


def _code(elf: bytes) -> NDArray[np.uint32]:
    """The words of all executable sections of a little-endian 64-bit AArch64 image."""
    try:
        if elf[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", elf, 18)[0] != _AARCH64:
            raise uninspectable("the CPU code", "it is not a 64-bit AArch64 ELF image")
        (table,) = struct.unpack_from("<Q", elf, 40)
        size, count, _ = struct.unpack_from("<HHH", elf, 58)
        parts: list[NDArray[np.uint32]] = []
        for index in range(count):
            _, kind, flags, _, offset, length = struct.unpack_from("<IIQQQQ", elf, table + index * size)
            if kind == 1 and flags & _EXECUTABLE:
                if length % 4 or offset + length > len(elf):
                    raise uninspectable("the CPU code", "a section of code is cut off")
                parts.append(np.frombuffer(elf, "<u4", length // 4, offset))
    except (struct.error, OverflowError) as problem:
        raise uninspectable("the CPU code", "the ELF image is cut off") from problem
    if not parts:
        raise uninspectable("the CPU code", "the ELF image has no section of code")
    return np.concatenate(parts)
