"""Reads the machine code of an Ampere GPU (sm_8x): which multiplications, on which units, at which precision.

An instruction has 16 bytes; the lowest nine bits are its operation, and modifiers tell shape and type of what the
tensor cores multiply. The table holds what ptxas emits for these chips, as far as it was seen; the tests have ptxas
assemble every operation that decides about the precision. What is not in the table is counted as ``unknown``, and more
than a trace of it ends the inspection: it could be a multiplication. ptxas also writes a fused multiply-add to load a
constant and an addition to widen a number; those are told apart. Pure.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence

from nwmctl.domain.artifact import Precision
from nwmctl.toolchains.cubin import Cubin, read_cubin
from nwmctl.toolchains.inspection import Inspection, dominant, uninspectable

WHAT = "the GPU's machine code"
_CHIPS = ("sm_80", "sm_86", "sm_87", "sm_89")
_WORD = struct.Struct("<QQ")
_UNKNOWN_SHARE = 0.005
_LANES = 32
_ZERO = 0xFF
"""The register that always reads zero."""
_UNIFORM = 0x080
"""Set where the uniform unit, which computes addresses for a whole warp, carries out an operation of the table."""
_OPERATIONS = {
    0x001: "PMTRIG", 0x002: "MOV", 0x003: "P2R", 0x004: "R2P", 0x005: "CS2R", 0x006: "VOTE", 0x007: "SEL",
    0x008: "FSEL", 0x009: "FMNMX", 0x00A: "FSET", 0x00B: "FSETP", 0x00C: "ISETP", 0x010: "IADD3", 0x011: "LEA",
    0x012: "LOP3", 0x013: "IABS", 0x014: "VABSDIFF", 0x016: "PRMT", 0x017: "IMNMX", 0x019: "SHF", 0x01A: "SGXT",
    0x01B: "BMSK", 0x01C: "PLOP3", 0x020: "FMUL", 0x021: "FADD", 0x023: "FFMA", 0x024: "IMAD", 0x025: "IMAD",
    0x026: "IDP", 0x027: "IMAD", 0x028: "DMUL", 0x029: "DADD", 0x02A: "DSETP", 0x02B: "DFMA", 0x030: "HADD2",
    0x031: "HFMA2", 0x032: "HMUL2", 0x033: "HSET2", 0x034: "HSETP2", 0x035: "HFMA2", 0x037: "IMMA", 0x038: "I2I",
    0x039: "I2IP", 0x03B: "LDSM", 0x03C: "HMMA", 0x03D: "BMMA", 0x03E: "F2FP", 0x03F: "DMMA", 0x040: "HMNMX2",
    0x045: "I2FP", 0x086: "VOTEU", 0x0B9: "ULDC", 0x0BF: "UPOPC", 0x100: "FLO", 0x101: "BREV", 0x102: "FCHK",
    0x105: "F2I", 0x106: "I2F", 0x107: "FRND", 0x108: "MUFU", 0x109: "POPC", 0x110: "F2F", 0x111: "F2I", 0x112: "I2F",
    0x118: "NOP", 0x119: "S2R", 0x11A: "DEPBAR", 0x11C: "B2R", 0x11D: "BAR", 0x141: "BSYNC", 0x142: "BREAK",
    0x144: "CALL", 0x145: "BSSY", 0x147: "BRA", 0x149: "BRX", 0x14D: "EXIT", 0x150: "RET", 0x155: "BMOV",
    0x156: "BMOV", 0x15C: "BPT", 0x15D: "NANOSLEEP", 0x180: "LD", 0x181: "LDG", 0x182: "LDC", 0x183: "LDL",
    0x184: "LDS", 0x185: "ST", 0x186: "STG", 0x187: "STL", 0x188: "STS", 0x189: "SHFL", 0x18C: "ATOMS",
    0x18D: "ATOMS", 0x18E: "RED", 0x18F: "CCTL", 0x192: "MEMBAR", 0x1A1: "MATCH", 0x1A8: "ATOMG", 0x1A9: "ATOMG",
    0x1AA: "QSPC", 0x1AB: "ERRBAR", 0x1AE: "LDGSTS", 0x1AF: "LDGDEPBAR", 0x1C2: "R2UR", 0x1C3: "S2UR", 0x1C4: "REDUX",
}  # fmt: skip
_ON_UNIFORM = frozenset({0x002, 0x007, 0x00C, 0x010, 0x011, 0x012, 0x016, 0x019, 0x01C, 0x024, 0x025})
_PAIR = {"HFMA2": Precision.FP16, "HFMA2.BF16": Precision.BF16}
_SINGLE = {"FFMA": 1, "DFMA": 1}
_BYTES = {"IDP.4A": 4, "IDP.2A": 2}
_WIDENED = "HADD2.F32"
_KEPT = ("IMAD", "LDGSTS", "LDSM", *_PAIR, *_SINGLE, *_BYTES)
_TENSOR = ("HMMA", "IMMA", "BMMA", "DMMA")
_SHAPES = {"1684": 512, "1688": 1024, "8816": 1024, "16816": 2048, "16832": 4096}
"""Multiplications of one tensor-core instruction, by the name of its shape (m, n and k written together)."""


def inspect_sass(images: Sequence[bytes]) -> tuple[Inspection, str]:
    """What the kernels of some cubins do, and the chip that they are for. Raises InspectionFailedError."""
    return inspect_cubins([read_cubin(image) for image in images])


def inspect_cubins(cubins: Sequence[Cubin]) -> tuple[Inspection, str]:
    """The same for cubins that were taken apart already."""
    chips = {cubin.chip for cubin in cubins}
    if len(chips) != 1:
        raise uninspectable(WHAT, f"it is for {', '.join(sorted(chips)) or 'no chip'}; one chip is expected")
    chip = chips.pop()
    if chip not in _CHIPS:
        raise uninspectable(WHAT, f"it is for {chip}; the instructions of {', '.join(_CHIPS)} are known")
    counts = mix(cubins)
    total, unknown = counts.total() - counts["NOP"], counts["unknown"]
    if unknown > _UNKNOWN_SHARE * total:
        raise uninspectable(WHAT, f"{unknown} of {total} instructions are unknown")
    found = {name: count for name, count in counts.items() if _tensor(name) or name in _KEPT or name == "unknown"}
    precision = dominant(_work(counts), WHAT)
    found["instructions"] = total
    found["kernels"] = sum(len(cubin.kernels) for cubin in cubins)
    tensor = any(_tensor(name) for name in found)
    notes = () if tensor else ("no tensor-core instruction: every multiplication runs on the ordinary cores",)
    return Inspection(dict(sorted(found.items())), precision, notes), chip


def mix(cubins: Iterable[Cubin]) -> Counter[str]:
    """All instructions of some cubins by name; ``unknown`` where the operation is not in the table."""
    counts: Counter[str] = Counter()
    for cubin in cubins:
        for name, code in cubin.code.items():
            if not code or len(code) % _WORD.size:
                raise uninspectable(WHAT, f"the code of '{name}' is no whole number of instructions")
            counts.update(operation(low, high) for low, high in _WORD.iter_unpack(code))
    return counts


def operation(low: int, high: int) -> str:
    """The name of one instruction, given as its two 64-bit words; ``unknown`` if it is not known."""
    code = low & 0x1FF
    name = _OPERATIONS.get(code)
    if name is None and code & _UNIFORM and code & ~_UNIFORM in _ON_UNIFORM:
        name = "U" + _OPERATIONS[code & ~_UNIFORM]
    no_operand = low >> 24 & 0xFF == _ZERO
    match name:
        case None:
            return "unknown"
        case "HMMA":
            return f"HMMA.{_float_shape(high)}"
        case "IMMA":
            return f"IMMA.{_integer_shape(high)}"
        case "HFMA2":
            # Zero times something plus a constant: that is how a register gets a constant.
            return "MOV" if no_operand else "HFMA2.BF16" if high >> 21 & 1 else "HFMA2"
        case "HADD2":
            return _WIDENED if no_operand and high >> 14 & 1 else "HADD2"
        case "IDP":
            return "IDP.2A" if high >> 12 & 1 else "IDP.4A"
        case "IMAD":
            return "MOV" if no_operand and code == 0x024 else "IMAD"
        case _:
            return name


def _float_shape(high: int) -> str:
    """Shape, sum and operands of a floating-point tensor-core instruction, as ``16816.F32.BF16``; fp16 goes unsaid."""
    total = "F32" if high >> 12 & 1 else "F16"
    long, short, brain, tf32 = (high >> bit & 1 for bit in (11, 14, 18, 19))
    match tf32, brain, long, short:
        case 1, 0, 0, _:
            return f"{'1684' if short else '1688'}.{total}.TF32"
        case 0, _, _, 0:
            return f"{'16816' if long else '1688'}.{total}{'.BF16' if brain else ''}"
        case _:
            return f"?.{total}"


def _integer_shape(high: int) -> str:
    """Shape and operands of an integer tensor-core instruction, as ``16832.S8.U8``."""
    wide = (high >> 11 & 1, high >> 21 & 1, high >> 22 & 1)
    left, right = ("S" if high >> bit & 1 else "U" for bit in (12, 14))
    if high >> 19 & 3:
        return f"?.{left}4.{right}4"
    shape = {(0, 0, 0): "8816", (0, 0, 1): "16816", (1, 0, 1): "16832"}.get(wide, "?")
    return f"{shape}.{left}8.{right}8"


def _tensor(name: str) -> bool:
    return name.startswith(_TENSOR)


def _work(counts: Counter[str]) -> dict[Precision, float]:
    """Multiplications per thread, by the operands' precision."""
    work = dict.fromkeys(Precision, 0.0)
    for name, count in counts.items():
        if _tensor(name):
            unit, shape, *types = (*name.split("."), "?")
            if shape not in _SHAPES:
                raise uninspectable(WHAT, f"the tensor-core instruction '{name}' is of a kind that no recipe asks for")
            work[_operands(unit, types)] += count * _SHAPES[shape] / _LANES
        elif name in _PAIR:
            work[_PAIR[name]] += 2 * count
        elif name in _SINGLE:
            work[Precision.FP32] += count
        elif name in _BYTES:
            work[Precision.INT8] += _BYTES[name] * count
    # Half-precision operands that are widened one by one are multiplied by FFMA: those multiplications are fp16's.
    widened = float(min(work[Precision.FP32], 2 * counts[_WIDENED]))
    work[Precision.FP16] += widened
    work[Precision.FP32] -= widened
    return work


def _operands(unit: str, types: list[str]) -> Precision:
    if unit == "IMMA":
        return Precision.INT8
    return Precision.BF16 if "BF16" in types else Precision.FP32 if "TF32" in types else Precision.FP16
