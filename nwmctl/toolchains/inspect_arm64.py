"""Reads AArch64 machine code out of an ELF image: which multiplications, and which extensions they need.

Every instruction is one 32-bit word, so a table of masks is enough and no disassembler is needed. It classifies what
multiplies and what converts; anything in the scalable-vector, matrix-array or unallocated encoding space is refused,
because this table cannot say what such code computes. What is counted is static, but the precision weighs each
instruction with the depth of the loops around it: the inner loop of one int8 product is a few ``sdot``, while the
polynomial of an activation function is a hundred ``fmla`` that execute once for each. The tests compare the counts
with a disassembler's, and the precision with what executes under emulation.
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

DOTS = frozenset({"sdot", "udot", "usdot", "smmla", "ummla", "usmmla"})
"""Instructions that add several products of eight-bit integers at once."""

_UNKNOWN_SPACE = {
    0b0000: "the reserved or matrix-array",
    0b0001: "the unallocated",
    0b0010: "the scalable-vector",
    0b0011: "the unallocated",
}
"""By bits 28 to 25 of the word."""
_WIDENING_SHARE = 4
"""Multiplications by fmla.4s that one widening of halves is taken to feed; fewer widenings leave the rest to fp32."""


_BRANCHES = (
    (0xFF000010, 0x54000000, 5, 19),  # b.cond
    (0x7E000000, 0x34000000, 5, 19),  # cbz, cbnz
)
"""What ends a loop: mask, value, and where the word holds the distance in instructions. Branches on one bit (tbz) and
unconditional ones go back from blocks that lie out of line, as masked loads and stores have them; they end no loop."""
_DEEPEST = 4
"""Loops around an instruction beyond which more are not believed: tiles have three and the tiles' parts one."""
_PER_LOOP = 8.0
"""How often a loop is taken to go round. Compilers guess in the same way; what matters is that inner loops outweigh."""


def inspect_arm64(elf: bytes) -> Inspection:
    """What the code of an ELF image does. Raises InspectionFailedError."""
    words = code_words(elf)
    _refuse_unknown(words)
    found: Counter[str] = Counter()
    work = dict.fromkeys(Precision, 0.0)
    halves = 0.0
    weights = _PER_LOOP ** loop_depths(words).astype(np.float64)
    for pattern in PATTERNS:
        at = (words & np.uint32(pattern.mask)) == pattern.value
        count = int(np.count_nonzero(at))
        if count:
            found[pattern.name] += count
            amount = float(weights[at].sum())
            if pattern.precision is not None:
                work[pattern.precision] += amount * pattern.work
            elif pattern.name in ("fcvtl", "fcvtl2"):
                halves += amount
    notes: list[str] = []
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


def loop_depths(words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """How many loops are around each instruction. A loop reaches from where a branch goes back to, to that branch;
    branches back to one place are one loop."""
    code = words.astype(np.int64)
    ends: dict[int, int] = {}
    for mask, value, shift, bits in _BRANCHES:
        at = np.flatnonzero((code & mask) == value)
        field = (code[at] >> shift) & ((1 << bits) - 1)
        to = at + field - (field >> (bits - 1) << bits)
        for branch, head in zip(at.tolist(), to.tolist(), strict=True):
            if 0 <= head < branch:
                ends[head] = max(ends.get(head, 0), branch)
    steps = np.zeros(len(code) + 1, np.int64)
    for head, end in ends.items():
        steps[head] += 1
        steps[end + 1] -= 1
    return np.minimum(np.cumsum(steps[:-1]), _DEEPEST)


def _refuse_unknown(words: NDArray[np.uint32]) -> None:
    spaces = (words >> np.uint32(25)) & np.uint32(0xF)
    for space, name in _UNKNOWN_SPACE.items():
        # An all-zero word is padding between functions, or the permanently undefined instruction.
        odd = words[(spaces == space) & (words > 0xFFFF)]
        if len(odd):
            why = f"{len(odd)} instructions lie in {name} encoding space, the first is {int(odd[0]):#010x}"
            raise uninspectable("the CPU code", why)


def code_words(elf: bytes) -> NDArray[np.uint32]:
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
