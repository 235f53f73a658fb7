"""Reads SPIR-V modules: which multiplications, at which precision, and whether they go to matrix units.

A module is a list of words; an instruction begins with its own length and number. Types have numbers of their own, so
that the precision of a multiplication is the type of what it multiplies. A driver turns the modules into machine code
in the vehicle; nothing here says anything about that machine code. Only the numbers that this reader must understand
are known to it; a module that does not hold together is refused.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nwmctl.domain.artifact import Precision
from nwmctl.toolchains.inspection import Inspection, dominant, uninspectable

_MAGIC = 0x07230203
_HEADER_WORDS = 5
_WHAT = "the GPU code"
# Instructions, by the numbers of the SPIR-V specification.
_EXT_INST = 12
_F_MUL, _I_MUL, _VECTOR_TIMES_SCALAR = 133, 132, 142
_DOTS = {4450: "OpSDot", 4451: "OpUDot", 4452: "OpSUDot", 4453: "OpSDotAccSat", 4454: "OpUDotAccSat"}
_COOPERATIVE_PRODUCT = 4459
_GLSL, _GLSL_FMA = b"GLSL.std.450", 50
_SUBGROUP = 32
"""Threads that carry out one cooperative multiplication together."""


@dataclass(slots=True)
class _Module:
    """What is known of one module while it is read. ``work``: multiplications by the operands' precision."""

    bits: dict[int, tuple[Precision | None, int]] = field(default_factory=dict)
    """By a type's number: the elements' precision, and how many there are."""
    types: dict[int, int] = field(default_factory=dict)
    """The type of a value, by the value's number."""
    constants: dict[int, int] = field(default_factory=dict)
    glsl: set[int] = field(default_factory=set)
    found: Counter[str] = field(default_factory=Counter)
    work: Counter[Precision] = field(default_factory=Counter)


def inspect_spirv(modules: Sequence[bytes]) -> tuple[Inspection, str]:
    """What the modules do, and the highest version that they need (``1.6``). Raises InspectionFailedError."""
    found: Counter[str] = Counter()
    work = dict.fromkeys(Precision, 0.0)
    versions: list[tuple[int, int]] = []
    for module in modules:
        words = _words(module)
        versions.append((words[1] >> 16 & 0xFF, words[1] >> 8 & 0xFF))
        read = _Module()
        for number, operands in _instructions(words):
            _take(read, number, operands)
        found.update(read.found)
        for precision, amount in read.work.items():
            work[precision] += amount
    if not versions:
        raise uninspectable(_WHAT, "there is no SPIR-V module in it")
    precision = dominant(work, _WHAT)
    major, minor = max(versions)
    notes = [f"SPIR-V {major}.{minor}: a driver compiles it further in the vehicle"]
    if not found["OpCooperativeMatrixMulAddKHR"]:
        notes.append("no cooperative-matrix instruction: every multiplication runs on the ordinary cores")
    found["modules"] = len(versions)
    return Inspection({name: count for name, count in sorted(found.items()) if count}, precision, tuple(notes)), (
        f"{major}.{minor}"
    )


def _words(module: bytes) -> tuple[int, ...]:
    if len(module) % 4 or len(module) < 4 * _HEADER_WORDS:
        raise uninspectable(_WHAT, "it is not a whole SPIR-V module")
    words = struct.unpack(f"<{len(module) // 4}I", module)
    if words[0] != _MAGIC:
        raise uninspectable(_WHAT, "it does not begin as a SPIR-V module does")
    return words


def _instructions(words: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
    at = _HEADER_WORDS
    while at < len(words):
        length = words[at] >> 16
        if not length or at + length > len(words):
            raise uninspectable(_WHAT, "one of its instructions is cut off")
        yield words[at] & 0xFFFF, words[at + 1 : at + length]
        at += length


def _take(module: _Module, number: int, operands: tuple[int, ...]) -> None:
    """One instruction. Operands of a kind that is looked at are there, or the module is refused."""
    module.found["instructions"] += 1
    try:
        match number:
            case 11:  # OpExtInstImport
                if struct.pack(f"<{len(operands) - 1}I", *operands[1:]).rstrip(b"\0") == _GLSL:
                    module.glsl.add(operands[0])
            case 15:  # OpEntryPoint
                module.found["kernels"] += 1
            case 21:  # OpTypeInt
                module.bits[operands[0]] = (Precision.INT8 if operands[1] == 8 else None, 1)
            case 22:  # OpTypeFloat
                module.bits[operands[0]] = (_float(operands), 1)
            case 23:  # OpTypeVector
                module.bits[operands[0]] = (module.bits.get(operands[1], (None, 1))[0], operands[2])
            case 43:  # OpConstant
                module.constants[operands[1]] = operands[2]
                module.types[operands[1]] = operands[0]
            case 4456:  # OpTypeCooperativeMatrixKHR: component type, scope, rows, columns, use
                rows, columns = (module.constants[operand] for operand in operands[3:5])
                module.bits[operands[0]] = (module.bits.get(operands[1], (None, 1))[0], rows * columns)
            case _:
                _count(module, number, operands)
    except (IndexError, KeyError) as problem:
        raise uninspectable(_WHAT, f"instruction {number} of a module lacks what it refers to") from problem


def _count(module: _Module, number: int, operands: tuple[int, ...]) -> None:
    if len(operands) < 2 or operands[0] not in module.bits:
        return  # it has no result, or one that is no number: a result's type comes first
    module.types[operands[1]] = operands[0]
    if number == _COOPERATIVE_PRODUCT:
        # A is M x K, B is K x N, the result M x N: M*N*K multiplications by a whole subgroup of threads.
        kind, left = module.bits[module.types[operands[2]]]
        _, right = module.bits[module.types[operands[3]]]
        _, out = module.bits[operands[0]]
        if kind is None:
            raise uninspectable(_WHAT, "a cooperative-matrix instruction multiplies an unknown type")
        module.found["OpCooperativeMatrixMulAddKHR"] += 1
        module.found[f"cooperative matrices of {kind}"] += 1
        module.work[kind] += math.isqrt(left * right * out) // _SUBGROUP
    elif number in _DOTS:
        module.found[_DOTS[number]] += 1
        module.work[Precision.INT8] += 4
    elif number in (_F_MUL, _I_MUL, _VECTOR_TIMES_SCALAR) or (
        number == _EXT_INST and operands[2] in module.glsl and operands[3] == _GLSL_FMA
    ):
        kind, lanes = module.bits[operands[0]]
        if kind is not None:
            name = {_F_MUL: "OpFMul", _I_MUL: "OpIMul", _VECTOR_TIMES_SCALAR: "OpVectorTimesScalar"}.get(number, "Fma")
            module.found[f"{name} {kind}"] += 1
            module.work[kind] += lanes


def _float(operands: tuple[int, ...]) -> Precision:
    """A float type; a third operand names an encoding, of which only bfloat16 is known."""
    match operands[1:]:
        case (32,) | (64,):
            return Precision.FP32
        case (16,):
            return Precision.FP16
        case (16, 0):
            return Precision.BF16
        case _:
            raise uninspectable(_WHAT, f"it has a float type of {operands[1]} bits that this reader does not know")
