"""Reads a cubin: the ELF file with a GPU's machine code, as ptxas 12 writes it.

Takes apart what an inspection and a loader need: the chip, and the code of every kernel by name. Every offset is
checked against the file before it is followed; bytes that are no such file are refused and never guessed at. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.toolchains.inspection import uninspectable

MAGIC = b"\x7fELF"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_CLASS_64, _LITTLE_ENDIAN, _OS, _ABI = 2, 1, 0x33, 7
_MACHINE = 190
_NO_BITS = 8
_MOST_SECTIONS = 100_000
_TEXT, _PARAMETERS = ".text.", ".nv.constant0."


@dataclass(frozen=True, slots=True)
class Cubin:
    """``chip`` as ``sm_87``; ``code`` is the machine code by function; ``kernels`` are those that a host can launch."""

    chip: str
    code: Mapping[str, bytes]
    kernels: tuple[str, ...]


def read_cubin(image: bytes) -> Cubin:
    """Take a cubin apart; bytes after the file's own end are not looked at. Raises InspectionFailedError."""
    if len(image) < _HEADER.size or not image.startswith(MAGIC):
        raise _no_cubin("it is no ELF file")
    identity, _, machine, _, _, _, table, flags, _, _, _, each, count, names_at = _HEADER.unpack_from(image)
    if (identity[4], identity[5], machine) != (_CLASS_64, _LITTLE_ENDIAN, _MACHINE):
        raise _no_cubin(f"it is an ELF file for another machine ({machine})")
    if (identity[7], identity[8]) != (_OS, _ABI):
        raise _no_cubin(f"its layout is version {identity[8]} of {identity[7]:#x}, version {_ABI} is understood")
    if each != _SECTION.size or not 0 < count < _MOST_SECTIONS or table + each * count > len(image):
        raise _no_cubin("its table of sections lies outside of it")
    headers = [_SECTION.unpack_from(image, table + each * index) for index in range(count)]
    if names_at >= count:
        raise _no_cubin("its sections have no names")
    names = _content(image, headers[names_at])
    sections = {_text(names, header[0]): _content(image, header) for header in headers[1:]}
    code = {name.removeprefix(_TEXT): part for name, part in sections.items() if name.startswith(_TEXT)}
    if not code:
        raise _no_cubin("there is no code in it")
    # Every kernel has its own bank of parameters; a function that kernels call has none.
    kernels = tuple(sorted(name for name in code if _PARAMETERS + name in sections))
    return Cubin(f"sm_{flags & 0xFF}", dict(sorted(code.items())), kernels)


def _content(image: bytes, header: tuple[int, ...]) -> bytes:
    kind, offset, size = header[1], header[4], header[5]
    if kind == _NO_BITS:
        return b""
    if offset + size > len(image):
        raise _no_cubin("it was cut short: a section lies outside of it")
    return image[offset : offset + size]


def _text(names: bytes, at: int) -> str:
    end = names.find(b"\0", at)
    if end < 0:
        raise _no_cubin("a section's name lies outside of it")
    return names[at:end].decode("utf-8", "replace")


def _no_cubin(why: str) -> Exception:
    return uninspectable("the GPU's machine code", why)
